//! The batches that have a task now: how large they are, what keeps them from going on, and a way to have one looked at before
//! its time.
//!
//! Written by `run`, which notes a batch at each of its steps, and by what asks the provider; read by `expected`, by the admin
//! API, and by `intake::webhook`, which hears of a provider that a batch has ended. What stands here is in the store as well, but
//! for the trouble, which the next attempt meets again; after a restart the tasks note it again.
//! Which webhooks were heard is not: heard again, one costs a look at its batch and nothing else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::domain::clock::Micros;
use crate::domain::ids::BatchId;
use crate::domain::webhook::Verifier;
use crate::engine::Engine;
use crate::store::BatchRecord;
use crate::upstream::provider::ProviderError;

/// When so many webhooks were heard, those before them are forgotten early: a duplicate of one is heard again.
const HEARD: usize = 8_192;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Running {
    open: RwLock<HashMap<BatchId, Open>>,
    heard: Mutex<Heard>,
}

/// Webhooks by provider and `webhook-id`: those heard since a moment, and those heard before it. Two sets that change
/// places forget without a search.
#[derive(Debug, Default)]
struct Heard {
    since: Micros,
    recent: HashSet<(String, String)>,
    older: HashSet<(String, String)>,
}

#[derive(Debug)]
struct Open {
    lines: u32,
    provider: Arc<str>,
    provider_id: Option<String>,
    look: Arc<Notify>,
    trouble: Option<Trouble>,
}

/// Why nothing is heard of a batch: what is known of it is as old as this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When the first of the attempts in a row failed.
    pub since: Micros,
    /// How the last one did, for people.
    pub message: String,
}

impl Engine {
    /// A provider says, by a webhook that was signed, that its batch has ended: the batch is looked at now, unless this
    /// webhook was heard before. What came of it: `hint`, `unknown`, or `duplicate`.
    pub fn heard(&self, provider: &str, webhook: &str, provider_batch: &str) -> &'static str {
        let running = &self.context.running;
        if !running.is_new(provider, webhook, self.context.now()) {
            return "duplicate";
        }
        if running.hint(provider, provider_batch) { "hint" } else { "unknown" }
    }
}

impl Engine {
    /// What keeps an open batch from going on at its provider; none: the last attempt went well, or is the first.
    pub fn trouble(&self, id: BatchId) -> Option<Trouble> {
        self.context.running.open.read().get(&id).and_then(|one| one.trouble.clone())
    }
}

impl Running {
    /// A batch as it stands now, at a step that was not tried yet. Ends the pause between two looks at it, once, when [`Self::hint`] was called for it.
    pub(crate) fn note(&self, batch: &BatchRecord) -> Arc<Notify> {
        let mut open = self.open.write();
        let one = open.entry(batch.id).or_insert_with(|| Open {
            lines: 0,
            provider: Arc::clone(&batch.lane.provider),
            provider_id: None,
            look: Arc::default(),
            trouble: None,
        });
        one.trouble = None;
        one.lines = batch.line_count;
        one.provider_id.clone_from(&batch.provider.batch_id);
        Arc::clone(&one.look)
    }

    /// An attempt at its step has failed, and is made again.
    pub(crate) fn struggles(&self, id: BatchId, now: Micros, error: &ProviderError) {
        if let Some(one) = self.open.write().get_mut(&id) {
            let since = one.trouble.as_ref().map_or(now, |trouble| trouble.since);
            one.trouble = Some(Trouble { since, message: error.to_string() });
        }
    }

    /// The provider has shown it.
    pub(crate) fn shows(&self, id: BatchId) {
        if self.open.read().get(&id).is_some_and(|one| one.trouble.is_some())
            && let Some(one) = self.open.write().get_mut(&id)
        {
            one.trouble = None;
        }
    }

    /// It has ended.
    pub(crate) fn forget(&self, id: BatchId) {
        self.open.write().remove(&id);
    }

    /// How many lines it has; none: it has no task.
    pub(crate) fn lines(&self, id: BatchId) -> Option<u32> {
        self.open.read().get(&id).map(|one| one.lines)
    }

    /// Whether a webhook comes for the first time. Those that are too old to be accepted at all need not be remembered.
    fn is_new(&self, provider: &str, webhook: &str, now: Micros) -> bool {
        let mut heard = self.heard.lock();
        if heard.recent.len() >= HEARD || now.since(heard.since) > 2 * Verifier::TOLERANCE {
            heard.older = std::mem::take(&mut heard.recent);
            heard.since = now;
        }
        let key = (provider.to_owned(), webhook.to_owned());
        !heard.older.contains(&key) && heard.recent.insert(key)
    }

    /// The batch that this provider calls so may have ended: it is looked at now. Whether there is such a batch.
    fn hint(&self, provider: &str, provider_id: &str) -> bool {
        let open = self.open.read();
        let found =
            open.values().find(|one| one.provider_id.as_deref() == Some(provider_id) && *one.provider == *provider);
        // Kept until somebody waits: a look that is under way may be too early.
        found.inspect(|one| one.look.notify_one()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_heard_once_and_memory_stays_bounded() {
        let running = Running::default();
        let now = Micros::from_unix_seconds(1_795_420_800);
        assert!(running.is_new("openai", "wh_1", now) && running.is_new("azure", "wh_1", now));
        assert!(!running.is_new("openai", "wh_1", now.plus(Verifier::TOLERANCE)));
        for number in 0..4 * HEARD {
            running.is_new("openai", &number.to_string(), now);
        }
        let kept = || {
            let heard = running.heard.lock();
            heard.recent.len() + heard.older.len()
        };
        assert!((HEARD..=2 * HEARD).contains(&kept()), "{}", kept());
        let later = now.plus(3 * Verifier::TOLERANCE);
        assert!(!running.is_new("openai", &(4 * HEARD - 1).to_string(), later), "kept for long enough");
        assert!(running.is_new("openai", "wh_2", later.plus(3 * Verifier::TOLERANCE)));
        assert_eq!(kept(), 1, "what is too old is accepted no more in any case");
    }
}
