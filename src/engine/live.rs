//! Live calls for requests that batch cannot serve, or not in time: one after the other by the services of a request's
//! fallback, so many at a time for one credential and model.
//!
//! A live call has no look-up: when its answer does not come, nobody can say whether it was executed and billed. So it is
//! written down before it is sent ([`LiveCall::sent_at`]), and one whose answer was lost, by a cut connection, a gateway or
//! a death of the process, is made again only when it cannot be running any more: after the longest time that a
//! call is given, and a tenth more. A deadline that comes before ends the request.
//!
//! What is durable decides at every turn; `fallback`, `dispatch` and `recover` only say for which requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::crash;
use crate::domain::backoff::backoff;
use crate::domain::ids::RequestId;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::domain::service::Service;
use crate::engine::background;
use crate::engine::charge::unreadable;
use crate::engine::choice;
use crate::engine::context::Context;
use crate::engine::deadline::LIVE_CALLS_AT_ONCE;
use crate::engine::outcome::finish_of;
use crate::engine::run::StepError;
use crate::engine::settle::{self, Refusal};
use crate::store::ledger::Execution;
use crate::store::{Finish, LiveCall, RequestRecord};
use crate::upstream::provider::{BatchProvider, Credentials, LiveAnswer, LiveRequest, ProviderError};
use crate::wire::edit;
use crate::wire::line::LineOutcome;

/// How often a call without a deadline is answered with 429 or 5xx by its last service; one with a deadline is made until
/// then, and one that finds no connection without end.
const MOST_TRIES: u32 = 8;
/// … and by one after which there is another.
const TRIES_BEFORE_NEXT: u32 = 3;

/// A request has one live answer, as it has ended then, and at most one by each background window: their places in the
/// ledger.
pub(crate) const fn execution_of(service: Service) -> Execution {
    match service {
        Service::Batch | Service::Flex | Service::Sync => Execution::Live(1),
        Service::Background8h => Execution::Live(2),
        Service::Background2h => Execution::Live(3),
    }
}

/// Models are callers' texts: from so many on, those without a call are forgotten.
const MANY: usize = 1_024;

type Key = (Arc<str>, Fingerprint, Arc<str>);

/// Places for live calls, by provider, credential and model; by provider alone where there are no batches.
#[derive(Debug, Default)]
pub(crate) struct LiveRoom {
    places: Mutex<HashMap<Key, Arc<Semaphore>>>,
}

impl LiveRoom {
    /// `most`: the provider has no batches, and so many places for everybody together.
    fn of(&self, lane: &LaneKey, most: Option<usize>) -> Arc<Semaphore> {
        let key = match most {
            Some(_) => (Arc::clone(&lane.provider), Fingerprint([0; 16]), Arc::from("")),
            None => (Arc::clone(&lane.provider), lane.account, Arc::clone(&lane.model)),
        };
        let mut places = self.places.lock();
        if places.len() >= MANY {
            places.retain(|_, room| Arc::strong_count(room) > 1);
        }
        Arc::clone(places.entry(key).or_insert_with(|| Arc::new(Semaphore::new(most.unwrap_or(LIVE_CALLS_AT_ONCE)))))
    }
}

/// Counts as queued until the request's first call.
#[derive(Debug)]
struct InQueue(Arc<Context>);

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers requests by live calls. `from_queue`: they are counted among the queued ones until they are called.
pub(crate) fn start(context: &Arc<Context>, lane: &Arc<LaneKey>, ids: Vec<RequestId>, from_queue: bool) {
    let most = context.provider(lane).and_then(|provider| provider.capability().live_calls);
    let room = context.live_room.of(lane, most);
    let at_once = most.unwrap_or(LIVE_CALLS_AT_ONCE);
    let shared = Arc::clone(context);
    context.tasks.spawn("live calls", async move {
        let waiting: Vec<_> =
            ids.into_iter().map(|id| (id, from_queue.then(|| InQueue(Arc::clone(&shared))))).collect();
        stream::iter(waiting).for_each_concurrent(at_once, |(id, place)| supervise(&shared, &room, id, place)).await;
    });
}

async fn supervise(context: &Arc<Context>, room: &Arc<Semaphore>, id: RequestId, mut place: Option<InQueue>) {
    insist(context, "live call", || {
        let (shared, room, place) = (Arc::clone(context), Arc::clone(room), place.take());
        async move { serve(&shared, &room, id, place).await }
    })
    .await;
}

/// Until an attempt has come to its end. A panic or a failing store costs one; the next one reads what is durable.
pub(crate) async fn insist<F>(context: &Context, name: &'static str, mut attempt: impl FnMut() -> F)
where
    F: Future<Output = Result<(), StepError>> + Send + 'static,
{
    for failures in 0.. {
        match context.tasks.spawn(name, attempt()).await {
            Ok(Some(Ok(()) | Err(StepError::Stopping))) => return,
            Ok(Some(Err(StepError::Store(error)))) => context.telemetry.store_failed(&error),
            Ok(None) | Err(_) => context.telemetry.panic_contained(name),
        }
        if !context.sleep(backoff(failures, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64())).await {
            return;
        }
    }
}

/// What came of one call.
pub(crate) enum Called {
    /// The request has ended, by this call or otherwise.
    Over,
    /// No answer: it may be executed.
    Unsettled,
    /// Certainly not executed, or over without a result.
    Refused(ProviderError),
}

async fn serve(
    context: &Arc<Context>,
    room: &Arc<Semaphore>,
    id: RequestId,
    place: Option<InQueue>,
) -> Result<(), StepError> {
    let Some(record) = open(context, id).await? else { return Ok(()) };
    if record.response.is_some() {
        background::follow(context, id);
        return Ok(());
    }
    wait_out(context, &record).await?;
    // Kept through the pauses between tries, so that an outage sees no more calls than there are places.
    let _permit = permit(context, room).await?;
    drop(place);
    let mut tries = 0;
    loop {
        let Some(record) = open(context, id).await? else { return Ok(()) };
        let Some(service) = choice::of(context, &record) else { return Ok(()) };
        let error = match call(context, &record, service).await? {
            Called::Over => return Ok(()),
            Called::Unsettled => {
                // Begins by waiting, and keeps nobody's place meanwhile.
                start(context, &record.request.lane, vec![id], false);
                return Ok(());
            }
            Called::Refused(error) => error,
        };
        tries += 1;
        let pause = match after(&record, choice::after(context, &record, service), &error, tries) {
            After::Again(pause) => pause,
            After::By(next) => {
                background::remember(context, &record, service, &error);
                context.telemetry.fallback(next.as_str(), 1, "service_unavailable");
                tries = 0;
                mark(context, id, next, false).await?;
                continue;
            }
            After::Never => return end(context, &record, refusal(context, &record, service, &error)).await,
        };
        context.telemetry.provider_error("live call", &error, Some(pause));
        mark(context, id, service, false).await?;
        if !context.sleep(pause).await {
            return Err(StepError::Stopping);
        }
    }
}

/// The request, unless it has ended.
async fn open(context: &Context, id: RequestId) -> Result<Option<RequestRecord>, StepError> {
    Ok(context.store.request(id).await?.filter(|record| !record.state.is_terminal()))
}

/// Waits until a call whose outcome is unknown cannot be running any more.
async fn wait_out(context: &Context, record: &RequestRecord) -> Result<(), StepError> {
    let Some((service, sent_at)) = record.live.and_then(|live| Some((live.service, live.sent_at?))) else {
        return Ok(());
    };
    let longest = runs_for(context, service);
    let wait = sent_at.plus(longest + longest / 10).since(context.now());
    context.telemetry.live_call_unsettled(record.request.id, service.as_str(), wait);
    if context.sleep(wait).await { Ok(()) } else { Err(StepError::Stopping) }
}

async fn permit(context: &Context, room: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StepError> {
    tokio::select! {
        biased;
        () = context.tasks.stop_token().cancelled() => Err(StepError::Stopping),
        permit = Arc::clone(room).acquire_owned() => permit.map_err(|_closed| StepError::Stopping),
    }
}

/// The longest time from sending a call to its whole answer. Flex is slow: half as much again, 15 minutes where `sync` has
/// its default of 10 (providers.md, section 1.12).
fn bound(context: &Context, service: Service) -> Duration {
    match service {
        Service::Flex => context.live_bound * 3 / 2,
        Service::Sync | Service::Batch | Service::Background8h | Service::Background2h => context.live_bound,
    }
}

/// How long what a call began may run: a background response for its window.
fn runs_for(context: &Context, service: Service) -> Duration {
    service.window().map_or_else(|| bound(context, service), |(window, _)| window)
}

/// Writes down which call is out, or that none is. `false`: the request has ended.
pub(crate) async fn mark(context: &Context, id: RequestId, service: Service, sent: bool) -> Result<bool, StepError> {
    let now = context.now();
    let call = LiveCall { service, since: now, sent_at: sent.then_some(now) };
    Ok(!context.store.mark_live(vec![id], call).await?.is_empty())
}

async fn call(context: &Arc<Context>, record: &RequestRecord, service: Service) -> Result<Called, StepError> {
    let id = record.request.id;
    let lane = &record.request.lane;
    if context.is_draining() {
        return Err(StepError::Stopping);
    }
    let Some((provider, credentials)) = credentials(context, lane) else {
        let gone = "the provider of this request is not configured any more, or its credential is gone";
        end(context, record, Refusal::own(gone).finish(context, id)).await?;
        return Ok(Called::Over);
    };
    let Some((_, body)) = context.store.bodies(vec![id]).await?.pop() else { return Ok(Called::Over) };
    let body = match service.window() {
        Some((_, window)) => edit::with_background(&body, window).into(),
        None if service == Service::Flex => edit::with_flex(&body).into(),
        None => body,
    };
    if !mark(context, id, service, true).await? {
        return Ok(Called::Over);
    }
    if record.live.is_none() {
        context.announce_request(id, "submitted");
    }
    crash::point("live-intended");
    let request = LiveRequest { endpoint: lane.endpoint, body, bound: bound(context, service) };
    let answered = provider.call(&credentials, request).await;
    crash::point("live-answered");
    match answered {
        Ok(LiveAnswer { body, .. }) if service.window().is_some() => {
            background::begun(context, record, service, body).await
        }
        Ok(LiveAnswer { status, request_id, body }) => {
            let outcome = LineOutcome::Answered { status, provider_request_id: request_id, body };
            keep(context, record, &finish_of(context, lane, (service, execution_of(service)), id, outcome)).await?;
            Ok(Called::Over)
        }
        Err(error) if error.is_unsettled() => {
            context.telemetry.provider_error("live call", &error, Some(runs_for(context, service)));
            Ok(Called::Unsettled)
        }
        Err(error) => Ok(Called::Refused(error)),
    }
}

pub(crate) fn credentials(context: &Context, lane: &LaneKey) -> Option<(Arc<dyn BatchProvider>, Credentials)> {
    let provider = context.provider(lane)?;
    let config = context.provider_configs.get(&*lane.provider)?;
    Some((Arc::clone(provider), context.accounts.credentials(lane, config)?))
}

/// Ends the request by an answer that is paid for and is nowhere but here: as often as it takes. To drop it because the
/// disk is full would be to buy it again.
pub(crate) async fn keep(context: &Context, record: &RequestRecord, finish: &Finish) -> Result<(), StepError> {
    for failures in 0.. {
        match end(context, record, finish.clone()).await {
            Err(StepError::Store(error)) => context.telemetry.store_failed(&error),
            ended => return ended,
        }
        let wait = backoff(failures, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64());
        if !context.sleep(wait).await {
            return Err(StepError::Stopping);
        }
    }
    Ok(())
}

pub(crate) async fn end(context: &Context, record: &RequestRecord, finish: Finish) -> Result<(), StepError> {
    settle::finish(context, record.request.created_at, record.batch_id, vec![finish]).await?;
    Ok(())
}

/// What follows on a call that gave no result.
#[derive(Debug, PartialEq)]
enum After {
    Again(Duration),
    By(Service),
    Never,
}

/// `next`: the service that may take over.
fn after(record: &RequestRecord, next: Option<Service>, error: &ProviderError, tries: u32) -> After {
    let (may_get_better, is_full) = match error {
        ProviderError::NoAnswer { .. } => (true, false),
        // It was executed; what came cannot be used.
        ProviderError::Unreadable { .. } => return After::Never,
        ProviderError::Refused { status, code, .. } => (
            !error.is_lasting() && matches!(status, 409 | 425 | 429 | 500..),
            *status == 429 && code == "resource_unavailable",
        ),
    };
    let enough = match next {
        Some(_) => is_full || tries >= TRIES_BEFORE_NEXT,
        // A provider that cannot be reached is waited for, as it is with batches.
        None => {
            tries >= MOST_TRIES
                && record.request.deadline_at.is_none()
                && matches!(error, ProviderError::Refused { .. })
        }
    };
    match next {
        _ if may_get_better && !enough => {
            let grown = backoff(tries - 1, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64());
            After::Again(error.retry_after().map_or(grown, |asked| asked.clamp(grown, Duration::from_secs(600))))
        }
        Some(next) => After::By(next),
        None => After::Never,
    }
}

/// The provider's error, as the live call itself would have told it.
pub(crate) fn refusal(context: &Context, record: &RequestRecord, service: Service, error: &ProviderError) -> Finish {
    let id = record.request.id;
    context.telemetry.provider_error("live call", error, None);
    match error {
        ProviderError::Refused { status, body, .. }
            if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() =>
        {
            let outcome = LineOutcome::Answered { status: *status, provider_request_id: None, body: body.clone() };
            finish_of(context, &record.request.lane, (service, execution_of(service)), id, outcome)
        }
        ProviderError::Unreadable { .. } => {
            let charge = Some(unreadable(&record.request.lane, (service, execution_of(service))));
            Finish { charge, ..Refusal::own(error.to_string()).finish(context, id) }
        }
        ProviderError::Refused { .. } | ProviderError::NoAnswer { .. } => {
            Refusal::from_provider(error).finish(context, id)
        }
    }
}

#[cfg(test)]
mod tests;
