//! Batches: creating, reading, listing and cancelling them (providers.md, sections 1.3 and 1.4).
//!
//! Creating checks the request's own fields and nothing else: neither the input file nor its lines are looked at
//! before `life` does so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::StatusCode;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sim::answers::{Endpoint, Usage};
use crate::sim::dialect::Dialect;
use crate::sim::faults::Fault;
use crate::sim::order::Order;
use crate::sim::reply::{self, ApiFailure, Failure, Outcome};
use crate::sim::server::Query;
use crate::sim::state::{Account, State};
use crate::sim::validate::LineError;
use crate::sim::{life, view};

/// Where a batch is in its life (providers.md, section 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Cancelled,
    Cancelling,
    Completed,
    Expired,
    Failed,
    Finalizing,
    InProgress,
    Validating,
}

impl Status {
    /// As the provider spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Finalizing => "finalizing",
            Self::InProgress => "in_progress",
            Self::Validating => "validating",
        }
    }
}

/// A batch: what it was created with, and how far it is.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) account: Account,
    pub(super) endpoint: Endpoint,
    pub(super) input_file_id: String,
    pub(super) metadata: Value,
    pub(super) window: String,
    /// The provider had not yet looked at the file, and should have been waited for.
    pub(super) file_was_not_settled: bool,
    /// The model of all lines, where the creation named it.
    pub(super) job_model: Option<String>,
    /// Seconds that its result files live; `None`: 30 days.
    pub(super) output_lifetime: Option<i64>,
    pub(super) created_at: i64,
    pub(super) started: Instant,
    pub(super) progress: Mutex<Progress>,
    /// Fires when somebody asks to cancel the batch.
    pub(super) cancel: CancellationToken,
    /// Fires when the simulator forgets the batch.
    pub(super) forget: CancellationToken,
}

/// How far a batch is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) status: Status,
    pub(super) model: Option<String>,
    pub(super) errors: Vec<LineError>,
    pub(super) total: usize,
    pub(super) completed: usize,
    pub(super) failed: usize,
    pub(super) usage: Usage,
    pub(super) running_since: Option<Instant>,
    /// The batch does not get on: half of it is done, and stays so.
    pub(super) stuck: bool,
    /// When each status was entered, Unix seconds.
    pub(super) times: Vec<(Status, i64)>,
    pub(super) output_file_id: Option<String>,
    pub(super) error_file_id: Option<String>,
    /// Reads of the completed batch that do not show the file ids yet.
    pub(super) hidden_reads: u32,
}

impl Progress {
    /// Enters `status` at `now`, once.
    pub(super) fn enter(&mut self, status: Status, now: i64) {
        self.status = status;
        if !self.times.iter().any(|(known, _)| *known == status) {
            self.times.push((status, now));
        }
    }

    /// When `status` was entered.
    pub(super) fn time_of(&self, status: Status) -> Option<i64> {
        self.times.iter().find(|(known, _)| *known == status).map(|(_, at)| *at)
    }
}

/// All batches.
#[derive(Debug, Default)]
pub(super) struct Batches(RwLock<Ledger>);

#[derive(Debug, Default)]
struct Ledger {
    /// In order of creation.
    in_order: BTreeMap<u64, Arc<Batch>>,
    by_id: HashMap<String, u64>,
}

impl Batches {
    fn insert(&self, batch: &Arc<Batch>) {
        let mut ledger = self.0.write();
        ledger.by_id.insert(batch.id.clone(), batch.number);
        ledger.in_order.insert(batch.number, Arc::clone(batch));
    }

    fn get(&self, account: &Account, id: &str) -> Option<Arc<Batch>> {
        let ledger = self.0.read();
        let batch = ledger.in_order.get(ledger.by_id.get(id)?)?;
        (batch.account == *account).then(|| Arc::clone(batch))
    }

    /// All of them, newest first.
    pub(super) fn newest_first(&self) -> Vec<Arc<Batch>> {
        self.0.read().in_order.values().rev().map(Arc::clone).collect()
    }

    /// Forgets and stops all of them.
    pub(super) fn clear(&self) {
        for batch in std::mem::take(&mut *self.0.write()).in_order.into_values() {
            batch.forget.cancel();
        }
    }
}

/// `POST /batches`.
pub(super) fn create(state: &Arc<State>, account: &Account, body: &[u8]) -> Outcome {
    let order = Order::checked(state, account, body)?;
    if state.faults.take(Fault::Create500) {
        return Err(ApiFailure::server().into());
    }
    if state.faults.take(Fault::Create429) {
        return Err(ApiFailure::rate_limit(120).into());
    }
    if state.faults.take(Fault::Quota) {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        let mut failure = ApiFailure::invalid(429, "insufficient_quota", None, message);
        failure.kind = "insufficient_quota";
        return Err(failure.into());
    }
    if state.faults.take(Fault::Billing) {
        let message = "Billing hard limit has been reached.";
        return Err(ApiFailure::invalid(400, "billing_hard_limit_reached", None, message).into());
    }
    if !state.creates.admit(account) {
        return Err(ApiFailure::rate_limit(60).into());
    }
    let batch = Arc::new(order.into_batch(state, account));
    state.batches.insert(&batch);
    state.counters.batch_created();
    let mut answer = view::object(state, &batch);
    if account.dialect == Dialect::Together {
        answer = json!({"job": answer, "warning": null});
    }
    state.tasks.spawn("sim-batch", life::run(Arc::clone(state), batch));
    if state.faults.take(Fault::CreateLost) {
        return Err(Failure::Cut);
    }
    if state.faults.take(Fault::Create500After) {
        return Err(ApiFailure::server().into());
    }
    let mut answer = reply::ok(&answer);
    if account.dialect == Dialect::OpenRouter {
        *answer.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(answer)
}

/// `GET /batches/{id}`.
pub(super) fn get(state: &State, account: &Account, id: &str) -> Outcome {
    Ok(reply::ok(&shown(state, account, id)?))
}

/// What a look at a batch shows.
pub(super) fn shown(state: &State, account: &Account, id: &str) -> Result<Value, Failure> {
    let batch = find(state, account, id)?;
    if state.faults.take(Fault::Poll500) {
        return Err(ApiFailure::server().into());
    }
    if state.faults.take(Fault::Poll404) {
        return Err(no_such_batch(id));
    }
    if state.faults.take(Fault::PollCut) {
        return Err(Failure::Cut);
    }
    Ok(view::read(state, &batch))
}

/// `GET /batches`.
pub(super) fn list(state: &State, account: &Account, query: &Query) -> Outcome {
    if !account.dialect.rules().lists {
        return Err(reply::not_found(None, "There is no list of batches here."));
    }
    let by_page = account.dialect == Dialect::Mistral;
    let limit = query.number(if by_page { "page_size" } else { "limit" }, 1..=100, 20)?;
    let mut batches = listed(state, account)?;
    if let Some(after) = query.get("after") {
        let Some(at) = batches.iter().position(|batch| batch.id == after) else {
            return Err(no_such_batch(after));
        };
        batches.drain(..=at);
    }
    if by_page {
        let skipped = query.number("page", 0..=1_000_000, 0)?.saturating_mul(limit);
        batches.drain(..skipped.min(batches.len()));
    }
    let has_more = batches.len() > limit && account.dialect != Dialect::Together;
    if has_more {
        batches.truncate(limit);
    }
    let batches = batches.iter().map(|batch| view::object(state, batch)).collect();
    Ok(reply::ok(&account.dialect.list(batches, has_more)))
}

/// The batches of `account` as a list shows them, newest first.
pub(super) fn listed(state: &State, account: &Account) -> Result<Vec<Arc<Batch>>, Failure> {
    if state.faults.take(Fault::List500) {
        return Err(ApiFailure::server().into());
    }
    let mut batches = state.batches.newest_first();
    batches.retain(|batch| batch.account == *account);
    if !batches.is_empty() && state.faults.take(Fault::ListStale) {
        batches.remove(0);
    }
    Ok(batches)
}

/// `POST /batches/{id}/cancel`.
pub(super) fn cancel(state: &State, account: &Account, id: &str) -> Outcome {
    let batch = find(state, account, id)?;
    if state.faults.take(Fault::Cancel500) {
        return Err(ApiFailure::server().into());
    }
    {
        let mut progress = batch.progress.lock();
        match progress.status {
            Status::Validating | Status::InProgress => {
                view::freeze_counts(state, &mut progress);
                progress.enter(Status::Cancelling, state.clock.unix_now());
                batch.cancel.cancel();
                state.counters.batch_cancelled();
            }
            Status::Cancelling => {}
            status
            @ (Status::Cancelled | Status::Completed | Status::Expired | Status::Failed | Status::Finalizing) => {
                let message = format!("Cannot cancel a batch with status '{}'.", status.name());
                return Err(ApiFailure::invalid(409, None, None, message).into());
            }
        }
    }
    Ok(reply::ok(&view::object(state, &batch)))
}

/// The batch `id` of `account`.
///
/// # Errors
/// 404, also for a batch of somebody else.
pub(super) fn find(state: &State, account: &Account, id: &str) -> Result<Arc<Batch>, Failure> {
    state.batches.get(account, id).ok_or_else(|| no_such_batch(id))
}

fn no_such_batch(id: &str) -> Failure {
    reply::not_found(None, format!("No batch found with id '{id}'."))
}
