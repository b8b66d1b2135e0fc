//! The MessageBatch object (providers.md, section 2.3): one terminal status, and counts that say how lines ended.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::batch::{BatchObject, BatchStatus};

#[derive(Deserialize)]
struct Raw {
    id: String,
    #[serde(default)]
    processing_status: Option<String>,
    #[serde(default)]
    request_counts: Option<Counts>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    results_url: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
struct Counts {
    #[serde(default)]
    processing: u32,
    #[serde(default)]
    succeeded: u32,
    #[serde(default)]
    errored: u32,
    #[serde(default)]
    canceled: u32,
    #[serde(default)]
    expired: u32,
}

impl Counts {
    fn not_succeeded(&self) -> u32 {
        self.errored.saturating_add(self.canceled).saturating_add(self.expired)
    }

    fn total(&self) -> u32 {
        self.processing.saturating_add(self.succeeded).saturating_add(self.not_succeeded())
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    has_more: Option<bool>,
}

/// Reads a MessageBatch. A batch that ended with lines expired or cancelled counts as such, whatever else is in it;
/// `output_file_id` is its `results_url`.
pub fn parse_batch(body: &[u8]) -> Result<BatchObject, serde_json::Error> {
    let raw: Raw = serde_json::from_slice(body)?;
    let status_text = raw.processing_status.unwrap_or_default();
    let ended = status_text.eq_ignore_ascii_case("ended");
    let output_file_id = raw.results_url.filter(|url| !url.is_empty());
    // While a batch runs everything counts as processing: that is no progress.
    let final_counts = raw.request_counts.filter(|_| ended);
    Ok(BatchObject {
        id: raw.id,
        status: match final_counts {
            _ if !ended => BatchStatus::Running,
            Some(counts) if counts.expired > 0 => BatchStatus::Expired,
            Some(counts) if counts.canceled > 0 => BatchStatus::Cancelled,
            _ => BatchStatus::Completed,
        },
        status_text,
        results_pending: ended && output_file_id.is_none(),
        output_file_id,
        error_file_id: None,
        total: raw.request_counts.map(|counts| counts.total()).filter(|total| *total > 0),
        completed: final_counts.map(|counts| counts.succeeded),
        failed: final_counts.map(|counts| counts.not_succeeded()),
        errors: Vec::new(),
        nightbus_batch: None,
        input_file_id: None,
        created_at: raw.created_at.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_second),
    })
}

/// Reads a page of the list: the batches that can be read, and whether there are more. The last id is the cursor.
pub fn parse_batch_list(body: &[u8]) -> Result<(Vec<BatchObject>, bool), serde_json::Error> {
    let list: List<'_> = serde_json::from_slice(body)?;
    let batches = list.data.into_iter().filter_map(|raw| parse_batch(raw.get().as_bytes()).ok()).collect();
    Ok((batches, list.has_more.unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(status: &str, counts: &str, results_url: &str) -> BatchObject {
        let body = format!(
            r#"{{"id":"msgbatch_1","type":"message_batch","processing_status":"{status}","request_counts":{counts},
                "created_at":"2026-11-23T06:00:00.000000Z","results_url":{results_url}}}"#
        );
        parse_batch(body.as_bytes()).unwrap()
    }

    #[test]
    fn one_that_runs_shows_its_size_and_no_progress() {
        let batch =
            batch("in_progress", r#"{"processing":2,"succeeded":0,"errored":0,"canceled":0,"expired":0}"#, "null");
        assert_eq!((batch.status, batch.total, batch.completed), (BatchStatus::Running, Some(2), None));
        assert_eq!(batch.created_at, Some(1_795_413_600));
        assert!(!batch.results_pending && batch.output_file_id.is_none());
    }

    #[test]
    fn how_one_ended_is_told_by_its_counts() {
        let ended = |counts| batch("ended", counts, "\"https://x/results\"").status;
        assert_eq!(ended(r#"{"succeeded":2,"errored":1}"#), BatchStatus::Completed);
        assert_eq!(ended(r#"{"succeeded":2,"canceled":1}"#), BatchStatus::Cancelled);
        assert_eq!(ended(r#"{"succeeded":2,"canceled":1,"expired":1}"#), BatchStatus::Expired);
        assert_eq!(batch("canceling", r#"{"processing":2}"#, "null").status, BatchStatus::Running);
        let pending = batch("ended", r#"{"succeeded":2,"errored":1}"#, "null");
        assert_eq!((pending.results_pending, pending.completed, pending.failed), (true, Some(2), Some(1)));
    }

    #[test]
    fn every_count_is_in_the_sums() {
        let counts = r#"{"processing":1,"succeeded":2,"errored":4,"canceled":8,"expired":16}"#;
        let ended = batch("ended", counts, "\"https://x/results\"");
        assert_eq!((ended.total, ended.completed, ended.failed), (Some(31), Some(2), Some(28)));
        let of_one = batch("in_progress", r#"{"processing":1}"#, "\"\"");
        assert_eq!((of_one.total, of_one.output_file_id), (Some(1), None), "an empty address is none");
        assert_eq!(batch("in_progress", "{}", "null").total, None);
    }
}
