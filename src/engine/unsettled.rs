//! Creations that cannot be looked up (providers.md, section 4.12): written down before they are sent, so that whoever finds the batch
//! after a death knows that it may exist.
//!
//! The note is the batch's status, in words of our own, while the provider has given none: `creating since …` before the call,
//! `not created` after an answer that says so, `unsettled since …` when no answer came. An unsettled batch is never created again.
//! Its requests wait for [`Capability::creation_patience`](crate::upstream::capability::Capability::creation_patience), in which
//! somebody may look and their deadlines are met by live calls, and end with an error that says what may have happened. Called by
//! `submit`, in the task that owns the batch.

use std::sync::Arc;
use std::time::Duration;

use crate::crash;
use crate::domain::backoff::backoff;
use crate::domain::clock::Micros;
use crate::engine::context::Context;
use crate::engine::rescue::Rescue;
use crate::engine::run::StepError;
use crate::engine::settle::{self, Refusal};
use crate::engine::submit::record;
use crate::engine::view::EngineEvent;
use crate::store::{BatchRecord, ProviderBatch};
use crate::upstream::provider::{BatchProvider, CreateBatch, Credentials, ProviderError};
use crate::wire::batch::BatchObject;

const SENT: &str = "creating since ";
const UNSETTLED: &str = "unsettled since ";
const NOT_CREATED: &str = "not created";

/// Since when a creation may be out that nobody can look up; none: there is none.
pub(crate) fn since(batch: &BatchRecord) -> Option<Micros> {
    let status = batch.provider.status.as_deref()?;
    let at = status.strip_prefix(SENT).or_else(|| status.strip_prefix(UNSETTLED))?;
    // A time that cannot be read is one long ago: what counts is that something was sent.
    Some(at.parse().map_or_else(|_| batch.created_at, |at: jiff::Timestamp| Micros::from_unix_seconds(at.as_second())))
}

/// Creates the batch. None: it may have been created, nobody can tell, and its requests have ended.
pub(crate) async fn send(
    context: &Arc<Context>,
    batch: &BatchRecord,
    provider: &dyn BatchProvider,
    credentials: &Credentials,
    call: CreateBatch,
) -> Result<Option<Result<BatchObject, ProviderError>>, StepError> {
    let Some(patience) = provider.capability().creation_patience else {
        return Ok(Some(provider.create(credentials, call).await));
    };
    let sent_at = context.now();
    note(context, batch, stamped(SENT, sent_at), None).await?;
    crash::point("creation-noted");
    match provider.create(credentials, call).await {
        Ok(object) => Ok(Some(Ok(object))),
        Err(error) if error.may_have_taken_effect() && !error.is_lasting() => {
            context.telemetry.provider_error("create", &error, Some(patience));
            outlast(context, batch, (sent_at, patience), &error.to_string()).await?;
            Ok(None)
        }
        Err(error) => {
            note(context, batch, NOT_CREATED.to_owned(), None).await?;
            Ok(Some(Err(error)))
        }
    }
}

/// Records a batch that was created: as often as it takes, where nobody could tell its id again.
pub(crate) async fn keep<F: Future<Output = Result<(), StepError>>>(
    context: &Context,
    provider: &dyn BatchProvider,
    created: impl Fn() -> F,
) -> Result<(), StepError> {
    for failures in 0.. {
        match created().await {
            Err(StepError::Store(error)) if provider.capability().creation_patience.is_some() => {
                context.telemetry.store_failed(&error);
            }
            ended => return ended,
        }
        let wait = backoff(failures, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64());
        if !context.sleep(wait).await {
            return Err(StepError::Stopping);
        }
    }
    Ok(())
}

/// Lets the time pass in which somebody may look, and ends the requests that still ride in the batch. `why` there is no answer.
pub(crate) async fn outlast(
    context: &Arc<Context>,
    batch: &BatchRecord,
    (since, patience): (Micros, Duration),
    why: &str,
) -> Result<(), StepError> {
    let message = format!(
        "the call that creates this request's batch got no answer ({why}), and provider {:?} has no way to look it up: it may have been \
         executed and billed, so nightbus does not send it again. Look at the provider's own pages before you do",
        batch.lane.provider
    );
    let until = since.plus(patience);
    note(context, batch, stamped(UNSETTLED, since), Some(message.clone())).await?;
    context.telemetry.batch_unsettled(batch.id, batch.line_count, until.since(context.now()));
    let mut rescue = Rescue::of(batch);
    loop {
        rescue.act(context, batch).await?;
        let left = until.since(context.now());
        if left.is_zero() {
            return settle::fail_all(context, batch, &Refusal::own(message)).await;
        }
        if !context.sleep(rescue.pause(context.now()).map_or(left, |due| due.min(left))).await {
            return Err(StepError::Stopping);
        }
    }
}

fn stamped(word: &str, at: Micros) -> String {
    let at = jiff::Timestamp::from_second(at.unix_seconds()).map_or_else(|_| String::new(), |at| at.to_string());
    format!("{word}{at}")
}

async fn note(context: &Context, batch: &BatchRecord, status: String, error: Option<String>) -> Result<(), StepError> {
    record(context, batch, None, ProviderBatch { status: Some(status.clone()), error, ..ProviderBatch::default() })
        .await?;
    context.announce(EngineEvent::Batch { id: batch.id, state: batch.state.as_str(), provider_status: Some(status) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::BatchState;
    use crate::domain::ids::IdSource;
    use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};

    #[test]
    fn only_our_own_notes_say_that_a_creation_may_be_out() {
        let at = Micros::from_unix_seconds(1_795_420_800);
        let lane = LaneKey {
            provider: "p".into(),
            account: Fingerprint([3; 16]),
            endpoint: Endpoint::ChatCompletions,
            model: "m".into(),
            deadline_class: 0,
        };
        let batch = |status: Option<String>| BatchRecord {
            id: IdSource::default().batch_id(Micros(1), 0),
            lane: Arc::new(lane.clone()),
            state: BatchState::Uploaded,
            line_count: 1,
            created_at: Micros(7),
            submitted_at: None,
            ended_at: None,
            provider: ProviderBatch { status, ..ProviderBatch::default() },
        };
        for status in [None, Some("in_progress".to_owned()), Some(NOT_CREATED.to_owned()), Some(String::new())] {
            assert_eq!(since(&batch(status.clone())), None, "{status:?}");
        }
        for word in [SENT, UNSETTLED] {
            assert_eq!(since(&batch(Some(stamped(word, at)))), Some(at), "{word}");
            assert_eq!(since(&batch(Some(format!("{word}noon")))), Some(Micros(7)), "long ago, but sent");
        }
    }
}
