//! Who waits for which request. The only place that names dashmap; nothing borrowed ever leaves it.
//!
//! A waiter registers before it looks into the store, so that an answer recorded in between is not missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::oneshot;

use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::request::RequestState;
use crate::store::OutcomeSummary;

/// The end of a request, as its waiters get it. It is durable before anybody sees it.
#[derive(Debug)]
pub struct Answer {
    /// Terminal.
    pub state: RequestState,
    /// Status, service, cost.
    pub summary: OutcomeSummary,
    /// When it ended.
    pub finished_at: Micros,
    /// The batch it rode in.
    pub batch_id: Option<BatchId>,
    /// The body; none for failures of nightbus's own.
    pub body: Option<Bytes>,
}

type Sender = oneshot::Sender<Arc<Answer>>;

/// All waiters of the process.
#[derive(Clone, Debug, Default)]
pub struct Waiters {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: DashMap<RequestId, Vec<(u64, Sender)>>,
    next_key: AtomicU64,
    count: AtomicU64,
}

/// One waiter. Dropping it (its connection is gone) takes it off the list.
#[derive(Debug)]
pub struct Waiter {
    id: RequestId,
    key: u64,
    receiver: oneshot::Receiver<Arc<Answer>>,
    inner: Arc<Inner>,
}

impl Waiters {
    /// No waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for `id` from now on.
    pub fn register(&self, id: RequestId) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        let key = self.inner.next_key.fetch_add(1, Ordering::Relaxed);
        self.inner.waiting.entry(id).or_insert_with(|| Vec::with_capacity(1)).push((key, sender));
        self.inner.count.fetch_add(1, Ordering::Relaxed);
        Waiter { id, key, receiver, inner: Arc::clone(&self.inner) }
    }

    /// Hands the answer to everybody who waits for `id`; how many there were.
    pub fn wake(&self, id: RequestId, answer: Answer) -> usize {
        let Some((_, senders)) = self.inner.waiting.remove(&id) else {
            return 0;
        };
        let answer = Arc::new(answer);
        senders.into_iter().filter_map(|(_, sender)| sender.send(Arc::clone(&answer)).ok()).count()
    }

    /// How many wait in all.
    pub fn count(&self) -> u64 {
        self.inner.count.load(Ordering::Relaxed)
    }
}

impl Waiter {
    /// The request it waits for.
    pub const fn id(&self) -> RequestId {
        self.id
    }

    /// Resolves when the request has ended; `None` when the process is stopping.
    pub async fn answer(&mut self) -> Option<Arc<Answer>> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.inner.count.fetch_sub(1, Ordering::Relaxed);
        if let Entry::Occupied(mut entry) = self.inner.waiting.entry(self.id) {
            entry.get_mut().retain(|(key, _)| *key != self.key);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::IdSource;

    fn answer(status_code: u16) -> Answer {
        Answer {
            state: RequestState::Completed,
            summary: OutcomeSummary {
                status_code,
                service: None,
                provider_request_id: None,
                error: None,
                usage_json: None,
                cost_nanos: None,
                saved_nanos: None,
            },
            finished_at: Micros(0),
            batch_id: None,
            body: None,
        }
    }

    #[tokio::test]
    async fn everybody_who_waits_gets_the_answer_and_the_list_is_empty_after() {
        let waiters = Waiters::new();
        let id = IdSource::default().request_id(Micros(1), 1);
        let (mut one, mut two) = (waiters.register(id), waiters.register(id));
        assert_eq!((waiters.count(), waiters.wake(id, answer(200))), (2, 2));
        assert_eq!(one.answer().await.unwrap().summary.status_code, 200);
        assert_eq!(two.answer().await.unwrap().summary.status_code, 200);
        drop((one, two));
        assert_eq!((waiters.count(), waiters.wake(id, answer(200))), (0, 0));
    }

    #[test]
    fn a_waiter_that_left_is_off_the_list_and_leaves_the_others() {
        let waiters = Waiters::new();
        let id = IdSource::default().request_id(Micros(1), 1);
        let (one, two) = (waiters.register(id), waiters.register(id));
        drop(one);
        assert_eq!(waiters.wake(id, answer(200)), 1);
        drop((two, waiters.register(id)));
        assert_eq!(waiters.wake(id, answer(200)), 0);
    }
}
