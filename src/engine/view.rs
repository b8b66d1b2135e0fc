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
    /// Why the lane waits although it is due.
    pub held_back: Option<HeldBack>,
    /// Estimated prompt tokens that this credential and model may have at the provider now, by configuration or as the
    /// provider's refusals taught; none: no limit is known.
    pub token_ceiling: Option<u64>,
}

/// Why a lane waits although it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// The provider refused a batch because its queue was full.
    QueueFull,
    /// What is in flight takes the tokens that are known to be allowed.
    InFlightTokens,
    /// So many batches were created in the last hour.
    BatchesPerHour,
    /// The store cannot be written.
    Store,
    /// The day's budget is used up.
    Budget,
    /// A test flight has not cleared its template yet.
    Flight,
}

impl HeldBack {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::QueueFull, Self::InFlightTokens, Self::BatchesPerHour, Self::Store, Self::Budget, Self::Flight];

    /// The metric's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::InFlightTokens => "in_flight_tokens",
            Self::BatchesPerHour => "batches_per_hour",
            Self::Store => "store",
            Self::Budget => "budget",
            Self::Flight => "flight",
        }
    }

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "the provider's queue is full (token_limit_exceeded)",
            Self::InFlightTokens => "in_flight_tokens is used up",
            Self::BatchesPerHour => "batches_per_hour is used up",
            Self::Store => "the store cannot be written",
            Self::Budget => "the day's budget is used up (budget.daily_usd, budget.limits): waits for midnight (UTC)",
            Self::Flight => "a test flight has not cleared its template yet (nightbus flights)",
        }
    }
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
