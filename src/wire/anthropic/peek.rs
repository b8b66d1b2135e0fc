//! The fields of a Messages body that matter (providers.md, section 2.2).

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::peek::{Peek, PeekError, boolean, model, object};

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    speed: Option<&'a RawValue>,
}

/// Reads what is needed of `text`. A faulty line harms nobody else, but what is plainly missing is refused at once: its
/// caller would wait for hours for the same 400.
pub(in crate::wire) fn peek(text: &str) -> Result<Peek<'_>, PeekError> {
    let fields: Fields<'_> = object(text)?;
    let stream = boolean(fields.stream, "stream")?;
    if !fields.messages.is_some_and(|raw| raw.get().starts_with('[')) {
        return Err(PeekError::new("messages: an array is required", Some("messages")));
    }
    let max_tokens = fields.max_tokens.map(RawValue::get).filter(|text| *text != "null");
    let Some(max_tokens) = max_tokens.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())) else {
        return Err(PeekError::new("max_tokens: a number is required", Some("max_tokens")));
    };
    let is_fast = fields.speed.is_some_and(|raw| raw.get() == "\"fast\"");
    let warms_cache = max_tokens.bytes().all(|digit| digit == b'0');
    Ok(Peek {
        unstored: false,
        model: model(fields.model)?,
        stream,
        include_usage: true,
        live: is_fast.then_some("fast-mode").or_else(|| warms_cache.then_some("cache-warming")),
        needs_edit: fields.stream.is_some(),
        inputs: 0,
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::lane::Endpoint;
    use crate::wire::peek::peek;

    #[test]
    fn reads_what_matters() {
        let read = |body: &'static str| peek(Endpoint::Messages, body.as_bytes());
        let plain = read(r#"{"model":"claude-haiku-5-5","max_tokens":9,"messages":[]}"#).unwrap();
        assert_eq!(
            (&*plain.model, plain.stream, plain.needs_edit, plain.live),
            ("claude-haiku-5-5", false, false, None)
        );
        let stream = read(r#"{"model":"m","max_tokens":9,"messages":[],"stream":true}"#).unwrap();
        assert!(stream.stream && stream.needs_edit);
        let fast = read(r#"{"model":"m","max_tokens":9,"messages":[],"speed":"fast"}"#).unwrap();
        assert_eq!(fast.live, Some("fast-mode"));
        assert_eq!(read(r#"{"model":"m","max_tokens":0,"messages":[]}"#).unwrap().live, Some("cache-warming"));
        for (body, param) in [
            (r#"{"max_tokens":9,"messages":[]}"#, Some("model")),
            (r#"{"model":"m","messages":[]}"#, Some("max_tokens")),
            (r#"{"model":"m","max_tokens":-1,"messages":[]}"#, Some("max_tokens")),
            (r#"{"model":"m","max_tokens":9}"#, Some("messages")),
            (r#"{"model":"m","max_tokens":9,"messages":[],"stream":1}"#, Some("stream")),
            ("[]", None),
        ] {
            assert_eq!(read(body).unwrap_err().param, param, "{body}");
        }
    }

    #[test]
    fn a_limit_of_tokens_is_a_whole_number() {
        let read = |body: &'static str| peek(Endpoint::Messages, body.as_bytes());
        assert_eq!(read(r#"{"model":"m","max_tokens":9,"messages":[]}"#).unwrap().inputs, 0);
        assert!(read(r#"{"model":"m","max_tokens":1.5,"messages":[]}"#).is_err());
        assert!(read(r#"{"model":"m","max_tokens":-1,"messages":[]}"#).is_err());
    }

    #[test]
    fn only_a_limit_of_nothing_warms_the_cache() {
        let live = |body: &'static str| peek(Endpoint::Messages, body.as_bytes()).unwrap().live;
        assert_eq!(live(r#"{"model":"m","max_tokens":10,"messages":[]}"#), None);
        assert_eq!(live(r#"{"model":"m","max_tokens":0,"messages":[]}"#), Some("cache-warming"));
    }
}
