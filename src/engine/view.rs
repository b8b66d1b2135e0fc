//! What the engine shows of itself: to the admin API, the metrics page and the tests.

use std::sync::Arc;

use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::domain::lane::LaneKey;

/// One moment of the engine.
#[derive(Clone, Debug, Default)]
pub struct EngineView {
    /// Requests that wait for a batch.
    pub queued_requests: u64,
    /// Their bodies' bytes.
    pub queued_bytes: u64,
    /// When the oldest of them was accepted.
    pub oldest_queued_at: Option<Micros>,
    /// Connections on the line.
    pub held_connections: u64,
    /// Lanes that have something queued or in flight.
    pub lanes: Vec<LaneView>,
    /// Whether the process is stopping.
    pub stopping: bool,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneView {
    /// Which.
    pub lane: Arc<LaneKey>,
    /// Requests waiting.
    pub queued_requests: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// When the oldest was accepted.
    pub oldest_queued_at: Option<Micros>,
    /// Batches that have not ended.
    pub open_batches: u64,
    /// Why the lane waits although it is due (a full provider queue, for example).
    pub held_back: Option<String>,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Requests that are being submitted because of it.
    pub requests: u64,
    /// Lanes they were in.
    pub lanes: u64,
}

/// What came of the wish to cancel a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It was queued and is cancelled now.
    Cancelled,
    /// It is in a provider batch.
    AlreadySubmitted,
    /// It had ended before.
    AlreadyEnded,
    /// There is no such request, or it is another caller's.
    NotFound,
}

/// A change of state, for live listeners.
#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// A request changed its state.
    Request {
        /// Which.
        id: RequestId,
        /// The state's word.
        state: &'static str,
    },
    /// A batch changed.
    Batch {
        /// Its local id.
        id: crate::domain::ids::BatchId,
        /// The state's word.
        state: &'static str,
        /// The provider's status.
        provider_status: Option<String>,
    },
}
