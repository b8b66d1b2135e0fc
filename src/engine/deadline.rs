//! What a deadline means for batches and live calls: pure, time is a parameter (contract, section 7).
//!
//! Requests whose deadlines are close share a lane (their deadline class), so that one batch can be rescued as a whole:
//! first it is cancelled, and what it did not finish is bought; a cancellation takes the provider up to ten minutes
//! (providers.md, section 1.5), so there is a moment at which the rest is bought although the batch has not ended.

use std::time::Duration;

use crate::domain::clock::Micros;

/// The longest that a provider takes from `cancelling` to `cancelled` (providers.md, section 1.5).
const CANCELLING: Duration = Duration::from_secs(600);
/// What a live call is given before the deadline.
const LIVE_CALL: Duration = Duration::from_secs(60);
/// Live calls at the same time, for one credential and model.
pub(crate) const LIVE_CALLS_AT_ONCE: usize = 64;
/// The shortest time from its upload in which a batch can be hoped to end; what is shorter is not tried.
const SHORTEST_BATCH: Duration = Duration::from_secs(2);
/// The deadline class of a request that is accepted at `now`: the first moment of its class in Unix seconds, so that
/// every deadline of a class is at or after it. A class is as wide as an eighth of the time that was left, at most; its
/// bounds are powers of two, so that calls made one after the other find the same one. Requests that nothing may take
/// over have classes of their own, below zero: their batches are not cancelled for a deadline.
pub fn deadline_class(deadline: Micros, now: Micros, has_fallback: bool) -> i64 {
    let left = deadline.since(now).as_secs() / 8;
    let width = i64::try_from(left.checked_ilog2().map_or(1, |bits| 1_u64 << bits)).unwrap_or(1);
    let class = (deadline.unix_seconds().div_euclid(width) * width).max(1);
    if has_fallback { class } else { -class }
}

/// When a deadline calls for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// A batch that has not ended is cancelled, and what is still queued enters no batch any more.
    pub(crate) cancel_at: Micros,
    /// What is missing is bought, whatever became of the cancellation.
    pub(crate) buy_at: Micros,
}

impl Schedule {
    /// For `lines` requests that have until `deadline`, counted from `began`. Of a short time neither the cancellation nor
    /// the live calls take more than a quarter.
    pub(crate) fn new(began: Micros, deadline: Micros, lines: u64) -> Self {
        let quarter = deadline.since(began) / 4;
        let rounds = lines / u64::try_from(LIVE_CALLS_AT_ONCE).unwrap_or(1) + 1;
        let live = LIVE_CALL.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)).min(quarter);
        let buy_at = before(deadline, live);
        Self { cancel_at: before(buy_at, CANCELLING.min(quarter)), buy_at }
    }

    /// The schedule of a batch by its lane's class; none: its lines have no deadline, or nothing may take them over.
    pub(crate) fn of_class(class: i64, began: Micros, lines: u32) -> Option<Self> {
        (class > 0).then(|| Self::new(began, Micros::from_unix_seconds(class), u64::from(lines)))
    }

    /// Whether a batch that begins now (at the latest after `idle`) may end before it would be cancelled. `expected`: what
    /// batches of this kind took; none: nothing is known, and any batch may be quick.
    pub(crate) fn has_room(&self, now: Micros, idle: Duration, poll: Duration, expected: Option<Duration>) -> bool {
        let least = expected.unwrap_or(SHORTEST_BATCH) + idle + poll;
        now.plus(least) <= self.cancel_at
    }
}

fn before(moment: Micros, by: Duration) -> Micros {
    Micros(moment.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros::from_unix_seconds(1_795_420_800);

    fn class(after: u64) -> i64 {
        deadline_class(NOW.plus(Duration::from_secs(after)), NOW, true)
    }

    #[test]
    fn a_class_is_never_later_than_its_deadlines_and_never_earlier_than_an_eighth() {
        for after in [1, 9, 20, 61, 90 * 60, 24 * 3600, 30 * 24 * 3600] {
            let early = NOW.unix_seconds() + i64::try_from(after).unwrap() - class(after);
            assert!((0..=i64::try_from(after).unwrap() / 8).contains(&early), "{after}: {early} s early");
        }
    }

    #[test]
    fn close_deadlines_share_a_class_and_those_without_fallback_stay_alone() {
        let two_hours = 2 * 3600;
        let classes: std::collections::BTreeSet<_> = (0..300).map(|more| class(two_hours + more)).collect();
        assert!(classes.len() <= 2, "{classes:?}");
        assert!(class(two_hours) != class(2 * two_hours));
        assert_eq!(deadline_class(NOW.plus(Duration::from_secs(60)), NOW, false), -class(60));
        assert_eq!(deadline_class(Micros(5), NOW, true), 1, "0 is the class without a deadline");
    }

    #[test]
    fn there_is_time_to_cancel_and_time_to_buy() {
        let seconds = |left: u64, lines| {
            let deadline = NOW.plus(Duration::from_secs(left));
            let schedule = Schedule::new(NOW, deadline, lines);
            (deadline.since(schedule.buy_at).as_secs(), schedule.buy_at.since(schedule.cancel_at).as_secs())
        };
        assert_eq!(seconds(24 * 3600, 10), (60, 600));
        assert_eq!(seconds(24 * 3600, 6_400), (60 * 101, 600), "many live calls take their time");
        assert_eq!(seconds(20, 1), (5, 5));
        assert_eq!(seconds(3600, 50_000), (900, 600), "never more than a quarter");
        assert_eq!(Schedule::of_class(0, NOW, 1), None);
        assert_eq!(Schedule::of_class(-class(60), NOW, 1), None);
    }

    #[test]
    fn what_is_too_short_for_a_batch_is_known_before() {
        let (idle, poll) = (Duration::from_secs(5), Duration::from_secs(10));
        let room = |left, expected: Option<u64>| {
            let schedule = Schedule::new(NOW, NOW.plus(Duration::from_secs(left)), 1);
            schedule.has_room(NOW, idle, poll, expected.map(Duration::from_secs))
        };
        assert!(!room(30, None) && room(40, None));
        assert!(room(24 * 3600, Some(20 * 3600)) && !room(24 * 3600, Some(24 * 3600)));
        assert!(!room(0, None));
    }

    #[test]
    fn a_class_has_the_schedule_of_its_first_deadline_and_one_without_fallback_has_none() {
        let (began, lines) = (Micros::from_unix_seconds(100), 7);
        let of = |class| Schedule::of_class(class, began, lines);
        assert_eq!(of(5_000), Some(Schedule::new(began, Micros::from_unix_seconds(5_000), 7)));
        assert_eq!((of(0), of(-5_000)), (None, None));
        assert!(of(1).is_some());
    }
}
