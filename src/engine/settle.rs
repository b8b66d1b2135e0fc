//! What becomes of requests whose line gave no answer: queued again, or ended with an error that says why.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::batch::BatchEvent;
use crate::domain::ids::RequestId;
use crate::domain::request::RequestState;
use crate::engine::context::Context;
use crate::engine::outcome::finish_of;
use crate::engine::plan::Queued;
use crate::engine::run::{StepError, give_back};
use crate::engine::submit::record;
use crate::engine::waiters::Answer;
use crate::store::{BatchRecord, Finish, OutcomeSummary, ProviderBatch, RequestRecord};
use crate::upstream::provider::ProviderError;
use crate::wire::batch::{BatchFault, BatchObject};
use crate::wire::line::{LineOutcome, line_length};

/// Requests are ended and queued again in groups, so that a large batch does not become one large transaction.
const GROUP: usize = 1_000;

/// How long a lane waits after the provider's queue was full, unless one of its own batches ends before. Shorter where
/// batches are polled so often that this would be long.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(30);

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
}

impl Refusal {
    /// nightbus could not get an answer.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self { status: 502, code: "batch_failed".to_owned(), message: message.into(), body: None }
    }

    /// The provider refused the upload or the batch itself: its callers get what a live call would have told them. What
    /// is not JSON (a gateway's page) is not the API's answer and is not passed on as one; only its status is named.
    pub(crate) fn from_provider(error: &ProviderError) -> Self {
        match error {
            ProviderError::Refused { operation, status, .. } if error.has_no_batch_api() => Self::own(format!(
                "the provider has no Batch API under its base_url (it answered {status} to the {operation}): send the call live, or take another provider"
            )),
            ProviderError::Refused { status, code, message, body, .. }
                if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() =>
            {
                Self { status: *status, code: code.clone(), message: message.clone(), body: Some(body.clone()) }
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
        }
    }

    fn finish(&self, context: &Context, id: RequestId) -> Finish {
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
        }
    }
}

/// Ends requests: durable first, then their waiters hear of it. Returns how many were ended by this call.
pub(crate) async fn finish(context: &Context, batch: &BatchRecord, finished: Vec<Finish>) -> Result<usize, StepError> {
    let mut ended = 0;
    let applied = context.store.finish(finished.clone()).await?;
    crate::crash::point("results-recorded");
    for (finish, applied) in finished.into_iter().zip(applied) {
        if applied {
            ended += 1;
            let wait = finish.at.since(batch.created_at);
            context.telemetry.request_finished(
                finish.summary.service.as_deref().unwrap_or_default(),
                finish.summary.status_code,
                wait,
            );
            if let (Some(cost), Some(saved)) = (finish.summary.cost_nanos, finish.summary.saved_nanos) {
                context.telemetry.request_priced(cost, saved);
            }
            context.announce_request(finish.id, finish.state.as_str());
            context.waiters.wake(
                finish.id,
                Answer {
                    state: finish.state,
                    summary: finish.summary,
                    finished_at: finish.at,
                    batch_id: Some(batch.id),
                    body: finish.body,
                },
            );
        }
    }
    Ok(ended)
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
        ended += finish(context, batch, group.iter().map(|id| refusal.finish(context, *id)).collect()).await?;
    }
    Ok(ended)
}

/// The batch was refused as a whole for a lasting reason: every caller gets that error.
pub(crate) async fn fail_all(context: &Context, batch: &BatchRecord, refusal: &Refusal) -> Result<(), StepError> {
    let lines = context.store.batch_lines(batch.id).await?;
    let mut failed = 0;
    for group in lines.chunks(GROUP) {
        let still: Vec<RequestId> =
            riding(context, batch, group.to_vec()).await?.iter().map(|record| record.request.id).collect();
        failed += refuse(context, batch, &still, refusal).await?;
    }
    end_batch(context, batch, BatchEvent::Fail, Tally { failed, ..Tally::default() }, Some(refusal.message.clone()))
        .await
}

/// Those of `ids` that still ride in this batch. When a batch is settled again after a crash, some of its lines have
/// ended, and some are queued again or ride in a later batch: those are not this batch's business any more.
pub(crate) async fn riding(
    context: &Context,
    batch: &BatchRecord,
    ids: Vec<RequestId>,
) -> Result<Vec<RequestRecord>, StepError> {
    let mut records = context.store.records(ids).await?;
    records.retain(|record| record.state == RequestState::Submitted && record.batch_id == Some(batch.id));
    Ok(records)
}

/// How a batch's lines ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    pub(crate) requeued: usize,
    pub(crate) failed: usize,
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
    context.telemetry.batch_ended(batch.id, state, tally.answered, tally.requeued, tally.failed, took);
    Ok(())
}

/// Lines that certainly never ran, or may be tried again: back into the queue while they have attempts left, else
/// ended with `refusal`.
pub(crate) async fn requeue_or_refuse(
    context: &Context,
    batch: &BatchRecord,
    ids: &[RequestId],
    why: &'static str,
    refusal: &Refusal,
) -> Result<Tally, StepError> {
    let mut tally = Tally::default();
    for group in ids.chunks(GROUP) {
        let records = riding(context, batch, group.to_vec()).await?;
        let (again, spent): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.attempts < context.batching.max_attempts);
        let spent: Vec<RequestId> = spent.iter().map(|record| record.request.id).collect();
        tally.failed += refuse(context, batch, &spent, refusal).await?;
        tally.requeued += requeue(context, batch, again, why, None).await?;
    }
    Ok(tally)
}

/// Lines whose own outcome may be tried again: back into the queue while they have attempts left; else that outcome
/// is their answer.
pub(crate) async fn try_again(
    context: &Context,
    batch: &BatchRecord,
    lines: Vec<(RequestId, LineOutcome)>,
) -> Result<Tally, StepError> {
    let mut tally = Tally::default();
    for group in lines.chunks(GROUP) {
        let records = riding(context, batch, group.iter().map(|(id, _)| *id).collect()).await?;
        let (again, spent): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.attempts < context.batching.max_attempts);
        let outcomes: HashMap<RequestId, &LineOutcome> = group.iter().map(|(id, outcome)| (*id, outcome)).collect();
        let spent = spent.iter().filter_map(|record| {
            let id = record.request.id;
            outcomes.get(&id).map(|outcome| finish_of(context, batch, id, (*outcome).clone()))
        });
        tally.answered += finish(context, batch, spent.collect()).await?;
        tally.requeued += requeue(context, batch, again, "line_failed", None).await?;
    }
    Ok(tally)
}

/// Back into the queue, in the store first.
async fn requeue(
    context: &Context,
    batch: &BatchRecord,
    records: Vec<RequestRecord>,
    why: &'static str,
    hold_back: Option<(Duration, String)>,
) -> Result<usize, StepError> {
    let ids = records.iter().map(|record| record.request.id).collect();
    let counts = !NO_ATTEMPT.contains(&why);
    let requeued = context.store.requeue(batch.id, ids, counts).await?;
    crate::crash::point("requeued");
    let by_id: HashMap<RequestId, &RequestRecord> = records.iter().map(|record| (record.request.id, record)).collect();
    let queued: Vec<Queued> = requeued.iter().filter_map(|id| by_id.get(id)).map(|record| queued_of(record)).collect();
    context.telemetry.requests_requeued(queued.len(), why);
    let count = queued.len();
    if count > 0 {
        give_back(context, &batch.lane, queued, hold_back);
    }
    Ok(count)
}

/// Reasons for which a line had no chance to run: they take nothing from its attempts.
const NO_ATTEMPT: [&str; 2] = ["token_limit_exceeded", "another_line_was_refused"];

/// A stored request as the dispatcher holds it.
pub(crate) fn queued_of(record: &RequestRecord) -> Queued {
    Queued {
        id: record.request.id,
        line_bytes: line_length(record.request.lane.endpoint, u64::from(record.request.body_len)),
        inputs: record.request.options.inputs(),
        caller: record.request.caller,
        accepted_at: record.request.created_at,
        since: Instant::now(),
    }
}

/// The provider refused the whole file; nothing was executed (providers.md, sections 0 and 1.9). Named lines get their
/// error, the rest is tried again; a full provider queue is waited for; anything else is every caller's error.
pub(crate) async fn failed_validation(
    context: &Arc<Context>,
    batch: &BatchRecord,
    object: &BatchObject,
) -> Result<(), StepError> {
    let lines = context.store.batch_lines(batch.id).await?;
    let first = object.errors.first();
    let message = first.map(|fault| fault.message.clone());
    let queue_full = object.errors.iter().any(|fault| fault.code == "token_limit_exceeded" && fault.line.is_none());
    let mut tally = Tally::default();
    if queue_full {
        let records = context.store.records(lines).await?;
        let wait = (
            QUEUE_FULL_WAIT.min(context.batching.poll * 3),
            "the provider's queue is full (token_limit_exceeded)".to_owned(),
        );
        tally.requeued = requeue(context, batch, records, "token_limit_exceeded", Some(wait)).await?;
        return end_batch(context, batch, BatchEvent::Fail, tally, message).await;
    }
    let numbered = file_lines(batch, &context.store.records(lines.clone()).await?);
    let named: HashMap<RequestId, &BatchFault> =
        object.errors.iter().filter_map(|fault| Some((*numbered.get(fault.line?.checked_sub(1)?)?, fault))).collect();
    if named.is_empty() {
        let refusal = first.map_or_else(
            || Refusal::own("the provider refused the batch without saying why: try again, or send the call live"),
            Refusal::from_fault,
        );
        let lost_file = first.is_some_and(|fault| fault.code == "invalid_request");
        if lost_file {
            tally = requeue_or_refuse(context, batch, &lines, "input_file_lost", &refusal).await?;
        } else {
            tally.failed = refuse(context, batch, &lines, &refusal).await?;
        }
        return end_batch(context, batch, BatchEvent::Fail, tally, message).await;
    }
    for (id, fault) in &named {
        if OURS.contains(&fault.code.as_str()) {
            tracing::error!(batch = %batch.id, code = fault.code, line = fault.line, "a batch file of ours was malformed");
        }
        tally.failed += refuse(context, batch, &[*id], &Refusal::from_fault(fault)).await?;
    }
    let rest: Vec<RequestId> = lines.into_iter().filter(|id| !named.contains_key(id)).collect();
    let records = context.store.records(rest).await?;
    tally.requeued = requeue(context, batch, records, "another_line_was_refused", None).await?;
    end_batch(context, batch, BatchEvent::Fail, tally, message).await
}

/// The lines of the uploaded file, as the provider numbers them: requests that had ended before were left out of it.
fn file_lines(batch: &BatchRecord, lines: &[RequestRecord]) -> Vec<RequestId> {
    let was_left_out = |record: &RequestRecord| {
        record.state.is_terminal()
            && record.finished_at.zip(batch.submitted_at).is_some_and(|(finished, submitted)| finished <= submitted)
    };
    lines.iter().filter(|record| !was_left_out(record)).map(|record| record.request.id).collect()
}

/// Faults that only nightbus itself can have made.
const OURS: [&str; 5] = ["duplicate_custom_id", "mismatched_model", "invalid_json_line", "invalid_url", "empty_file"];

#[cfg(test)]
mod tests;
