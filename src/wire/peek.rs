//! The few fields of a request body that nightbus needs, borrowed from the client's bytes.
//!
//! A body that cannot be peeked into is refused when it is to be deferred and passed on when it is live. The peek
//! checks the whole body, because one invalid line can fail the provider's whole batch (providers.md, section 0,
//! fact 1). What is looked for is the business of the API's own module.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::lane::{Api, Endpoint};
use crate::wire::{anthropic, openai};

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Peek<'a> {
    /// The model, as written.
    pub model: Cow<'a, str>,
    /// The caller wants a stream.
    pub stream: bool,
    /// … with usage at its end (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Why it cannot be batched and goes live, such as a Responses call in background mode (providers.md, section 1.6).
    pub live: Option<&'static str>,
    /// Whether one of [`not_in_a_line`] has to be removed from a batch line.
    pub needs_edit: bool,
    /// The provider is not to keep the answer (`store: false`): it cannot be fetched later.
    pub unstored: bool,
    /// How many embedding inputs it holds; 0 for other endpoints.
    pub inputs: u32,
}

/// Why a body cannot be deferred, and the field at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PeekError {
    /// For people.
    pub message: String,
    /// The field.
    pub param: Option<&'static str>,
}

impl PeekError {
    pub(in crate::wire) fn new(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self { message: message.into(), param }
    }
}

/// Reads what is needed of `body` for `endpoint`, and checks that it is a JSON object the provider could accept as a line.
pub fn peek(endpoint: Endpoint, body: &[u8]) -> Result<Peek<'_>, PeekError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| PeekError::new(format!("the body is not UTF-8 (at byte {})", error.valid_up_to()), None))?;
    match endpoint.api() {
        Api::OpenAi => openai::peek::peek(endpoint, text),
        Api::Anthropic => anthropic::peek::peek(text),
    }
}

/// Members that a batch line of that API must not hold.
pub const fn not_in_a_line(api: Api) -> &'static [&'static str] {
    match api {
        // providers.md, section 1.6.
        Api::OpenAi => &["stream", "stream_options", "service_tier", "background"],
        // Section 2.2.
        Api::Anthropic => &["stream"],
    }
}

/// The fields of a JSON object.
pub(in crate::wire) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, PeekError> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(PeekError::new("the body is not a JSON object", None));
    }
    serde_json::from_str(text).map_err(|error| PeekError::new(format!("the body is not valid JSON: {error}"), None))
}

/// A switch that may be absent.
pub(in crate::wire) fn boolean(raw: Option<&RawValue>, name: &'static str) -> Result<bool, PeekError> {
    match raw.map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(PeekError::new(format!("{name} must be true or false"), Some(name))),
    }
}

/// The model's name.
pub(in crate::wire) fn model(raw: Option<&RawValue>) -> Result<Cow<'_, str>, PeekError> {
    let Some(raw) = raw else {
        return Err(PeekError::new("the body has no model: add \"model\"", Some("model")));
    };
    let text = raw.get();
    let plain = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let model = match plain {
        Some(plain) if memchr::memchr(b'\\', plain.as_bytes()).is_none() => Cow::Borrowed(plain),
        _ => Cow::Owned(
            serde_json::from_str::<String>(text)
                .map_err(|_not_a_string| PeekError::new("model must be a string", Some("model")))?,
        ),
    };
    if model.trim().is_empty() { Err(PeekError::new("model is empty", Some("model"))) } else { Ok(model) }
}

/// The model name without `:batch` at its end, if it has that (contract, section 3, mark 3).
pub fn without_batch_suffix(model: &str) -> Option<&str> {
    model.strip_suffix(":batch").filter(|rest| !rest.is_empty())
}

/// Whether a body could have a model that ends in `:batch`: cheap, may say yes too often.
pub fn may_have_batch_suffix(body: &[u8]) -> bool {
    memchr::memmem::find(body, b":batch\"").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_suffix() {
        assert_eq!(without_batch_suffix("gpt-6-luna:batch"), Some("gpt-6-luna"));
        assert_eq!(without_batch_suffix("gpt-6-luna"), None);
        assert_eq!(without_batch_suffix(":batch"), None);
    }

    #[test]
    fn a_body_without_the_suffix_need_not_be_read() {
        assert!(may_have_batch_suffix(br#"{"model":"gpt-6-luna:batch","messages":[]}"#));
        assert!(!may_have_batch_suffix(br#"{"model":"gpt-6-luna","messages":[{"content":"a :batch of"}]}"#));
    }
}
