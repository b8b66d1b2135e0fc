//! Who waits for which request. The only place that names dashmap; nothing borrowed ever leaves it.
//!
//! A waiter registers before it looks into the store, so that an answer recorded in between is not missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{mpsc, oneshot};

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

type Sender = oneshot::Sender<Told>;

/// So many waiters are told at once; the next ones when these have taken their answers. Each writes its own in some 70 us,
/// and a call that is passed through waits behind all of them, once for each socket it reads from.
const TOLD_AT_ONCE: usize = 8;
/// So long the next ones wait at most: a caller who does not read takes its answer late, or never.
const TURN_PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Told {
    answer: Arc<Answer>,
    /// Dropped when the answer is taken, or its waiter is gone.
    _turn: Option<mpsc::Sender<()>>,
}

/// Hands out many answers, a few at a time, so that who has other business with the same threads is not kept waiting.
#[derive(Debug)]
pub struct HandOut<'a> {
    waiters: &'a Waiters,
    turn: (mpsc::Sender<()>, mpsc::Receiver<()>),
    told: usize,
}

impl HandOut<'_> {
    /// Hands the answer to everybody who waits for `id`; then waits, if enough were told, until they have taken theirs.
    pub async fn wake(&mut self, id: RequestId, answer: Answer) {
        self.told += self.waiters.tell(id, answer, Some(&self.turn.0));
        if self.told < TOLD_AT_ONCE {
            return;
        }
        self.told = 0;
        let (turn, mut taken) = std::mem::replace(&mut self.turn, mpsc::channel(1));
        drop(turn);
        // Nothing is ever sent: the channel ends when all have taken theirs. Who takes too long is not waited for.
        drop(tokio::time::timeout(TURN_PATIENCE, taken.recv()).await);
    }
}

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
    receiver: oneshot::Receiver<Told>,
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
        self.tell(id, answer, None)
    }

    /// Hands out many.
    pub fn hand_out(&self) -> HandOut<'_> {
        HandOut { waiters: self, turn: mpsc::channel(1), told: 0 }
    }

    fn tell(&self, id: RequestId, answer: Answer, turn: Option<&mpsc::Sender<()>>) -> usize {
        let Some((_, senders)) = self.inner.waiting.remove(&id) else {
            return 0;
        };
        let answer = Arc::new(answer);
        let told = |sender: Sender| sender.send(Told { answer: Arc::clone(&answer), _turn: turn.cloned() }).ok();
        senders.into_iter().filter_map(|(_, sender)| told(sender)).count()
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
        (&mut self.receiver).await.ok().map(|told| told.answer)
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
    use futures_util::FutureExt as _;

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

    /// Waiters, and a hand-out to all of them that has been polled once.
    async fn handing_out(count: u64, waiters: &Waiters) -> (Vec<Waiter>, impl Future<Output = ()>) {
        let ids = IdSource::default();
        let waiting: Vec<Waiter> = (0..count).map(|nth| waiters.register(ids.request_id(Micros(1), nth))).collect();
        let told: Vec<RequestId> = waiting.iter().map(Waiter::id).collect();
        let handing = async move {
            let mut out = waiters.hand_out();
            for id in told {
                out.wake(id, answer(200)).await;
            }
        };
        let mut handing = Box::pin(handing);
        assert!(futures_util::poll!(&mut handing).is_pending());
        (waiting, handing)
    }

    fn taken(waiting: &mut [Waiter]) -> usize {
        waiting.iter_mut().filter_map(|waiter| waiter.answer().now_or_never().flatten()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_told_at_once_and_the_next_when_these_have_taken_their_answers() {
        let waiters = Waiters::new();
        let begun = tokio::time::Instant::now();
        let (mut waiting, mut handing) = handing_out(20, &waiters).await;
        let mut all = Vec::new();
        loop {
            all.push(taken(&mut waiting));
            waiting.drain(..TOLD_AT_ONCE.min(waiting.len()));
            if futures_util::poll!(&mut handing).is_ready() {
                break;
            }
        }
        all.push(taken(&mut waiting));
        assert_eq!(all, [TOLD_AT_ONCE, TOLD_AT_ONCE, 20 - 2 * TOLD_AT_ONCE]);
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody was waited for longer than it took");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_the_answer_keeps_the_others_waiting_for_a_moment_only() {
        let waiters = Waiters::new();
        let begun = tokio::time::Instant::now();
        let (mut waiting, handing) = handing_out(3 * 8, &waiters).await;
        handing.await;
        assert_eq!(begun.elapsed(), 3 * TURN_PATIENCE);
        assert_eq!(taken(&mut waiting), 24);
    }
}
