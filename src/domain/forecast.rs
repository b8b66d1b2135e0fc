//! When a batch is expected to end, from how long others of its kind took: pure, time is a parameter.
//!
//! A forecast is never in the past: a batch that still runs is compared with those alone that took longer than it has
//! run. One that outlasts all that is known has no forecast, since nothing is known of it. Called by `engine::expected`.

use std::time::Duration;

use crate::domain::clock::Micros;

/// A forecast: half of the batches like it had ended by `at`, nine of ten by `by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The moment by which half of them had ended.
    pub at: Micros,
    /// The moment by which nine of ten had ended.
    pub by: Micros,
}

impl Expected {
    /// Of a batch that began then and has not ended. `took`: how long others took, in any order. None: nothing is known,
    /// or all others had ended by now.
    pub fn of_running(began: Micros, now: Micros, took: Vec<Duration>) -> Option<Self> {
        let elapsed = now.since(began);
        let (half, most) = middle_and_most(took.into_iter().filter(|took| *took > elapsed).collect())?;
        Some(Self { at: began.plus(half), by: began.plus(most) })
    }

    /// Of a batch that is to begin at `soonest` or a little later, at `latest`.
    pub fn of_waiting(soonest: Micros, latest: Micros, took: Vec<Duration>) -> Option<Self> {
        let (half, most) = middle_and_most(took)?;
        Some(Self { at: soonest.plus(half), by: latest.plus(most) })
    }

    /// Another service takes over before `deadline`.
    #[must_use]
    pub fn no_later_than(self, deadline: Micros) -> Self {
        Self { at: self.at.min(deadline), by: self.by.min(deadline) }
    }
}

/// The smallest durations that are not below those of a half and of nine tenths.
fn middle_and_most(mut took: Vec<Duration>) -> Option<(Duration, Duration)> {
    took.sort_unstable();
    let rank = |tenths: usize| took.get((took.len() * tenths).div_ceil(10).checked_sub(1)?).copied();
    Some((rank(5)?, rank(9)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros::from_unix_seconds(1_795_420_800);

    fn minutes(minutes: &[u64]) -> Vec<Duration> {
        minutes.iter().map(|minutes| Duration::from_secs(60 * minutes)).collect()
    }

    /// Minutes after the batch's beginning.
    fn running(after: u64, took: &[u64]) -> Option<(u64, u64)> {
        let expected = Expected::of_running(NOW, NOW.plus(Duration::from_secs(60 * after)), minutes(took))?;
        Some((expected.at.since(NOW).as_secs() / 60, expected.by.since(NOW).as_secs() / 60))
    }

    #[test]
    fn half_and_nine_tenths_of_what_is_known() {
        assert_eq!(running(0, &[]), None);
        assert_eq!(running(0, &[7]), Some((7, 7)));
        assert_eq!(running(0, &[30, 10]), Some((10, 30)));
        assert_eq!(running(0, &[8, 7, 6, 5, 4, 3, 2, 1]), Some((4, 8)), "in any order");
        assert_eq!(running(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 100]), Some((5, 9)), "one of ten is left out");
    }

    #[test]
    fn a_batch_that_runs_is_compared_with_those_that_took_longer() {
        assert_eq!(running(5, &[1, 2, 3, 10, 20]), Some((10, 20)));
        assert_eq!(running(10, &[1, 2, 3, 10, 20]), Some((20, 20)), "never now or in the past");
        assert_eq!(running(20, &[1, 2, 3, 10, 20]), None, "it outlasts all of them");
    }

    #[test]
    fn what_waits_adds_its_own_way_and_a_deadline_bounds_both() {
        let (soonest, latest) = (NOW.plus(Duration::from_secs(5)), NOW.plus(Duration::from_secs(60)));
        let expected = Expected::of_waiting(soonest, latest, minutes(&[1, 2, 3])).unwrap();
        assert_eq!((expected.at.since(NOW).as_secs(), expected.by.since(NOW).as_secs()), (125, 240));
        let bounded = expected.no_later_than(NOW.plus(Duration::from_secs(180)));
        assert_eq!((bounded.at, bounded.by.since(NOW).as_secs()), (expected.at, 180));
        assert_eq!(Expected::of_waiting(soonest, latest, Vec::new()), None);
    }
}
