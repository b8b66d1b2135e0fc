//! `response` objects (providers.md, section 1.13).

use serde_json::{Value, json};

use crate::sim::answers::chat::{chosen_tool, content};
use crate::sim::answers::text::has;
use crate::sim::answers::{Answer, Call, Run, Usage, tokens};

/// Runs the call; it was not refused.
pub(super) fn answer(call: &Call<'_>, run: &mut Run) -> Answer {
    let (body, usage) = respond(call, run);
    Answer::new(&body, usage)
}

/// The finished response, for one answer or a stream.
pub(in crate::sim) fn respond(call: &Call<'_>, run: &mut Run) -> (Value, Usage) {
    let is_short = has(call, "sim-length");
    let status = if is_short { "incomplete" } else { "completed" };
    let (item, bytes) = output_item(call, run, status);
    let usage = Usage { input: call.input_tokens(), output: tokens(bytes) };
    let body = json!({
        "id": run.id("resp_"), "object": "response", "created_at": run.now,
        "completed_at": if is_short { Value::Null } else { Value::from(run.now) },
        "status": status, "background": call.is_background(), "error": null,
        "incomplete_details": if is_short { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "instructions": value(call.instructions), "max_output_tokens": null, "model": call.model, "output": [item],
        "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": null, "summary": null},
        "service_tier": run.tier, "store": true, "temperature": value_or(call.temperature, json!(1.0)),
        "text": value_or(call.format, json!({"format": {"type": "text"}})),
        "tool_choice": value_or(call.tool_choice, json!("auto")), "tools": value_or(call.tools, json!([])),
        "top_p": 1.0, "truncation": "disabled",
        "usage": {
            "input_tokens": usage.input, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.output, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input + usage.output,
        },
        "user": null, "metadata": value_or(call.metadata, json!({})),
    });
    (body, usage)
}

/// The one output item, and the bytes that the model wrote.
fn output_item(call: &Call<'_>, run: &mut Run, status: &str) -> (Value, usize) {
    if let Some(tool) = chosen_tool(call) {
        let arguments = tool.arguments(call, run, 0);
        let bytes = arguments.len();
        let item = json!({
            "id": run.id("fc_"), "type": "function_call", "status": status, "call_id": run.id("call_"),
            "name": tool.name, "arguments": arguments,
        });
        return (item, bytes);
    }
    let (part, bytes) = if has(call, "sim-refuse") {
        let refusal = format!("I cannot help with that. [{}]", run.short_hash());
        let bytes = refusal.len();
        (json!({"type": "refusal", "refusal": refusal}), bytes)
    } else {
        let text = content(call, run, 0);
        let bytes = text.len();
        (json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}), bytes)
    };
    let item = json!({
        "id": run.id("msg_"), "type": "message", "status": status, "role": "assistant", "content": [part],
    });
    (item, bytes)
}

fn value(raw: Option<&serde_json::value::RawValue>) -> Value {
    value_or(raw, Value::Null)
}

fn value_or(raw: Option<&serde_json::value::RawValue>, otherwise: Value) -> Value {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(otherwise)
}
