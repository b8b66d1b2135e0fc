//! Background responses: Responses calls that the provider answers within 8 or 2 hours, for less than the live price
//! (providers.md, section 1.12).
//!
//! They are begun as live calls are (`live`): written down before they are sent, and with no look-up for one whose answer was
//! lost, since responses cannot be listed. From then on the provider's id of the response is durable, and its end is
//! waited for by a task of its own, before and after a restart. Whatever another service or a deadline has answered
//! meanwhile is cancelled at the provider; what it had finished all the same is entered as waste.
//!
//! A response that is not there any more is never bought again: it may have been billed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::crash;
use crate::domain::backoff::backoff;
use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::domain::service::Service;
use crate::engine::charge::unreadable;
use crate::engine::choice;
use crate::engine::context::Context;
use crate::engine::deadline::Schedule;
use crate::engine::flight::again;
use crate::engine::live::{self, Called};
use crate::engine::outcome::finish_of;
use crate::engine::run::StepError;
use crate::engine::settle::Refusal;
use crate::store::{Finish, LiveCall, RequestRecord};
use crate::upstream::provider::ProviderError;
use crate::wire::edit;
use crate::wire::line::LineOutcome;
use crate::wire::openai::response::{BackgroundResponse, ResponseStatus};

const OPERATION: &str = "background response";
/// The longest pause between two looks: what is not kept for long (ten minutes) is not missed.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// A response that is being cancelled is looked at this often at first.
const LOOK: Duration = Duration::from_secs(1);
/// A response that is not there for so long is gone.
const MISSING_FOR: Duration = Duration::from_secs(600);

/// What follows on the provider's answer to the call that begins a response: its id is durable before its end is waited for.
pub(crate) async fn begun(
    context: &Arc<Context>,
    record: &RequestRecord,
    service: Service,
    answer: Bytes,
) -> Result<Called, StepError> {
    let response = match BackgroundResponse::read(answer) {
        Ok(response) => response,
        Err(error) => {
            return Ok(Called::Refused(ProviderError::Unreadable { operation: OPERATION, cause: error.to_string() }));
        }
    };
    let id = record.request.id;
    match response.status {
        // At once, or by a server that knows no background: the live path says what follows.
        ResponseStatus::Failed | ResponseStatus::Cancelled => Ok(Called::Refused(error_of(&response))),
        ResponseStatus::Answered => {
            live::keep(context, record, &answered(context, record, service, &response)).await?;
            Ok(Called::Over)
        }
        ResponseStatus::Running => {
            // Nowhere but here: as often as it takes. An id that is lost is a response that may be billed for nothing.
            let kept = again(context, || context.store.keep_response(id, response.id.clone())).await;
            if !kept.map_err(|_stopping| StepError::Stopping)? {
                tracing::debug!(request = %id, "the request ended while its background response was begun");
                watch(context, record, service, response.id);
                return Ok(Called::Over);
            }
            crash::point("response-recorded");
            follow(context, id);
            Ok(Called::Over)
        }
    }
}

/// Sees a response whose id is durable through to its end, in a task of its own.
pub(crate) fn follow(context: &Arc<Context>, id: RequestId) {
    let shared = Arc::clone(context);
    context.tasks.spawn("background responses", async move {
        live::insist(&shared, OPERATION, || see_through(Arc::clone(&shared), id)).await;
    });
}

async fn see_through(context: Arc<Context>, id: RequestId) -> Result<(), StepError> {
    let Some(record) = context.store.request(id).await? else { return Ok(()) };
    let (Some(LiveCall { service, .. }), Some(response)) = (record.live, record.response.clone()) else {
        return Ok(());
    };
    Watch::new(&context, record, service, response).run(&context).await
}

/// The same for a response whose request has ended before its id was durable: it is cancelled.
fn watch(context: &Arc<Context>, record: &RequestRecord, service: Service, response: String) {
    let (shared, record) = (Arc::clone(context), record.clone());
    context.tasks.spawn("background responses", async move {
        let watch = Watch::new(&shared, record, service, response);
        if let Err(StepError::Store(error)) = watch.run(&shared).await {
            shared.telemetry.store_failed(&error);
        }
    });
}

/// One response until its end.
struct Watch {
    record: RequestRecord,
    service: Service,
    response: String,
    began: Micros,
    /// From here on it is asked to be cancelled, and not read any more.
    cancel_at: Micros,
    /// From here on the next service answers, whatever became of the cancellation.
    buy_at: Option<Micros>,
    missing_since: Option<Instant>,
    failures: u32,
}

impl Watch {
    fn new(context: &Context, record: RequestRecord, service: Service, response: String) -> Self {
        let began = record.live.and_then(|live| live.sent_at).unwrap_or_else(|| context.now());
        let window = service.window().map_or(Duration::ZERO, |(window, _)| window);
        let may_be_rescued = record.request.options.fallback().after(service).may_rescue();
        let (cancel_at, buy_at) = match record.request.deadline_at {
            Some(deadline) if may_be_rescued => {
                let schedule = Schedule::new(began, deadline, 1);
                (schedule.cancel_at, Some(schedule.buy_at))
            }
            // The watchdog answers first.
            Some(deadline) => (deadline.plus(LOOK), None),
            // A window that is over by half is not kept to any more.
            None => (began.plus(window + window / 2), None),
        };
        Self { record, service, response, began, cancel_at, buy_at, missing_since: None, failures: 0 }
    }

    async fn run(mut self, context: &Arc<Context>) -> Result<(), StepError> {
        while let Some(pause) = self.turn(context).await? {
            if !context.sleep(pause).await {
                return Err(StepError::Stopping);
            }
        }
        Ok(())
    }

    /// One look, and what follows from it. The pause until the next one; none: it is over.
    async fn turn(&mut self, context: &Arc<Context>) -> Result<Option<Duration>, StepError> {
        let standing = context.store.request(self.record.request.id).await?;
        let Some(record) = standing else { return Ok(None) };
        let waits = !record.state.is_terminal() && record.response.as_ref() == Some(&self.response);
        self.record = record;
        let Some((provider, credentials)) = live::credentials(context, &self.record.request.lane) else {
            if waits {
                let gone = "the provider of this request is not configured any more, or its credential is gone: its background response may be billed";
                let finish = Refusal::own(gone).finish(context, self.record.request.id);
                live::end(context, &self.record, finish).await?;
            }
            return Ok(None);
        };
        let is_given_up = !waits || context.now() >= self.cancel_at;
        // In turns: one that cannot be cancelled may have ended.
        let looked = if is_given_up && self.failures.is_multiple_of(2) {
            provider.cancel_response(&credentials, &self.response).await
        } else {
            provider.response(&credentials, &self.response).await
        };
        let asked = match looked {
            Ok(found) if found.status == ResponseStatus::Running => {
                self.missing_since = None;
                self.failures = if is_given_up { self.failures + 1 } else { 0 };
                None
            }
            Ok(found) => return self.conclude(context, &found, waits).await.map(|()| None),
            Err(error) if error.is_not_found() && !waits => return Ok(None),
            Err(error) if error.is_not_found() => {
                if self.missing_since.get_or_insert_with(Instant::now).elapsed() >= MISSING_FOR {
                    return self.lose(context).await.map(|()| None);
                }
                self.failed(context, &error)
            }
            Err(error) => self.failed(context, &error),
        };
        if waits && self.buy_at.is_some_and(|at| context.now() >= at) {
            self.buy_at = None;
            self.hand_on(context, None).await?;
        }
        let window = self.service.window().map_or(Duration::ZERO, |(window, _)| window);
        if !waits && context.now() >= self.began.plus(2 * window) {
            tracing::warn!(request = %self.record.request.id, "a background response that nobody waits for could not be cancelled: it may be billed");
            return Ok(None);
        }
        Ok(Some(self.pause(context, is_given_up, asked)))
    }

    fn failed(&mut self, context: &Context, error: &ProviderError) -> Option<Duration> {
        self.failures += 1;
        context.telemetry.provider_error(OPERATION, error, Some(LONGEST_PAUSE));
        error.retry_after()
    }

    /// A tenth of the time that it has run, so that a short answer is found soon and a long one asked for seldom.
    fn pause(&self, context: &Context, is_given_up: bool, asked: Option<Duration>) -> Duration {
        let now = context.now();
        let first = context.settings().batching.poll.min(LONGEST_PAUSE);
        let grown = if self.failures > 0 {
            let first = if is_given_up { LOOK } else { first.max(LOOK) };
            backoff(self.failures - 1, first, LONGEST_PAUSE, fastrand::f64())
        } else {
            // Those that were begun together are not asked for together.
            (now.since(self.began) / 10).clamp(first, LONGEST_PAUSE).mul_f64(1.0 - 0.2 * fastrand::f64())
        };
        let pause = asked.map_or(grown, |asked| asked.clamp(grown, 5 * LONGEST_PAUSE));
        let due = if is_given_up { self.buy_at } else { Some(self.cancel_at) };
        due.map_or(pause, |due| pause.min(due.since(now).max(Duration::from_millis(1))))
    }

    /// It has ended. What ended before it for its caller changes nothing any more, but is in the ledger.
    async fn conclude(&self, context: &Arc<Context>, found: &BackgroundResponse, waits: bool) -> Result<(), StepError> {
        match found.status {
            ResponseStatus::Answered => {
                let finish = answered(context, &self.record, self.service, found);
                live::keep(context, &self.record, &finish).await
            }
            ResponseStatus::Failed | ResponseStatus::Cancelled if waits => {
                let error = error_of(found);
                remember(context, &self.record, self.service, &error);
                self.hand_on(context, Some(error)).await
            }
            ResponseStatus::Running | ResponseStatus::Failed | ResponseStatus::Cancelled => Ok(()),
        }
    }

    /// The next service takes over, one that answers in time; without one the request ends with the error.
    async fn hand_on(&self, context: &Arc<Context>, error: Option<ProviderError>) -> Result<(), StepError> {
        let (id, lane) = (self.record.request.id, &self.record.request.lane);
        // A fault of the call itself is one everywhere.
        let is_callers = matches!(error, Some(ProviderError::Refused { status: 400, .. }));
        let next = choice::after(context, &self.record, self.service).filter(|_| !is_callers);
        match (next, error) {
            (Some(next), error) => {
                let why = if error.is_some() { "service_unavailable" } else { "deadline" };
                context.telemetry.fallback(next.as_str(), 1, why);
                live::mark(context, id, next, false).await?;
                live::start(context, lane, vec![id], false);
                Ok(())
            }
            (None, Some(error)) => {
                let finish = live::refusal(context, &self.record, self.service, &error);
                live::end(context, &self.record, finish).await
            }
            // It runs, and nothing else may answer: the deadline ends it.
            (None, None) => Ok(()),
        }
    }

    /// The provider does not know it any more. It may have been executed and billed: it is not bought again.
    async fn lose(&self, context: &Context) -> Result<(), StepError> {
        let request = &self.record.request;
        let gone = "the provider does not know the background response any more, which may have been executed and billed: send the call again only if it may be bought once more";
        let charge = unreadable(&request.lane, (self.service, live::execution_of(self.service)));
        let finish = Finish { charge: Some(charge), ..Refusal::own(gone).finish(context, request.id) };
        live::end(context, &self.record, finish).await
    }
}

/// The end of a request by its response, told as the live call would have been.
fn answered(context: &Context, record: &RequestRecord, service: Service, found: &BackgroundResponse) -> Finish {
    let body = Bytes::from(edit::of_live_call(&found.body));
    let outcome = LineOutcome::Answered { status: 200, provider_request_id: None, body };
    let execution = live::execution_of(service);
    // The answer's own word is what is paid.
    let service = if found.is_live { Service::Sync } else { service };
    finish_of(context, &record.request.lane, (service, execution), record.request.id, outcome)
}

/// A response that ended without an answer.
fn error_of(found: &BackgroundResponse) -> ProviderError {
    if found.status == ResponseStatus::Cancelled {
        let message = "the background response was cancelled before it was finished".to_owned();
        let body = serde_json::json!({"error": {"message": message, "type": "server_error", "param": null, "code": "response_cancelled"}});
        return ProviderError::Refused {
            operation: OPERATION,
            status: 500,
            code: "response_cancelled".to_owned(),
            message,
            body: Bytes::from(body.to_string()),
            retry_after: None,
        };
    }
    let failure = found.failure();
    ProviderError::Refused {
        operation: OPERATION,
        status: failure.status,
        code: failure.code,
        message: failure.message,
        body: failure.body,
        retry_after: None,
    }
}

/// Keeps in mind what a window refused: a model that has none for hours, want of room for minutes. What is the fault of one
/// call says nothing of others.
pub(crate) fn remember(context: &Context, record: &RequestRecord, service: Service, error: &ProviderError) {
    let ProviderError::Refused { status, code, message, body, .. } = error else { return };
    let lane = &record.request.lane;
    if service.window().is_none() {
        return;
    }
    if *status == 429 && !error.is_lasting() {
        context.refused.remember_full(lane, service);
    } else if is_no_window(*status, code, body) {
        context.refused.remember(lane, service, message);
    }
}

/// Whether a refusal is about the window or the model, not about what was asked of it.
fn is_no_window(status: u16, code: &str, body: &[u8]) -> bool {
    let envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    let param = envelope.pointer("/error/param").and_then(Value::as_str).unwrap_or_default();
    let is_meant = param == "model" || param.starts_with("background");
    matches!(status, 403..=405 | 501) || status == 400 && (is_meant || code == "model_not_found")
}

#[cfg(test)]
mod tests;
