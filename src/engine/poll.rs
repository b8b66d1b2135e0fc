//! Watches one batch at the provider until it has ended.
//!
//! Errors, a 404 for a batch that is known to exist, and statuses we do not know are retried with growing pauses and
//! never lead to resubmission (contract, section 7).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::backoff::backoff;
use crate::engine::context::Context;
use crate::engine::early::Early;
use crate::engine::rescue::Rescue;
use crate::engine::run::{StepError, credentials, retry_turn};
use crate::engine::submit::record;
use crate::store::{BatchRecord, ProviderBatch};
use crate::upstream::provider::ProviderError;
use crate::wire::batch::{BatchObject, BatchStatus};

/// The first pause between two polls; it grows to `batching.poll`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long a batch that is known to exist may be answered with 404, or a lasting refusal, before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How watching a batch ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The provider reports a final state.
    Final(BatchObject),
    /// The provider does not know the batch, or refuses to show it, for long: nothing can be learned of it, and what
    /// it executed may be billed.
    Lost(ProviderError),
}

/// Polls until the batch has ended; fails only when the process stops. `hinted`: it is said to have ended, and is looked at
/// at once. That is a hint and nothing more: what counts is what the provider answers here.
pub(crate) async fn until_ended(
    context: &Arc<Context>,
    batch: &BatchRecord,
    hinted: &Notify,
) -> Result<Ended, StepError> {
    let (least, late) = context.provider(&batch.lane).map_or((Duration::ZERO, false), |provider| {
        (provider.capability().min_poll, provider.capability().lines_come_late)
    });
    let mut early = Early::default();
    let mut seen = batch.provider.clone();
    let mut pauses = 0;
    let mut refused_since: Option<Instant> = None;
    let mut short_since: Option<Instant> = None;
    let mut rescue = Rescue::of(batch);
    loop {
        let most = context.settings().batching.poll.max(least);
        let asked_at = Instant::now();
        let answer = match (credentials(context, batch), &batch.provider.batch_id) {
            (Some((provider, credentials)), Some(id)) => {
                within(rescue.bound(context.now()), provider.get(&credentials, id)).await
            }
            // The provider was taken out of the configuration: wait until somebody restores it.
            _ => {
                Err(ProviderError::Unreadable { operation: "poll", cause: "the provider is not configured".to_owned() })
            }
        };
        let mut pause = backoff(pauses, FIRST_PAUSE.min(most), most, fastrand::f64()).max(least);
        match answer {
            Ok(object) => {
                refused_since = None;
                context.running.shows(batch.id);
                context.telemetry.poll(asked_at.elapsed());
                note(context, batch, &mut seen, &object).await?;
                if object.status != BatchStatus::Failed && !object.status_text.eq_ignore_ascii_case("validating") {
                    context.suspects.passed(batch.id);
                }
                let is_short = late && object.total.is_some_and(|total| total < batch.line_count);
                let waits = is_short && short_since.get_or_insert(asked_at).elapsed() < PATIENCE;
                // What would be missing in its results is still to be read, and would be bought twice.
                let seems_over = object.status == BatchStatus::Completed && waits;
                if object.status == BatchStatus::Running || seems_over {
                    early.read(context, batch, &object).await?;
                } else {
                    crate::crash::point("ended-seen");
                    return Ok(Ended::Final(object));
                }
            }
            Err(error) => {
                if error.is_not_found() || error.is_lasting() {
                    let since = *refused_since.get_or_insert(asked_at);
                    if since.elapsed() > PATIENCE {
                        context.telemetry.provider_error("poll", &error, None);
                        return Ok(Ended::Lost(error));
                    }
                }
                pause = pause.max(error.retry_after().unwrap_or_default().min(Duration::from_secs(600)));
                pause += retry_turn(context, &batch.lane);
                context.running.struggles(batch.id, context.now(), &error);
                context.telemetry.provider_error("poll", &error, Some(pause));
            }
        }
        pauses += 1;
        rescue.act(context, batch).await?;
        pause = rescue.pause(context.now()).map_or(pause, |most| pause.min(most));
        tokio::select! {
            biased;
            () = hinted.notified() => pauses = 0,
            slept = context.sleep(pause) => {
                if !slept {
                    return Err(StepError::Stopping);
                }
            }
        }
    }
}

/// What a look gives, unless a deadline calls for something else before it is answered.
async fn within(
    bound: Option<Duration>,
    look: impl Future<Output = Result<BatchObject, ProviderError>>,
) -> Result<BatchObject, ProviderError> {
    let Some(bound) = bound else { return look.await };
    tokio::time::timeout(bound, look).await.unwrap_or_else(|_elapsed| {
        let cause = "no answer before the deadline calls for a rescue".to_owned();
        Err(ProviderError::NoAnswer { operation: "poll", cause, may_have_taken_effect: false })
    })
}

/// Keeps what the provider says, when it says something new.
async fn note(
    context: &Context,
    batch: &BatchRecord,
    seen: &mut ProviderBatch,
    object: &BatchObject,
) -> Result<(), StepError> {
    let now = ProviderBatch {
        input_file_id: None,
        batch_id: None,
        status: Some(object.status_text.clone()),
        completed: object.completed,
        failed: object.failed,
        output_file_id: object.output_file_id.clone(),
        error_file_id: object.error_file_id.clone(),
        error: None,
    };
    if now != *seen {
        record(context, batch, None, now.clone()).await?;
        context.announce(crate::engine::view::EngineEvent::Batch {
            id: batch.id,
            state: batch.state.as_str(),
            provider_status: now.status.clone(),
        });
        *seen = now;
    }
    Ok(())
}
