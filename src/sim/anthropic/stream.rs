//! The events of a live stream (providers.md, section 2.7).

use bytes::Bytes;
use serde_json::{Value, json};

use crate::sim::stream::pieces;

/// All of them, with a `ping` as the live API sends it.
pub(super) fn events(message: &Value) -> Vec<Bytes> {
    let mut events = Vec::new();
    let mut push = |data: Value| {
        let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
        events.push(Bytes::from(format!("event: {kind}\ndata: {data}\n\n")));
    };
    let mut opened = message.clone();
    for (name, value) in [("content", json!([])), ("stop_reason", Value::Null)] {
        set(&mut opened, name, value);
    }
    if let Some(usage) = opened.get_mut("usage") {
        set(usage, "output_tokens", json!(1));
    }
    push(json!({"type": "message_start", "message": opened}));
    push(json!({"type": "ping"}));
    for (index, block) in message.get("content").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let (begun, deltas) = told(block);
        push(json!({"type": "content_block_start", "index": index, "content_block": begun}));
        for delta in deltas {
            push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": message.get("stop_reason"), "stop_sequence": null});
    let output = message.pointer("/usage/output_tokens");
    push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}));
    push(json!({"type": "message_stop"}));
    events
}

fn told(block: &Value) -> (Value, Vec<Value>) {
    let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut begun = block.clone();
    let deltas = match text("type") {
        "text" => {
            set(&mut begun, "text", json!(""));
            if block.get("citations").is_some() {
                set(&mut begun, "citations", json!([]));
            }
            let texts = pieces(text("text")).into_iter().map(|text| json!({"type": "text_delta", "text": text}));
            let citations = block.get("citations").and_then(Value::as_array).into_iter().flatten();
            texts.chain(citations.map(|citation| json!({"type": "citations_delta", "citation": citation}))).collect()
        }
        "thinking" => {
            set(&mut begun, "thinking", json!(""));
            set(&mut begun, "signature", json!(""));
            vec![
                json!({"type": "thinking_delta", "thinking": text("thinking")}),
                json!({"type": "signature_delta", "signature": text("signature")}),
            ]
        }
        "tool_use" | "server_tool_use" => {
            set(&mut begun, "input", json!({}));
            let input = block.get("input").map(ToString::to_string).unwrap_or_default();
            pieces(&input).into_iter().map(|part| json!({"type": "input_json_delta", "partial_json": part})).collect()
        }
        _ => Vec::new(),
    };
    (begun, deltas)
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(slot) = object.get_mut(name) {
        *slot = value;
    }
}
