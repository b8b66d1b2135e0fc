//! From the durable intent to the recorded batch: upload, record, create, record.
//!
//! `POST /batches` is not idempotent (providers.md, section 0, fact 7): whenever an earlier create may have taken
//! effect, the provider is asked for the batch that carries our id before another is created.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::body::Body;
use crate::crash;
use crate::domain::batch::BatchEvent;
use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::engine::context::Context;
use crate::engine::input_file::stream_lines;
use crate::engine::rescue::{self, Rescue};
use crate::engine::run::{StepError, credentials, wait_after};
use crate::engine::settle::{self, Refusal};
use crate::engine::unsettled;
use crate::engine::validation;
use crate::store::{BatchRecord, BatchUpdate, ProviderBatch, RequestRecord};
use crate::upstream::provider::{BatchInput, BatchProvider, CreateBatch, Credentials, InputFile, Sought};
use crate::wire::batch::BatchObject;
use crate::wire::line::{LineForm, frame_length, line_length};

/// Look-ups that must come back empty before a batch whose create got no answer counts as not created.
const EMPTY_LOOKUPS: u32 = 4;
/// … and over how long: providers list new batches with some delay. Three polls, between these bounds; 30 s by default.
const LISTING_DELAY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(60)];

/// Batches whose provider ids are read from the store at once, and how far back: further than clocks differ.
const PAGE: usize = 1_000;
const OTHERS_WITHIN: Duration = Duration::from_secs(3 * 3600);

/// Uploads the input file and records its id. Where the lines travel in the creation itself, only notes that the creation
/// may be out from now on.
pub(crate) async fn upload(context: &Arc<Context>, batch: &BatchRecord) -> Result<(), StepError> {
    let Some((provider, credentials)) = credentials(context, batch) else {
        return settle::fail_all(context, batch, &no_credentials(batch)).await;
    };
    let (lines, length) = measure(context, batch, context.store.batch_lines(batch.id).await?).await?;
    if lines.is_empty() {
        return record(context, batch, Some(BatchEvent::Fail), ProviderBatch::default()).await;
    }
    // The provider numbers the file's lines: what is left out of it must not be counted.
    let count = usize::try_from(batch.line_count).unwrap_or(usize::MAX);
    let left = (lines.len() < count).then(|| lines.to_vec());
    if provider.capability().inline {
        record(context, batch, Some(BatchEvent::Upload), ProviderBatch::default()).await?;
        crash::point("uploaded");
        return Ok(());
    }
    let in_time = rescue::too_late_in(context, batch).map(|left| Instant::now() + left);
    for attempt in 0.. {
        let content = stream(context, batch, &lines, length);
        let file = InputFile { name: format!("{}.jsonl", batch.id), length, content };
        // A file alone is no batch: an upload that takes too long may be left where it is.
        let Some(uploaded) = before(in_time, provider.upload(&credentials, file)).await else {
            return rescue::instead_of(context, batch).await;
        };
        match uploaded {
            Ok(file_id) => {
                crash::point("uploaded-before-record");
                let details = ProviderBatch { input_file_id: Some(file_id), ..ProviderBatch::default() };
                write(context, batch, Some(BatchEvent::Upload), details, left).await?;
                crash::point("uploaded");
                return Ok(());
            }
            Err(error) if error.is_too_large() => {
                context.telemetry.provider_error("upload", &error, None);
                return validation::too_large(context, batch, length, &error).await;
            }
            Err(error) if error.is_lasting() => {
                context.telemetry.provider_error("upload", &error, None);
                return settle::fail_all(context, batch, &Refusal::from_provider(&error)).await;
            }
            Err(error) => {
                if let Some(waited) = before(in_time, wait_after(context, batch, "upload", &error, attempt)).await {
                    waited?;
                }
            }
        }
    }
    Ok(())
}

/// What comes of `action` until then; none: the time is over.
async fn before<T>(until: Option<Instant>, action: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => tokio::time::timeout_at(until, action).await.ok(),
        None => Some(action.await),
    }
}

/// The lines that still need an answer, and the exact length of their file.
async fn measure(
    context: &Arc<Context>,
    batch: &BatchRecord,
    lines: Vec<RequestId>,
) -> Result<(Arc<[RequestId]>, u64), StepError> {
    let records = context.store.records(lines).await?;
    let open: Vec<_> =
        records.into_iter().filter(|record| !record.state.is_terminal() && record.live.is_none()).collect();
    let endpoint = batch.lane.endpoint;
    let form = form(context, batch);
    let length = |record: &RequestRecord| line_length(form, endpoint, u64::from(record.request.body_len));
    let length: u64 = open.iter().map(length).sum();
    Ok((open.into_iter().map(|record| record.request.id).collect(), length + frame_length(endpoint.api())))
}

/// Whether none of its lines needs it any more.
async fn is_over(context: &Arc<Context>, batch: &BatchRecord) -> Result<bool, StepError> {
    let (lines, _) = measure(context, batch, context.store.batch_lines(batch.id).await?).await?;
    Ok(lines.is_empty())
}

fn stream(context: &Context, batch: &BatchRecord, lines: &Arc<[RequestId]>, length: u64) -> Body {
    let average = length / u64::try_from(lines.len()).unwrap_or(1).max(1);
    let form = form(context, batch);
    stream_lines(Arc::clone(&context.store), batch.id, (form, batch.lane.endpoint), Arc::clone(lines), average)
}

/// How the provider's lines are written.
fn form(context: &Context, batch: &BatchRecord) -> LineForm {
    let own = || LineForm::of(batch.lane.endpoint.api());
    context.provider(&batch.lane).map_or_else(own, |provider| provider.capability().line_form)
}

/// Creates the batch, or finds that it was created, and records its id. `unsettled`: an earlier attempt may have sent
/// the call and died before it could record the answer.
pub(crate) async fn create(
    context: &Arc<Context>,
    batch: &BatchRecord,
    mut unsettled: bool,
    started: Instant,
) -> Result<(), StepError> {
    let Some((provider, credentials)) = credentials(context, batch) else {
        return settle::fail_all(context, batch, &no_credentials(batch)).await;
    };
    let resumed = unsettled;
    if let Some(patience) = provider.capability().creation_patience {
        // What was sent stands written in the batch.
        if let Some(since) = unsettled::since(batch) {
            return unsettled::outlast(context, batch, (since, patience), "nightbus stopped before it came").await;
        }
        unsettled = false;
    }
    for attempt in 0.. {
        if unsettled && let Some(found) = look_up(context, provider.as_ref(), &credentials, batch).await? {
            return created(context, batch, &found, started).await;
        }
        // Nothing is out that could have created it: what was looked for is not there.
        if rescue::too_late_in(context, batch).is_some_and(|left| left.is_zero()) {
            return rescue::instead_of(context, batch).await;
        }
        // An earlier attempt was refused for good, and died while it handed the lines over: the file still has them all.
        if resumed && !provider.capability().inline && settle::ride_without_handed_over(context, batch).await? {
            return Ok(());
        }
        // Meanwhile all of them may have ended, or been handed over: there is nothing to send.
        if provider.capability().inline && is_over(context, batch).await? {
            return record(context, batch, Some(BatchEvent::Fail), ProviderBatch::default()).await;
        }
        let Some(input) = input(context, batch, provider.as_ref()).await? else {
            return settle::fail_all(context, batch, &no_credentials(batch)).await;
        };
        let call =
            CreateBatch { id: batch.id, input, endpoint: batch.lane.endpoint, model: Arc::clone(&batch.lane.model) };
        let Some(created_there) = unsettled::send(context, batch, provider.as_ref(), &credentials, call).await? else {
            return Ok(());
        };
        match created_there {
            Ok(object) => {
                crash::point("created-before-record");
                return unsettled::keep(context, provider.as_ref(), || created(context, batch, &object, started)).await;
            }
            Err(error) if error.is_too_large() && provider.capability().inline => {
                context.telemetry.provider_error("create", &error, None);
                let (_, length) = measure(context, batch, context.store.batch_lines(batch.id).await?).await?;
                return validation::too_large(context, batch, length, &error).await;
            }
            Err(error) if error.is_lasting() => {
                context.telemetry.provider_error("create", &error, None);
                return settle::fail_all(context, batch, &Refusal::from_provider(&error)).await;
            }
            Err(error) => {
                unsettled |= error.may_have_taken_effect();
                let in_time = rescue::too_late_in(context, batch).map(|left| Instant::now() + left);
                if let Some(waited) = before(in_time, wait_after(context, batch, "create", &error, attempt)).await {
                    waited?;
                }
            }
        }
    }
    Ok(())
}

/// The lines as the creation takes them; none: a file was uploaded for a provider of another kind, and is of no use.
async fn input(
    context: &Arc<Context>,
    batch: &BatchRecord,
    provider: &dyn BatchProvider,
) -> Result<Option<BatchInput>, StepError> {
    if !provider.capability().inline {
        return Ok(batch.provider.input_file_id.clone().map(BatchInput::Uploaded));
    }
    let (lines, length) = measure(context, batch, context.store.batch_lines(batch.id).await?).await?;
    Ok(Some(BatchInput::Inline { length, content: stream(context, batch, &lines, length) }))
}

/// What a look-up goes by.
async fn sought(
    context: &Arc<Context>,
    batch: &BatchRecord,
    provider: &dyn BatchProvider,
) -> Result<Sought, StepError> {
    let mut sought = Sought {
        id: batch.id,
        since: batch.created_at,
        input_file: batch.provider.input_file_id.clone(),
        lines: 1..=batch.line_count,
        others: HashSet::new(),
    };
    if provider.capability().inline {
        let mut after = None;
        loop {
            let page = context.store.batches(false, after, PAGE).await?;
            after = page.last().map(|last| last.id);
            let count = page.len();
            let near = |other: &BatchRecord| other.created_at.plus(OTHERS_WITHIN) >= batch.created_at;
            let reached = page.iter().any(|other| !near(other));
            let ids = page.into_iter().filter(|other| other.id != batch.id).filter_map(|other| other.provider.batch_id);
            sought.others.extend(ids);
            if reached || count < PAGE {
                break;
            }
        }
    }
    Ok(sought)
}

/// Asks the provider whether the batch exists. `None` only when it answered often enough that it does not.
async fn look_up(
    context: &Arc<Context>,
    provider: &dyn BatchProvider,
    credentials: &Credentials,
    batch: &BatchRecord,
) -> Result<Option<BatchObject>, StepError> {
    let [least, most] = LISTING_DELAY;
    let delay = (context.settings().batching.poll * 3).clamp(least, most);
    let started = Instant::now();
    let mut empty = 0;
    let mut attempt = 0;
    let mut rescue = Rescue::of(batch);
    loop {
        // A deadline does not wait for a provider that cannot say: its lines are bought, whatever the batch is.
        rescue.act(context, batch).await?;
        let in_time = rescue.bound(context.now()).map(|left| Instant::now() + left);
        // Asked anew each time: another batch of ours may have become known.
        let sought = sought(context, batch, provider).await?;
        let Some(looked) = before(in_time, provider.find(credentials, &sought)).await else {
            continue;
        };
        match looked {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {
                empty += 1;
                if empty >= EMPTY_LOOKUPS && started.elapsed() >= delay {
                    return Ok(None);
                }
                let pause = delay / EMPTY_LOOKUPS;
                if !context.sleep(rescue.pause(context.now()).map_or(pause, |most| most.min(pause))).await {
                    return Err(StepError::Stopping);
                }
            }
            // While it cannot be settled, the requests wait: creating again could buy twice.
            Err(error) => {
                if let Some(waited) = before(in_time, wait_after(context, batch, "look-up", &error, attempt)).await {
                    waited?;
                }
                attempt += 1;
            }
        }
    }
}

async fn created(
    context: &Context,
    batch: &BatchRecord,
    object: &BatchObject,
    started: Instant,
) -> Result<(), StepError> {
    let details = ProviderBatch {
        batch_id: Some(object.id.clone()),
        status: Some(object.status_text.clone()),
        ..ProviderBatch::default()
    };
    record(context, batch, Some(BatchEvent::Create), details).await?;
    crash::point("created");
    let lines = usize::try_from(batch.line_count).unwrap_or(usize::MAX);
    context.telemetry.batch_submitted(batch.id, &object.id, lines, started.elapsed());
    Ok(())
}

/// Writes what became known of a batch.
pub(crate) async fn record(
    context: &Context,
    batch: &BatchRecord,
    event: Option<BatchEvent>,
    provider: ProviderBatch,
) -> Result<(), StepError> {
    write(context, batch, event, provider, None).await
}

/// The same; `lines`: those that the uploaded file really has, where some were left out.
async fn write(
    context: &Context,
    batch: &BatchRecord,
    event: Option<BatchEvent>,
    provider: ProviderBatch,
    lines: Option<Vec<RequestId>>,
) -> Result<(), StepError> {
    let at: Micros = context.now();
    if !context.store.update_batch(BatchUpdate { id: batch.id, at, event, provider, lines }).await? {
        tracing::warn!(batch = %batch.id, ?event, "a change of a batch came too late and was left out");
    }
    Ok(())
}

fn no_credentials(batch: &BatchRecord) -> Refusal {
    Refusal::own(format!(
        "the provider {:?} of this request is not configured any more, or its credential is gone: restore it in proxy.toml and send the call again",
        batch.lane.provider
    ))
}
