//! Server-sent events of a streamed response (providers.md, section 1.14).

use bytes::Bytes;
use serde_json::{Value, json};

use crate::sim::stream::pieces;

/// The events that lead to `response`, in order; there is no `[DONE]`.
pub(super) fn events(response: &Value) -> Vec<Bytes> {
    let mut events = Events::default();
    let started = with(
        response,
        &[
            ("status", json!("in_progress")),
            ("output", json!([])),
            ("usage", Value::Null),
            ("completed_at", Value::Null),
            ("incomplete_details", Value::Null),
        ],
    );
    events.push("response.created", &json!({"response": started}));
    events.push("response.in_progress", &json!({"response": started}));
    let output = response.get("output").and_then(Value::as_array);
    for (at, item) in output.into_iter().flatten().enumerate() {
        if item.get("type").and_then(Value::as_str) == Some("function_call") {
            function_call(&mut events, at, item);
        } else {
            message(&mut events, at, item);
        }
        events.push("response.output_item.done", &json!({"output_index": at, "item": item}));
    }
    let status = response.get("status").and_then(Value::as_str).unwrap_or("completed");
    events.push(&format!("response.{status}"), &json!({"response": response}));
    events.0
}

fn function_call(events: &mut Events, at: usize, item: &Value) {
    let added = with(item, &[("status", json!("in_progress")), ("arguments", json!(""))]);
    events.push("response.output_item.added", &json!({"output_index": at, "item": added}));
    let arguments = item.get("arguments").and_then(Value::as_str).unwrap_or_default();
    let place = json!({"item_id": item.get("id"), "output_index": at});
    for delta in pieces(arguments) {
        events.push("response.function_call_arguments.delta", &with(&place, &[("delta", json!(delta))]));
    }
    let done = [("name", item.get("name").cloned().unwrap_or_default()), ("arguments", json!(arguments))];
    events.push("response.function_call_arguments.done", &with(&place, &done));
}

fn message(events: &mut Events, at: usize, item: &Value) {
    let added = with(item, &[("status", json!("in_progress")), ("content", json!([]))]);
    events.push("response.output_item.added", &json!({"output_index": at, "item": added}));
    let parts = item.get("content").and_then(Value::as_array);
    for (index, part) in parts.into_iter().flatten().enumerate() {
        let place = json!({"item_id": item.get("id"), "output_index": at, "content_index": index});
        let (event, field, more): (_, _, &[(&str, Value)]) = if part.get("refusal").is_some() {
            ("response.refusal", "refusal", &[])
        } else {
            ("response.output_text", "text", &[("logprobs", json!([]))])
        };
        let text = part.get(field).and_then(Value::as_str).unwrap_or_default();
        events.push("response.content_part.added", &with(&place, &[("part", with(part, &[(field, json!(""))]))]));
        for delta in pieces(text) {
            let body = with(&with(&place, more), &[("delta", json!(delta))]);
            events.push(&format!("{event}.delta"), &body);
        }
        events.push(&format!("{event}.done"), &with(&with(&place, more), &[(field, json!(text))]));
        events.push("response.content_part.done", &with(&place, &[("part", part.clone())]));
    }
}

#[derive(Default)]
struct Events(Vec<Bytes>);

impl Events {
    fn push(&mut self, kind: &str, body: &Value) {
        let body = with(body, &[("type", json!(kind)), ("sequence_number", json!(self.0.len()))]);
        self.0.push(Bytes::from(format!("event: {kind}\ndata: {body}\n\n")));
    }
}

/// `object` with some members set.
fn with(object: &Value, members: &[(&str, Value)]) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    object
}
