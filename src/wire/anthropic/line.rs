//! Lines of a Message Batch, in and out (providers.md, sections 2.2 and 2.4).
//!
//! A `custom_id` is the request's id, a `-`, and the batch's stamp: the provider keeps no metadata, so the lines say
//! whose they are. 61 characters of `[a-z0-9_-]`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::{BatchId, RequestId};
use crate::wire::line::{self, BadLine, LineOutcome};

/// What stands before the first line and after the last one.
pub(in crate::wire) const FRAME: (&[u8], &[u8]) = (b"{\"requests\":[", b"]}");

const PREFIX: &[u8] = b"{\"custom_id\":\"";
const MIDDLE: &[u8] = b"\",\"params\":";
const END: &[u8] = b"}";
/// Hexadecimal digits of a batch's id that its lines carry: 96 bits.
const STAMP: usize = 24;

/// What the lines of a batch carry in their ids.
pub fn stamp(batch: BatchId) -> String {
    let id = batch.to_string();
    id.get(id.len().saturating_sub(STAMP)..).unwrap_or_default().to_owned()
}

/// The stamp in a result line.
pub fn stamp_in(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        custom_id: Cow<'a, str>,
    }
    let line: Id<'_> = serde_json::from_slice(line).ok()?;
    line.custom_id.split_once('-').map(|(_, stamp)| stamp.to_owned())
}

/// Every line begins with a byte that separates it from the one before, so that all have the same length.
pub(in crate::wire) fn line_length(body_len: u64) -> u64 {
    let around = 1 + PREFIX.len() + RequestId::PREFIX.len() + 32 + 1 + STAMP + MIDDLE.len() + END.len();
    body_len.saturating_add(u64::try_from(around).unwrap_or(u64::MAX))
}

pub(in crate::wire) fn push_line(out: &mut Vec<u8>, batch: BatchId, id: RequestId, body: &[u8], first: bool) {
    out.push(if first { b' ' } else { b',' });
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(format!("{id}-{}", stamp(batch)).as_bytes());
    out.extend_from_slice(MIDDLE);
    out.extend_from_slice(body);
    out.extend_from_slice(END);
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    custom_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    result: Option<LineResult<'a>>,
}

#[derive(Deserialize)]
struct LineResult<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// A whole error response, or what stands inside of one.
#[derive(Deserialize)]
struct ErrorResponse<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_id: Option<Cow<'a, str>>,
}

/// Reads a result line. `text` is a part of `line`; the answer's body shares its memory.
pub(in crate::wire) fn parse(line: &Bytes, text: &str) -> Result<(RequestId, LineOutcome), BadLine> {
    let parsed: Line<'_> = serde_json::from_str(text).map_err(|_not_the_form| {
        line::id_in(text).and_then(request_of).map_or(BadLine::Unreadable, BadLine::Damaged)
    })?;
    let id = parsed.custom_id.as_deref().and_then(request_of).ok_or(BadLine::UnknownId)?;
    let result = parsed.result.ok_or(BadLine::Empty)?;
    let not_executed =
        |code: &str, message: &str| LineOutcome::NotExecuted { code: code.to_owned(), message: message.to_owned() };
    let outcome = match (result.kind.as_deref().unwrap_or_default(), result.message, result.error) {
        ("succeeded", Some(message), _) => LineOutcome::Answered {
            status: 200,
            provider_request_id: None,
            body: line.slice_ref(message.get().as_bytes()),
        },
        ("errored", _, Some(error)) => errored(line, error),
        ("errored", _, None) => not_executed("errored", "the provider names no error"),
        ("canceled", ..) => not_executed("canceled", "the batch was cancelled before this request ran"),
        ("expired", ..) => not_executed("expired", "the batch expired before this request ran"),
        // A word of a later day, or an answer without its message: it may have been billed.
        _ => return Err(BadLine::Damaged(id)),
    };
    Ok((id, outcome))
}

/// `result.error` is a whole error response, with the error inside it once more. A provider that leaves out the outer
/// one is understood too.
fn errored(line: &Bytes, error: &RawValue) -> LineOutcome {
    let outer: Option<ErrorResponse<'_>> = serde_json::from_str(error.get()).ok();
    let inner = outer.as_ref().and_then(|outer| outer.error);
    let kind = match inner {
        Some(inner) => serde_json::from_str::<ErrorResponse<'_>>(inner.get()).ok().and_then(|inner| inner.kind),
        None => outer.as_ref().and_then(|outer| outer.kind.clone()),
    };
    let body = match inner {
        Some(_) => line.slice_ref(error.get().as_bytes()),
        None => Bytes::from(format!(r#"{{"type":"error","error":{}}}"#, error.get())),
    };
    LineOutcome::Answered {
        status: status_of(kind.as_deref().unwrap_or_default()),
        provider_request_id: outer.and_then(|outer| outer.request_id).map(Cow::into_owned),
        body,
    }
}

/// The status that a live call with this error has (providers.md, section 2.5).
fn status_of(kind: &str) -> u16 {
    match kind {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "conflict_error" => 409,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => 500,
    }
}

fn request_of(custom_id: &str) -> Option<RequestId> {
    let (id, stamp) = custom_id.split_once('-')?;
    (stamp.len() == STAMP).then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;
    use crate::domain::lane::{Api, Endpoint};

    fn ids() -> (RequestId, BatchId) {
        let ids = IdSource::default();
        let now = Micros::from_unix_seconds(1_795_420_800);
        (ids.request_id(now, 1), ids.batch_id(now, 2))
    }

    fn read(result: &str) -> Result<LineOutcome, BadLine> {
        let (id, batch) = ids();
        let text = format!(r#"{{"custom_id":"{id}-{}","result":{result}}}"#, stamp(batch));
        let (found, outcome) = line::parse(Api::Anthropic, &Bytes::from(text))?;
        assert_eq!(found, id);
        Ok(outcome)
    }

    #[test]
    fn the_call_is_json_with_the_clients_bytes_and_the_predicted_length() {
        let (id, batch) = ids();
        let body = br#"{"model":"m","temperature":1.10}"#;
        let (open, close) = line::frame(Api::Anthropic);
        let mut call = open.to_vec();
        let mut length = line::frame_length(Api::Anthropic);
        for first in [true, false] {
            let (form, endpoint) = (line::LineForm::Anthropic, Endpoint::Messages);
            line::push_line(&mut call, form, line::Place { batch, endpoint, first }, id, body);
            length += line::line_length(form, endpoint, body.len() as u64);
        }
        call.extend_from_slice(close);
        assert_eq!(call.len() as u64, length);
        let value: serde_json::Value = serde_json::from_slice(&call).unwrap();
        let custom_id = value["requests"][1]["custom_id"].as_str().unwrap();
        assert!(custom_id.len() <= 64 && custom_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)));
        assert_eq!(stamp_in(&serde_json::to_vec(&value["requests"][1]).unwrap()), Some(stamp(batch)));
        assert!(call.windows(body.len()).any(|window| window == body));
    }

    #[test]
    fn a_message_keeps_its_bytes() {
        let outcome = read(r#"{"type":"succeeded","message":{ "id" : "msg_1", "x": 1.10 }}"#).unwrap();
        let LineOutcome::Answered { status, body, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((status, &body[..]), (200, &br#"{ "id" : "msg_1", "x": 1.10 }"#[..]));
    }

    #[test]
    fn an_error_is_the_answer_the_live_call_would_have_had() {
        let whole = r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: Field required"},"request_id":"req_011C"}"#;
        let outcome = read(&format!(r#"{{"type":"errored","error":{whole}}}"#)).unwrap();
        let expected = LineOutcome::Answered {
            status: 400,
            provider_request_id: Some("req_011C".to_owned()),
            body: Bytes::from(whole),
        };
        assert_eq!(outcome, expected);
        for (kind, status) in [("overloaded_error", 529), ("api_error", 500), ("rate_limit_error", 429), ("new", 500)] {
            let outcome = read(&format!(r#"{{"type":"errored","error":{{"type":"{kind}","message":"m"}}}}"#)).unwrap();
            let LineOutcome::Answered { status: found, body, .. } = outcome else { panic!("{outcome:?}") };
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((found, body["error"]["type"].as_str()), (status, Some(kind)), "one nesting is mended");
        }
    }

    #[test]
    fn what_did_not_run_and_what_nobody_can_read() {
        for kind in ["canceled", "expired"] {
            let outcome = read(&format!(r#"{{"type":"{kind}"}}"#)).unwrap();
            assert!(matches!(outcome, LineOutcome::NotExecuted { code, .. } if code == kind));
        }
        let (id, batch) = ids();
        assert_eq!(read(r#"{"type":"teleported"}"#), Err(BadLine::Damaged(id)));
        assert_eq!(read(r#"{"type":"succeeded"}"#), Err(BadLine::Damaged(id)));
        let half = format!(r#"{{"custom_id":"{id}-{}","result":{{"type":"succeeded","message":{{"a"#, stamp(batch));
        assert_eq!(line::parse(Api::Anthropic, &Bytes::from(half)), Err(BadLine::Damaged(id)));
        for stranger in ["stranger", "a-b", &id.to_string()] {
            let text = format!(r#"{{"custom_id":"{stranger}","result":{{"type":"canceled"}}}}"#);
            assert_eq!(line::parse(Api::Anthropic, &Bytes::from(text)), Err(BadLine::UnknownId), "{stranger}");
        }
    }

    #[test]
    fn every_error_has_the_status_of_the_live_call() {
        for (kind, status) in [
            ("invalid_request_error", 400),
            ("authentication_error", 401),
            ("billing_error", 402),
            ("permission_error", 403),
            ("not_found_error", 404),
            ("conflict_error", 409),
            ("request_too_large", 413),
            ("rate_limit_error", 429),
            ("timeout_error", 504),
            ("overloaded_error", 529),
            ("api_error", 500),
        ] {
            assert_eq!(status_of(kind), status, "{kind}");
        }
    }
}
