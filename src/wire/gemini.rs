//! Gemini's batches (providers.md, section 4.2), read leniently into [`BatchObject`]: one of them in the compatible form, all of
//! them as the operations that the native API lists, and files.

use serde::Deserialize;
use serde_json::Value;

use crate::wire::batch::{BatchObject, BatchStatus, unix_seconds};
use crate::wire::openai;

/// Reads a batch in the compatible form. Its words are OpenAI's; the native ones are known as well, with either prefix.
pub fn parse_batch(body: &[u8]) -> Result<BatchObject, serde_json::Error> {
    let object = openai::batch::parse_batch(body)?;
    let status = native_status(&object.status_text).unwrap_or(object.status);
    let nothing = object.output_file_id.is_none() && object.error_file_id.is_none();
    // Where lines that failed are written is not documented: no second file is waited for.
    Ok(BatchObject { status, results_pending: status == BatchStatus::Completed && nothing, ..object })
}

/// One page of the native list.
#[derive(Debug)]
pub struct Operations {
    /// Those that can be read: id, status, input file, time of creation.
    pub batches: Vec<BatchObject>,
    /// The next page's token.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    operations: Vec<Value>,
    #[serde(default, rename = "nextPageToken", alias = "next_page_token")]
    next: Option<String>,
}

/// Reads a page of the native list.
pub fn parse_operations(body: &[u8]) -> Result<Operations, serde_json::Error> {
    let page: Page = serde_json::from_slice(body)?;
    let batches = page.operations.iter().filter_map(operation).collect();
    Ok(Operations { batches, next: page.next.filter(|token| !token.is_empty()) })
}

/// A batch as an operation; names are in either spelling.
fn operation(raw: &Value) -> Option<BatchObject> {
    let metadata = raw.get("metadata")?;
    let status_text = metadata.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
    let input = member(metadata, "inputConfig", "input_config");
    let file = input.and_then(|input| member(input, "fileName", "file_name")).and_then(Value::as_str);
    // Lines that stand in the batch itself are nobody's file; what says neither may be anybody's.
    let inline = input.is_some_and(|input| input.get("requests").is_some()).then(String::new);
    Some(BatchObject {
        id: raw.get("name")?.as_str()?.to_owned(),
        status: native_status(&status_text).unwrap_or_default(),
        status_text,
        input_file_id: file.map(ToOwned::to_owned).or(inline),
        created_at: member(metadata, "createTime", "create_time").and_then(unix_seconds),
        ..BatchObject::default()
    })
}

fn member<'v>(value: &'v Value, camel: &str, snake: &str) -> Option<&'v Value> {
    value.get(camel).or_else(|| value.get(snake))
}

/// `JOB_STATE_…` or `BATCH_STATE_…`; none: another word.
fn native_status(text: &str) -> Option<BatchStatus> {
    let state = text.strip_prefix("JOB_STATE_").or_else(|| text.strip_prefix("BATCH_STATE_"))?;
    Some(match state {
        "SUCCEEDED" => BatchStatus::Completed,
        "FAILED" => BatchStatus::Failed,
        "CANCELLED" => BatchStatus::Cancelled,
        "EXPIRED" => BatchStatus::Expired,
        _ => BatchStatus::Running,
    })
}

#[derive(Deserialize)]
struct Uploaded {
    file: File,
}

#[derive(Deserialize)]
struct File {
    name: String,
}

/// Reads the answer to an upload: the file's name, `files/…`.
pub fn parse_uploaded(body: &[u8]) -> Result<String, serde_json::Error> {
    serde_json::from_slice(body).map(|uploaded: Uploaded| uploaded.file.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_words_for_a_state_are_known() {
        let status =
            |text: &str| parse_batch(format!(r#"{{"id":"batches/b","status":"{text}"}}"#).as_bytes()).unwrap().status;
        for (text, expected) in [
            ("completed", BatchStatus::Completed),
            ("JOB_STATE_SUCCEEDED", BatchStatus::Completed),
            ("BATCH_STATE_EXPIRED", BatchStatus::Expired),
            ("BATCH_STATE_FAILED", BatchStatus::Failed),
            ("JOB_STATE_CANCELLED", BatchStatus::Cancelled),
            ("BATCH_STATE_PENDING", BatchStatus::Running),
            ("in_progress", BatchStatus::Running),
        ] {
            assert_eq!(status(text), expected, "{text}");
        }
    }

    #[test]
    fn one_file_of_results_is_enough_and_none_is_waited_for() {
        let pending = |more: &str| {
            let counts = r#""request_counts":{"total":2,"completed":1,"failed":1}"#;
            let text = format!(r#"{{"id":"b","status":"completed",{counts}{more}}}"#);
            parse_batch(text.as_bytes()).unwrap().results_pending
        };
        assert!(!pending(r#","output_file_id":"files/o""#) && pending(""));
    }

    #[test]
    fn operations_name_the_file_that_they_were_made_of_or_say_that_there_is_none() {
        let page = parse_operations(
            br#"{"operations":[
                {"name":"batches/a","metadata":{"state":"BATCH_STATE_RUNNING","inputConfig":{"fileName":"files/f"},
                 "createTime":"2026-11-23T06:00:00Z"}},
                {"name":"batches/b","metadata":{"input_config":{"requests":{}}}}, {"name":"batches/c","metadata":{}}, 7],
                "nextPageToken":"t"}"#,
        )
        .unwrap();
        let read: Vec<_> =
            page.batches.iter().map(|batch| (batch.id.as_str(), batch.input_file_id.as_deref())).collect();
        assert_eq!(read, [("batches/a", Some("files/f")), ("batches/b", Some("")), ("batches/c", None)]);
        assert_eq!((page.batches[0].created_at, page.next.as_deref()), (Some(1_795_413_600), Some("t")));
        assert!(parse_operations(b"{}").unwrap().next.is_none());
    }
}
