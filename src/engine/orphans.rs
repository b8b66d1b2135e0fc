//! Re-attachment: a caller that gave up and calls again finds its request (contract, section 5).
//!
//! Kept in memory, rebuilt from the store at start: every request asked for on a held connection whose answer was not
//! yet delivered. A request without a waiter is an orphan; an equal call (same credential, endpoint, body) adopts it,
//! each orphan at most once. Two equal calls on the line at the same time are two requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::engine::line::{Doorbell, Line, Present};

/// Of how many equal calls it is asked whether they are still there. Of so many on the line that nobody asks
/// after all of them, most are meant to be.
const MOST_ASKED: usize = 32;

/// All requests whose answer is still owed to a held connection.
#[derive(Clone, Debug)]
pub struct Orphans {
    inner: Arc<Mutex<Inner>>,
    delivered: mpsc::UnboundedSender<RequestId>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the hash of credential, endpoint and body; oldest first.
    by_body: HashMap<Fingerprint, Vec<Owed>>,
    bodies: HashMap<RequestId, Fingerprint>,
}

#[derive(Debug)]
struct Owed {
    id: RequestId,
    waiters: u32,
    /// To ask after those waiters.
    doorbells: Vec<Doorbell>,
    /// The largest `x-stainless-retry-count` of a call that waited for it.
    attempt: u32,
    /// Since when nobody waits.
    alone_since: Option<Instant>,
    /// It may not be in the store yet.
    is_new: bool,
    /// It is submitted or has ended: nothing to withdraw, its answer is kept.
    kept: bool,
    /// It is being withdrawn: nobody can adopt it any more.
    withdrawn: bool,
}

/// One call's claim on the answer. Dropped without [`Attachment::delivered`], the request is an orphan again.
#[derive(Debug)]
pub struct Attachment {
    id: RequestId,
    orphans: Orphans,
    line: Line,
    done: bool,
}

impl Orphans {
    /// Nothing owed; ids of delivered requests go to the receiver, for the store.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<RequestId>) {
        let (delivered, receiver) = mpsc::unbounded_channel();
        (Self { inner: Arc::default(), delivered }, receiver)
    }

    /// A new request with its first waiter.
    pub fn attach_new(&self, id: RequestId, body: Fingerprint, attempt: u32) -> Attachment {
        let attachment = self.attachment(id);
        let mut owed = Owed { attempt, is_new: true, ..Owed::alone(id) };
        owed.add_waiter(&attachment);
        self.insert(body, owed);
        attachment
    }

    /// A request of an earlier run: nobody waits for it.
    pub(crate) fn add_alone(&self, id: RequestId, body: Fingerprint) {
        self.insert(body, Owed::alone(id));
    }

    fn insert(&self, body: Fingerprint, owed: Owed) {
        let mut inner = self.inner.lock();
        inner.bodies.insert(owed.id, body);
        inner.by_body.entry(body).or_default().push(owed);
    }

    /// The oldest orphan with this body; for a retry (`attempt` above 0) also a request whose waiters are all of earlier
    /// attempts, although their connections have not been seen to close.
    pub fn adopt(&self, body: Fingerprint, attempt: u32) -> Option<Attachment> {
        let mut inner = self.inner.lock();
        let owed = inner.by_body.get_mut(&body)?;
        let at = owed
            .iter()
            .position(|owed| owed.waiters == 0 && !owed.withdrawn)
            .or_else(|| owed.iter().position(|owed| owed.attempt < attempt && !owed.withdrawn))?;
        let owed = owed.get_mut(at)?;
        owed.attempt = owed.attempt.max(attempt);
        let attachment = self.attachment(owed.id);
        owed.add_waiter(&attachment);
        Some(attachment)
    }

    /// Asks the calls with this body that are on the line (the oldest ones) whether they are still there.
    pub(crate) fn ask_after(&self, body: Fingerprint) -> Vec<Present> {
        let inner = self.inner.lock();
        let owed = inner.by_body.get(&body).into_iter().flatten().filter(|owed| !owed.withdrawn);
        owed.flat_map(|owed| &owed.doorbells).filter_map(Doorbell::ring).take(MOST_ASKED).collect()
    }

    /// One more waiter for a request that is known by its id or its idempotency key; also where nothing is owed.
    pub fn join(&self, id: RequestId) -> Attachment {
        let attachment = self.attachment(id);
        if let Some(owed) = self.inner.lock().owed(id) {
            owed.add_waiter(&attachment);
        }
        attachment
    }

    /// The request is in the store now.
    pub(crate) fn stored(&self, id: RequestId) {
        if let Some(owed) = self.inner.lock().owed(id) {
            owed.is_new = false;
        }
    }

    /// Whether the request may not be in the store yet.
    pub(crate) fn is_new(&self, id: RequestId) -> bool {
        self.inner.lock().owed(id).is_some_and(|owed| owed.is_new)
    }

    /// The request cannot be answered to anybody any more (refused, expired, withdrawn).
    pub(crate) fn forget(&self, id: RequestId) {
        self.inner.lock().remove(id);
    }

    /// Those that nobody has waited for since `grace` or longer, and that may still be queued.
    pub(crate) fn alone_for(&self, grace: Duration) -> Vec<RequestId> {
        self.select(|owed| !owed.kept && owed.alone_since.is_some_and(|since| since.elapsed() >= grace))
    }

    /// Takes an orphan out of everybody's reach before it is withdrawn; `false`: somebody came for it meanwhile.
    pub(crate) fn claim(&self, id: RequestId) -> bool {
        let mut inner = self.inner.lock();
        let alone = inner.owed(id).filter(|owed| owed.waiters == 0 && owed.alone_since.is_some());
        alone.is_some_and(|owed| {
            owed.withdrawn = true;
            true
        })
    }

    /// It is submitted or has ended: it is not asked about again, unless it comes back to the queue.
    pub(crate) fn keep(&self, id: RequestId) {
        if let Some(owed) = self.inner.lock().owed(id) {
            owed.kept = true;
            owed.withdrawn = false;
        }
    }

    /// It is queued again.
    pub(crate) fn requeued(&self, id: RequestId) {
        if let Some(owed) = self.inner.lock().owed(id) {
            owed.kept = false;
        }
    }

    /// Those that nobody has waited for since `retention` or longer: the store may have deleted them.
    pub(crate) fn perhaps_expired(&self, retention: Duration) -> Vec<RequestId> {
        self.select(|owed| owed.alone_since.is_some_and(|since| since.elapsed() >= retention))
    }

    fn select(&self, wanted: impl Fn(&Owed) -> bool) -> Vec<RequestId> {
        let inner = self.inner.lock();
        let mut ids: Vec<_> =
            inner.by_body.values().flatten().filter(|owed| wanted(owed)).map(|owed| owed.id).collect();
        ids.sort_unstable();
        ids
    }

    fn attachment(&self, id: RequestId) -> Attachment {
        Attachment { id, orphans: self.clone(), line: Line::default(), done: false }
    }
}

impl Owed {
    /// Nobody waits for it from now on.
    fn alone(id: RequestId) -> Self {
        Self {
            id,
            waiters: 0,
            doorbells: Vec::with_capacity(1),
            attempt: 0,
            alone_since: Some(Instant::now()),
            is_new: false,
            kept: false,
            withdrawn: false,
        }
    }

    fn add_waiter(&mut self, attachment: &Attachment) {
        self.waiters += 1;
        self.alone_since = None;
        self.doorbells.retain(Doorbell::works);
        self.doorbells.push(attachment.line.doorbell());
    }
}

impl Inner {
    fn owed(&mut self, id: RequestId) -> Option<&mut Owed> {
        let body = self.bodies.get(&id)?;
        self.by_body.get_mut(body)?.iter_mut().find(|owed| owed.id == id)
    }

    fn remove(&mut self, id: RequestId) -> bool {
        let Some(body) = self.bodies.remove(&id) else { return false };
        if let Some(owed) = self.by_body.get_mut(&body) {
            owed.retain(|owed| owed.id != id);
            if owed.is_empty() {
                self.by_body.remove(&body);
            }
        }
        true
    }
}

impl Attachment {
    /// The request.
    pub const fn id(&self) -> RequestId {
        self.id
    }

    /// The call's connection, to be told of its turns.
    pub(crate) const fn line(&self) -> &Line {
        &self.line
    }

    /// The answer was written to this caller and flushed: it is owed to nobody any more.
    pub fn delivered(mut self) {
        self.done = true;
        let owed = self.orphans.inner.lock().remove(self.id);
        if owed && self.orphans.delivered.send(self.id).is_err() {
            tracing::debug!("deliveries are not recorded any more");
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(owed) = self.orphans.inner.lock().owed(self.id) {
            owed.waiters = owed.waiters.saturating_sub(1);
            if owed.waiters == 0 {
                owed.alone_since = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;

    const BODY: Fingerprint = Fingerprint([1; 16]);

    struct Desk {
        ids: IdSource,
        orphans: Orphans,
        delivered: mpsc::UnboundedReceiver<RequestId>,
    }

    fn desk() -> Desk {
        let (orphans, delivered) = Orphans::new();
        Desk { ids: IdSource::default(), orphans, delivered }
    }

    impl Desk {
        fn call(&self, attempt: u32) -> Attachment {
            self.orphans
                .adopt(BODY, attempt)
                .unwrap_or_else(|| self.orphans.attach_new(self.ids.request_id(Micros(1), 0), BODY, attempt))
        }
    }

    #[tokio::test]
    async fn equal_calls_on_the_line_are_different_requests() {
        let desk = desk();
        let calls: Vec<_> = (0..5).map(|_| desk.call(0)).collect();
        let mut ids: Vec<_> = calls.iter().map(Attachment::id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    }

    #[tokio::test]
    async fn each_orphan_is_adopted_once_the_oldest_first() {
        let desk = desk();
        let (one, two) = (desk.call(0), desk.call(0));
        let (first, second) = (one.id(), two.id());
        drop(two);
        drop(one);
        let again: Vec<_> = (0..3).map(|_| desk.call(0)).collect();
        assert_eq!(again.iter().take(2).map(Attachment::id).collect::<Vec<_>>(), [first, second]);
        assert!(again[2].id() != first && again[2].id() != second);
    }

    #[tokio::test]
    async fn retries_of_twins_find_each_its_own_although_no_connection_was_seen_to_close() {
        let desk = desk();
        let calls: Vec<_> = (0..3).map(|_| desk.call(0)).collect();
        let mut first: Vec<_> = calls.iter().map(Attachment::id).collect();
        for attempt in [1, 2] {
            let retries: Vec<_> = (0..3).map(|_| desk.call(attempt)).collect();
            let mut found: Vec<_> = retries.iter().map(Attachment::id).collect();
            found.sort_unstable();
            first.sort_unstable();
            assert_eq!(found, first);
            // The connections stay open.
            std::mem::forget(retries);
        }
        drop(calls);
    }

    #[tokio::test]
    async fn what_was_delivered_is_never_adopted_again() {
        let mut desk = desk();
        let call = desk.call(0);
        let id = call.id();
        call.delivered();
        assert_eq!(desk.delivered.try_recv(), Ok(id));
        assert_ne!(desk.call(2).id(), id);
    }

    #[tokio::test(start_paused = true)]
    async fn only_those_left_alone_for_the_grace_are_listed() {
        let desk = desk();
        let (kept, left) = (desk.call(0), desk.call(0));
        let id = left.id();
        drop(left);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(desk.orphans.alone_for(Duration::from_secs(60)).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(desk.orphans.alone_for(Duration::from_secs(60)), [id]);
        desk.orphans.keep(id);
        assert!(
            desk.orphans.alone_for(Duration::from_secs(60)).is_empty(),
            "a submitted orphan is not asked about again"
        );
        desk.orphans.requeued(id);
        let adopted = desk.orphans.adopt(BODY, 0).unwrap();
        assert!(!desk.orphans.claim(id), "somebody waits for it again");
        drop(adopted);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(desk.orphans.claim(id) && desk.orphans.adopt(BODY, 0).is_none(), "it is being withdrawn");
        assert_eq!(desk.orphans.alone_for(Duration::from_secs(60)), [id]);
        assert_eq!(desk.orphans.perhaps_expired(Duration::from_secs(60)), [id]);
        desk.orphans.forget(id);
        assert!(desk.orphans.alone_for(Duration::ZERO).is_empty());
        drop(kept);
    }
}
