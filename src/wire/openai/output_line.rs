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

/// Reads a line (with or without its line end). The answer's body shares the line's memory.
pub fn parse(line: &Bytes) -> Result<(RequestId, LineOutcome), BadLine> {
    let trimmed = line.trim_ascii();
    if trimmed.is_empty() {
        return Err(BadLine::Blank);
    }
    let text = std::str::from_utf8(trimmed).map_err(|_not_utf8| BadLine::Unreadable)?;
    let parsed: Line<'_> = serde_json::from_str(text).map_err(|_not_the_form| BadLine::Unreadable)?;
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
        assert_eq!(parse(&Bytes::from_static(b"{\"custom_id\":\"\xff\"}")), Err(BadLine::Unreadable));
        assert_eq!(parse(&Bytes::from_static(b"{\"custom_id\":\"stranger\",\"error\":null}")), Err(BadLine::UnknownId));
        assert_eq!(read(r#"{"custom_id":"ID","response":null,"error":null}"#), Err(BadLine::Empty));
        assert_eq!(read(r#"{"custom_id":"ID","response":{"body":{}}}"#), Err(BadLine::Unreadable));
    }
}
