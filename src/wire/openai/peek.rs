//! The few fields of a request body that nightbus needs, borrowed from the client's bytes.
//!
//! A body that cannot be peeked into is refused when it is to be deferred and passed on when it is live. The peek
//! checks the whole body, because one invalid line fails the provider's whole batch (providers.md, section 0, fact 1).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::lane::Endpoint;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Peek<'a> {
    /// The model, as written.
    pub model: Cow<'a, str>,
    /// The caller wants a stream.
    pub stream: bool,
    /// … with usage at its end (`stream_options.include_usage`).
    pub include_usage: bool,
    /// A Responses call in background mode: it cannot be batched (providers.md, section 1.6).
    pub background: bool,
    /// Whether `stream`, `stream_options`, `service_tier` or `background` have to be removed from a batch line.
    pub needs_edit: bool,
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
    fn new(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self { message: message.into(), param }
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    background: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads what is needed of `body` for `endpoint`, and checks that it is a JSON object the provider could accept as a line.
pub fn peek(endpoint: Endpoint, body: &[u8]) -> Result<Peek<'_>, PeekError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| PeekError::new(format!("the body is not UTF-8 (at byte {})", error.valid_up_to()), None))?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(PeekError::new("the body is not a JSON object", None));
    }
    let fields: Fields<'_> = serde_json::from_str(text)
        .map_err(|error| PeekError::new(format!("the body is not valid JSON: {error}"), None))?;
    let stream = boolean(fields.stream, "stream")?;
    let include_usage = match fields.stream_options.filter(|raw| raw.get() != "null") {
        Some(raw) => serde_json::from_str::<StreamOptions>(raw.get())
            .map_err(|error| PeekError::new(format!("stream_options: {error}"), Some("stream_options")))?
            .include_usage
            .unwrap_or(false),
        None => false,
    };
    let background = boolean(fields.background, "background")?;
    require(endpoint, &fields)?;
    Ok(Peek {
        model: model(fields.model)?,
        stream,
        include_usage,
        background,
        needs_edit: fields.stream.is_some()
            || fields.stream_options.is_some()
            || fields.service_tier.is_some()
            || fields.background.is_some(),
        inputs: if endpoint == Endpoint::Embeddings { fields.input.map_or(1, count_inputs) } else { 0 },
    })
}

fn boolean(raw: Option<&RawValue>, name: &'static str) -> Result<bool, PeekError> {
    match raw.map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(PeekError::new(format!("{name} must be true or false"), Some(name))),
    }
}

fn model(raw: Option<&RawValue>) -> Result<Cow<'_, str>, PeekError> {
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

/// A line without its main parameter fails the whole file at the provider (providers.md, section 1.9,
/// `missing_required_parameter`): such a call is refused here, at its own caller's cost alone.
fn require(endpoint: Endpoint, fields: &Fields<'_>) -> Result<(), PeekError> {
    let present = |raw: Option<&RawValue>| raw.is_some_and(|raw| raw.get() != "null");
    match endpoint {
        Endpoint::ChatCompletions => {
            if !present(fields.messages) {
                return Err(PeekError::new("Missing required parameter: 'messages'.", Some("messages")));
            }
            if !fields.messages.is_some_and(|raw| raw.get().starts_with('[')) {
                return Err(PeekError::new("messages must be an array", Some("messages")));
            }
        }
        Endpoint::Embeddings | Endpoint::Moderations => {
            if !present(fields.input) {
                return Err(PeekError::new("Missing required parameter: 'input'.", Some("input")));
            }
        }
        // A response may be made from a stored prompt alone, and a completion's prompt has a default.
        Endpoint::Responses | Endpoint::Completions => {}
    }
    Ok(())
}

/// An array of strings or of token arrays is that many inputs; a string or one token array is one.
fn count_inputs(input: &RawValue) -> u32 {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(input.get()) else {
        return 1;
    };
    match items.first().map(|first| first.get()) {
        Some(first) if first.starts_with('"') || first.starts_with('[') => {
            u32::try_from(items.len()).unwrap_or(u32::MAX)
        }
        _ => 1,
    }
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

    fn chat(body: &str) -> Result<Peek<'_>, PeekError> {
        peek(Endpoint::ChatCompletions, body.as_bytes())
    }

    #[test]
    fn reads_the_fields_and_borrows_the_model() {
        let body = r#"{"model":"gpt-6-luna","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
        let peek = chat(body).unwrap();
        assert!(matches!(peek.model, Cow::Borrowed("gpt-6-luna")));
        assert!(peek.stream && peek.include_usage && peek.needs_edit && !peek.background);
        assert!(!chat(r#"{"model":"m","messages":[]}"#).unwrap().needs_edit);
    }

    #[test]
    fn refuses_what_would_fail_a_whole_batch_and_names_the_field() {
        for (body, param) in [
            ("", None),
            ("[]", None),
            ("{\"model\":\"m\",\"messages\":[}", None),
            (r#"{"messages":[]}"#, Some("model")),
            (r#"{"model":7,"messages":[]}"#, Some("model")),
            (r#"{"model":"","messages":[]}"#, Some("model")),
            (r#"{"model":"m"}"#, Some("messages")),
            (r#"{"model":"m","messages":"hi"}"#, Some("messages")),
            (r#"{"model":"m","messages":[],"stream":"yes"}"#, Some("stream")),
            (r#"{"model":"m","messages":[],"stream_options":3}"#, Some("stream_options")),
            (r#"{"model":"a","model":"b","messages":[]}"#, None),
            (r#"{"model":"m","messages":[]} trailing"#, None),
        ] {
            let error = chat(body).expect_err(body);
            assert_eq!(error.param, param, "{body}: {error}");
        }
        assert!(peek(Endpoint::ChatCompletions, b"{\"model\":\"\xff\"}").is_err());
    }

    #[test]
    fn escaped_model_names_are_read() {
        assert_eq!(chat(r#"{"model":"a\u0062c","messages":[]}"#).unwrap().model, "abc");
    }

    #[test]
    fn counts_embedding_inputs() {
        let count = |input: &str| {
            let body = format!(r#"{{"model":"e","input":{input}}}"#);
            peek(Endpoint::Embeddings, body.as_bytes()).unwrap().inputs
        };
        assert_eq!(count("\"one\""), 1);
        assert_eq!(count("[\"one\",\"two\"]"), 2);
        assert_eq!(count("[1,2,3]"), 1);
        assert_eq!(count("[[1,2],[3]]"), 2);
    }

    #[test]
    fn batch_suffix() {
        assert_eq!(without_batch_suffix("gpt-6-luna:batch"), Some("gpt-6-luna"));
        assert_eq!(without_batch_suffix("gpt-6-luna"), None);
        assert_eq!(without_batch_suffix(":batch"), None);
    }
}
