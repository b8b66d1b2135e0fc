//! Responses in the background (providers.md, section 1.12): queued at once, read and cancelled by id, within a window
//! that is cheaper, or without one.
//!
//! A response is executed, and counted, when it is ready; one that was cancelled before never is. Without `store` it is
//! gone ten minutes after that.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::sim::answers::{Call, Endpoint, Usage, responses};
use crate::sim::counters::Execution;
use crate::sim::faults::Fault;
use crate::sim::live::new_run;
use crate::sim::peek::members;
use crate::sim::reply::{self, ApiFailure, Failure, Outcome};
use crate::sim::state::State;

/// How long what is not stored is kept.
const UNSTORED_FOR: Duration = Duration::from_secs(600);
/// A response that is never ready, in tests.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The responses that were started in the background.
#[derive(Debug, Default)]
pub(super) struct Background(Mutex<HashMap<String, Job>>);

#[derive(Debug)]
struct Job {
    finished: Value,
    ready_at: Instant,
    gone_at: Option<Instant>,
    cancelled: bool,
    /// Until it is counted.
    execution: Option<(Execution, Usage)>,
}

impl Job {
    fn json(&self) -> Value {
        if self.cancelled {
            unfinished(&self.finished, "cancelled")
        } else if Instant::now() < self.ready_at {
            unfinished(&self.finished, "in_progress")
        } else {
            self.finished.clone()
        }
    }
}

impl Background {
    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Whether a call asks for the background; refused where there is none, or where it is asked for wrongly.
pub(super) fn is_asked(call: &Call<'_>) -> Result<bool, ApiFailure> {
    let options = members(call.body, &["background_options"]).ok().and_then(|[options]| options);
    let options = options.filter(|raw| raw.get() != "null");
    if call.endpoint != Endpoint::Responses {
        let name = if call.is_background() { "background" } else { "background_options" };
        if call.is_background() || options.is_some() {
            return Err(unsupported("unknown_parameter", name, format!("Unknown parameter: '{name}'.")));
        }
        return Ok(false);
    }
    let Some(options) = options else { return Ok(call.is_background()) };
    let param = "background_options";
    if !call.is_background() {
        let message = "'background_options' is only allowed when 'background' is true.".to_owned();
        return Err(unsupported("invalid_value", param, message));
    }
    let window = members(options.get(), &["completion_window"]).ok().and_then(|[window]| window);
    if !matches!(window.map(RawValue::get), None | Some("\"soonest\"" | "\"2h\"" | "\"8h\"")) {
        let param = "background_options.completion_window";
        let message = format!("Invalid value: '{param}' must be one of 'soonest', '2h' and '8h'.");
        return Err(unsupported("invalid_value", param, message));
    }
    if call.is_flex() {
        let message = "A completion window is of standard processing: leave 'service_tier' out.".to_owned();
        return Err(unsupported("unsupported_value", "service_tier", message));
    }
    Ok(true)
}

/// Starts a response; it can be read `latency` later.
pub(super) fn start(state: &State, call: &Call<'_>, latency: Duration) -> Outcome {
    if call.wants_stream() {
        let message = "Background responses are not streamed by the simulator.".to_owned();
        return Err(unsupported("unsupported_parameter", "stream", message).into());
    }
    if state.faults.take(Fault::BackgroundRefused) {
        let message = "This model has no completion windows.".to_owned();
        return Err(unsupported("unsupported_parameter", "background_options", message).into());
    }
    if state.faults.take(Fault::Background429) {
        return Err(ApiFailure::rate_limit(1).into());
    }
    if let Some(refusal) = call.refusal() {
        return Err(refusal.into());
    }
    let execution = Execution::of(call.body);
    let (mut finished, usage) = responses::respond(call, &mut new_run(state, call, &execution));
    let mut execution = Some((execution, usage));
    if state.faults.take(Fault::BackgroundFail) {
        execution = None;
        finished = unfinished(&finished, "failed");
        if let Some(error) = finished.get_mut("error") {
            *error =
                json!({"code": "server_error", "message": "The server had an error while processing your request."});
        }
    }
    let latency = if state.faults.take(Fault::BackgroundSlow) { NEVER } else { latency };
    let cancelled = state.faults.take(Fault::BackgroundCancelled);
    let queued = unfinished(&finished, "queued");
    let id = finished.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ready_at = Instant::now() + latency;
    let stored = members(call.body, &["store"]).ok().and_then(|[store]| store).is_none_or(|raw| raw.get() != "false");
    let gone_at = (!stored).then_some(ready_at + UNSTORED_FOR);
    state.background.0.lock().insert(id, Job { finished, ready_at, gone_at, cancelled, execution });
    state.counters.background_started();
    if state.faults.take(Fault::BackgroundLost) {
        return Err(Failure::Cut);
    }
    Ok(reply::ok(&queued))
}

/// `GET /responses/{id}`.
pub(super) fn get(state: &State, id: &str) -> Outcome {
    if state.faults.take(Fault::BackgroundPoll500) {
        return Err(ApiFailure::server().into());
    }
    if state.faults.take(Fault::BackgroundPoll404) {
        return Err(no_such_response(id));
    }
    settle(state);
    let jobs = state.background.0.lock();
    jobs.get(id).map(|job| reply::ok(&job.json())).ok_or_else(|| no_such_response(id))
}

/// `POST /responses/{id}/cancel`.
pub(super) fn cancel(state: &State, id: &str) -> Outcome {
    if state.faults.take(Fault::BackgroundCancel500) {
        return Err(ApiFailure::server().into());
    }
    settle(state);
    let mut jobs = state.background.0.lock();
    let job = jobs.get_mut(id).ok_or_else(|| no_such_response(id))?;
    if Instant::now() < job.ready_at && !job.cancelled {
        job.cancelled = true;
        state.counters.background_cancelled();
    }
    Ok(reply::ok(&job.json()))
}

/// Counts what has become ready since, and forgets what is not kept any longer.
pub(super) fn settle(state: &State) {
    let now = Instant::now();
    let mut jobs = state.background.0.lock();
    for job in jobs.values_mut().filter(|job| !job.cancelled && job.ready_at <= now) {
        if let Some((execution, usage)) = job.execution.take() {
            state.counters.live_executed(Endpoint::Responses.path(), execution, usage);
        }
    }
    jobs.retain(|_, job| job.gone_at.is_none_or(|at| now < at));
}

fn unfinished(finished: &Value, status: &str) -> Value {
    let mut response = finished.clone();
    let changes =
        [("status", json!(status)), ("output", json!([])), ("usage", Value::Null), ("completed_at", Value::Null)];
    for (name, value) in changes {
        if let Some(slot) = response.get_mut(name) {
            *slot = value;
        }
    }
    response
}

fn unsupported(code: &'static str, param: &str, message: String) -> ApiFailure {
    ApiFailure::invalid(400, code, Some(param), message)
}

fn no_such_response(id: &str) -> Failure {
    reply::not_found(None, format!("Response with id '{id}' not found."))
}
