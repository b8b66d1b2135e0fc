//! Together's batch job (providers.md, section 4.7), read leniently into [`BatchObject`].

use serde::Deserialize;
use serde_json::value::{RawValue, Value};

use crate::wire::batch::{BatchFault, BatchObject, BatchStatus, unix_seconds};

#[derive(Deserialize)]
struct Job {
    id: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    input_file_id: Option<String>,
    #[serde(default)]
    output_file_id: Option<String>,
    #[serde(default)]
    error_file_id: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    created_at: Value,
}

#[derive(Deserialize)]
struct Created<'a> {
    #[serde(borrow)]
    job: &'a RawValue,
}

/// Reads a job.
pub fn parse_job(body: &[u8]) -> Result<BatchObject, serde_json::Error> {
    let job: Job = serde_json::from_slice(body)?;
    let status_text = job.status.unwrap_or_default();
    let status = match status_text.to_ascii_uppercase().as_str() {
        "COMPLETED" => BatchStatus::Completed,
        "FAILED" => BatchStatus::Failed,
        "EXPIRED" => BatchStatus::Expired,
        "CANCELLED" => BatchStatus::Cancelled,
        _ => BatchStatus::Running,
    };
    let error = job.error.filter(|message| !message.is_empty());
    let object = BatchObject {
        id: job.id,
        status,
        status_text,
        output_file_id: job.output_file_id,
        error_file_id: job.error_file_id,
        errors: error.map(BatchFault::whole).into_iter().collect(),
        input_file_id: job.input_file_id,
        created_at: unix_seconds(&job.created_at),
        ..BatchObject::default()
    };
    Ok(object.settled())
}

/// Reads the answer to a creation: the job stands inside it.
pub fn parse_created(body: &[u8]) -> Result<BatchObject, serde_json::Error> {
    let created: Created<'_> = serde_json::from_slice(body)?;
    parse_job(created.job.get().as_bytes())
}

/// Reads the list of all jobs: those that can be read.
pub fn parse_jobs(body: &[u8]) -> Result<Vec<BatchObject>, serde_json::Error> {
    let jobs: Vec<&RawValue> = serde_json::from_slice(body)?;
    Ok(jobs.into_iter().filter_map(|raw| parse_job(raw.get().as_bytes()).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_job_inside_its_creation_and_alone() {
        let alone = r#"{"id":"b","status":"IN_PROGRESS","input_file_id":"f","created_at":"2026-11-23T06:00:00Z",
            "output_file_id":"","error":null,"progress":12.5}"#;
        let created = parse_created(format!(r#"{{"job":{alone},"warning":"slow"}}"#).as_bytes()).unwrap();
        assert_eq!(created, parse_job(alone.as_bytes()).unwrap());
        assert_eq!((created.status, created.input_file_id.as_deref()), (BatchStatus::Running, Some("f")));
        assert_eq!((created.output_file_id, created.created_at), (None, Some(1_795_413_600)));
        assert_eq!(parse_jobs(format!("[{alone}, 7]").as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_failed_says_why() {
        let job = parse_job(br#"{"id":"b","status":"FAILED","error":"bad line"}"#).unwrap();
        assert_eq!((job.status, job.errors[0].message.as_str()), (BatchStatus::Failed, "bad line"));
    }

    #[test]
    fn results_are_awaited_until_a_file_is_there() {
        let pending = |status: &str, output: &str, error: &str| {
            let text = format!(
                r#"{{"id":"b","status":"{status}","output_file_id":"{output}","error_file_id":"{error}","error":""}}"#
            );
            let job = parse_job(text.as_bytes()).unwrap();
            assert_eq!(job.errors, [], "an empty message is none");
            job.results_pending
        };
        assert!(pending("COMPLETED", "", "") && !pending("COMPLETED", "o", "") && !pending("COMPLETED", "", "e"));
        assert!(!pending("EXPIRED", "", "") && !pending("IN_PROGRESS", "", ""));
    }
}
