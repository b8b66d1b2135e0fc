//! Plans the chunks of chat completions and of the older completions.
//!
//! Each choice is told to its end before the next: first chunk with the role, text, tool calls, what else the message
//! holds, log probabilities, and the finish reason with what else the choice holds.

use bytes::Bytes;

use super::json::{self, Object, is_null, join, push_field};
use super::{Plan, ReplayError, Step};

/// Message fields that are text and may be spread over chunks; reasoning first, as providers stream it.
const TEXTS: [&str; 4] = ["reasoning_content", "reasoning", "content", "refusal"];
/// Fields of the body that every chunk repeats, with what stands in where a provider left a required one out.
const REPEATED: [(&str, Option<&[u8]>); 5] = [
    ("id", Some(b"\"\"")),
    ("created", Some(b"0")),
    ("model", Some(b"\"\"")),
    ("service_tier", None),
    ("system_fingerprint", None),
];

pub(super) fn plan_chat(body: &Bytes, include_usage: bool) -> Result<Plan, ReplayError> {
    plan(body, "chat.completion.chunk", include_usage, chat_choice)
}

pub(super) fn plan_completions(body: &Bytes, include_usage: bool) -> Result<Plan, ReplayError> {
    plan(body, "text_completion", include_usage, completion_choice)
}

fn plan(
    body: &Bytes,
    object: &str,
    include_usage: bool,
    choice: fn(&Choice<'_>, &mut Vec<Step>) -> Result<(), ReplayError>,
) -> Result<Plan, ReplayError> {
    let top = Object::parse(body)?;
    let mut head = Vec::new();
    for (key, stand_in) in REPEATED {
        if let Some(value) = top.get(key).map(Bytes::as_ref).or(stand_in) {
            push_field(&mut head, key, value);
        }
        if key == "id" {
            push_field(&mut head, "object", format!("\"{object}\"").as_bytes());
        }
    }
    let known =
        |key: &str| ["object", "choices", "usage"].contains(&key) || REPEATED.iter().any(|(name, _)| *name == key);
    let first = top.fields(|key, _| !known(key));
    let usage_tail: &[u8] = if include_usage { b",\"usage\":null" } else { b"" };
    let choices = top.elements("choices").ok_or(ReplayError::Missing("choices"))?;
    let mut steps = Vec::new();
    for (position, raw) in choices.iter().enumerate() {
        let fields = Object::parse(raw)?;
        let position = Bytes::from(position.to_string());
        let index = fields.value("index").filter(|index| index.iter().all(u8::is_ascii_digit));
        let choice_fields = Choice { index: index.unwrap_or(&position), fields: &fields, usage_tail };
        choice(&choice_fields, &mut steps)?;
    }
    if steps.is_empty() {
        let before = join(&[b"\"choices\":[]", usage_tail]);
        steps.push(Step::whole("", before, Bytes::new(), Bytes::new()));
    }
    if let (true, Some(usage)) = (include_usage, top.value("usage")) {
        steps.push(Step::whole("", Bytes::from_static(b"\"choices\":[],\"usage\":"), usage.clone(), Bytes::new()));
    }
    Ok(Plan { head: Bytes::from(head), first: Bytes::from(first), steps, done: true, numbered: false })
}

struct Choice<'a> {
    index: &'a Bytes,
    fields: &'a Object,
    /// What follows the choices in every chunk but the last.
    usage_tail: &'a [u8],
}

impl Choice<'_> {
    fn before(&self, payload: &[u8]) -> Bytes {
        join(&[b"\"choices\":[{\"index\":", self.index, b",", payload])
    }

    /// What stands behind the delta or text of a chunk that is not the last of its choice.
    fn after(&self, payload_end: &[u8]) -> Bytes {
        let logprobs: &[u8] = if self.fields.get("logprobs").is_some() { b",\"logprobs\":null" } else { b"" };
        join(&[payload_end, logprobs, b",\"finish_reason\":null}]", self.usage_tail])
    }

    /// A chunk whose delta is `start`, a text in any number of pieces, and `end`.
    fn text(&self, start: &[u8], text: &Bytes, end: &[u8]) -> Step {
        Step::text("", self.before(&[b"\"delta\":{", start].concat()), text.clone(), self.after(&[end, b"}"].concat()))
    }

    /// One chunk with this delta.
    fn delta(&self, fields: &[u8]) -> Step {
        let fields = fields.strip_suffix(b",").unwrap_or(fields);
        Step::whole("", self.before(b"\"delta\":{"), Bytes::copy_from_slice(fields), self.after(b"}"))
    }

    /// The last chunk: an empty payload, the finish reason, and all fields of the choice that have no other place.
    fn finish(&self, empty_payload: &[u8], message_field: &str, logprobs: &[u8]) -> Step {
        let mut rest = Vec::new();
        if self.fields.get("logprobs").is_some() {
            push_field(&mut rest, "logprobs", logprobs);
        }
        push_field(&mut rest, "finish_reason", self.fields.get("finish_reason").map_or(b"null", Bytes::as_ref));
        let placed = ["index", "logprobs", "finish_reason", message_field];
        rest.extend_from_slice(&self.fields.fields(|key, _| !placed.contains(&key)));
        let rest = rest.strip_suffix(b",").unwrap_or(&rest);
        let after = join(&[b",", rest, b"}]", self.usage_tail]);
        Step::whole("", self.before(empty_payload), Bytes::new(), after)
    }
}

fn completion_choice(choice: &Choice<'_>, steps: &mut Vec<Step>) -> Result<(), ReplayError> {
    let text = choice.fields.text("text").ok_or(ReplayError::Missing("text"))?;
    steps.push(Step::text("", choice.before(b"\"text\":\""), text, choice.after(b"\"")));
    let logprobs = choice.fields.get("logprobs").map_or(b"null".as_slice(), Bytes::as_ref);
    steps.push(choice.finish(b"\"text\":\"\"", "text", logprobs));
    Ok(())
}

fn chat_choice(choice: &Choice<'_>, steps: &mut Vec<Step>) -> Result<(), ReplayError> {
    let message = choice.fields.get("message").ok_or(ReplayError::Missing("message"))?;
    let message = Object::parse(message)?;
    steps.push(choice.delta(&first_delta(&message)));
    for key in TEXTS {
        if let Some(text) = message.text(key) {
            steps.push(choice.text(format!("\"{key}\":\"").as_bytes(), &text, b"\""));
        }
    }
    for (key, value) in message.iter().filter(|(key, value)| *key != "role" && !is_in_first(value)) {
        match key {
            "tool_calls" => tool_calls(choice, value, steps),
            "function_call" => function(choice, "function_call", value, steps),
            // Text was told already.
            _ if TEXTS.contains(&key) && value.starts_with(b"\"") => {}
            _ => steps.push(choice.delta(&field(key, value))),
        }
    }
    if let Some(logprobs) = choice.fields.value("logprobs") {
        let before = choice.before(b"\"delta\":{},\"logprobs\":");
        let after = join(&[b",\"finish_reason\":null}]", choice.usage_tail]);
        steps.push(Step::whole("", before, logprobs.clone(), after));
    }
    steps.push(choice.finish(b"\"delta\":{}", "message", b"null"));
    Ok(())
}

/// The role, the empty beginning of the content, and all fields that are null or empty and thereby complete.
fn first_delta(message: &Object) -> Vec<u8> {
    let mut delta = field("role", message.value("role").map_or(b"\"assistant\"", Bytes::as_ref));
    for (key, value) in message.iter().filter(|(key, _)| *key != "role") {
        match key {
            "content" if value.starts_with(b"\"") => push_field(&mut delta, key, b"\"\""),
            "refusal" if value.starts_with(b"\"") && !is_in_first(value) => push_field(&mut delta, key, b"null"),
            _ if is_in_first(value) => push_field(&mut delta, key, value),
            _ => {}
        }
    }
    delta
}

fn is_in_first(value: &[u8]) -> bool {
    is_null(value) || value == b"[]" || value == b"\"\""
}

/// One opening chunk per call with everything but the arguments, which follow in pieces. Accumulators join strings by
/// the call's index, so nothing but the arguments is sent twice.
fn tool_calls(choice: &Choice<'_>, value: &Bytes, steps: &mut Vec<Step>) {
    let Some(calls) = json::elements(value) else {
        steps.push(choice.delta(&field("tool_calls", value)));
        return;
    };
    for (position, raw) in calls.iter().enumerate() {
        let Ok(call) = Object::parse(raw) else {
            steps.push(choice.delta(&field("tool_calls", &join(&[b"[", raw, b"]"]))));
            continue;
        };
        let position = position.to_string();
        let function = call.value("function").and_then(|function| Object::parse(function).ok());
        let arguments = function.as_ref().and_then(|function| function.text("arguments"));
        let mut opening = field("index", position.as_bytes());
        for (key, value) in call.iter().filter(|(key, _)| *key != "index") {
            match (&function, key) {
                (Some(function), "function") => push_field(&mut opening, key, &without_arguments(function)),
                _ => push_field(&mut opening, key, value),
            }
        }
        let opening = opening.strip_suffix(b",").unwrap_or(&opening);
        steps.push(choice.delta(&field("tool_calls", &join(&[b"[{", opening, b"}]"]))));
        if let Some(arguments) = arguments {
            let start = format!("\"tool_calls\":[{{\"index\":{position},\"function\":{{\"arguments\":\"");
            steps.push(choice.text(start.as_bytes(), &arguments, b"\"}}]"));
        }
    }
}

/// The older single `function_call`.
fn function(choice: &Choice<'_>, key: &str, value: &Bytes, steps: &mut Vec<Step>) {
    let Ok(function) = Object::parse(value) else {
        steps.push(choice.delta(&field(key, value)));
        return;
    };
    steps.push(choice.delta(&field(key, &without_arguments(&function))));
    if let Some(arguments) = function.text("arguments") {
        steps.push(choice.text(format!("\"{key}\":{{\"arguments\":\"").as_bytes(), &arguments, b"\"}"));
    }
}

/// The function with the empty beginning of its arguments, unless they are no text.
fn without_arguments(function: &Object) -> Bytes {
    let beginning: &[(&str, &[u8])] =
        if function.text("arguments").is_some() { &[("arguments", b"\"\"")] } else { &[] };
    function.rebuilt(beginning)
}

fn field(key: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + 4);
    push_field(&mut out, key, value);
    out
}
