//! xAI's batches (providers.md, section 4.9), read leniently into [`BatchObject`], and their results, a page of which becomes lines
//! in OpenAI's form.
//!
//! A batch has no status: it is over when it has requests and none of them is pending. A new one has none yet, and while its file
//! is read it may have fewer than the file; who created it knows how many there are (`engine::poll`).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, Value};

use crate::wire::batch::{BatchFault, BatchObject, BatchStatus, unix_seconds};
use crate::wire::openai::batch::text_of;

/// Seconds after its time during which a batch may still be at work, or clocks differ.
const GRACE: i64 = 3_600;

#[derive(Deserialize)]
struct Job {
    batch_id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    input_file_id: Option<String>,
    #[serde(default)]
    create_time: Value,
    #[serde(default)]
    expire_time: Value,
    #[serde(default)]
    cancel_time: Value,
    #[serde(default)]
    cancel_by_xai_message: Option<String>,
    #[serde(default)]
    state: Option<Counts>,
}

#[derive(Default, Deserialize)]
struct Counts {
    #[serde(default)]
    num_requests: u32,
    num_pending: Option<u32>,
    num_success: Option<u32>,
    num_error: Option<u32>,
}

/// Reads a batch. `now`: Unix seconds, since only the clock tells that its time is over.
pub fn parse_batch(body: &[u8], now: i64) -> Result<BatchObject, serde_json::Error> {
    let job: Job = serde_json::from_slice(body)?;
    let counts = job.state.unwrap_or_default();
    let none_pending = counts.num_pending == Some(0);
    let ran = counts.num_success.unwrap_or(0) + counts.num_error.unwrap_or(0);
    let was_cancelled = unix_seconds(&job.cancel_time).is_some();
    let message = job.cancel_by_xai_message.filter(|message| !message.is_empty());
    let (status, status_text) = if was_cancelled && none_pending && ran == 0 && message.is_some() {
        (BatchStatus::Failed, "failed")
    } else if was_cancelled && none_pending {
        (BatchStatus::Cancelled, "cancelled")
    } else if counts.num_requests > 0 && none_pending {
        (BatchStatus::Completed, "completed")
    } else if unix_seconds(&job.expire_time).is_some_and(|end| end + GRACE < now) {
        (BatchStatus::Expired, "expired")
    } else if counts.num_requests == 0 {
        (BatchStatus::Running, "validating")
    } else {
        (BatchStatus::Running, "in_progress")
    };
    let has_results = !matches!(status, BatchStatus::Running | BatchStatus::Failed);
    Ok(BatchObject {
        output_file_id: has_results.then(|| format!("/batches/{}/results", job.batch_id)),
        id: job.batch_id,
        status,
        status_text: status_text.to_owned(),
        completed: counts.num_success,
        failed: counts.num_error,
        total: Some(counts.num_requests),
        errors: message.map(BatchFault::whole).into_iter().collect(),
        nightbus_batch: job.name,
        input_file_id: job.input_file_id,
        created_at: unix_seconds(&job.create_time),
        ..BatchObject::default()
    })
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, default, alias = "results")]
    batches: Vec<&'a RawValue>,
    #[serde(default)]
    pagination_token: Option<String>,
}

/// Reads a page of batches: those that can be read, and the next page's token.
pub fn parse_batches(body: &[u8], now: i64) -> Result<(Vec<BatchObject>, Option<String>), serde_json::Error> {
    let page: Page<'_> = serde_json::from_slice(body)?;
    let batches = page.batches.iter().filter_map(|raw| parse_batch(raw.get().as_bytes(), now).ok()).collect();
    Ok((batches, page.pagination_token.filter(|token| !token.is_empty())))
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    batch_request_id: &'a RawValue,
    #[serde(borrow, default)]
    batch_result: Option<LineResult<'a>>,
}

#[derive(Deserialize)]
struct LineResult<'a> {
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Value>,
}

/// Reads a page of results into lines of OpenAI's form, each answer's bytes as they were; with the next page's token. What is no
/// result stays as it is, for the reader of lines to say so.
pub fn result_lines(body: &[u8]) -> Result<(Vec<u8>, Option<String>), serde_json::Error> {
    let page: Page<'_> = serde_json::from_slice(body)?;
    let mut lines = Vec::with_capacity(body.len());
    for raw in page.batches {
        let start = lines.len();
        match serde_json::from_str(raw.get()) {
            Ok(line) => push_line(&mut lines, &line),
            Err(_no_result) => lines.extend_from_slice(raw.get().as_bytes()),
        }
        // A line break in JSON is white space.
        lines.iter_mut().skip(start).filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        lines.push(b'\n');
    }
    Ok((lines, page.pagination_token.filter(|token| !token.is_empty())))
}

fn push_line(out: &mut Vec<u8>, line: &Line<'_>) {
    out.extend_from_slice(b"{\"custom_id\":");
    out.extend_from_slice(line.batch_request_id.get().as_bytes());
    let result = line.batch_result.as_ref();
    if let Some(body) = result.and_then(|result| result.response).and_then(answer) {
        out.extend_from_slice(b",\"response\":{\"status_code\":200,\"body\":");
        out.extend_from_slice(body.get().as_bytes());
        out.extend_from_slice(b"},\"error\":null}");
        return;
    }
    let Some(error) = result.and_then(|result| result.error.as_ref()).filter(|error| !error.is_null()) else {
        return out.extend_from_slice(b",\"response\":null,\"error\":null}");
    };
    let code = error.get("code").and_then(text_of).unwrap_or_default();
    let message = error.get("message").and_then(text_of).or_else(|| text_of(error)).unwrap_or_default();
    let (response, error) = match status_of(&code) {
        Some(status) => {
            let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
            let envelope = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
            (json!({"status_code": status, "body": envelope}), Value::Null)
        }
        None => (Value::Null, json!({"code": code, "message": message})),
    };
    out.extend_from_slice(format!(",\"response\":{response},\"error\":{error}}}").as_bytes());
}

/// The answer inside a response: its one member, named after the call (`chat_get_completion`).
fn answer(response: &RawValue) -> Option<Box<RawValue>> {
    let members: HashMap<String, Box<RawValue>> = serde_json::from_str(response.get()).ok()?;
    if members.len() == 1 { members.into_values().next() } else { None }
}

/// The HTTP status of an error: codes are gRPC's, by number or name, or statuses already.
fn status_of(code: &str) -> Option<u16> {
    match code {
        "3" | "INVALID_ARGUMENT" | "9" | "FAILED_PRECONDITION" | "11" | "OUT_OF_RANGE" => Some(400),
        "5" | "NOT_FOUND" => Some(404),
        "7" | "PERMISSION_DENIED" => Some(403),
        "8" | "RESOURCE_EXHAUSTED" => Some(429),
        "12" | "UNIMPLEMENTED" => Some(501),
        "13" | "INTERNAL" | "2" | "UNKNOWN" => Some(500),
        "14" | "UNAVAILABLE" => Some(503),
        _ => code.parse().ok().filter(|status| (400..=599).contains(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_420_800;

    fn status(more: &str) -> BatchStatus {
        parse_batch(format!(r#"{{"batch_id":"b"{more}}}"#).as_bytes(), NOW).unwrap().status
    }

    #[test]
    fn what_is_over_is_told_by_counts_and_times() {
        let counts = |text: &str| format!(r#","state":{{{text}}}"#);
        assert_eq!(status(""), BatchStatus::Running);
        assert_eq!(status(&counts(r#""num_requests":0,"num_pending":0"#)), BatchStatus::Running);
        assert_eq!(status(&counts(r#""num_requests":3,"num_pending":1"#)), BatchStatus::Running);
        assert_eq!(status(&counts(r#""num_requests":3"#)), BatchStatus::Running, "not said");
        assert_eq!(status(&counts(r#""num_requests":3,"num_pending":0"#)), BatchStatus::Completed);
        let cancelled = r#","cancel_time":"2026-11-23T06:00:00Z""#;
        assert_eq!(
            status(&format!(r#"{cancelled},"state":{{"num_requests":3,"num_pending":2}}"#)),
            BatchStatus::Running
        );
        assert_eq!(status(&format!(r#"{cancelled},"state":{{"num_pending":0}}"#)), BatchStatus::Cancelled);
        let refused = format!(r#"{cancelled},"cancel_by_xai_message":"no","state":{{"num_pending":0}}"#);
        assert_eq!(status(&refused), BatchStatus::Failed);
        let partly = refused.replace("\"num_pending\"", "\"num_success\":1,\"num_pending\"");
        assert_eq!(status(&partly), BatchStatus::Cancelled, "what ran is not thrown away");
        let late = |hour: u32| {
            format!(r#","expire_time":"2026-11-23T{hour:02}:00:00Z","state":{{"num_requests":3,"num_pending":2}}"#)
        };
        assert_eq!((status(&late(6)), status(&late(8))), (BatchStatus::Expired, BatchStatus::Running), "{NOW}");
    }

    #[test]
    fn pages_become_lines_with_the_answers_own_bytes() {
        let (lines, next) = result_lines(
            br#"{"results":[
              {"batch_request_id":"req_1","batch_result":{"response":{"chat_get_completion":{ "a" : 1.10,
                "b":"x" }}}},
              {"batch_request_id":"req_2","batch_result":{"error":{"code":3,"message":"bad"}}},
              {"batch_request_id":"req_3","batch_result":{"error":{"code":"odd","message":"later"}}},
              {"batch_request_id":"req_4","batch_result":{}}, 7],"pagination_token":"t/1"}"#,
        )
        .unwrap();
        let text = String::from_utf8(lines).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), next.as_deref()), (5, Some("t/1")));
        assert!(lines[0].contains("{ \"a\" : 1.10, ") && lines[0].contains("\"status_code\":200"), "{}", lines[0]);
        let value = |at: usize| serde_json::from_str::<Value>(lines[at]).unwrap();
        assert_eq!(value(1)["response"]["status_code"], 400);
        assert_eq!((&value(2)["response"], &value(2)["error"]["code"]), (&Value::Null, &json!("odd")));
        assert_eq!((value(3)["error"].is_null(), lines[4]), (true, "7"));
    }
}
