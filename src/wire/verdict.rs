//! Whether an answer looks wrong by itself: refused, cut off, empty, or not in the form that its call asks for. Pure, and
//! says nothing of what stands in the answer.
//!
//! Used by `engine::flight` on the answers of a test flight (contract, section 1). What it cannot read is a fault, too.

mod schema;

use std::fmt;

use serde_json::Value;

use crate::domain::lane::Endpoint;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An HTTP error.
    Status(u16),
    /// Not an answer of this endpoint.
    Unreadable,
    /// Cut off by the limit of tokens.
    Length,
    /// Cut off or held back by the provider's filter.
    ContentFilter,
    /// The model refused.
    Refusal,
    /// Neither text nor a call of a tool.
    Empty,
    /// JSON was asked for.
    NotJson,
    /// The JSON does not fit the schema that was asked for; where.
    OffSchema(String),
    /// A tool is called with arguments that are not JSON or do not fit its schema.
    Arguments,
    /// Long answers to different inputs are the same.
    Identical,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered with status {status}"),
            Self::Unreadable => f.write_str("the answer is not one of this endpoint"),
            Self::Length => f.write_str("cut off at the limit of tokens (finish_reason length)"),
            Self::ContentFilter => f.write_str("held back by the provider's content filter"),
            Self::Refusal => f.write_str("the model refused"),
            Self::Empty => f.write_str("the answer is empty"),
            Self::NotJson => f.write_str("the answer is not the JSON that the request asks for"),
            Self::OffSchema(place) => write!(f, "the answer does not fit the request's JSON schema ({place})"),
            Self::Arguments => f.write_str("a tool is called with arguments that do not fit its parameters"),
            Self::Identical => f.write_str("the same answer as to another input"),
        }
    }
}

/// What was seen of one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// What is wrong with it; empty: nothing.
    pub faults: Vec<Fault>,
    /// What the model said, to be compared with other answers; none: nothing to compare.
    pub said: Option<String>,
}

/// An answer in the terms of any endpoint.
#[derive(Default)]
struct Said {
    texts: Vec<String>,
    /// Tools that were called, with their arguments; none: they are not JSON.
    calls: Vec<(String, Option<Value>)>,
    faults: Vec<Fault>,
}

/// Looks at the answer to a call.
pub fn inspect(endpoint: Endpoint, request: &[u8], status: u16, answer: &[u8]) -> Inspected {
    if !(200..300).contains(&status) {
        return Inspected { faults: vec![Fault::Status(status)], said: None };
    }
    let unreadable = || Inspected { faults: vec![Fault::Unreadable], said: None };
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return unreadable() };
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let said = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => choices(&answer),
        Endpoint::Responses => responses(&answer),
        Endpoint::Messages => messages(&answer),
        Endpoint::Embeddings | Endpoint::Moderations => return Inspected::default(),
    };
    let Some(Said { texts, calls, mut faults }) = said else { return unreadable() };
    if faults.is_empty() && calls.is_empty() && texts.iter().all(|text| text.trim().is_empty()) {
        faults.push(Fault::Empty);
    }
    if faults.is_empty() && calls.is_empty() {
        faults.extend(texts.iter().find_map(|text| form(&request, text)));
    }
    let misfits = |(name, arguments): &(String, Option<Value>)| {
        arguments.as_ref().is_none_or(|value| {
            parameters(&request, name).is_some_and(|wanted| schema::misfit(wanted, value).is_some())
        })
    };
    if faults.is_empty() && calls.iter().any(misfits) {
        faults.push(Fault::Arguments);
    }
    let text = texts.concat();
    Inspected { faults, said: (!text.is_empty()).then_some(text) }
}

/// What is wrong with the form of a text; none: nothing, or any form will do.
fn form(request: &Value, text: &str) -> Option<Fault> {
    let format = ["/response_format", "/text/format", "/output_config/format", "/output_format"]
        .iter()
        .find_map(|place| request.pointer(place))?;
    let kind = format.get("type").and_then(Value::as_str)?;
    if !matches!(kind, "json_object" | "json_schema") {
        return None;
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Some(Fault::NotJson) };
    if kind == "json_object" {
        return (!value.is_object()).then_some(Fault::NotJson);
    }
    let wanted = format.pointer("/json_schema/schema").or_else(|| format.get("schema"))?;
    schema::misfit(wanted, &value).map(Fault::OffSchema)
}

/// The schema of a tool's arguments.
fn parameters<'r>(request: &'r Value, name: &str) -> Option<&'r Value> {
    let tools = request.get("tools")?.as_array()?;
    tools.iter().find_map(|tool| {
        let function = tool.get("function").unwrap_or(tool);
        let is_it = function.get("name").and_then(Value::as_str) == Some(name);
        is_it.then(|| function.get("parameters").or_else(|| function.get("input_schema"))).flatten()
    })
}

fn string(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn named_call(call: &Value, arguments: &str) -> (String, Option<Value>) {
    (string(call.get("name")).to_owned(), serde_json::from_str(string(call.get(arguments))).ok())
}

/// Chat completions and completions (providers.md, section 1.13).
fn choices(answer: &Value) -> Option<Said> {
    let mut said = Said::default();
    for choice in answer.get("choices")?.as_array().filter(|choices| !choices.is_empty())? {
        match string(choice.get("finish_reason")) {
            "length" => said.faults.push(Fault::Length),
            "content_filter" => said.faults.push(Fault::ContentFilter),
            _ => {}
        }
        let message = choice.get("message").unwrap_or(&Value::Null);
        if !string(message.get("refusal")).is_empty() {
            said.faults.push(Fault::Refusal);
        }
        let text = message.get("content").or_else(|| choice.get("text"));
        said.texts.push(string(text).to_owned());
        for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            match call.get("function") {
                Some(function) => said.calls.push(named_call(function, "arguments")),
                // A custom tool takes any text.
                None => said.calls.push((String::new(), Some(Value::Null))),
            }
        }
    }
    Some(said)
}

/// Responses (providers.md, section 1.13).
fn responses(answer: &Value) -> Option<Said> {
    let mut said = Said::default();
    match string(answer.get("status")) {
        "incomplete" => said.faults.push(match string(answer.pointer("/incomplete_details/reason")) {
            "content_filter" => Fault::ContentFilter,
            _ => Fault::Length,
        }),
        "failed" | "cancelled" => said.faults.push(Fault::Unreadable),
        _ => {}
    }
    for item in answer.get("output")?.as_array()? {
        match string(item.get("type")) {
            "message" => {
                for part in item.get("content").and_then(Value::as_array).into_iter().flatten() {
                    match string(part.get("type")) {
                        "refusal" => said.faults.push(Fault::Refusal),
                        _ => said.texts.push(string(part.get("text")).to_owned()),
                    }
                }
            }
            "function_call" => said.calls.push(named_call(item, "arguments")),
            "reasoning" => {}
            // Searches, programs, pictures: the provider's own tools.
            _ => said.calls.push((String::new(), Some(Value::Null))),
        }
    }
    Some(said)
}

/// Messages (providers.md, section 2.4).
fn messages(answer: &Value) -> Option<Said> {
    let mut said = Said::default();
    match string(answer.get("stop_reason")) {
        "max_tokens" | "model_context_window_exceeded" => said.faults.push(Fault::Length),
        "refusal" => said.faults.push(Fault::Refusal),
        _ => {}
    }
    for block in answer.get("content")?.as_array()? {
        match string(block.get("type")) {
            "text" => said.texts.push(string(block.get("text")).to_owned()),
            "tool_use" => said.calls.push((string(block.get("name")).to_owned(), block.get("input").cloned())),
            "thinking" | "redacted_thinking" => {}
            _ => said.calls.push((String::new(), Some(Value::Null))),
        }
    }
    Some(said)
}

#[cfg(test)]
mod tests;
