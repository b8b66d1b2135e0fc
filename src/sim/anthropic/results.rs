//! The results of a Message Batch (providers.md, section 2.4): one line for each request, in a shuffled order.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::sim::answers::Usage;
use crate::sim::anthropic::batches::{Counts, Line, MessageBatch};
use crate::sim::anthropic::message::{self, PATH};
use crate::sim::anthropic::params::Params;
use crate::sim::anthropic::{Answer, Refusal};
use crate::sim::content::chunked;
use crate::sim::counters::Execution;
use crate::sim::faults::Fault;
use crate::sim::results::Results;
use crate::sim::state::{Account, State};
use crate::sim::tampering::Tampering;

/// What becomes of lines that did not run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unfinished {
    Canceled,
    Expired,
}

/// Runs `done` of the lines and writes all results.
pub(super) fn produce(state: &State, batch: &MessageBatch, done: usize, left: Unfinished) -> (Vec<Bytes>, Counts) {
    let mut rng = state.rng(batch.number);
    let mut order: Vec<&Line> = batch.lines.iter().collect();
    rng.shuffle(&mut order);
    let (ran, rest) = order.split_at_checked(done).unwrap_or((&order, &[]));
    let tampering = Tampering::draw(&state.faults, &mut rng, ran.len());
    let mut writer = Writer {
        state,
        batch,
        results: Results::new(tampering.layout),
        counts: Counts::default(),
        billed: Usage::default(),
        executed: Vec::new(),
    };
    for (at, line) in ran.iter().enumerate() {
        writer.run_line(line, tampering.of_line(at));
    }
    for line in rest {
        let kind = match left {
            Unfinished::Canceled => {
                writer.counts.canceled += 1;
                "canceled"
            }
            Unfinished::Expired => {
                writer.counts.expired += 1;
                "expired"
            }
        };
        writer.write(&line.custom_id, &json!({"type": kind}));
    }
    if tampering.unknown_id {
        writer.write("nobody-sent-this", &json!({"type": "expired"}));
    }
    if !batch.forget.is_cancelled() {
        state.counters.batch_executed(PATH, writer.executed);
        state.counters.batch_ended(writer.billed, writer.counts.errored);
    }
    (writer.results.finish(tampering.half_last_line).unwrap_or_default(), writer.counts)
}

struct Writer<'a> {
    state: &'a State,
    batch: &'a MessageBatch,
    results: Results,
    counts: Counts,
    billed: Usage,
    executed: Vec<(Execution, Usage)>,
}

impl Writer<'_> {
    fn run_line(&mut self, line: &Line, fault: Option<Fault>) {
        let refusal = match fault {
            Some(Fault::MissingLine) => return,
            Some(Fault::Line429) => Some(Refusal::rate_limit(1)),
            Some(Fault::Line500 | Fault::NullResponse) => Some(Refusal::server()),
            Some(Fault::RequestTimeout) => Some(Refusal::new("timeout_error", "Request timed out")),
            _ if self.state.is_unlucky(self.state.settings().fail_rate) => {
                Some(Refusal::new("overloaded_error", "Overloaded"))
            }
            _ => None,
        };
        let body = line.params.get();
        let execution = Execution::of(body);
        let outcome = refusal.map_or_else(
            || {
                let params = Params::checked(body.as_bytes(), self.batch.version, true)?;
                message::run(&params, &execution.digest, &self.state.ids.long(""), "batch")
            },
            Err,
        );
        match outcome {
            Ok(executed) => {
                self.counts.succeeded += 1;
                self.billed.add(executed.billed);
                let result = json!({"type": "succeeded", "message": executed.message});
                self.write(&line.custom_id, &result);
                if matches!(fault, Some(Fault::DuplicateLine | Fault::DuplicateDiffers)) {
                    self.write(&line.custom_id, &result);
                }
                let execution = Execution { custom_id: Some(line.custom_id.clone()), ..execution };
                self.executed.push((execution, executed.billed));
            }
            Err(refusal) => {
                self.counts.errored += 1;
                let error = refusal.envelope(&self.state.ids.long("req_"));
                self.write(&line.custom_id, &json!({"type": "errored", "error": error}));
            }
        }
    }

    fn write(&mut self, custom_id: &str, result: &Value) {
        // The id comes first, as the provider writes it.
        let line = format!(r#"{{"custom_id":"{custom_id}","result":{result}}}"#);
        self.results.line(line.as_bytes());
    }
}

/// `GET …/results`.
pub(super) fn download(state: &State, account: &Account, id: &str) -> Answer {
    let batch = state.messages.find(account, id)?;
    let Some(pieces) = batch.progress.lock().results.clone() else {
        return Err(Refusal::invalid(format!("Batch {id} has no available results yet")).into());
    };
    if state.faults.take(Fault::Content404) {
        return Err(Refusal::new("not_found_error", format!("Batch {id} not found")).into());
    }
    if state.faults.take(Fault::Content500) {
        return Err(Refusal::server().into());
    }
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let cut = state.faults.take(Fault::ContentCut);
    let sent = if cut { length / 2 } else { length };
    let mut response = Response::new(chunked(pieces, sent, cut));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-jsonl"));
    Ok(response)
}
