//! Durable state behind one trait with one conformance suite.
//!
//! Invariants that every implementation keeps:
//! - When a method that changes something returns `Ok`, the change is durable (as far as the implementation promises any durability).
//! - A request's state changes only as [`crate::domain::request::RequestState::next`] allows; terminal states never change. A batch's likewise.
//! - Bodies, results and credentials are compressed and sealed at rest; callers see plain bytes.
//! - Each request has at most one result, the first that was recorded.
//!
//! Called by `intake` (accept, look up, cancel, list), `engine` (everything else) and `admin` (listings).

mod callbacks;
pub(crate) mod files;
pub mod flights;
mod keys;
pub mod ledger;
pub mod memory;
pub mod observer;
mod open;
mod rules;
mod seal;
mod services;
mod sqlite;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::batch::{BatchEvent, BatchState};
use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, CallbackId, RequestId};
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};
use crate::domain::request::RequestState;
use crate::domain::trace::TraceContext;
use crate::store::flights::FlightRecord;
use crate::store::ledger::{Charge, Dimension, LedgerReport, LedgerRow, PassedCalls};

pub use crate::store::callbacks::{Callback, CallbackAttempt, CallbackState, CallbackUpdate, NewCallback};
pub use crate::store::observer::{CommitObserver, SharedObserver, no_observer};
pub use crate::store::open::{in_memory, open};
pub use crate::store::services::{LearnedCeiling, LearnedDurations, Limited, LiveCall, RequestOptions};

/// What a store method returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store that is shared by all parts of the process.
pub type SharedStore = Arc<dyn Store>;

/// Why the store could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full or cannot be written. What was stored before is safe; try again later.
    #[error("the store cannot be written: {0}")]
    Unwritable(String),
    /// What is on disk cannot be read as it should: damaged, sealed with another key, or of a newer version.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
    /// Another process uses the same data directory.
    #[error("{0}")]
    Locked(String),
    /// The store was shut down.
    #[error("the store is closed")]
    Closed,
}

/// A request as it is accepted.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// Its id; the store keeps requests in order of [`RequestId::sequence`].
    pub id: RequestId,
    /// The credential that made it: only the same caller may see it.
    pub caller: Fingerprint,
    /// Where it rides.
    pub lane: Arc<LaneKey>,
    /// For cost attribution.
    pub tag: Option<String>,
    /// Name of the client key it came with; for cost attribution, too.
    pub key: Option<String>,
    /// When it was accepted.
    pub created_at: Micros,
    /// By when the answer must be there.
    pub deadline_at: Option<Micros>,
    /// What the caller asked for that is not in the body any more.
    pub options: RequestOptions,
    /// Keyed hash of caller, endpoint and body.
    pub body_hash: Fingerprint,
    /// Keyed hash of the caller's `Idempotency-Key`.
    pub idempotency: Option<Fingerprint>,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Keyed hash of what it has in common with others of its kind (`wire::template`); none: it takes part in no test
    /// flight.
    pub template: Option<Fingerprint>,
    /// The most output tokens it may have; none: it does not say.
    pub most_output: Option<u32>,
    /// The caller's span, from its `traceparent`; none: it sent none.
    pub trace: Option<TraceContext>,
}

impl NewRequest {
    /// The endpoint that its caller called; the lane's is the one that answers.
    pub fn called(&self) -> Endpoint {
        if self.options.has(RequestOptions::FROM_CHAT) { Endpoint::ChatCompletions } else { self.lane.endpoint }
    }
}

/// A request as it is stored, without its bodies.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// What was accepted.
    pub request: NewRequest,
    /// Where it stands.
    pub state: RequestState,
    /// When its last batch was prepared.
    pub submitted_at: Option<Micros>,
    /// When it ended.
    pub finished_at: Option<Micros>,
    /// Its last batch.
    pub batch_id: Option<BatchId>,
    /// How many batches it was in.
    pub attempts: u32,
    /// The live call that answers it, or is to answer it; none: batches only, so far.
    pub live: Option<LiveCall>,
    /// The provider's id of the background response that answers it: [`Store::keep_response`].
    pub response: Option<String>,
    /// How it ended; only in terminal states.
    pub outcome: Option<OutcomeSummary>,
}

/// How a request ended, without the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeSummary {
    /// HTTP status of the answer.
    pub status_code: u16,
    /// As [`crate::domain::service::Service`] names it, or another tier of the provider's; none when nothing was executed.
    pub service: Option<String>,
    /// The provider's `request_id` of the answer.
    pub provider_request_id: Option<String>,
    /// nightbus's own error: code and message.
    pub error: Option<(String, String)>,
    /// Token usage, as JSON of `domain::usage`, empty when unknown.
    pub usage_json: Option<String>,
    /// What was paid, in nano-dollars; none: price unknown.
    pub cost_nanos: Option<i64>,
    /// What the live call would have cost more, in nano-dollars.
    pub saved_nanos: Option<i64>,
}

/// The end of a request.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Which.
    pub id: RequestId,
    /// [`RequestState::Completed`], [`RequestState::Failed`] or [`RequestState::Cancelled`].
    pub state: RequestState,
    /// When.
    pub at: Micros,
    /// The summary.
    pub summary: OutcomeSummary,
    /// The answer's body (none for failures of nightbus's own).
    pub body: Option<Bytes>,
    /// What the execution behind it is charged with; none when nothing was executed, or nothing is billed for it.
    /// It enters the ledger even if the request had ended before, or fails: then as waste.
    pub charge: Option<Charge>,
}

/// A batch as its intent is written.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Its local id.
    pub id: BatchId,
    /// Its lane.
    pub lane: Arc<LaneKey>,
    /// When.
    pub created_at: Micros,
    /// Its lines, in file order.
    pub lines: Vec<RequestId>,
}

/// A batch as it is stored, without its lines.
#[derive(Clone, Debug)]
pub struct BatchRecord {
    /// Its local id.
    pub id: BatchId,
    /// Its lane.
    pub lane: Arc<LaneKey>,
    /// Where it stands.
    pub state: BatchState,
    /// How many lines.
    pub line_count: u32,
    /// When the intent was written.
    pub created_at: Micros,
    /// When the provider's id was recorded.
    pub submitted_at: Option<Micros>,
    /// When it ended and all was durable.
    pub ended_at: Option<Micros>,
    /// What the provider told.
    pub provider: ProviderBatch,
}

/// What is known of a batch at the provider. Fields that are `None` in an update leave the stored value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderBatch {
    /// Uploaded input file.
    pub input_file_id: Option<String>,
    /// The provider's batch id.
    pub batch_id: Option<String>,
    /// Its status, in the provider's word.
    pub status: Option<String>,
    /// Lines answered with 2xx.
    pub completed: Option<u32>,
    /// Lines in the error file.
    pub failed: Option<u32>,
    /// Result file.
    pub output_file_id: Option<String>,
    /// Error file.
    pub error_file_id: Option<String>,
    /// The last error, for people.
    pub error: Option<String>,
}

/// A change of a batch. Applied only if the event is legal in the batch's state.
#[derive(Clone, Debug)]
pub struct BatchUpdate {
    /// Which.
    pub id: BatchId,
    /// When.
    pub at: Micros,
    /// The transition; none: only the details change.
    pub event: Option<BatchEvent>,
    /// The details that became known.
    pub provider: ProviderBatch,
    /// The lines that really are in the uploaded file, in its order, where some had ended before: from now on the
    /// batch's only lines.
    pub lines: Option<Vec<RequestId>>,
}

/// An upstream credential with the headers that belong to it. Sealed at rest.
#[derive(Clone)]
pub struct Account {
    /// Its fingerprint: part of the lane.
    pub fingerprint: Fingerprint,
    /// Provider name.
    pub provider: String,
    /// Header names and values to send; empty where nightbus holds the provider's key itself.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("fingerprint", &self.fingerprint)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Which requests to list: newest first.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only this caller's.
    pub caller: Option<Fingerprint>,
    /// Only in this state.
    pub state: Option<RequestState>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only those before (older than) this one.
    pub after: Option<RequestId>,
    /// At most so many.
    pub limit: usize,
}

/// The answer of a request.
#[derive(Clone, Debug)]
pub struct StoredResult {
    /// The request.
    pub record: RequestRecord,
    /// Its answer's body; none for failures of nightbus's own and unfinished requests.
    pub body: Option<Bytes>,
}

/// Numbers for the admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Requests by state, in the order of [`RequestState::ALL`].
    pub requests: [u64; 5],
    /// Size on disk in bytes.
    pub bytes: u64,
}

/// Durable state.
pub trait Store: Send + Sync + fmt::Debug {
    /// Makes a new request durable. Returns only after its commit.
    fn accept(&self, request: NewRequest, body: Bytes) -> StoreFuture<'_, ()>;

    /// Keeps an upstream credential. Saving the same again is no change.
    fn save_account(&self, account: Account) -> StoreFuture<'_, ()>;

    /// All kept credentials.
    fn accounts(&self) -> StoreFuture<'_, Vec<Account>>;

    /// Writes the intent of a batch: the batch, its lines, and each line's request as submitted, all or nothing.
    /// Requests that are not queued any more (cancelled meanwhile) are left out. Returns the lines that are in, in the given order;
    /// when none is left no batch is written.
    fn create_batch(&self, batch: NewBatch) -> StoreFuture<'_, Vec<RequestId>>;

    /// Applies a change. `false`: the event was illegal in the batch's state and nothing changed.
    fn update_batch(&self, update: BatchUpdate) -> StoreFuture<'_, bool>;

    /// One batch.
    fn batch(&self, id: BatchId) -> StoreFuture<'_, Option<BatchRecord>>;

    /// Batches newest first, `after` exclusive; `open`: only those that have not ended.
    fn batches(&self, open: bool, after: Option<BatchId>, limit: usize) -> StoreFuture<'_, Vec<BatchRecord>>;

    /// The lines of a batch, in file order, whatever their state now.
    fn batch_lines(&self, id: BatchId) -> StoreFuture<'_, Vec<RequestId>>;

    /// The bodies of requests, in the given order; ids without a stored body are left out.
    fn bodies(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<(RequestId, Bytes)>>;

    /// Ends requests. For each: whether it was this call that ended it (`false`: it had ended before, or is unknown).
    /// Charges enter the ledger in the same transaction, each execution once (see [`ledger`]).
    fn finish(&self, finished: Vec<Finish>) -> StoreFuture<'_, Vec<bool>>;

    /// Puts submitted requests of `batch` back into the queue; others, and those that a live call is to answer, are left
    /// as they are. Returns those requeued.
    /// `counts`: the batch was an attempt; without, it is taken back from the request's count (the line never had a chance to run).
    fn requeue(&self, batch: BatchId, ids: Vec<RequestId>, counts: bool) -> StoreFuture<'_, Vec<RequestId>>;

    /// Writes down that a live call answers requests from now on: those that have not ended are `submitted`, keep the
    /// moment at which this was first written, and belong to no batch's retries any more. Returns those.
    fn mark_live(&self, ids: Vec<RequestId>, call: LiveCall) -> StoreFuture<'_, Vec<RequestId>>;

    /// Writes down the provider's id of the background response that the live call has begun, until another call is marked.
    /// `false`: the request has ended, or no call of its is out.
    fn keep_response(&self, id: RequestId, response: String) -> StoreFuture<'_, bool>;

    /// Keeps how long a model's batches took, in place of what was kept of the same before.
    fn keep_durations(&self, learned: LearnedDurations) -> StoreFuture<'_, ()>;

    /// All that is known of how long batches take.
    fn durations(&self) -> StoreFuture<'_, Vec<LearnedDurations>>;

    /// Keeps what a refusal taught of a limit, in place of what was kept of the same before, and drops what was learned
    /// before `forget`.
    fn keep_ceiling(&self, learned: LearnedCeiling, forget: Micros) -> StoreFuture<'_, ()>;

    /// All kept ceilings.
    fn ceilings(&self) -> StoreFuture<'_, Vec<LearnedCeiling>>;

    /// Keeps a test flight, in place of what was kept of its template before, and drops those that were decided before
    /// `forget`.
    fn keep_flight(&self, flight: FlightRecord, forget: Micros) -> StoreFuture<'_, ()>;

    /// All kept test flights.
    fn flights(&self) -> StoreFuture<'_, Vec<FlightRecord>>;

    /// Sets bits of requests' options (such as [`RequestOptions::DELIVERED`]).
    fn set_options(&self, ids: Vec<RequestId>, bits: i64) -> StoreFuture<'_, ()>;

    /// One request without its answer.
    fn request(&self, id: RequestId) -> StoreFuture<'_, Option<RequestRecord>>;

    /// Many requests without their answers, in the given order; unknown ids are left out.
    fn records(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<RequestRecord>> {
        Box::pin(async move {
            let mut records = Vec::with_capacity(ids.len());
            for id in ids {
                records.extend(self.request(id).await?);
            }
            Ok(records)
        })
    }

    /// The request that was accepted with this hash of an `Idempotency-Key`; the newest, if there are more.
    fn find_idempotent(&self, key: Fingerprint) -> StoreFuture<'_, Option<RequestRecord>>;

    /// One request with its answer.
    fn result(&self, id: RequestId) -> StoreFuture<'_, Option<StoredResult>>;

    /// Requests, newest first.
    fn list(&self, filter: ListFilter) -> StoreFuture<'_, Vec<RequestRecord>>;

    /// Requests that are queued, submitted, or ended but not delivered, oldest first: what a restart needs. `after` exclusive, at most `limit`.
    fn unfinished(&self, after: Option<RequestId>, limit: usize) -> StoreFuture<'_, Vec<RequestRecord>>;

    /// Deletes at most `limit` requests that ended before `before`, the oldest ends first, and ended batches created before it none of
    /// whose lines is left. Returns how many requests.
    fn expire(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize>;

    /// Adds live calls that passed through to the ledger's sums.
    fn record_calls(&self, calls: Vec<PassedCalls>) -> StoreFuture<'_, ()>;

    /// What was spent in the hours since the one that `since` is in, as a whole and divided `by`.
    fn ledger(&self, since: Micros, by: Option<Dimension>) -> StoreFuture<'_, LedgerReport>;

    /// What the executions of requests are charged with.
    fn charges(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<LedgerRow>>;

    /// Drops at most `limit` of the ledger's rows whose requests were made before `before` and are gone, the oldest
    /// first. Their sums stay. Returns how many.
    fn expire_ledger(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize>;

    /// Writes down that somebody wants to be called when a request has ended. The same again is no change. It may come
    /// before the request is accepted, or after it has ended: then the callback is due at once.
    fn add_callback(&self, callback: NewCallback) -> StoreFuture<'_, ()>;

    /// Callbacks of ended requests that are still to be delivered, the earliest first, those of later moments too.
    /// [`Store::finish`] makes them due, in the same transaction.
    fn due_callbacks(&self, limit: usize) -> StoreFuture<'_, Vec<Callback>>;

    /// Writes down what an attempt to deliver came to. `false`: there is no such callback any more.
    fn record_callback(&self, update: CallbackUpdate) -> StoreFuture<'_, bool>;

    /// Has an ended request's callback delivered once more, from `at` on. None: there is no such callback; `false`: its
    /// request has not ended.
    fn redeliver_callback(&self, id: CallbackId, at: Micros) -> StoreFuture<'_, Option<bool>>;

    /// Callbacks, those of the newest requests first, `after` exclusive; with `state` only those.
    fn callbacks(
        &self,
        state: Option<CallbackState>,
        after: Option<CallbackId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Callback>>;

    /// The largest sequence number ever stored, or 0.
    fn last_sequence(&self) -> StoreFuture<'_, i64>;

    /// Counts.
    fn stats(&self) -> StoreFuture<'_, StoreStats>;

    /// Proves that a write can be made durable now.
    fn check(&self) -> StoreFuture<'_, ()>;

    /// A keyed fingerprint under this store's key: the same input gives the same value over restarts.
    fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint;

    /// Flushes and closes. Later calls answer [`StoreError::Closed`].
    fn close(&self) -> StoreFuture<'_, ()>;
}
