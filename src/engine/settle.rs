//! What becomes of requests whose line gave no answer: queued again, or ended with an error that says why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::batch::BatchEvent;
use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::request::RequestState;
use crate::domain::service::Service;
use crate::engine::bisect::Apart;
use crate::engine::charge::unreadable;
use crate::engine::context::Context;
use crate::engine::fallback::take_over;
use crate::engine::outcome::finish_of;
use crate::engine::plan::Queued;
use crate::engine::run::{StepError, give_back};
use crate::engine::submit::record;
use crate::engine::view::HeldBack;
use crate::engine::waiters::Answer;
use crate::store::ledger::{Execution, LedgerRow};
use crate::store::{BatchRecord, Finish, NewRequest, OutcomeSummary, ProviderBatch, RequestRecord};
use crate::telemetry::Ended;
use crate::upstream::provider::ProviderError;
use crate::wire::batch::BatchFault;
use crate::wire::line::{LineForm, LineOutcome, line_length};

/// Requests are ended and queued again in groups, so that a large batch does not become one large transaction.
const GROUP: usize = 1_000;

/// An error for the callers of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// Stable code.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
    /// The provider's own error body, where there is one: then the caller gets exactly that.
    pub(crate) body: Option<Bytes>,
    /// Why another service may serve the request all the same; none: it may not, because it may have been executed, or
    /// because a live call would be refused as well.
    pub(crate) fall_back: Option<&'static str>,
    /// It was executed and billed, at a price that nobody can tell any more.
    pub(crate) executed: bool,
}

/// Batch cannot serve this credential and model at all: worth remembering.
pub(crate) const BATCH_REFUSED: &str = "batch_refused";
/// Refusals that a live call would meet as well.
const NO_MONEY: [&str; 3] = ["insufficient_quota", "billing_hard_limit_reached", "billing_error"];

impl Refusal {
    /// nightbus could not get an answer.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self {
            status: 502,
            code: "batch_failed".to_owned(),
            message: message.into(),
            body: None,
            fall_back: None,
            executed: false,
        }
    }

    /// Another service may serve the request.
    pub(crate) fn or_fall_back(self, why: &'static str) -> Self {
        Self { fall_back: Some(why), ..self }
    }

    /// The provider's answer is there and cannot be read.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self { executed: true, ..Self::own(message) }
    }

    /// The provider refused the upload or the batch itself: its callers get what a live call would have told them. What
    /// is not JSON (a gateway's page) is not the API's answer and is not passed on as one; only its status is named.
    pub(crate) fn from_provider(error: &ProviderError) -> Self {
        let batch_alone = match error {
            ProviderError::Refused { status, code, .. } => *status != 401 && !NO_MONEY.contains(&code.as_str()),
            ProviderError::NoAnswer { .. } | ProviderError::Unreadable { .. } => false,
        };
        let refusal = Self::told_by(error);
        if batch_alone { refusal.or_fall_back(BATCH_REFUSED) } else { refusal }
    }

    fn told_by(error: &ProviderError) -> Self {
        match error {
            ProviderError::Refused { operation, status, .. } if error.has_no_batch_api() => Self::own(format!(
                "the provider has no Batch API under its base_url (it answered {status} to the {operation}): send the call live, or take another provider"
            )),
            ProviderError::Refused { status, code, message, body, .. }
                if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() =>
            {
                let (code, message, body) = (code.clone(), message.clone(), Some(body.clone()));
                Self { status: *status, code, message, body, fall_back: None, executed: false }
            }
            ProviderError::Refused { operation, status, .. } => Self::own(format!(
                "the provider refused the {operation} with {status}, without an error that its API knows: send the call live, or ask the provider"
            )),
            ProviderError::NoAnswer { .. } | ProviderError::Unreadable { .. } => Self::own(error.to_string()),
        }
    }

    /// A fault that the provider found in the file: an error in its own envelope (providers.md, section 1.15).
    pub(crate) fn from_fault(fault: &BatchFault) -> Self {
        let body = serde_json::json!({"error": {
            "message": fault.message,
            "type": "invalid_request_error",
            "param": fault.param.as_deref().map(|param| param.strip_prefix("body.").unwrap_or(param)),
            "code": fault.code,
        }});
        Self {
            status: 400,
            code: fault.code.clone(),
            message: fault.message.clone(),
            body: Some(Bytes::from(body.to_string())),
            fall_back: None,
            executed: false,
        }
    }

    /// A fault that is no line's own: the file was refused as a whole.
    pub(crate) fn from_whole_fault(fault: &BatchFault) -> Self {
        let refusal = Self::from_fault(fault);
        if NO_MONEY.contains(&fault.code.as_str()) { refusal } else { refusal.or_fall_back(BATCH_REFUSED) }
    }

    /// The end of a request by it, before anything is said of what was billed.
    pub(crate) fn finish(&self, context: &Context, id: RequestId) -> Finish {
        Finish {
            id,
            state: RequestState::Failed,
            at: context.now(),
            summary: OutcomeSummary {
                status_code: self.status,
                service: None,
                provider_request_id: None,
                error: Some((self.code.clone(), self.message.clone())),
                usage_json: None,
                cost_nanos: None,
                saved_nanos: None,
            },
            body: self.body.clone(),
            charge: None,
        }
    }
}

/// Ends requests: durable first, then their waiters hear of it. Returns how many were ended by this call. `began`: since
/// when they were served; `batch`: their last one.
pub(crate) async fn finish(
    context: &Context,
    began: Micros,
    batch: Option<BatchId>,
    finished: Vec<Finish>,
) -> Result<usize, StepError> {
    let mut ended = 0;
    let mut waiters = context.waiters.hand_out();
    let mut perhaps_wasted = Vec::new();
    let applied = context.store.finish(finished.clone()).await?;
    crate::crash::point("results-recorded");
    for (finish, applied) in finished.into_iter().zip(applied) {
        if let Some(charge) = finish.charge.as_ref().filter(|_| !applied || finish.state != RequestState::Completed) {
            perhaps_wasted.push((finish.id, charge.execution, finish.at));
        }
        if applied {
            ended += 1;
            let wait = finish.at.since(began);
            context.telemetry.request_finished(
                finish.summary.service.as_deref().unwrap_or_default(),
                finish.summary.status_code,
                wait,
            );
            context.telemetry.ended(Ended::Request(finish.id));
            if let (Some(cost), Some(saved)) = (finish.summary.cost_nanos, finish.summary.saved_nanos) {
                context.telemetry.request_priced(cost, saved);
            }
            context.announce_request(finish.id, finish.state.as_str());
            let answer = Answer {
                state: finish.state,
                summary: finish.summary,
                finished_at: finish.at,
                batch_id: batch,
                body: finish.body,
            };
            waiters.wake(finish.id, answer).await;
        }
    }
    tell_waste(context, perhaps_wasted).await?;
    Ok(ended)
}

/// Tells what the ledger has just entered as waste: answers that came after their request had ended otherwise, or that
/// cannot be used. An execution that was in it before, read once more after a crash, is none.
async fn tell_waste(context: &Context, executed: Vec<(RequestId, Execution, Micros)>) -> Result<(), StepError> {
    if executed.is_empty() {
        return Ok(());
    }
    // All at once: after a crash that is a group of results in which most were known.
    let rows = context.store.charges(executed.iter().map(|(id, ..)| *id).collect()).await?;
    let rows: HashMap<(i64, i64), LedgerRow> = rows.into_iter().map(|row| ((row.request, row.place), row)).collect();
    let mut told = HashSet::new();
    for (id, execution, at) in executed {
        let entered = rows.get(&(id.sequence(), execution.place())).filter(|row| row.at == at && row.wasted);
        if let Some(row) = entered.filter(|row| told.insert((id, row.place))) {
            context.telemetry.answer_wasted(id, &row.group.service, row.price.map(|price| price.paid_nanos));
        }
    }
    Ok(())
}

/// Ends the given requests with one error.
pub(crate) async fn refuse(
    context: &Context,
    batch: &BatchRecord,
    ids: &[RequestId],
    refusal: &Refusal,
) -> Result<usize, StepError> {
    let mut ended = 0;
    for group in ids.chunks(GROUP) {
        let charge = || refusal.executed.then(|| unreadable(&batch.lane, (Service::Batch, Execution::Batch(batch.id))));
        let finished = group.iter().map(|id| Finish { charge: charge(), ..refusal.finish(context, *id) }).collect();
        ended += finish(context, batch.created_at, Some(batch.id), finished).await?;
    }
    Ok(ended)
}

/// The batch was refused as a whole for a lasting reason: every caller gets that error.
pub(crate) async fn fail_all(context: &Arc<Context>, batch: &BatchRecord, refusal: &Refusal) -> Result<(), StepError> {
    let lines = context.store.batch_lines(batch.id).await?;
    let mut tally = Tally::default();
    for group in lines.chunks(GROUP) {
        let still = riding(context, batch, group.to_vec()).await?;
        tally.add(refuse_or_fall_back(context, batch, still, refusal).await?);
    }
    if tally.handed > 0 && refusal.fall_back == Some(BATCH_REFUSED) {
        context.refused.remember(&batch.lane, Service::Batch, &refusal.message);
    }
    end_batch(context, batch, BatchEvent::Fail, tally, Some(refusal.message.clone())).await
}

/// Ends requests with one error; those that another service may serve are handed over to it.
async fn refuse_or_fall_back(
    context: &Arc<Context>,
    batch: &BatchRecord,
    records: Vec<RequestRecord>,
    refusal: &Refusal,
) -> Result<Tally, StepError> {
    let (rest, handed) = match refusal.fall_back {
        Some(why) => take_over(context, &batch.lane, records, why).await?,
        None => (records, 0),
    };
    let rest: Vec<RequestId> = rest.iter().map(|record| record.request.id).collect();
    let failed = refuse(context, batch, &rest, refusal).await?;
    Ok(Tally { handed, failed, ..Tally::default() })
}

/// Those of `ids` that still ride in this batch. When a batch is settled again after a crash, some of its lines have
/// ended, and some are queued again, ride in a later batch or are called live: those are not this batch's business any more.
pub(crate) async fn riding(
    context: &Context,
    batch: &BatchRecord,
    ids: Vec<RequestId>,
) -> Result<Vec<RequestRecord>, StepError> {
    let mut records = context.store.records(ids).await?;
    records.retain(|record| {
        record.state == RequestState::Submitted && record.batch_id == Some(batch.id) && record.live.is_none()
    });
    Ok(records)
}

/// How a batch's lines ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    pub(crate) requeued: usize,
    /// Handed over to live calls.
    pub(crate) handed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// Adds another one's numbers.
    pub(crate) const fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.requeued += other.requeued;
        self.handed += other.handed;
        self.failed += other.failed;
    }
}

/// Records the end of a batch, after all its lines are settled.
pub(crate) async fn end_batch(
    context: &Context,
    batch: &BatchRecord,
    event: BatchEvent,
    tally: Tally,
    error: Option<String>,
) -> Result<(), StepError> {
    record(context, batch, Some(event), ProviderBatch { error, ..ProviderBatch::default() }).await?;
    let state = batch.state.next(event).map_or("other", |state| state.as_str());
    let took = context.now().since(batch.created_at);
    context.telemetry.batch_ended(batch.id, state, tally.answered, tally.requeued + tally.handed, tally.failed, took);
    Ok(())
}

/// Lines that certainly never ran, or may be tried again: back into the queue while they have attempts left, else
/// handed over or ended with `refusal`.
pub(crate) async fn requeue_or_refuse(
    context: &Arc<Context>,
    batch: &BatchRecord,
    ids: &[RequestId],
    why: &'static str,
    refusal: &Refusal,
) -> Result<Tally, StepError> {
    let mut tally = Tally::default();
    for group in ids.chunks(GROUP) {
        let records = riding(context, batch, group.to_vec()).await?;
        let most = context.settings().batching.max_attempts;
        let (again, spent): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.attempts < most);
        tally.add(refuse_or_fall_back(context, batch, spent, refusal).await?);
        let apart = context.suspects.part_of(batch.id);
        tally.requeued += requeue(context, batch, again, why, Again { apart, ..Again::default() }).await?;
    }
    Ok(tally)
}

/// Lines whose own outcome may be tried again: back into the queue while they have attempts left; else another service
/// serves them, or that outcome is their answer.
pub(crate) async fn try_again(
    context: &Arc<Context>,
    batch: &BatchRecord,
    lines: Vec<(RequestId, LineOutcome)>,
) -> Result<Tally, StepError> {
    let mut tally = Tally::default();
    for group in lines.chunks(GROUP) {
        let records = riding(context, batch, group.iter().map(|(id, _)| *id).collect()).await?;
        let most = context.settings().batching.max_attempts;
        let (again, spent): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.attempts < most);
        let (spent, handed) = take_over(context, &batch.lane, spent, "attempts_exhausted").await?;
        tally.handed += handed;
        let outcomes: HashMap<RequestId, &LineOutcome> = group.iter().map(|(id, outcome)| (*id, outcome)).collect();
        let spent = spent.iter().filter_map(|record| {
            let id = record.request.id;
            let outcome = (*outcomes.get(&id)?).clone();
            Some(finish_of(context, &batch.lane, (Service::Batch, Execution::Batch(batch.id)), id, outcome))
        });
        tally.answered += finish(context, batch.created_at, Some(batch.id), spent.collect()).await?;
        tally.requeued += requeue(context, batch, again, "line_failed", Again::default()).await?;
    }
    Ok(tally)
}

/// How requests are queued again.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// Their lane waits so long, and why.
    pub(crate) hold_back: Option<(Duration, HeldBack)>,
    /// They share their next batch with nobody else.
    pub(crate) apart: Option<Apart>,
}

/// Back into the queue, in the store first.
pub(crate) async fn requeue(
    context: &Context,
    batch: &BatchRecord,
    records: Vec<RequestRecord>,
    why: &'static str,
    how: Again,
) -> Result<usize, StepError> {
    let ids = records.iter().map(|record| record.request.id).collect();
    let counts = !NO_ATTEMPT.contains(&why);
    let requeued = context.store.requeue(batch.id, ids, counts).await?;
    crate::crash::point("requeued");
    let by_id: HashMap<RequestId, &RequestRecord> = records.iter().map(|record| (record.request.id, record)).collect();
    let queued: Vec<Queued> = requeued
        .iter()
        .filter_map(|id| by_id.get(id))
        .map(|record| Queued { apart: how.apart.clone(), ..queued_of(context, &record.request) })
        .collect();
    context.telemetry.requests_requeued(queued.len(), why);
    let count = queued.len();
    if count > 0 {
        give_back(context, &batch.lane, queued, how.hold_back);
    }
    Ok(count)
}

/// Gives up a batch that does not exist at the provider when live calls answer some of the lines in its file: to create
/// it would buy those twice. The others ride again, in a file without them. `false`: no line was handed over.
pub(crate) async fn ride_without_handed_over(context: &Arc<Context>, batch: &BatchRecord) -> Result<bool, StepError> {
    let lines = context.store.batch_lines(batch.id).await?;
    if !context.store.records(lines.clone()).await?.iter().any(|record| record.live.is_some()) {
        return Ok(false);
    }
    let rest = riding(context, batch, lines).await?;
    let requeued = requeue(context, batch, rest, "another_line_was_handed_over", Again::default()).await?;
    let why = "live calls answer some of its lines: the others ride in another batch".to_owned();
    end_batch(context, batch, BatchEvent::Fail, Tally { requeued, ..Tally::default() }, Some(why)).await?;
    Ok(true)
}

/// Reasons for which a line had no chance to run: they take nothing from its attempts.
const NO_ATTEMPT: [&str; 5] = [
    "token_limit_exceeded",
    "another_line_was_refused",
    "another_line_was_handed_over",
    "search_for_a_bad_line",
    "file_too_large",
];

/// A stored request as the dispatcher holds it.
pub(crate) fn queued_of(context: &Context, request: &NewRequest) -> Queued {
    // For limits: no provider of the API has longer lines.
    let form = LineForm::of(request.lane.endpoint.api());
    Queued {
        id: request.id,
        line_bytes: line_length(form, request.lane.endpoint, u64::from(request.body_len)),
        inputs: request.options.inputs(),
        caller: request.caller,
        accepted_at: request.created_at,
        fallback: request.options.fallback(),
        since: Instant::now(),
        leave_by: None,
        apart: None,
        template: request.template,
        most_output: request.most_output,
        estimate: 0,
        purses: context.budget.purses(request.tag.as_deref(), request.key.as_deref()),
    }
}

#[cfg(test)]
mod tests;
