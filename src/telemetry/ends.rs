//! What has ended, for whoever makes spans of it: ids alone, because everything else is durable by then.
//!
//! Nobody waits: where nobody listens it costs one look, and what a slow listener has no room for is counted as lost.

use tokio::sync::mpsc;

use super::Telemetry;
use crate::domain::ids::{BatchId, RequestId};

/// Something whose end is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A request has its answer, its error, or was withdrawn.
    Request(RequestId),
    /// A batch and all its lines are settled.
    Batch(BatchId),
}

impl Telemetry {
    /// From now on ends are told to the receiver; `room` of them may wait there. None: somebody else hears of them.
    pub fn listen_to_ends(&self, room: usize) -> Option<mpsc::Receiver<Ended>> {
        let (sender, receiver) = mpsc::channel(room);
        self.inner.ends.set(sender).ok().map(|()| receiver)
    }

    /// The end is durable.
    pub fn ended(&self, ended: Ended) {
        if let Some(listener) = self.inner.ends.get()
            && listener.try_send(ended).is_err()
        {
            self.traces_exported("no_room", 1);
        }
    }
}
