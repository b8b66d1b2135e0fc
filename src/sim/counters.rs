//! What was asked and what was executed: the proof, for tests, that each request was executed once.
//!
//! Only executions that would be billed are counted (2xx). Each is counted under three names: the `custom_id` of
//! its batch line, the SHA-256 of its body, and every marker `probe-…` in its body.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use memchr::memmem::Finder;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::sim::answers::Usage;

/// Calls that [`RequestLog`] remembers.
const REMEMBERED: usize = 1_000;
/// Bytes of a body that it remembers.
const REMEMBERED_BODY: usize = 16 * 1024;

/// Finds the beginning of a marker.
static PROBE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("probe-"));

/// One execution.
#[derive(Debug)]
pub(super) struct Execution {
    /// Of the batch line; `None` for a live call.
    pub(super) custom_id: Option<String>,
    /// SHA-256 of the body.
    pub(super) digest: [u8; 32],
    /// The markers in the body, each once.
    pub(super) probes: Vec<String>,
    /// The model, as it was asked for.
    pub(super) model: String,
    /// The service that was asked for, when it is no batch line.
    pub(super) service: &'static str,
}

/// Of a body, what is billed by.
#[derive(Default, serde::Deserialize)]
struct Billed {
    #[serde(default)]
    model: String,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    background_options: Option<BackgroundOptions>,
}

#[derive(Default, serde::Deserialize)]
struct BackgroundOptions {
    #[serde(default)]
    completion_window: Option<String>,
}

impl Execution {
    /// The execution of `body`.
    pub(super) fn of(body: &str) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest(&SHA256, body.as_bytes()).as_ref()) {
            *to = *from;
        }
        let billed: Billed = serde_json::from_str(body).unwrap_or_default();
        let window = billed.background_options.and_then(|options| options.completion_window);
        let service = match (window.as_deref(), billed.service_tier.as_deref()) {
            (Some("8h"), _) => "background_8h",
            (Some("2h"), _) => "background_2h",
            (_, Some("flex")) => "flex",
            _ => "sync",
        };
        Self { custom_id: None, digest: bytes, probes: probes(body), model: billed.model, service }
    }
}

/// All counters.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    files_uploaded: u64,
    files_deleted: u64,
    bytes_uploaded: u64,
    batches_created: u64,
    batches_cancelled: u64,
    lines_executed: u64,
    lines_failed: u64,
    live_executed: u64,
    live_refused: u64,
    background_started: u64,
    background_cancelled: u64,
    batch_usage: Usage,
    live_usage: Usage,
    /// Executions in batches and live, by path.
    by_endpoint: HashMap<&'static str, (u64, u64)>,
    by_custom_id: HashMap<String, u32>,
    by_body: HashMap<[u8; 16], u32>,
    by_probe: BTreeMap<String, u32>,
    /// What is billed, by model and service: executions and tokens.
    bill: BTreeMap<(String, &'static str), (u64, Usage)>,
}

impl Counts {
    fn executed(&mut self, execution: Execution, usage: Usage) {
        let service = if execution.custom_id.is_some() { "batch" } else { execution.service };
        let (executions, billed) = self.bill.entry((execution.model, service)).or_default();
        *executions += 1;
        billed.add(usage);
        if let Some(custom_id) = execution.custom_id {
            *self.by_custom_id.entry(custom_id).or_default() += 1;
        }
        if let Some(body) = execution.digest.first_chunk::<16>() {
            *self.by_body.entry(*body).or_default() += 1;
        }
        for probe in execution.probes {
            *self.by_probe.entry(probe).or_default() += 1;
        }
    }
}

impl Counters {
    /// A file was uploaded.
    pub(super) fn file_uploaded(&self, bytes: u64) {
        let mut counts = self.0.lock();
        counts.files_uploaded += 1;
        counts.bytes_uploaded += bytes;
    }

    /// A file was deleted.
    pub(super) fn file_deleted(&self) {
        self.0.lock().files_deleted += 1;
    }

    /// A batch was created.
    pub(super) fn batch_created(&self) {
        self.0.lock().batches_created += 1;
    }

    /// Somebody cancelled a batch.
    pub(super) fn batch_cancelled(&self) {
        self.0.lock().batches_cancelled += 1;
    }

    /// Lines of a batch were executed.
    pub(super) fn batch_executed(&self, endpoint: &'static str, executions: Vec<(Execution, Usage)>) {
        let mut counts = self.0.lock();
        counts.lines_executed += executions.len() as u64;
        counts.by_endpoint.entry(endpoint).or_default().0 += executions.len() as u64;
        for (execution, usage) in executions {
            counts.executed(execution, usage);
        }
    }

    /// A batch came to its end: what is billed for it, and how many lines got an HTTP error.
    pub(super) fn batch_ended(&self, usage: Usage, failed: usize) {
        let mut counts = self.0.lock();
        counts.batch_usage.add(usage);
        counts.lines_failed += failed as u64;
    }

    /// A live call was executed.
    pub(super) fn live_executed(&self, endpoint: &'static str, execution: Execution, usage: Usage) {
        let mut counts = self.0.lock();
        counts.live_executed += 1;
        counts.by_endpoint.entry(endpoint).or_default().1 += 1;
        counts.live_usage.add(usage);
        counts.executed(execution, usage);
    }

    /// A live call was answered with an error.
    pub(super) fn live_refused(&self) {
        self.0.lock().live_refused += 1;
    }

    /// A background response was begun.
    pub(super) fn background_started(&self) {
        self.0.lock().background_started += 1;
    }

    /// Somebody cancelled a background response that was not ready.
    pub(super) fn background_cancelled(&self) {
        self.0.lock().background_cancelled += 1;
    }

    /// All totals.
    pub(super) fn json(&self) -> Value {
        let counts = self.0.lock();
        let by_endpoint: BTreeMap<&str, Value> = counts
            .by_endpoint
            .iter()
            .map(|(endpoint, (batch, live))| (*endpoint, json!({"batch": batch, "live": live})))
            .collect();
        let most = |values: &mut dyn Iterator<Item = &u32>| values.max().copied().unwrap_or(0);
        let repeated = |values: &mut dyn Iterator<Item = &u32>| values.filter(|count| **count > 1).count();
        json!({
            "files": counts.files_uploaded, "files_deleted": counts.files_deleted,
            "bytes_uploaded": counts.bytes_uploaded,
            "batches": counts.batches_created, "cancelled": counts.batches_cancelled,
            "lines_executed": counts.lines_executed, "lines_failed": counts.lines_failed,
            "live_calls": counts.live_executed, "live_refused": counts.live_refused,
            "background": counts.background_started, "background_cancelled": counts.background_cancelled,
            "by_endpoint": by_endpoint,
            "tokens": {
                "batch_input": counts.batch_usage.input, "batch_output": counts.batch_usage.output,
                "live_input": counts.live_usage.input, "live_output": counts.live_usage.output,
            },
            "max_executions_per_custom_id": most(&mut counts.by_custom_id.values()),
            "max_executions_per_body": most(&mut counts.by_body.values()),
            "max_executions_per_probe": most(&mut counts.by_probe.values()),
            "custom_ids": counts.by_custom_id.len(), "probes": counts.by_probe.len(),
            "duplicates": repeated(&mut counts.by_custom_id.values()),
            "duplicate_bodies": repeated(&mut counts.by_body.values()),
            "duplicate_probes": repeated(&mut counts.by_probe.values()),
        })
    }

    /// Executions of one marker.
    pub(super) fn of_probe(&self, probe: &str) -> u32 {
        self.0.lock().by_probe.get(probe).copied().unwrap_or(0)
    }

    /// Executions of all markers.
    pub(super) fn by_probe(&self) -> Value {
        json!(self.0.lock().by_probe)
    }

    /// What is billed, by model and service.
    pub(super) fn bill(&self) -> Value {
        let counts = self.0.lock();
        let rows = counts.bill.iter().map(|((model, service), (executions, usage))| {
            json!({"model": model, "service": service, "executions": executions, "input": usage.input, "output": usage.output})
        });
        json!({"object": "list", "data": rows.collect::<Vec<_>>()})
    }

    /// Executions of one `custom_id`.
    pub(super) fn of_custom_id(&self, custom_id: &str) -> u32 {
        self.0.lock().by_custom_id.get(custom_id).copied().unwrap_or(0)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.0.lock() = Counts::default();
    }
}

/// The markers in `body`.
fn probes(body: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for at in PROBE.find_iter(body.as_bytes()) {
        let rest = body.get(at..).unwrap_or_default();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(rest.len());
        let probe = rest.get(..end).unwrap_or_default();
        if probe.len() > "probe-".len() && !found.iter().any(|known| known == probe) {
            found.push(probe.to_owned());
        }
    }
    found
}

/// The last calls on `/v1`, as they arrived.
#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<VecDeque<Seen>>);

/// One call.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// Of a JSON call, as far as it is remembered.
    pub(super) body: Bytes,
}

impl RequestLog {
    /// Remembers a call.
    pub(super) fn push(&self, mut seen: Seen) {
        seen.body.truncate(REMEMBERED_BODY);
        let mut log = self.0.lock();
        if log.len() == REMEMBERED {
            log.pop_front();
        }
        log.push_back(seen);
    }

    /// The last `limit` calls whose path begins with `path`, newest first.
    pub(super) fn json(&self, limit: usize, path: &str) -> Value {
        let log = self.0.lock();
        let matching = log.iter().rev().filter(|seen| seen.uri.path().starts_with(path)).take(limit);
        matching.map(Seen::json).collect()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Seen {
    fn json(&self) -> Value {
        let headers = self.headers.iter();
        let headers: Vec<Value> =
            headers.map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
        json!({
            "method": self.method.as_str(), "path": self.uri.path(), "query": self.uri.query(), "headers": headers,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_marker_once() {
        let body = r#"{"a":"x probe-1_a-B, probe-2\n probe-2","b":"probe-"}"#;
        assert_eq!(probes(body), ["probe-1_a-B", "probe-2"]);
    }

    #[test]
    fn digest_is_sha_256() {
        let digest = Execution::of("abc").digest;
        assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
