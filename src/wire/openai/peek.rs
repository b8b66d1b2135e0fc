//! The fields of OpenAI's bodies that matter (providers.md, sections 1.6 and 1.9).

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::lane::Endpoint;
use crate::wire::peek::{Peek, PeekError, boolean, model, object};

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
    store: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads what is needed of `text`, a JSON object, for `endpoint`.
pub(in crate::wire) fn peek(endpoint: Endpoint, text: &str) -> Result<Peek<'_>, PeekError> {
    let fields: Fields<'_> = object(text)?;
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
        live: background.then_some("background"),
        needs_edit: fields.stream.is_some()
            || fields.stream_options.is_some()
            || fields.service_tier.is_some()
            || fields.background.is_some(),
        // Chat completions are not kept unless asked for; a Responses call is, unless this says otherwise.
        unstored: fields.store.is_some_and(|raw| raw.get() == "false"),
        inputs: if endpoint == Endpoint::Embeddings { fields.input.map_or(1, count_inputs) } else { 0 },
    })
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
        Endpoint::Responses | Endpoint::Completions | Endpoint::Messages => {}
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::wire::peek::peek;

    fn chat(body: &str) -> Result<Peek<'_>, PeekError> {
        peek(Endpoint::ChatCompletions, body.as_bytes())
    }

    #[test]
    fn reads_the_fields_and_borrows_the_model() {
        let body = r#"{"model":"gpt-6-luna","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
        let peek = chat(body).unwrap();
        assert!(matches!(peek.model, Cow::Borrowed("gpt-6-luna")));
        assert!(peek.stream && peek.include_usage && peek.needs_edit && peek.live.is_none());
        assert!(!chat(r#"{"model":"m","messages":[]}"#).unwrap().needs_edit);
    }

    #[test]
    fn each_field_that_a_line_must_not_have_calls_for_an_edit_and_chats_have_no_inputs() {
        for field in [
            "\"stream\":false",
            "\"stream_options\":{\"include_usage\":false}",
            "\"service_tier\":\"auto\"",
            "\"background\":false",
        ] {
            let body = format!("{{\"model\":\"m\",\"messages\":[],{field}}}");
            let peek = chat(&body).unwrap();
            assert!(peek.needs_edit && !peek.stream && peek.live.is_none(), "{body}");
            assert_eq!(peek.inputs, 0);
        }
    }

    #[test]
    fn only_a_call_that_says_so_is_not_kept_at_the_provider() {
        for (field, unstored) in [(",\"store\":false", true), (",\"store\":true", false), ("", false)] {
            assert_eq!(
                chat(&format!("{{\"model\":\"m\",\"messages\":[]{field}}}")).unwrap().unstored,
                unstored,
                "{field}"
            );
        }
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
}
