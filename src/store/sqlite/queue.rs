//! What waits for the writer: operations, in order of arrival.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::store::StoreError;
use crate::store::sqlite::writer::Session;

/// A transaction takes at most so many rows …
const GROUP_ROWS: usize = 4_096;
/// … or so many bytes, but always one operation.
const GROUP_BYTES: usize = 4 << 20;

/// A change that is applied by the writer, together with others in one transaction.
pub(super) trait Operation: Send {
    /// About how many rows and bytes it writes.
    fn weight(&self) -> (usize, usize);

    /// Makes the change. May be called again after a roll-back.
    fn apply(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()>;

    /// Answers the caller.
    fn settle(self: Box<Self>, committed: Result<(), StoreError>);
}

/// An operation out of a closure.
pub(super) struct Call<F, T> {
    rows: usize,
    bytes: usize,
    change: F,
    output: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Call<F, T> {
    /// An operation and where its answer comes.
    pub(super) fn new(rows: usize, bytes: usize, change: F) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { rows, bytes, change, output: None, reply }, answer)
    }
}

impl<F, T> Operation for Call<F, T>
where
    F: FnMut(&mut Session<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn weight(&self) -> (usize, usize) {
        (self.rows, self.bytes)
    }

    fn apply(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        self.output = Some((self.change)(session)?);
        Ok(())
    }

    fn settle(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { output, reply, .. } = *self;
        // The caller may have gone: the change stays.
        let _gone = reply.send(committed.and_then(|()| output.ok_or(StoreError::Closed))).is_err();
    }
}

/// Operations that are written together.
#[derive(Default)]
pub(super) struct Group {
    /// In order of arrival.
    pub(super) operations: Vec<Box<dyn Operation>>,
    /// About how many rows they write.
    pub(super) rows: usize,
}

/// What the writer is to do next.
pub(super) enum Next {
    /// Commit this.
    Group(Group),
    /// Nothing came for a while.
    Idle,
    /// Nothing will come any more.
    End,
}

/// The queue between callers and the writer. It has no bound of its own: each caller waits for its answer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    operations: VecDeque<Box<dyn Operation>>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// Puts an operation in line.
    pub(super) fn push(&self, operation: Box<dyn Operation>) -> Result<(), StoreError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        waiting.operations.push_back(operation);
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Refuses new operations; those in line are still done.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.ready.notify_one();
    }

    /// Refuses new operations and answers those in line that the store is closed.
    pub(super) fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.operations);
        drop(waiting);
        for operation in left {
            operation.settle(Err(StoreError::Closed));
        }
    }

    /// Takes what is in line, at once if there is something: a lone caller never waits for company.
    pub(super) fn next(&self, patience: Option<Duration>) -> Next {
        let mut waiting = self.waiting.lock();
        while waiting.operations.is_empty() {
            if waiting.closed {
                return Next::End;
            }
            match patience {
                Some(patience) => {
                    if self.ready.wait_for(&mut waiting, patience).timed_out() && waiting.operations.is_empty() {
                        return Next::Idle;
                    }
                }
                None => self.ready.wait(&mut waiting),
            }
        }
        Next::Group(take_group(&mut waiting.operations))
    }
}

fn take_group(waiting: &mut VecDeque<Box<dyn Operation>>) -> Group {
    let mut group = Group::default();
    let mut total_bytes = 0_usize;
    while let Some(operation) = waiting.front() {
        let (rows, bytes) = operation.weight();
        let full = group.rows.saturating_add(rows) > GROUP_ROWS || total_bytes.saturating_add(bytes) > GROUP_BYTES;
        if full && !group.operations.is_empty() {
            break;
        }
        group.rows = group.rows.saturating_add(rows);
        total_bytes = total_bytes.saturating_add(bytes);
        group.operations.extend(waiting.pop_front());
    }
    group
}
