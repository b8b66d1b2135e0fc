//! Server-sent events of live streams: chat and text completions (providers.md, section 1.14), and the body that
//! carries them.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::body::{Body, BoxError};
use crate::sim::answers::chat::{Choice, Completion, TokenUsage, ToolCall};

/// Characters of one text chunk.
const CHUNK: usize = 16;

/// The events of a chat completion.
pub(super) fn chat_events(completion: &Completion, with_usage: bool) -> Vec<Bytes> {
    let mut events = Vec::new();
    let mut push = |choices: Value, usage: Option<&TokenUsage>| {
        let mut chunk = json!({
            "id": completion.id, "object": "chat.completion.chunk", "created": completion.created,
            "model": completion.model, "service_tier": completion.service_tier, "system_fingerprint": null,
            "choices": choices,
        });
        if let Some(fields) = chunk.as_object_mut().filter(|_| with_usage) {
            fields.insert("usage".to_owned(), json!(usage));
        }
        events.push(data(&chunk));
    };
    for choice in &completion.choices {
        for delta in deltas(choice) {
            push(json!([{"index": choice.index, "delta": delta, "logprobs": null, "finish_reason": null}]), None);
        }
        push(
            json!([{"index": choice.index, "delta": {}, "logprobs": null, "finish_reason": choice.finish_reason}]),
            None,
        );
    }
    if with_usage {
        push(json!([]), Some(&completion.usage));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// The events of a text completion.
pub(super) fn completion_events(body: &Value, with_usage: bool) -> Vec<Bytes> {
    let mut events = Vec::new();
    let mut push = |choices: Value, usage: Value| {
        let mut chunk = body.clone();
        if let Some(fields) = chunk.as_object_mut() {
            fields.insert("choices".to_owned(), choices);
            if with_usage {
                fields.insert("usage".to_owned(), usage);
            } else {
                fields.remove("usage");
            }
        }
        events.push(data(&chunk));
    };
    for choice in body.get("choices").and_then(Value::as_array).into_iter().flatten() {
        let index = choice.get("index");
        for text in pieces(choice.get("text").and_then(Value::as_str).unwrap_or_default()) {
            push(json!([{"text": text, "index": index, "logprobs": null, "finish_reason": null}]), Value::Null);
        }
        let finish_reason = choice.get("finish_reason");
        push(json!([{"text": "", "index": index, "logprobs": null, "finish_reason": finish_reason}]), Value::Null);
    }
    if with_usage {
        push(json!([]), body.get("usage").cloned().unwrap_or_default());
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// The body of a stream: one frame for each event, `pause` between them; cut in the middle where `cut`.
pub(super) fn body(mut events: Vec<Bytes>, pause: Duration, cut: bool) -> Body {
    if cut {
        events.truncate(events.len() / 2);
    }
    let frames = stream::unfold((events.into_iter(), false, cut), move |(mut events, started, cut)| async move {
        let Some(event) = events.next() else {
            let error: BoxError = io::Error::from(io::ErrorKind::ConnectionReset).into();
            return cut.then(|| (Err(error), (events, true, false)));
        };
        if started && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((Ok(Frame::data(event)), (events, true, cut)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The text in chunks; none where it is empty.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(CHUNK).map(|chunk| chunk.iter().collect()).collect()
}

fn deltas(choice: &Choice) -> Vec<Value> {
    let message = &choice.message;
    let mut deltas = vec![if message.tool_calls.is_empty() {
        json!({"role": "assistant", "content": "", "refusal": null})
    } else {
        json!({"role": "assistant", "content": null, "refusal": null})
    }];
    deltas.extend(
        pieces(message.content.as_deref().unwrap_or_default()).into_iter().map(|text| json!({"content": text})),
    );
    deltas.extend(
        pieces(message.refusal.as_deref().unwrap_or_default()).into_iter().map(|text| json!({"refusal": text})),
    );
    for (at, ToolCall { id, function, .. }) in message.tool_calls.iter().enumerate() {
        let head = json!({
            "index": at, "id": id, "type": "function", "function": {"name": function.name, "arguments": ""},
        });
        deltas.push(json!({"tool_calls": [head]}));
        deltas.extend(
            pieces(&function.arguments)
                .into_iter()
                .map(|arguments| json!({"tool_calls": [{"index": at, "function": {"arguments": arguments}}]})),
        );
    }
    deltas
}

fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}
