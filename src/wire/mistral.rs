//! Mistral's batch job (providers.md, section 4.5), read leniently into [`BatchObject`].

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::{RawValue, Value};

use crate::wire::batch::{BatchFault, BatchObject, BatchStatus, unix_seconds};
use crate::wire::openai::batch::text_of;

#[derive(Deserialize)]
struct Job {
    id: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_file: Option<String>,
    #[serde(default)]
    error_file: Option<String>,
    #[serde(default)]
    metadata: Option<HashMap<String, Value>>,
    #[serde(default)]
    errors: Vec<Value>,
    #[serde(default)]
    created_at: Value,
    #[serde(default)]
    total_requests: Option<u32>,
    #[serde(default)]
    succeeded_requests: Option<u32>,
    #[serde(default)]
    failed_requests: Option<u32>,
}

#[derive(Deserialize)]
struct Jobs<'a> {
    #[serde(borrow, default)]
    data: Vec<&'a RawValue>,
}

/// Reads a job.
pub fn parse_job(body: &[u8]) -> Result<BatchObject, serde_json::Error> {
    let job: Job = serde_json::from_slice(body)?;
    let status_text = job.status.unwrap_or_default();
    let status = match status_text.to_ascii_uppercase().as_str() {
        "SUCCESS" => BatchStatus::Completed,
        "FAILED" => BatchStatus::Failed,
        "TIMEOUT_EXCEEDED" => BatchStatus::Expired,
        "CANCELLED" => BatchStatus::Cancelled,
        _ => BatchStatus::Running,
    };
    let object = BatchObject {
        id: job.id,
        status,
        status_text,
        results_pending: false,
        output_file_id: job.output_file,
        error_file_id: job.error_file,
        completed: job.succeeded_requests,
        failed: job.failed_requests,
        total: job.total_requests,
        errors: job.errors.iter().map(fault).collect(),
        nightbus_batch: job.metadata.and_then(|metadata| Some(metadata.get("nightbus_batch")?.as_str()?.to_owned())),
        input_file_id: job.input_files.into_iter().next(),
        created_at: unix_seconds(&job.created_at),
    };
    Ok(object.settled())
}

/// Reads a page of jobs: those that can be read, and how many there were.
pub fn parse_jobs(body: &[u8]) -> Result<(Vec<BatchObject>, usize), serde_json::Error> {
    let jobs: Jobs<'_> = serde_json::from_slice(body)?;
    let read = jobs.data.iter().filter_map(|raw| parse_job(raw.get().as_bytes()).ok()).collect();
    Ok((read, jobs.data.len()))
}

/// Errors have a message and a count, and name no line.
fn fault(raw: &Value) -> BatchFault {
    BatchFault::whole(raw.get("message").and_then(text_of).or_else(|| text_of(raw)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_job_and_what_it_is_known_by() {
        let job = parse_job(
            br#"{"id":"j","object":"batch","input_files":["f"],"status":"SUCCESS","output_file":"o","error_file":null,
                "metadata":{"nightbus_batch":"bat_1"},"errors":[],"created_at":1795420801,"total_requests":2,
                "succeeded_requests":2,"failed_requests":0}"#,
        )
        .unwrap();
        assert_eq!((job.status, job.results_pending), (BatchStatus::Completed, false));
        assert_eq!((job.output_file_id.as_deref(), job.error_file_id), (Some("o"), None));
        assert_eq!((job.nightbus_batch.as_deref(), job.input_file_id.as_deref()), (Some("bat_1"), Some("f")));
        assert_eq!((job.total, job.completed, job.created_at), (Some(2), Some(2), Some(1_795_420_801)));
    }

    #[test]
    fn every_state_is_known_and_another_one_is_running() {
        let status = |text: &str| parse_job(format!(r#"{{"id":"j","status":"{text}"}}"#).as_bytes()).unwrap().status;
        for text in ["QUEUED", "RUNNING", "CANCELLATION_REQUESTED", "PONDERING"] {
            assert_eq!(status(text), BatchStatus::Running, "{text}");
        }
        assert_eq!(status("TIMEOUT_EXCEEDED"), BatchStatus::Expired);
        assert_eq!((status("FAILED"), status("CANCELLED")), (BatchStatus::Failed, BatchStatus::Cancelled));
    }

    #[test]
    fn a_failed_jobs_errors_are_its_faults() {
        let job =
            parse_job(br#"{"id":"j","status":"FAILED","errors":[{"message":"no such model","count":3}]}"#).unwrap();
        assert_eq!(job.errors.first().map(|fault| fault.message.as_str()), Some("no such model"));
        assert!(!job.results_pending);
    }

    #[test]
    fn results_are_awaited_until_the_files_that_are_promised_are_there() {
        let pending = |status: &str, succeeded: u32, failed: u32, output: &str, error: &str| {
            let text = format!(
                r#"{{"id":"j","status":"{status}","output_file":"{output}","error_file":"{error}",
                     "succeeded_requests":{succeeded},"failed_requests":{failed}}}"#
            );
            parse_job(text.as_bytes()).unwrap().results_pending
        };
        assert!(pending("SUCCESS", 0, 0, "", ""), "one of them must come");
        assert!(!pending("SUCCESS", 0, 0, "o", "") && !pending("SUCCESS", 0, 0, "", "e"));
        let of = |succeeded, failed, output, error| pending("TIMEOUT_EXCEEDED", succeeded, failed, output, error);
        assert!(
            of(1, 0, "", "e") && !of(1, 0, "o", "") && of(0, 1, "o", "") && !of(0, 1, "", "e") && !of(0, 0, "", "")
        );
        assert!(
            !pending("RUNNING", 1, 1, "", "") && !pending("FAILED", 1, 1, "", ""),
            "nothing is to come yet, or at all"
        );
    }
}
