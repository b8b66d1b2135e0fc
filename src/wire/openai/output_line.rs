//! One line of an output or error file (providers.md, section 1.7).

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::RequestId;
use crate::wire::line::{self, BadLine, LineOutcome};

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    custom_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    response: Option<Response<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    status_code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct LineError {
    #[serde(default)]
    code: Option<serde_json::Value>,
    #[serde(default)]
    message: Option<String>,
}

/// Reads a line. `text` is a part of `line`; the answer's body shares its memory.
pub(in crate::wire) fn parse(line: &Bytes, text: &str) -> Result<(RequestId, LineOutcome), BadLine> {
    let parsed: Line<'_> = serde_json::from_str(text).map_err(|_not_the_form| {
        line::id_in(text).and_then(|id| id.parse().ok()).map_or(BadLine::Unreadable, BadLine::Damaged)
    })?;
    let id = parsed.custom_id.as_deref().and_then(|id| id.parse().ok()).ok_or(BadLine::UnknownId)?;
    if let Some(response) = parsed.response
        && let Some(body) = response.body
    {
        let status = response.status_code.and_then(number).ok_or(BadLine::Unreadable)?;
        return Ok((
            id,
            LineOutcome::Answered {
                status,
                provider_request_id: response.request_id.map(Cow::into_owned),
                body: line.slice_ref(body.get().as_bytes()),
            },
        ));
    }
    let raw = parsed.error.filter(|raw| raw.get() != "null").ok_or(BadLine::Empty)?;
    let error: LineError = serde_json::from_str(raw.get()).unwrap_or_default();
    Ok((
        id,
        LineOutcome::NotExecuted {
            code: error.code.map(plain_text).unwrap_or_default(),
            message: error.message.unwrap_or_else(|| raw.get().chars().take(500).collect()),
        },
    ))
}

/// Numbers and codes come as strings from some providers.
fn number(raw: &RawValue) -> Option<u16> {
    raw.get().trim_matches('"').parse().ok().filter(|status| (100..=599).contains(status))
}

fn plain_text(value: serde_json::Value) -> String {
    if let serde_json::Value::String(text) = value { text } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;
    use crate::domain::lane::Api;

    fn parse(line: &Bytes) -> Result<(RequestId, LineOutcome), BadLine> {
        line::parse(Api::OpenAi, line)
    }

    fn read(template: &str) -> Result<(RequestId, LineOutcome), BadLine> {
        let id = IdSource::default().request_id(Micros::from_unix_seconds(1), 2);
        parse(&Bytes::from(template.replace("ID", &id.to_string())))
    }

    #[test]
    fn the_answers_body_keeps_its_bytes() {
        let (_, outcome) = read(
            "{\"id\":\"x\",\"custom_id\":\"ID\",\"response\":{\"status_code\":200,\"request_id\":\"r1\",\"body\":{ \"a\" : 1.10 }},\"error\":null}\r\n",
        )
        .unwrap();
        let LineOutcome::Answered { status, provider_request_id, body } = outcome else { panic!("{outcome:?}") };
        assert_eq!((status, provider_request_id.as_deref(), &body[..]), (200, Some("r1"), &b"{ \"a\" : 1.10 }"[..]));
    }

    #[test]
    fn statuses_as_strings_are_read() {
        let (_, outcome) = read(r#"{"custom_id":"ID","response":{"status_code":"429","body":{}}}"#).unwrap();
        assert!(matches!(outcome, LineOutcome::Answered { status: 429, .. }));
    }

    #[test]
    fn a_line_that_is_not_utf8_keeps_the_rest_of_its_answer() {
        let id = IdSource::default().request_id(Micros::from_unix_seconds(1), 2);
        let line = format!(r#"{{"custom_id":"{id}","response":{{"status_code":200,"request_id":"r","body":{{"a":"x"#);
        let mut line = line.into_bytes();
        line.extend_from_slice(b"\xff\"}},\"error\":null}");
        let (found, outcome) = parse(&Bytes::from(line)).unwrap();
        let LineOutcome::Answered { body, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((found, &body[..]), (id, "{\"a\":\"x\u{fffd}\"}".as_bytes()));
    }

    #[test]
    fn a_line_that_breaks_off_still_names_its_request() {
        let id = IdSource::default().request_id(Micros::from_unix_seconds(1), 2);
        let line = format!(r#"{{"id":"x","custom_id" : "{id}","response":{{"status_code":200,"body":{{"a""#);
        assert_eq!(parse(&Bytes::from(line)), Err(BadLine::Damaged(id)));
        assert_eq!(
            parse(&Bytes::from(format!(r#"{{"custom_id":"{id}"#))),
            Err(BadLine::Unreadable),
            "cut inside the id"
        );
    }

    #[test]
    fn not_executed() {
        let (_, outcome) =
            read(r#"{"custom_id":"ID","response":null,"error":{"code":"batch_expired","message":"late"}}"#).unwrap();
        assert_eq!(outcome, LineOutcome::NotExecuted { code: "batch_expired".into(), message: "late".into() });
        let (_, outcome) = read(r#"{"custom_id":"ID","error":"odd"}"#).unwrap();
        assert!(matches!(outcome, LineOutcome::NotExecuted { message, .. } if message.contains("odd")));
    }

    #[test]
    fn bad_lines_say_why() {
        assert_eq!(parse(&Bytes::from_static(b" \r\n")), Err(BadLine::Blank));
        assert_eq!(parse(&Bytes::from_static(b"{\"custom_id\":\"re")), Err(BadLine::Unreadable));
        assert_eq!(parse(&Bytes::from_static(b"{\"custom_id\":\"\xff\"}")), Err(BadLine::UnknownId));
        assert_eq!(parse(&Bytes::from_static(b"{\"custom_id\":\"stranger\",\"error\":null}")), Err(BadLine::UnknownId));
        assert_eq!(read(r#"{"custom_id":"ID","response":null,"error":null}"#), Err(BadLine::Empty));
        assert_eq!(read(r#"{"custom_id":"ID","response":{"body":{}}}"#), Err(BadLine::Unreadable));
    }

    #[test]
    fn a_status_is_one_of_http() {
        let of = |text: &str| number(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(["100", "\"599\"", "429"].map(of), [Some(100), Some(599), Some(429)]);
        assert_eq!(["99", "600", "null", "\"ok\""].map(of), [None; 4]);
    }
}
