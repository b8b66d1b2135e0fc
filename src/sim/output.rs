//! Running a batch's lines and writing its result files (providers.md, section 1.7).
//!
//! Runs off the async threads. Lines run, and are written, in a shuffled order; each line that ran with a 2xx is
//! counted as executed.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::sim::answers::{Answer, Call, Run, Usage, answer};
use crate::sim::batches::Batch;
use crate::sim::counters::Execution;
use crate::sim::faults::Fault;
use crate::sim::peek;
use crate::sim::reply::ApiFailure;
use crate::sim::results::Results;
use crate::sim::state::State;
use crate::sim::tampering::{LONG_LINE, Tampering};
use crate::sim::validate::{Input, Line};

/// Lines after which executions are counted.
const COUNTED_AT_ONCE: usize = 1_024;

/// Why lines did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    Cancelled,
    Expired,
    /// They are to run later.
    NotYet,
    /// All ran.
    Never,
}

impl Unfinished {
    /// Code and message for the error file.
    fn error(self) -> (&'static str, &'static str) {
        match self {
            Self::Cancelled => ("batch_cancelled", "This request was not executed because the batch was cancelled."),
            Self::Expired | Self::NotYet | Self::Never => {
                ("batch_expired", "This request could not be executed before the completion window expired.")
            }
        }
    }
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(super) struct Produced {
    /// The output file; `None` where no line has a result.
    pub(super) output: Option<Vec<Bytes>>,
    /// The error file; `None` where no line failed.
    pub(super) errors: Option<Vec<Bytes>>,
    pub(super) completed: usize,
    pub(super) failed: usize,
    pub(super) usage: Usage,
}

impl Produced {
    /// What was produced after it, behind it.
    pub(super) fn and(self, rest: Self) -> Self {
        let joined = |first: Option<Vec<Bytes>>, second: Option<Vec<Bytes>>| match (first, second) {
            (Some(first), Some(second)) => Some([first, second].concat()),
            (one, other) => one.or(other),
        };
        let mut usage = self.usage;
        usage.add(rest.usage);
        Self {
            output: joined(self.output, rest.output),
            errors: joined(self.errors, rest.errors),
            completed: self.completed + rest.completed,
            failed: self.failed + rest.failed,
            usage,
        }
    }
}

/// Runs those of the lines, in the order in which the batch runs them, and writes the files.
pub(super) async fn produce(
    state: &Arc<State>,
    batch: &Arc<Batch>,
    input: &Arc<Input>,
    lines: Range<usize>,
    unfinished: Unfinished,
) -> Produced {
    let (state, batch, input) = (Arc::clone(state), Arc::clone(batch), Arc::clone(input));
    let produced = tokio::task::spawn_blocking(move || run(&state, &batch, &input, &lines, unfinished)).await;
    produced.unwrap_or_else(|panic| {
        tracing::error!(%panic, "writing the results of a simulated batch failed");
        Produced::default()
    })
}

fn run(state: &State, batch: &Batch, input: &Input, lines: &Range<usize>, unfinished: Unfinished) -> Produced {
    let mut rng = state.rng(batch.number);
    let mut order: Vec<&Line> = input.lines.iter().collect();
    rng.shuffle(&mut order);
    let (begun, left) = order.split_at_checked(lines.end).unwrap_or((&order, &[]));
    let ran = begun.get(lines.start..).unwrap_or_default();
    let tampering = Tampering::draw(&state.faults, &mut rng, ran.len());
    let mut writer = Writer::new(state, batch, input, rng, &tampering);
    for (at, line) in ran.iter().enumerate() {
        if batch.forget.is_cancelled() || state.tasks.is_stopping() {
            break;
        }
        writer.run_line(line, tampering.of_line(at));
    }
    let left = if unfinished == Unfinished::NotYet { &[] } else { left };
    for line in left {
        writer.unfinished(line, unfinished.error());
    }
    writer.finish(unfinished != Unfinished::NotYet)
}

struct Writer<'a> {
    state: &'a State,
    batch: &'a Batch,
    input: &'a Input,
    rng: fastrand::Rng,
    tampering: &'a Tampering,
    now: i64,
    fail_rate: f64,
    output: Results,
    errors: Results,
    completed: usize,
    failed: usize,
    usage: Usage,
    executed: Vec<(Execution, Usage)>,
}

impl<'a> Writer<'a> {
    fn new(state: &'a State, batch: &'a Batch, input: &'a Input, rng: fastrand::Rng, tampering: &'a Tampering) -> Self {
        let results = || Results::new(tampering.layout);
        Self {
            state,
            batch,
            input,
            rng,
            tampering,
            now: state.clock.unix_now(),
            fail_rate: state.settings().fail_rate,
            output: results(),
            errors: results(),
            completed: 0,
            failed: 0,
            usage: Usage::default(),
            executed: Vec::new(),
        }
    }

    /// Runs one line, or does to it what `fault` says.
    fn run_line(&mut self, line: &Line, fault: Option<Fault>) {
        let custom_id = self.input.text(&line.custom_id);
        match fault {
            Some(Fault::MissingLine) => return,
            Some(Fault::NullResponse) => {
                let line = self.bare(custom_id, "null");
                return self.output.line(&line);
            }
            Some(Fault::RequestTimeout) => return self.unfinished(line, ("request_timeout", "The request timed out.")),
            Some(Fault::Line429) => return self.refused(custom_id, &ApiFailure::rate_limit(1)),
            Some(Fault::Line500) => return self.refused(custom_id, &ApiFailure::server()),
            _ => {}
        }
        if self.fail_rate > 0.0 && self.rng.f64() < self.fail_rate {
            let failure = if self.rng.bool() { ApiFailure::rate_limit(1) } else { ApiFailure::server() };
            return self.refused(custom_id, &failure);
        }
        let body = self.input.text(&line.body);
        let execution = Execution::of(body);
        let answer = self.answer(body, execution.digest);
        let written = self.line_of(custom_id, &answer, fault);
        if answer.status >= 300 {
            self.failed += 1;
            return self.errors.line(&written);
        }
        self.output.line(&written);
        match fault {
            Some(Fault::DuplicateLine) => self.output.line(&written),
            Some(Fault::DuplicateDiffers) => {
                let other = self.answer(body, execution.digest.map(|byte| !byte));
                let other = self.line_of(custom_id, &other, None);
                self.output.line_at_end(other);
            }
            _ => {}
        }
        self.completed += 1;
        self.usage.add(answer.usage);
        self.count(custom_id, execution, answer.usage);
    }

    fn answer(&mut self, body: &str, digest: [u8; 32]) -> Answer {
        let mut run = Run { rng: self.rng.fork(), now: self.now, digest, tier: "default" };
        match Call::parse(self.batch.endpoint, body) {
            Ok(call) => answer(&call, &mut run),
            Err(failure) => Answer::refused(&failure),
        }
    }

    fn refused(&mut self, custom_id: &str, failure: &ApiFailure) {
        let line = self.line_of(custom_id, &Answer::refused(failure), None);
        self.failed += 1;
        self.errors.line(&line);
    }

    /// A line that did not run.
    fn unfinished(&mut self, line: &Line, (code, message): (&str, &str)) {
        let error = json!({"code": code, "message": message}).to_string();
        let line = self.bare(self.input.text(&line.custom_id), &error);
        self.errors.line(&line);
    }

    /// A line without a response.
    fn bare(&mut self, custom_id: &str, error: &str) -> Vec<u8> {
        let id = self.rng.u64(..);
        format!(r#"{{"id":"batch_req_{id:016x}","custom_id":{custom_id},"response":null,"error":{error}}}"#)
            .into_bytes()
    }

    /// A line with a response. `custom_id` is JSON text.
    fn line_of(&mut self, custom_id: &str, answer: &Answer, fault: Option<Fault>) -> Vec<u8> {
        let (id, request_id, status) = (self.rng.u64(..), self.rng.u64(..), answer.status);
        let head = format!(
            r#"{{"id":"batch_req_{id:016x}","custom_id":{custom_id},"response":{{"status_code":{status},"request_id":""#
        );
        let mut line = Vec::with_capacity(head.len() + answer.body.len() + 48);
        line.extend_from_slice(head.as_bytes());
        if fault == Some(Fault::InvalidUtf8) {
            line.extend_from_slice(&[0xff, 0xfe]);
        }
        line.extend_from_slice(format!(r#"{request_id:016x}","body":"#).as_bytes());
        line.extend_from_slice(&answer.body);
        line.extend_from_slice(br#"},"error":null"#);
        if fault == Some(Fault::LongLine) {
            line.resize(line.len().max(LONG_LINE), b' ');
        }
        line.push(b'}');
        line
    }

    fn count(&mut self, custom_id: &str, execution: Execution, usage: Usage) {
        let custom_id = serde_json::from_str(custom_id)
            .ok()
            .and_then(|raw: &serde_json::value::RawValue| peek::text(raw).map(std::borrow::Cow::into_owned));
        self.executed.push((Execution { custom_id, ..execution }, usage));
        if self.executed.len() >= COUNTED_AT_ONCE {
            self.flush_counts();
        }
    }

    fn flush_counts(&mut self) {
        if !self.batch.forget.is_cancelled() {
            self.state.counters.batch_executed(self.batch.endpoint.path(), std::mem::take(&mut self.executed));
        }
    }

    fn finish(mut self, is_end: bool) -> Produced {
        self.flush_counts();
        self.state.counters.batch_ended(self.usage, self.failed);
        if self.tampering.unknown_id {
            let line = self.line_of("\"nobody-sent-this\"", &Answer::refused(&ApiFailure::server()), None);
            self.output.line_at_end(line);
        }
        let empty_errors = is_end
            && self.errors.is_empty()
            && (self.tampering.empty_error_file || self.batch.account.dialect.rules().always_error_file);
        Produced {
            output: self.output.finish(self.tampering.half_last_line),
            errors: if empty_errors { Some(Vec::new()) } else { self.errors.finish(false) },
            completed: self.completed,
            failed: self.failed,
            usage: self.usage,
        }
    }
}
