//! The Batch and File objects, read leniently: providers leave fields out, write states in capitals and times as
//! text (providers.md, sections 1.4 and 4.1).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::{RawValue, Value};

use crate::wire::batch::{BatchFault, BatchObject, BatchStatus, unix_seconds};

#[derive(Deserialize)]
struct Raw<'a> {
    id: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    output_file_id: Option<String>,
    #[serde(default)]
    error_file_id: Option<String>,
    #[serde(borrow, default)]
    request_counts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(default)]
    created_at: Value,
    #[serde(default)]
    input_file_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Counts {
    total: Option<u32>,
    completed: Option<u32>,
    failed: Option<u32>,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    data: Vec<Value>,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    has_more: Option<bool>,
}

#[derive(Deserialize)]
struct RawFile {
    id: String,
    #[serde(default)]
    status: Option<String>,
}

/// A File object.
#[derive(Debug, PartialEq, Eq)]
pub struct FileObject {
    /// The provider's id.
    pub id: String,
    /// Whether it can be used.
    pub status: FileStatus,
}

/// Where a file stands, with providers that look at files before they take them (providers.md, section 4.1). Nobody else's
/// word for it is waited for: the field is deprecated (section 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStatus {
    /// `processed`, or nothing said.
    Usable,
    /// `error`: it will never be.
    Refused,
    /// Anything else.
    Pending,
}

/// Reads a Batch object.
pub fn parse_batch(body: &[u8]) -> Result<BatchObject, serde_json::Error> {
    let raw: Raw<'_> = serde_json::from_slice(body)?;
    let status_text = raw.status.unwrap_or_default();
    let counts: Counts = lenient(raw.request_counts).unwrap_or_default();
    let errors: Option<Errors> = lenient(raw.errors);
    let metadata: Option<HashMap<String, Value>> = lenient(raw.metadata);
    let object = BatchObject {
        id: raw.id,
        status: status(&status_text),
        status_text,
        results_pending: false,
        output_file_id: raw.output_file_id,
        error_file_id: raw.error_file_id,
        total: counts.total,
        completed: counts.completed,
        failed: counts.failed,
        errors: errors.map(|errors| errors.data.iter().map(fault).collect()).unwrap_or_default(),
        nightbus_batch: metadata
            .and_then(|mut metadata| metadata.remove("nightbus_batch"))
            .and_then(|value| value.as_str().map(ToOwned::to_owned)),
        input_file_id: raw.input_file_id,
        created_at: unix_seconds(&raw.created_at),
    };
    Ok(object.settled())
}

/// Reads a page of `GET /batches`: the batches that can be read, and whether there are more. The last id is the cursor.
pub fn parse_batch_list(body: &[u8]) -> Result<(Vec<BatchObject>, bool), serde_json::Error> {
    let list: List<'_> = serde_json::from_slice(body)?;
    let batches = list.data.into_iter().filter_map(|raw| parse_batch(raw.get().as_bytes()).ok()).collect();
    Ok((batches, list.has_more.unwrap_or(false)))
}

/// Reads a File object.
pub fn parse_file(body: &[u8]) -> Result<FileObject, serde_json::Error> {
    let raw: RawFile = serde_json::from_slice(body)?;
    let status = match raw.status.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "processed" => FileStatus::Usable,
        "error" => FileStatus::Refused,
        _ => FileStatus::Pending,
    };
    Ok(FileObject { id: raw.id, status })
}

fn status(text: &str) -> BatchStatus {
    match text.to_ascii_lowercase().as_str() {
        "completed" => BatchStatus::Completed,
        "failed" => BatchStatus::Failed,
        "expired" => BatchStatus::Expired,
        "cancelled" | "canceled" => BatchStatus::Cancelled,
        _ => BatchStatus::Running,
    }
}

/// One odd member must not hide the others: each is read by itself.
fn fault(raw: &Value) -> BatchFault {
    let text = |name| raw.get(name).and_then(text_of);
    BatchFault {
        code: text("code").unwrap_or_default(),
        message: text("message").or_else(|| text_of(raw)).unwrap_or_default(),
        param: text("param"),
        line: text("line").and_then(|line| line.parse().ok()).filter(|line| *line > 0),
    }
}

/// A text as providers should write it, or the number or truth value that some write in its place.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn lenient<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_completed_batch() {
        let batch = parse_batch(
            br#"{"id":"batch_1","status":"completed","output_file_id":"file-1","error_file_id":"","created_at":1795420801,
                 "request_counts":{"total":19,"completed":18,"failed":1},"errors":null,"metadata":{"nightbus_batch":"bat_1"}}"#,
        )
        .unwrap();
        assert_eq!(batch.status, BatchStatus::Completed);
        assert_eq!((batch.output_file_id.as_deref(), batch.error_file_id), (Some("file-1"), None));
        assert_eq!((batch.completed, batch.failed, batch.created_at), (Some(18), Some(1), Some(1_795_420_801)));
        assert_eq!(batch.nightbus_batch.as_deref(), Some("bat_1"));
    }

    #[test]
    fn reads_capitals_odd_types_and_missing_fields() {
        let batch = parse_batch(
            br#"{"id":"b","status":"Expired","request_counts":null,"errors":[],"created_at":"2026-11-23T06:00:00Z"}"#,
        )
        .unwrap();
        assert_eq!(
            (batch.status, batch.created_at, batch.errors.len()),
            (BatchStatus::Expired, Some(1_795_413_600), 0)
        );
        assert_eq!(parse_batch(br#"{"id":"b"}"#).unwrap().status, BatchStatus::Running);
        assert_eq!(parse_batch(br#"{"id":"b","status":"exploded"}"#).unwrap().status, BatchStatus::Running);
        assert!(parse_batch(b"<html>").is_err());
    }

    #[test]
    fn a_file_is_pending_until_it_is_said_to_be_processed() {
        let status = |text: &str| parse_file(format!(r#"{{"id":"f"{text}}}"#).as_bytes()).unwrap().status;
        assert_eq!((status(""), status(r#","status":"Processed""#)), (FileStatus::Usable, FileStatus::Usable));
        assert_eq!(
            (status(r#","status":"pending""#), status(r#","status":"running""#)),
            (FileStatus::Pending, FileStatus::Pending)
        );
        assert_eq!(status(r#","status":"error""#), FileStatus::Refused);
    }

    #[test]
    fn reads_faults_with_and_without_lines() {
        let batch = parse_batch(
            br#"{"id":"b","status":"failed","errors":{"object":"list","data":[
                {"code":"missing_required_parameter","message":"Missing","param":"body.messages","line":3},
                {"code":"token_limit_exceeded","message":"Limit: 2,000,000 enqueued tokens","param":null,"line":null}]}}"#,
        )
        .unwrap();
        assert_eq!(batch.errors.iter().map(|fault| fault.line).collect::<Vec<_>>(), [Some(3), None]);
    }

    #[test]
    fn a_fault_with_odd_types_does_not_hide_itself_or_the_others() {
        let batch = parse_batch(
            br#"{"id":"b","status":"failed","errors":{"data":[
                {"code":400,"message":{"text":"x"},"param":["a"],"line":"3"}, "out of order",
                {"code":"c","message":"m","param":null,"line":-1}, {"code":null,"message":7,"line":2}]}}"#,
        )
        .unwrap();
        let read: Vec<_> =
            batch.errors.iter().map(|fault| (fault.code.as_str(), fault.message.as_str(), fault.line)).collect();
        assert_eq!(read, [("400", "", Some(3)), ("", "out of order", None), ("c", "m", None), ("", "7", Some(2))]);
    }

    #[test]
    fn results_are_awaited_until_the_ids_that_are_promised_are_there() {
        let pending = |status: &str, completed: u32, failed: u32, output: &str, error: &str| {
            let text = format!(
                r#"{{"id":"b","status":"{status}","output_file_id":"{output}","error_file_id":"{error}",
                     "request_counts":{{"total":9,"completed":{completed},"failed":{failed}}}}}"#
            );
            parse_batch(text.as_bytes()).unwrap().results_pending
        };
        assert!(pending("completed", 0, 0, "", ""), "one of them must come");
        assert!(!pending("completed", 0, 0, "o", "") && !pending("completed", 0, 0, "", "e"));
        assert!(
            pending("expired", 1, 0, "", "") && pending("expired", 1, 0, "", "e") && !pending("expired", 1, 0, "o", "")
        );
        assert!(
            pending("expired", 0, 1, "", "") && pending("expired", 0, 1, "o", "") && !pending("expired", 0, 1, "", "e")
        );
        assert!(!pending("expired", 0, 0, "", ""), "nothing is promised");
    }

    #[test]
    fn lines_are_counted_from_one() {
        let line = |line: u32| {
            let text = format!(r#"{{"id":"b","status":"failed","errors":{{"data":[{{"code":"c","line":{line}}}]}}}}"#);
            parse_batch(text.as_bytes()).unwrap().errors[0].line
        };
        assert_eq!((line(0), line(1)), (None, Some(1)));
    }
}
