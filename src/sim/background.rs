//! Responses in the background (providers.md, section 1.12): queued at once, read and cancelled by id.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::sim::answers::{Call, responses};
use crate::sim::counters::Execution;
use crate::sim::live::new_run;
use crate::sim::reply::{self, ApiFailure, Failure, Outcome};
use crate::sim::state::State;

/// The responses that were started in the background.
#[derive(Debug, Default)]
pub(super) struct Background(Mutex<HashMap<String, Job>>);

#[derive(Debug)]
struct Job {
    finished: Value,
    ready_at: Instant,
    cancelled: bool,
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

/// Starts a response; it is counted as executed now and can be read `latency` later.
pub(super) fn start(state: &State, call: &Call<'_>, latency: Duration) -> Outcome {
    if call.wants_stream() {
        let message = "Background responses are not streamed by the simulator.";
        return Err(ApiFailure::invalid(400, "unsupported_parameter", Some("stream"), message).into());
    }
    if let Some(refusal) = call.refusal() {
        return Err(refusal.into());
    }
    let execution = Execution::of(call.body);
    let (finished, usage) = responses::respond(call, &mut new_run(state, call, &execution));
    state.counters.live_executed(call.endpoint.path(), execution, usage);
    let queued = unfinished(&finished, "queued");
    let id = finished.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let job = Job { finished, ready_at: Instant::now() + latency, cancelled: false };
    state.background.0.lock().insert(id, job);
    Ok(reply::ok(&queued))
}

/// `GET /responses/{id}`.
pub(super) fn get(state: &State, id: &str) -> Outcome {
    let jobs = state.background.0.lock();
    jobs.get(id).map(|job| reply::ok(&job.json())).ok_or_else(|| no_such_response(id))
}

/// `POST /responses/{id}/cancel`.
pub(super) fn cancel(state: &State, id: &str) -> Outcome {
    let mut jobs = state.background.0.lock();
    let job = jobs.get_mut(id).ok_or_else(|| no_such_response(id))?;
    job.cancelled |= Instant::now() < job.ready_at;
    Ok(reply::ok(&job.json()))
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

fn no_such_response(id: &str) -> Failure {
    reply::not_found(None, format!("Response with id '{id}' not found."))
}
