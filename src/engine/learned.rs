//! How long batches take, learned per credential, model and size from those that ended, and kept in the store.
//!
//! The estimate is the longest of the last few, so that a deadline is rarely missed by hope. What was learned more than a
//! day ago says nothing any more: a model that was slow then is tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::domain::clock::Micros;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::store::{LearnedDurations, SharedStore, StoreError};

/// So many batches are remembered of each kind.
const RECENT: usize = 8;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// For a forecast, by which nothing is decided, last night's or last week's batches are better than nothing.
const TOLD_FOR: Duration = Duration::from_secs(8 * 24 * 3600);

type Key = (Arc<str>, Fingerprint, Arc<str>, u32);

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    known: RwLock<HashMap<Key, (Micros, Vec<u32>)>>,
}

impl Learned {
    /// Reads what earlier runs learned.
    pub(crate) async fn load(&self, store: &SharedStore) -> Result<(), StoreError> {
        let stored = store.durations().await?;
        let mut known = self.known.write();
        for one in stored {
            let key = (one.provider.into(), one.account, one.model.into(), one.size_class);
            known.insert(key, (one.at, one.recent_ms));
        }
        Ok(())
    }

    /// Takes in how long a batch of `lines` took, durably.
    pub(crate) async fn note(
        &self,
        store: &SharedStore,
        lane: &LaneKey,
        lines: u32,
        took: Duration,
        now: Micros,
    ) -> Result<(), StoreError> {
        let key = key(lane, size_class(lines));
        let recent_ms = {
            let mut known = self.known.write();
            let (at, recent) = known.entry(key.clone()).or_default();
            if now.since(*at) > FORGOTTEN_AFTER {
                recent.clear();
            }
            if recent.len() >= RECENT {
                recent.remove(0);
            }
            recent.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
            *at = now;
            recent.clone()
        };
        let (provider, account, model, size_class) = key;
        let learned = LearnedDurations {
            provider: provider.to_string(),
            account,
            model: model.to_string(),
            size_class,
            at: now,
            recent_ms,
        };
        store.keep_durations(learned).await
    }

    /// How long a batch of about so many lines is expected to take; that of the nearest size where this one is unknown.
    /// `None`: nothing was learned of this credential and model in the last day.
    pub(crate) fn expected(&self, lane: &LaneKey, lines: u32, now: Micros) -> Option<Duration> {
        self.nearest(lane, lines, now, FORGOTTEN_AFTER).into_iter().max()
    }

    /// How long the last few batches of about so many lines took, or those of the nearest size, oldest first; for
    /// forecasts. Empty: nothing was learned of this credential and model for days.
    pub(crate) fn recent(&self, lane: &LaneKey, lines: u32, now: Micros) -> Vec<Duration> {
        self.nearest(lane, lines, now, TOLD_FOR)
    }

    fn nearest(&self, lane: &LaneKey, lines: u32, now: Micros, within: Duration) -> Vec<Duration> {
        const SIZES: u32 = 10;
        let wanted = size_class(lines);
        let known = self.known.read();
        let of = |class: u32| {
            let (at, recent) = known.get(&key(lane, class))?;
            (now.since(*at) <= within).then_some(recent)
        };
        let found = (0..=SIZES).find_map(|off| of(wanted + off).or_else(|| of(wanted.checked_sub(off)?)));
        found.into_iter().flatten().map(|took| Duration::from_millis(u64::from(*took))).collect()
    }
}

fn key(lane: &LaneKey, size_class: u32) -> Key {
    (Arc::clone(&lane.provider), lane.account, Arc::clone(&lane.model), size_class)
}

/// The number of decimal digits.
fn size_class(lines: u32) -> u32 {
    lines.checked_ilog10().map_or(0, |digits| digits + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Endpoint;
    use crate::store::in_memory;

    const NOW: Micros = Micros::from_unix_seconds(1_795_420_800);

    fn lane(model: &str) -> LaneKey {
        LaneKey {
            provider: "openai".into(),
            account: Fingerprint([3; 16]),
            endpoint: Endpoint::Responses,
            model: model.into(),
            deadline_class: 0,
        }
    }

    #[tokio::test]
    async fn the_longest_of_the_last_few_counts_for_a_day_and_over_a_restart() {
        let store = in_memory().unwrap();
        let learned = Learned::default();
        assert_eq!(learned.expected(&lane("m"), 5, NOW), None);
        for minutes in [90, 1, 2, 3, 4, 5, 6, 7, 8] {
            learned.note(&store, &lane("m"), 5, Duration::from_secs(60 * minutes), NOW).await.unwrap();
        }
        let minutes = |learned: &Learned, lines, now| {
            learned.expected(&lane("m"), lines, now).map(|expected| expected.as_secs() / 60)
        };
        assert_eq!(minutes(&learned, 5, NOW), Some(8), "the oldest is forgotten");
        learned.note(&store, &lane("m"), 5_000, Duration::from_secs(3600), NOW).await.unwrap();
        assert_eq!([5, 200, 900_000].map(|lines| minutes(&learned, lines, NOW)), [Some(8), Some(60), Some(60)]);
        assert_eq!(learned.expected(&lane("other"), 5, NOW), None);
        let again = Learned::default();
        again.load(&store).await.unwrap();
        assert_eq!(minutes(&again, 5, NOW), Some(8));
        let last = NOW.plus(Duration::from_secs(24 * 3600));
        assert_eq!(minutes(&again, 5, last), Some(8), "a day is not over with its last moment");
        let tomorrow = NOW.plus(Duration::from_secs(24 * 3600 + 1));
        assert_eq!(minutes(&again, 5, tomorrow), None, "what was slow is tried again");
        assert_eq!(again.recent(&lane("m"), 5, tomorrow).len(), RECENT, "a forecast decides nothing");
        assert!(again.recent(&lane("m"), 5, NOW.plus(9 * Duration::from_secs(24 * 3600))).is_empty());
        again.note(&store, &lane("m"), 5, Duration::from_secs(120), tomorrow).await.unwrap();
        assert_eq!(minutes(&again, 5, tomorrow), Some(2));
        again.note(&store, &lane("m"), 5, Duration::from_secs(60), tomorrow.plus(FORGOTTEN_AFTER)).await.unwrap();
        assert_eq!(minutes(&again, 5, tomorrow.plus(FORGOTTEN_AFTER)), Some(2), "just so");
    }
}
