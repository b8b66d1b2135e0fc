//! How much a provider takes: what its refusals taught, over what is configured. Pure: time is a parameter.
//!
//! Prompt tokens in its queue are counted for each credential and model, batches per hour and the size of a file for each
//! credential (providers.md, section 1.8). Owned by `dispatch`; what was learned is kept in the store by `ceilings`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::clock::Micros;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::store::{LearnedCeiling, Limited};

const HOUR: Duration = Duration::from_secs(3_600);
/// Halving ends here: a full queue that others fill must not shrink our batches to nothing.
const LEAST_TOKENS: u64 = 1_000;
/// Accepted batches make a learned ceiling larger by this part.
const GROWTH: u64 = 4;
/// How long a limit that the provider named counts as its limit. Later it is tried whether there is more.
const TOLD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Models are callers' texts: from so many on, the oldest lesson is forgotten.
const MANY: usize = 1_024;

type Pool = (Arc<str>, Fingerprint, Arc<str>);
type Account = (Arc<str>, Fingerprint);

#[derive(Clone, Copy, Debug)]
struct Ceiling {
    most: u64,
    /// The provider's own number.
    told: Option<u64>,
    since: Instant,
}

/// All that was learned.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    tokens: HashMap<Pool, Ceiling>,
    bytes: HashMap<Account, u64>,
    created: HashMap<Account, VecDeque<Instant>>,
}

fn pool(lane: &LaneKey) -> Pool {
    (Arc::clone(&lane.provider), lane.account, Arc::clone(&lane.model))
}

fn account(lane: &LaneKey) -> Account {
    (Arc::clone(&lane.provider), lane.account)
}

/// Whether two lanes share the provider's queue.
pub(crate) fn share_pool(one: &LaneKey, other: &LaneKey) -> bool {
    one.provider == other.provider && one.account == other.account && one.model == other.model
}

/// The number in "Limit: 2,000,000 enqueued tokens" (providers.md, section 1.9).
pub(crate) fn told_limit(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once("Limit:")?;
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(|letter| letter.is_ascii_digit() || matches!(letter, ',' | '_'))
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

impl Quotas {
    /// What earlier runs learned; `now` and `at` are the same moment.
    pub(crate) fn restored(learned: Vec<LearnedCeiling>, now: Instant, at: Micros) -> Self {
        let mut quotas = Self::default();
        for one in learned {
            let provider: Arc<str> = one.provider.into();
            match one.limited {
                Limited::Tokens(model) => {
                    // A clock that began later than that counts from its beginning.
                    let since = now.checked_sub(at.since(one.at)).unwrap_or(now);
                    let ceiling = Ceiling { most: one.most, told: one.told, since };
                    quotas.tokens.insert((provider, one.account, model.into()), ceiling);
                }
                Limited::FileBytes => {
                    quotas.bytes.insert((provider, one.account), one.most);
                }
            }
        }
        quotas
    }

    /// What is to be kept of the lane's queue; none: nothing was learned.
    pub(crate) fn learned_tokens(&self, lane: &LaneKey, now: Instant, at: Micros) -> Option<LearnedCeiling> {
        let ceiling = self.tokens.get(&pool(lane))?;
        let ago = i64::try_from(now.saturating_duration_since(ceiling.since).as_micros()).unwrap_or(i64::MAX);
        let limited = Limited::Tokens(lane.model.to_string());
        let at = Micros(at.0.saturating_sub(ago));
        Some(LearnedCeiling { most: ceiling.most, told: ceiling.told, ..ceiling_of(lane, limited, at) })
    }

    /// What is to be kept of the size of the credential's files; none: nothing was learned.
    pub(crate) fn learned_bytes(&self, lane: &LaneKey, at: Micros) -> Option<LearnedCeiling> {
        let most = *self.bytes.get(&account(lane))?;
        Some(LearnedCeiling { most, ..ceiling_of(lane, Limited::FileBytes, at) })
    }

    /// Prompt tokens that may be in the lane's queue; none: nothing was learned.
    pub(crate) fn tokens(&self, lane: &LaneKey) -> Option<u64> {
        self.tokens.get(&pool(lane)).map(|ceiling| ceiling.most)
    }

    /// A batch was refused because the queue was full, with so many tokens of ours in flight, its own among them. The
    /// provider's number counts where it explains the refusal; otherwise others fill the queue as well, or the estimate is
    /// too low, and half of what was too much is tried.
    pub(crate) fn queue_full(&mut self, lane: &LaneKey, told: Option<u64>, in_flight: u64, now: Instant) -> u64 {
        let halved = (in_flight / 2).max(LEAST_TOKENS);
        let most = told.map_or(halved, |told| if in_flight > told { told } else { halved.min(told) });
        if self.tokens.len() >= MANY
            && let Some(oldest) =
                self.tokens.iter().min_by_key(|(_, ceiling)| ceiling.since).map(|(key, _)| key.clone())
        {
            self.tokens.remove(&oldest);
        }
        self.tokens.insert(pool(lane), Ceiling { most, told, since: now });
        most
    }

    /// A batch was in the queue to its end, with so many tokens in flight: a ceiling that was nearly reached may be higher.
    /// Whether it is now.
    pub(crate) fn accepted(&mut self, lane: &LaneKey, in_flight: u64, now: Instant) -> bool {
        let Some(ceiling) = self.tokens.get_mut(&pool(lane)).filter(|ceiling| in_flight >= ceiling.most / 2) else {
            return false;
        };
        let before = ceiling.most;
        let bound = ceiling.told.filter(|_| now.saturating_duration_since(ceiling.since) < TOLD_FOR);
        let grown = ceiling.most.saturating_add((ceiling.most / GROWTH).max(1));
        ceiling.most = bound.map_or(grown, |bound| grown.min(bound));
        ceiling.most != before
    }

    /// Bytes that a file of this credential may have; none: nothing was learned.
    pub(crate) fn bytes(&self, lane: &LaneKey) -> Option<u64> {
        self.bytes.get(&account(lane)).copied()
    }

    /// A file was too large; from now on they have at most `most` bytes.
    pub(crate) fn too_large(&mut self, lane: &LaneKey, most: u64) {
        let known = self.bytes.entry(account(lane)).or_insert(most);
        *known = (*known).min(most);
    }

    /// A batch of so many bytes was taken. Whether the next ones may be larger for that.
    pub(crate) fn taken(&mut self, lane: &LaneKey, bytes: u64) -> bool {
        let Some(most) = self.bytes.get_mut(&account(lane)).filter(|most| bytes >= **most / 2) else { return false };
        *most = most.saturating_add(*most / GROWTH);
        true
    }

    /// A batch is created now, or was at `at`.
    pub(crate) fn created(&mut self, lane: &LaneKey, at: Instant) {
        let recent = self.created.entry(account(lane)).or_default();
        // What an earlier run created is told newest first.
        if recent.front().is_some_and(|first| at < *first) {
            return recent.push_front(at);
        }
        while recent.front().is_some_and(|first| *first + HOUR <= at) {
            recent.pop_front();
        }
        recent.push_back(at);
    }

    /// When the next batch may be created, if not now.
    pub(crate) fn next_creation(&mut self, lane: &LaneKey, per_hour: Option<u32>, now: Instant) -> Option<Instant> {
        let most = usize::try_from(per_hour?).unwrap_or(usize::MAX).max(1);
        let recent = self.created.get_mut(&account(lane))?;
        while recent.front().is_some_and(|at| *at + HOUR <= now) {
            recent.pop_front();
        }
        // The one whose hour has to be over for another to have a place.
        let at = recent.len().checked_sub(most).and_then(|index| recent.get(index))?;
        Some(*at + HOUR)
    }
}

fn ceiling_of(lane: &LaneKey, limited: Limited, at: Micros) -> LearnedCeiling {
    LearnedCeiling { provider: lane.provider.to_string(), account: lane.account, limited, most: 0, told: None, at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Endpoint;

    fn lane(model: &str) -> LaneKey {
        LaneKey {
            provider: "openai".into(),
            account: Fingerprint([1; 16]),
            endpoint: Endpoint::Responses,
            model: model.into(),
            deadline_class: 0,
        }
    }

    #[test]
    fn the_limit_is_read_from_the_refusal() {
        let text = "Enqueued token limit reached for gpt-6-luna in organization org-x. Limit: 2,000,000 enqueued tokens. \
                    Please try again once some in_progress batches have been completed.";
        assert_eq!(told_limit(text), Some(2_000_000));
        assert_eq!(told_limit("Limit: 90 enqueued"), Some(90));
        for text in ["", "Limit:", "Limit: none", "limit 7", "Limit: 99999999999999999999999"] {
            assert_eq!(told_limit(text), None, "{text}");
        }
    }

    #[test]
    fn a_queue_is_one_credentials_and_models_whatever_the_endpoint() {
        let shared = |change: fn(&mut LaneKey)| {
            let mut other = lane("m");
            change(&mut other);
            share_pool(&lane("m"), &other)
        };
        assert!(shared(|other| other.endpoint = Endpoint::ChatCompletions) && shared(|other| other.deadline_class = 7));
        assert!(!shared(|other| other.model = "n".into()));
        assert!(!shared(|other| other.provider = "groq".into()));
        assert!(!shared(|other| other.account = Fingerprint([2; 16])));
    }

    #[test]
    fn a_told_limit_counts_and_an_unexplained_refusal_halves() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        assert_eq!(quotas.tokens(&lane("m")), None);
        assert_eq!(quotas.queue_full(&lane("m"), Some(90_000), 200_000, now), 90_000);
        assert_eq!((quotas.tokens(&lane("m")), quotas.tokens(&lane("n"))), (Some(90_000), None));
        // Within the limit and refused all the same: others fill the queue.
        assert_eq!(quotas.queue_full(&lane("m"), Some(90_000), 80_000, now), 40_000);
        assert_eq!(quotas.queue_full(&lane("m"), None, 40_000, now), 20_000);
        assert_eq!(quotas.queue_full(&lane("m"), None, 12, now), LEAST_TOKENS);
        assert_eq!(quotas.queue_full(&lane("m"), Some(700), 300, now), 700, "the provider's number is never exceeded");
    }

    #[test]
    fn a_ceiling_grows_while_it_is_used_and_passes_a_told_limit_only_after_a_day() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        quotas.queue_full(&lane("m"), Some(10_000), 8_000, now);
        quotas.accepted(&lane("m"), 1_999, now);
        assert_eq!(quotas.tokens(&lane("m")), Some(4_000), "it was not nearly reached");
        quotas.accepted(&lane("m"), 2_000, now);
        assert_eq!(quotas.tokens(&lane("m")), Some(5_000));
        assert!(quotas.accepted(&lane("m"), 10_000, now));
        (0..20).for_each(|_| {
            quotas.accepted(&lane("m"), 10_000, now);
        });
        assert!(!quotas.accepted(&lane("m"), 10_000, now), "there is nothing new to keep");
        assert_eq!(quotas.tokens(&lane("m")), Some(10_000));
        quotas.accepted(&lane("m"), 10_000, now + TOLD_FOR);
        assert_eq!(quotas.tokens(&lane("m")), Some(12_500));
    }

    #[test]
    fn batches_per_hour_is_a_sliding_window() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        let minute = Duration::from_secs(60);
        for at in 0..3 {
            assert_eq!(quotas.next_creation(&lane("m"), Some(3), now + minute * at), None);
            quotas.created(&lane("m"), now + minute * at);
        }
        assert_eq!(quotas.next_creation(&lane("n"), Some(3), now + minute * 3), Some(now + HOUR), "of all models");
        assert_eq!(quotas.next_creation(&lane("m"), None, now + minute * 3), None, "no limit is known");
        assert_eq!(quotas.next_creation(&lane("m"), Some(3), now + HOUR), None);
        quotas.created(&lane("m"), now + HOUR);
        assert_eq!(quotas.next_creation(&lane("m"), Some(3), now + HOUR), Some(now + HOUR + minute));
        // More than the limit, after it was lowered: all of them count.
        assert_eq!(quotas.next_creation(&lane("m"), Some(1), now + HOUR), Some(now + HOUR * 2));
    }

    #[test]
    fn a_file_that_was_too_large_bounds_the_next_ones() {
        let mut quotas = Quotas::default();
        quotas.too_large(&lane("m"), 1_000);
        quotas.too_large(&lane("n"), 4_000);
        assert_eq!(quotas.bytes(&lane("n")), Some(1_000));
        quotas.taken(&lane("m"), 499);
        assert_eq!(quotas.bytes(&lane("m")), Some(1_000));
        quotas.taken(&lane("m"), 900);
        assert_eq!(quotas.bytes(&lane("m")), Some(1_250));
    }

    #[test]
    fn what_was_learned_is_the_same_after_a_restart() {
        let (mut quotas, began) = (Quotas::default(), Instant::now());
        let at = Micros::from_unix_seconds(1_795_420_800);
        quotas.queue_full(&lane("m"), Some(10_000), 20_000, began);
        quotas.too_large(&lane("m"), 700);
        let hours = |count| HOUR * count;
        let kept = |quotas: &Quotas, after: Duration| {
            let (now, at) = (began + after, at.plus(after));
            [quotas.learned_tokens(&lane("m"), now, at), quotas.learned_bytes(&lane("m"), at)].map(Option::unwrap)
        };
        let learned = kept(&quotas, hours(20));
        assert_eq!(learned[0].at, at, "when it was refused, not when it was kept");
        let mut again = Quotas::restored(learned.to_vec(), began + hours(21), at.plus(hours(21)));
        assert_eq!((again.tokens(&lane("m")), again.bytes(&lane("n"))), (Some(10_000), Some(700)));
        assert!(!again.accepted(&lane("m"), 9_000, began + hours(23)), "what was told counts for a day");
        assert!(again.accepted(&lane("m"), 9_000, began + hours(24)));
        assert_eq!(again.learned_tokens(&lane("n"), began, at), None);
    }

    #[test]
    fn at_the_edges_of_what_is_taken() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        assert_eq!(
            quotas.queue_full(&lane("m"), Some(9_000), 9_000, now),
            4_500,
            "its limit explains no refusal at it"
        );
        quotas.too_large(&lane("m"), 1_000);
        assert!(quotas.taken(&lane("m"), 500), "half of it is near enough");
        assert_eq!(quotas.queue_full(&lane("n"), Some(3), 4, now), 3);
        assert!(quotas.accepted(&lane("n"), 3, now + TOLD_FOR));
        assert_eq!(quotas.tokens(&lane("n")), Some(4), "the least step");
    }

    #[test]
    fn the_oldest_lesson_makes_room_for_a_new_one() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        let model = |at: usize| lane(&at.to_string());
        for at in 0..=MANY {
            let age = Duration::from_secs(u64::try_from(at).unwrap());
            assert_eq!(quotas.tokens(&model(0)).is_some(), at > 0, "{at}");
            quotas.queue_full(&model(at), None, 9_000, now + age);
        }
        assert_eq!((quotas.tokens(&model(0)), quotas.tokens(&model(1))), (None, Some(4_500)));
    }

    #[test]
    fn what_an_earlier_run_created_may_be_told_newest_first() {
        let (mut quotas, now) = (Quotas::default(), Instant::now());
        let minute = Duration::from_secs(60);
        for at in [20, 10, 0, 30] {
            quotas.created(&lane("m"), now + minute * at);
        }
        for (most, opens) in [(4, 0), (3, 10), (2, 20), (1, 30)] {
            let next = quotas.next_creation(&lane("m"), Some(most), now + minute * 30);
            assert_eq!(next, Some(now + HOUR + minute * opens), "{most}");
        }
    }
}
