//! Live calls (providers.md, section 1.13): answered after the latency, streamed where a stream is asked for.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::body::Body;
use crate::sim::answers::{Answer, Call, Endpoint, Run, Usage, answer, chat, completions, number_after, responses};
use crate::sim::background;
use crate::sim::counters::Execution;
use crate::sim::faults::Fault;
use crate::sim::reply::{self, ApiFailure, Failure, Outcome};
use crate::sim::state::State;
use crate::sim::{stream, stream_responses};

/// Models that `GET /models` lists. Others are answered too.
const MODELS: [&str; 6] = [
    "gpt-6-luna",
    "gpt-5.6-luna",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "omni-moderation-latest",
];

/// Answers a call.
pub(super) async fn call(state: &State, endpoint: Endpoint, headers: &HeaderMap, body: &Bytes) -> Outcome {
    let outcome = checked_call(state, endpoint, headers, body).await;
    if matches!(&outcome, Err(Failure::Api(_))) {
        state.counters.live_refused();
    }
    outcome
}

async fn checked_call(state: &State, endpoint: Endpoint, headers: &HeaderMap, body: &Bytes) -> Outcome {
    let body = json_text(headers, body)?;
    let call = Call::parse(endpoint, body)?;
    unlucky(state, &call).await?;
    let latency = number_after(call.asked(), "sim-sleep=").map(Duration::from_millis);
    let latency = latency.unwrap_or_else(|| state.settings().live_latency);
    if background::is_asked(&call)? {
        return background::start(state, &call, latency);
    }
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(refusal) = call.refusal() {
        return Err(refusal.into());
    }
    let execution = Execution::of(body);
    let mut run = new_run(state, &call, &execution);
    let cut = state.faults.take(Fault::LiveCut);
    if call.wants_stream() {
        if let Some((events, usage)) = events(&call, &mut run) {
            state.counters.live_executed(endpoint.path(), execution, usage);
            let pause = number_after(call.asked(), "sim-chunk-ms=").map(Duration::from_millis).unwrap_or_default();
            return Ok(event_stream(stream::body(events, pause, cut)));
        }
        let message = format!("Streaming is not supported on {}.", endpoint.path());
        return Err(ApiFailure::invalid(400, "unsupported_parameter", Some("stream"), message).into());
    }
    let Answer { status, body, usage } = answer(&call, &mut run);
    if status < 300 {
        state.counters.live_executed(endpoint.path(), execution, usage);
    } else {
        state.counters.live_refused();
    }
    if cut { Err(Failure::Cut) } else { Ok(reply::json_bytes(status, body)) }
}

/// What an execution is given.
pub(super) fn new_run(state: &State, call: &Call<'_>, execution: &Execution) -> Run {
    Run {
        rng: state.rng(state.ids.number()),
        now: state.clock.unix_now(),
        digest: execution.digest,
        tier: if call.is_flex() { "flex" } else { "default" },
    }
}

/// `GET /models`.
pub(super) fn models() -> Outcome {
    Ok(reply::ok(&json!({"object": "list", "data": MODELS.map(model_json)})))
}

/// `GET /models/{model}`.
pub(super) fn model(name: &str) -> Outcome {
    if MODELS.contains(&name) || name.starts_with("gpt-") || name.starts_with("ft:") {
        return Ok(reply::ok(&model_json(name)));
    }
    let message = format!("The model '{name}' does not exist");
    Err(ApiFailure::invalid(404, "model_not_found", Some("model"), message).into())
}

/// Faults, and the share of calls that fail by chance.
async fn unlucky(state: &State, call: &Call<'_>) -> Result<(), Failure> {
    if state.faults.take(Fault::LiveSilent) {
        std::future::pending::<()>().await;
    }
    if state.faults.take(Fault::Live500) {
        return Err(ApiFailure::server().into());
    }
    if state.faults.take(Fault::Live429) {
        return Err(ApiFailure::rate_limit(1).into());
    }
    if call.is_flex() && state.faults.take(Fault::FlexUnavailable) {
        let message = "There are no resources for flex processing at the moment. Please try again later.";
        let mut failure = ApiFailure::invalid(429, "resource_unavailable", None, message);
        failure.kind = "resource_unavailable";
        return Err(failure.into());
    }
    if state.is_unlucky(state.settings().fail_rate) {
        let failure = if state.is_unlucky(0.5) { ApiFailure::rate_limit(1) } else { ApiFailure::server() };
        return Err(failure.into());
    }
    Ok(())
}

fn json_text<'b>(headers: &HeaderMap, body: &'b Bytes) -> Result<&'b str, Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json =
        content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let unparseable = |message: &str| Failure::from(ApiFailure::invalid(400, None, None, message));
    if !is_json {
        return Err(unparseable("The request must have the content type application/json."));
    }
    str::from_utf8(body).map_err(|_error| unparseable("We could not parse the JSON body of your request."))
}

/// The events of a stream; `None` where the endpoint has no streams.
fn events(call: &Call<'_>, run: &mut Run) -> Option<(Vec<Bytes>, Usage)> {
    match call.endpoint {
        Endpoint::Chat => {
            let completion = chat::complete(call, run);
            Some((stream::chat_events(&completion, call.wants_stream_usage()), completion.billed))
        }
        Endpoint::Completions => {
            let (body, usage) = completions::complete(call, run);
            Some((stream::completion_events(&body, call.wants_stream_usage()), usage))
        }
        Endpoint::Responses => {
            let (body, usage) = responses::respond(call, run);
            Some((stream_responses::events(&body), usage))
        }
        Endpoint::Embeddings | Endpoint::Moderations => None,
    }
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn model_json(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 1_790_000_000, "owned_by": "simulator"})
}
