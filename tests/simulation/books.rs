//! What the provider of the simulation has: its batches, what becomes of each line, and the result lines that tell it.

use std::collections::BTreeMap;

use nightbus::domain::clock::Micros;
use nightbus::domain::ids::BatchId;
use nightbus::wire::batch::{BatchFault, BatchObject, BatchStatus};
use serde_json::json;

/// All files and batches that ever were.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) files: Vec<Vec<(String, String)>>,
    pub(crate) batches: Vec<SimBatch>,
}

/// What becomes of a line when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// Answered, and its result line is cut.
    Damaged,
    /// 400.
    Refused,
    /// 500 or 429.
    Failed,
    /// `request_timeout`.
    NotRun,
    /// In neither file.
    Missing,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) custom_id: String,
    pub(crate) nonce: String,
    pub(crate) runs_at: Micros,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) struct SimBatch {
    pub(crate) stamp: BatchId,
    pub(crate) lines: Vec<Line>,
    pub(crate) created_at: Micros,
    pub(crate) listed_at: Micros,
    pub(crate) ends_at: Micros,
    pub(crate) end: BatchStatus,
    pub(crate) faults: Vec<BatchFault>,
    pub(crate) cancelled_at: Option<Micros>,
    /// From when on its file ids are shown.
    pub(crate) files_at: Micros,
    /// Nothing of it can be read from then on.
    pub(crate) lost_at: Option<Micros>,
    /// Its result files cannot be read.
    pub(crate) files_lost: bool,
    /// Anthropic's wire.
    pub(crate) inline: bool,
}

impl SimBatch {
    pub(crate) fn ended(&self) -> Option<Micros> {
        (self.end != BatchStatus::Running).then_some(self.ends_at)
    }

    /// Whether this line ran, or will run.
    pub(crate) fn runs(&self, line: &Line) -> bool {
        self.end != BatchStatus::Failed
            && line.runs_at <= self.ends_at
            && !matches!(line.outcome, Outcome::NotRun | Outcome::Missing)
    }

    /// Whether this line was, or will be, executed and billed.
    pub(crate) fn bills(&self, line: &Line) -> bool {
        self.runs(line) && matches!(line.outcome, Outcome::Answered | Outcome::Damaged)
    }

    pub(crate) fn object(&self, at: usize, now: Micros) -> BatchObject {
        let over = self.ended().is_some_and(|ended| ended <= now);
        let status = if over { self.end } else { BatchStatus::Running };
        let shown = over && status != BatchStatus::Failed && now >= self.files_at;
        let count =
            |wanted: bool| self.lines.iter().filter(|line| (self.bills(line) == wanted) && self.shows(line)).count();
        let (good, bad) = (count(true), count(false));
        if self.inline {
            let named = over && now >= self.files_at;
            return BatchObject {
                id: format!("batch_{at}"),
                status,
                status_text: format!("{status:?}"),
                output_file_id: named.then(|| format!("{at}-results")),
                total: Some(u32::try_from(self.lines.len()).expect("few")),
                results_pending: over && !named,
                created_at: Some(self.created_at.unix_seconds()),
                ..BatchObject::default()
            };
        }
        BatchObject {
            id: format!("batch_{at}"),
            status,
            status_text: format!("{status:?}"),
            output_file_id: (shown && good > 0).then(|| format!("{at}-output")),
            error_file_id: (shown && bad > 0).then(|| format!("{at}-error")),
            completed: over.then(|| u32::try_from(good).expect("few")),
            errors: if over { self.faults.clone() } else { Vec::new() },
            results_pending: over && status != BatchStatus::Failed && now < self.files_at && good + bad > 0,
            nightbus_batch: Some(self.stamp.to_string()),
            ..BatchObject::default()
        }
    }

    /// Whether a file has the line: those that did not run are named or left out.
    pub(crate) fn shows(&self, line: &Line) -> bool {
        self.inline && line.outcome != Outcome::Missing
            || self.runs(line)
            || line.outcome != Outcome::Missing && line.runs_at.0 % 2 == 0
    }
}

/// Billable lines of each request, with whether the provider still shows them.
pub(crate) fn billed(books: &Books) -> BTreeMap<String, Vec<(BatchId, bool)>> {
    let mut billed: BTreeMap<String, Vec<(BatchId, bool)>> = BTreeMap::new();
    for batch in &books.batches {
        for line in batch.lines.iter().filter(|line| batch.bills(line)) {
            let shown = !batch.files_lost && batch.lost_at.is_none();
            billed.entry(line.nonce.clone()).or_default().push((batch.stamp, shown));
        }
    }
    billed
}

pub(crate) fn answer(nonce: &str) -> String {
    json!({"id": "c", "nonce": nonce, "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
        .to_string()
}

pub(crate) fn result_line(batch: &SimBatch, line: &Line) -> String {
    let id = &line.custom_id;
    let response = |status: u16, body: &str| {
        format!(
            "{{\"id\":\"l\",\"custom_id\":\"{id}\",\"response\":{{\"status_code\":{status},\"request_id\":\"x\",\"body\":{body}}},\"error\":null}}"
        )
    };
    let not_run = |code: &str| {
        format!(
            "{{\"id\":\"l\",\"custom_id\":\"{id}\",\"response\":null,\"error\":{{\"code\":\"{code}\",\"message\":\"\"}}}}"
        )
    };
    if line.runs_at > batch.ends_at {
        return not_run("batch_expired");
    }
    match line.outcome {
        Outcome::Answered => response(200, &answer(&line.nonce)),
        Outcome::Damaged => {
            let mut whole = response(200, &answer(&line.nonce));
            whole.truncate(whole.len() - 40);
            whole
        }
        Outcome::Refused => response(400, "{\"error\":{\"code\":\"bad\"}}"),
        Outcome::Failed => response(500, "{\"error\":{\"code\":\"server_error\"}}"),
        Outcome::NotRun | Outcome::Missing => not_run("request_timeout"),
    }
}

/// The same in Anthropic's words.
pub(crate) fn result_of_message(batch: &SimBatch, line: &Line) -> String {
    let of = |result: serde_json::Value| json!({"custom_id": line.custom_id, "result": result}).to_string();
    let error =
        |kind: &str| json!({"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": ""}}});
    let message = || {
        let usage = json!({"input_tokens": 9, "output_tokens": 3, "service_tier": "batch"});
        json!({"type": "succeeded", "message": {"type": "message", "nonce": line.nonce, "usage": usage}})
    };
    if line.runs_at > batch.ends_at {
        return of(json!({"type": if batch.end == BatchStatus::Cancelled { "canceled" } else { "expired" }}));
    }
    match line.outcome {
        Outcome::Answered => of(message()),
        Outcome::Damaged => {
            let mut whole = of(message());
            whole.truncate(whole.len() - 40);
            whole
        }
        Outcome::Refused => of(error("invalid_request_error")),
        Outcome::Failed => of(error("overloaded_error")),
        Outcome::NotRun | Outcome::Missing => of(json!({"type": "expired"})),
    }
}
