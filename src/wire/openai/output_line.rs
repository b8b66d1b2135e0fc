//! One line of an output or error file (providers.md, section 1.7), each read on its own: a line that cannot be
//! used affects nobody else.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::RequestId;

/// What a line says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineOutcome {
    /// The model API answered, with whatever status.
    Answered {
        /// HTTP status.
        status: u16,
        /// The provider's id of the exchange: opaque.
        provider_request_id: Option<String>,
        /// The JSON body, byte for byte.
        body: Bytes,
    },
    /// It was not executed (`response: null`).
    NotExecuted {
        /// `batch_expired`, `batch_cancelled`, `request_timeout`, …
        code: String,
        /// For people.
        message: String,
    },
}

/// Why a line cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// Nothing but white space: harmless.
    Blank,
    /// Not JSON of the expected form (truncated, not UTF-8, …).
    Unreadable,
    /// It breaks off or is no JSON, but it begins as the answer of this request: that one was executed.
    Damaged(RequestId),
    /// No `custom_id` of ours.
    UnknownId,
    /// Neither an answer nor an error.
    Empty,
}

impl BadLine {
    /// For the log and the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Unreadable => "unreadable",
            Self::Damaged(_) => "damaged",
            Self::UnknownId => "unknown_id",
            Self::Empty => "empty",
        }
    }
}

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

/// Reads a line (with or without its line end). The answer's body shares the line's memory. Bytes that are not UTF-8
/// are replaced: the answer was paid for, and a character less is better than none of it.
pub fn parse(line: &Bytes) -> Result<(RequestId, LineOutcome), BadLine> {
    let trimmed = line.trim_ascii();
    if trimmed.is_empty() {
        return Err(BadLine::Blank);
    }
    match std::str::from_utf8(trimmed) {
        Ok(text) => parse_text(line, text),
        Err(_not_utf8) => {
            let repaired = Bytes::from(String::from_utf8_lossy(trimmed).into_owned());
            parse_text(&repaired, std::str::from_utf8(&repaired).unwrap_or_default())
        }
    }
}

/// `text` is a part of `line`.
fn parse_text(line: &Bytes, text: &str) -> Result<(RequestId, LineOutcome), BadLine> {
    let parsed: Line<'_> = serde_json::from_str(text)
        .map_err(|_not_the_form| id_in(text).map_or(BadLine::Unreadable, BadLine::Damaged))?;
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

/// The request that a damaged line belongs to, where that much of it is left.
fn id_in(text: &str) -> Option<RequestId> {
    let (_, rest) = text.split_once("\"custom_id\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    rest.split_once('"')?.0.parse().ok()
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
}
