//! What the simulated Claude answers: deterministic, made from the request. `[HASH] TEXT` as in the first dialect, and
//! beside its words: `sim-search` (a server tool and a citation), `fail-529`; `thinking` gives a thinking block.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use crate::sim::answers::{Usage, number_after};
use crate::sim::anthropic::params::{Params, tokens};
use crate::sim::anthropic::{Answer, Refusal, Stop, stream};
use crate::sim::counters::Execution;
use crate::sim::faults::Fault;
use crate::sim::reply;
use crate::sim::state::State;

/// The path under which executions are counted.
pub(super) const PATH: &str = "/v1/messages";

/// One execution.
pub(super) struct Executed {
    pub(super) message: Value,
    pub(super) billed: Usage,
}

/// Runs a call. `tier`: `standard` or `batch`.
pub(super) fn run(params: &Params, digest: &[u8; 32], id: &str, tier: &str) -> Result<Executed, Refusal> {
    let asked = params.asked();
    let refusals = [
        ("fail-400", "invalid_request_error"),
        ("fail-429", "rate_limit_error"),
        ("fail-500", "api_error"),
        ("fail-529", "overloaded_error"),
    ];
    if let Some((word, kind)) = refusals.into_iter().find(|(word, _)| asked.contains(word)) {
        return Err(Refusal::new(kind, format!("asked for by {word}")));
    }
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut text = format!("[{hash}] {asked}");
    if let Some(wanted) = number_after(&asked, "sim-reply-bytes=") {
        let missing = usize::try_from(wanted).unwrap_or(0).min(32_000_000).saturating_sub(text.len());
        text.extend(std::iter::repeat_n('.', missing));
    }
    let (content, stop_reason) = content(params, &asked, &text, &hash);
    let (write_5m, write_1h) = params.cache_writes();
    let input = tokens(asked.len());
    let output = tokens(text.len());
    let message = json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": params.text("model"),
        "content": content, "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {
            "input_tokens": input, "cache_creation_input_tokens": write_5m + write_1h, "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
            "output_tokens": output, "service_tier": tier,
        },
    });
    Ok(Executed { message, billed: Usage { input: input + write_5m + write_1h, output } })
}

fn content(params: &Params, asked: &str, text: &str, hash: &str) -> (Value, &'static str) {
    let mut content = Vec::new();
    let thinks = params.get("thinking").and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
    if matches!(thinks, Some("enabled" | "adaptive")) {
        content
            .push(json!({"type": "thinking", "thinking": format!("thinking about {hash}"), "signature": "c2lnbmVk"}));
    }
    let is_forced = params.get("tool_choice").and_then(|choice| choice.get("type")).and_then(Value::as_str);
    let tool = params.get("tools").and_then(Value::as_array).and_then(|tools| tools.first());
    if let Some(tool) = tool.filter(|_| asked.contains("use the tool") || matches!(is_forced, Some("any" | "tool"))) {
        content.push(json!({"type": "tool_use", "id": format!("toolu_{hash}"), "name": tool.get("name"),
            "input": {"text": asked}}));
        return (Value::Array(content), "tool_use");
    }
    if asked.contains("sim-search") {
        let id = format!("srvtoolu_{hash}");
        content.push(json!({"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": asked}}));
        let found = json!({"type": "web_search_result", "url": "https://example.com", "title": "Example",
            "encrypted_content": "eHg=", "page_age": null});
        content.push(json!({"type": "web_search_tool_result", "tool_use_id": id, "content": [found]}));
        let citation = json!({"type": "web_search_result_location", "url": "https://example.com", "title": "Example",
            "encrypted_index": "eHg=", "cited_text": "example"});
        content.push(json!({"type": "text", "text": text, "citations": [citation]}));
        return (Value::Array(content), "end_turn");
    }
    if asked.contains("sim-refuse") {
        return (Value::Array(content), "refusal");
    }
    content.push(json!({"type": "text", "text": text}));
    (Value::Array(content), if asked.contains("sim-length") { "max_tokens" } else { "end_turn" })
}

/// `POST /messages`.
pub(super) async fn live(state: &State, headers: &HeaderMap, version: usize, body: &Bytes) -> Answer {
    let answer = checked_live(state, headers, version, body).await;
    if matches!(&answer, Err(Stop::Refused(_))) {
        state.counters.live_refused();
    }
    answer
}

async fn checked_live(state: &State, headers: &HeaderMap, version: usize, body: &Bytes) -> Answer {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.starts_with("application/json") {
        return Err(Refusal::invalid("content-type: application/json is required").into());
    }
    let params = Params::checked(body, version, false)?;
    if state.faults.take(Fault::LiveSilent) {
        std::future::pending::<()>().await;
    }
    if state.faults.take(Fault::Live500) {
        return Err(Refusal::server().into());
    }
    if state.faults.take(Fault::Live429) || state.is_unlucky(state.settings().fail_rate) {
        return Err(Refusal::rate_limit(1).into());
    }
    let asked = params.asked();
    let latency = number_after(&asked, "sim-sleep=").map(Duration::from_millis);
    tokio::time::sleep(latency.unwrap_or_else(|| state.settings().live_latency)).await;
    let execution = Execution::of(std::str::from_utf8(body).unwrap_or_default());
    let executed = run(&params, &execution.digest, &state.ids.long(""), "standard")?;
    state.counters.live_executed(PATH, execution, executed.billed);
    let cut = state.faults.take(Fault::LiveCut);
    if params.wants_stream() {
        let pause = number_after(&asked, "sim-chunk-ms=").map(Duration::from_millis).unwrap_or_default();
        let events = stream::events(&executed.message);
        let mut response = http::Response::new(crate::sim::stream::body(events, pause, cut));
        let value = HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, value);
        return Ok(response);
    }
    if cut { Err(Stop::Cut) } else { Ok(reply::ok(&executed.message)) }
}

/// `POST /messages/count_tokens`.
pub(super) fn count_tokens(body: &Bytes) -> Answer {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(Refusal::invalid("The request body is not valid JSON").into());
    };
    let Some(messages) = fields.get("messages") else {
        return Err(Refusal::invalid("messages: Field required").into());
    };
    Ok(reply::ok(&json!({"input_tokens": tokens(messages.to_string().len())})))
}
