//! The life of one batch as a task: read where it stands, do the next step, record it, until it has ended.
//!
//! The same loop serves new batches and those found at start. A panic or a failing store is logged and the step is
//! tried again from what is durable; nothing is held in memory that the store does not know.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::crash;
use crate::domain::backoff::backoff;
use crate::domain::batch::BatchState;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::LaneKey;
use crate::engine::budget::Reserve;
use crate::engine::collect;
use crate::engine::context::Context;
use crate::engine::dispatch::Message;

use crate::engine::plan::{Queued, estimated_tokens};
use crate::engine::poll;
use crate::engine::submit;
use crate::engine::view::{EngineEvent, HeldBack};
use crate::store::{BatchRecord, NewBatch, StoreError};

/// Why a step did not end in a new durable state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The store failed: nothing was recorded, the step is repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is stopping.
    #[error("stopping")]
    Stopping,
}

/// What a batch takes while it is open.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Of the provider's queue: estimated prompt tokens.
    pub(crate) tokens: u64,
    /// Of the day's budget.
    pub(crate) reserve: Reserve,
}

impl Load {
    /// Of all these requests.
    pub(crate) fn of(requests: &[Queued]) -> Self {
        Self {
            tokens: estimated_tokens(requests.iter().map(|queued| queued.line_bytes).sum()),
            reserve: Reserve::of(requests),
        }
    }
}

/// Starts a batch of requests that have just left their lane's queue.
pub(crate) fn start_new(context: &Arc<Context>, lane: Arc<LaneKey>, requests: Vec<Queued>, load: Load) {
    let shared = Arc::clone(context);
    context.tasks.spawn("new batch", async move {
        let made_room = match prepare(&shared, &lane, requests).await {
            Some(id) => {
                let made_room = supervise(&shared, id).await;
                shared.running.forget(id);
                shared.suspects.forget(id);
                made_room
            }
            None => false,
        };
        shared.tell(Message::Ended { lane, load, made_room });
    });
}

/// Goes on with a batch that an earlier run left open.
pub(crate) fn resume(context: &Arc<Context>, lane: Arc<LaneKey>, id: BatchId, load: Load) {
    let shared = Arc::clone(context);
    context.budget.reserve(&load.reserve);
    context.tell(Message::Resumed { lane: Arc::clone(&lane), tokens: load.tokens });
    context.tasks.spawn("resumed batch", async move {
        let made_room = supervise(&shared, id).await;
        shared.running.forget(id);
        shared.tell(Message::Ended { lane, load, made_room });
    });
}

/// Makes the intent durable. When the store cannot, the requests go back to the queue: they are still queued there too.
async fn prepare(context: &Context, lane: &Arc<LaneKey>, requests: Vec<Queued>) -> Option<BatchId> {
    let now = context.now();
    let id = context.ids.batch_id(now, fastrand::u64(..));
    let lines: Vec<RequestId> = requests.iter().map(|queued| queued.id).collect();
    let bytes = requests.iter().map(|queued| queued.line_bytes).sum();
    crash::point("intent-before");
    match context.store.create_batch(NewBatch { id, lane: Arc::clone(lane), created_at: now, lines }).await {
        Ok(lines) if lines.is_empty() => None,
        Ok(lines) => {
            crash::point("intent-written");
            if let Some(apart) = requests.into_iter().next().and_then(|first| first.apart) {
                context.suspects.note(id, apart);
            }
            context.telemetry.batch_prepared(id, lane, lines.len(), bytes);
            announce(context, id, BatchState::Prepared, None);
            if context.events.receiver_count() > 0 {
                lines.iter().for_each(|line| context.announce_request(*line, "submitted"));
            }
            Some(id)
        }
        Err(error) => {
            context.telemetry.store_failed(&error);
            give_back(context, lane, requests, Some((Duration::from_secs(5), HeldBack::Store)));
            None
        }
    }
}

/// Queues requests again in memory.
pub(crate) fn give_back(
    context: &Context,
    lane: &Arc<LaneKey>,
    requests: Vec<Queued>,
    hold_back: Option<(Duration, HeldBack)>,
) {
    requests.iter().for_each(|request| context.orphans.requeued(request.id));
    let count = u64::try_from(requests.len()).unwrap_or(0);
    context.queued.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
    context.tell(Message::Returned { lane: Arc::clone(lane), requests, hold_back });
}

/// Drives a batch to its end. Each attempt runs as a task of its own, so that a panic ends only the attempt. Whether
/// the batch made room in the provider's queue: one that was refused was never in it.
async fn supervise(context: &Arc<Context>, id: BatchId) -> bool {
    let mut failures = 0;
    loop {
        let shared = Arc::clone(context);
        let attempt = context.tasks.spawn("batch", async move { drive(&shared, id).await });
        match attempt.await {
            Ok(Some(Ok(end))) => return end != Some(BatchState::Failed),
            Ok(Some(Err(StepError::Stopping))) => return false,
            Ok(Some(Err(StepError::Store(error)))) => context.telemetry.store_failed(&error),
            Ok(None) | Err(_) => context.telemetry.panic_contained("batch"),
        }
        let wait = backoff(failures, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64());
        failures += 1;
        if !context.sleep(wait).await {
            return false;
        }
    }
}

/// The state in which the batch ended; none: there is no such batch.
async fn drive(context: &Arc<Context>, id: BatchId) -> Result<Option<BatchState>, StepError> {
    let started = Instant::now();
    // Until this very attempt has uploaded the file, a create of an earlier one may be out.
    let mut unsettled = true;
    loop {
        let Some(batch) = context.store.batch(id).await? else {
            return Ok(None);
        };
        let look = context.running.note(&batch);
        announce(context, id, batch.state, batch.provider.status.clone());
        match batch.state {
            BatchState::Prepared => {
                Box::pin(submit::upload(context, &batch)).await?;
                unsettled = false;
            }
            BatchState::Uploaded => Box::pin(submit::create(context, &batch, unsettled, started)).await?,
            BatchState::Submitted => {
                let ended = Box::pin(poll::until_ended(context, &batch, &look)).await?;
                Box::pin(collect::end(context, &batch, ended)).await?;
            }
            end @ (BatchState::Completed | BatchState::Failed | BatchState::Expired | BatchState::Cancelled) => {
                return Ok(Some(end));
            }
        }
    }
}

fn announce(context: &Context, id: BatchId, state: BatchState, provider_status: Option<String>) {
    context.announce(EngineEvent::Batch { id, state: state.as_str(), provider_status });
}

/// Waits for as long as the provider asked, or with growing delays, and then for a turn among all retries of the batch's
/// provider; notes, logs and counts the error. Fails when the process stops.
pub(crate) async fn wait_after(
    context: &Context,
    batch: &BatchRecord,
    operation: &'static str,
    error: &crate::upstream::provider::ProviderError,
    attempt: u32,
) -> Result<(), StepError> {
    let wait = pause_after(context, batch, operation, error, attempt);
    if context.sleep(wait).await && context.sleep(retry_turn(context, &batch.lane)).await {
        Ok(())
    } else {
        Err(StepError::Stopping)
    }
}

/// As long as the provider asked, or a growing delay; notes, logs and counts the error.
pub(crate) fn pause_after(
    context: &Context,
    batch: &BatchRecord,
    operation: &'static str,
    error: &crate::upstream::provider::ProviderError,
    attempt: u32,
) -> Duration {
    let grown = backoff(attempt, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64());
    let wait = error.retry_after().map_or(grown, |asked| asked.clamp(grown, Duration::from_secs(600)));
    context.running.struggles(batch.id, context.now(), error);
    context.telemetry.provider_error(operation, error, Some(wait));
    wait
}

/// How long a retry waits for the others of its provider.
pub(crate) fn retry_turn(context: &Context, lane: &LaneKey) -> Duration {
    let wait = context.retries.turn(&lane.provider);
    if !wait.is_zero() {
        context.telemetry.retry_delayed();
    }
    wait
}

/// The credentials of a batch's lane, or why there are none.
pub(crate) fn credentials(
    context: &Context,
    batch: &BatchRecord,
) -> Option<(Arc<dyn crate::upstream::provider::BatchProvider>, crate::upstream::provider::Credentials)> {
    let provider = context.provider(&batch.lane)?;
    let config = context.provider_configs.get(&*batch.lane.provider)?;
    Some((Arc::clone(provider), context.accounts.credentials(&batch.lane, config)?))
}
