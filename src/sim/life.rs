//! The life of a batch (providers.md, section 1.5): one task each, from `validating` to its end.
//!
//! All times are shares of `batch_seconds` from the creation on, and follow when that setting is changed. Statuses
//! only ever move forward here; what a reader may be shown instead is `view`'s business.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::sim::batches::{Batch, Status};
use crate::sim::faults::Fault;
use crate::sim::files::{DEFAULT_LIFETIME, StoredFile};
use crate::sim::limits::queue_full;
use crate::sim::output::{self, Produced, Unfinished};
use crate::sim::state::State;
use crate::sim::validate::{self, Input, LineError, Terms};
use crate::sim::view::{self, share_of};

/// Share of `batch_seconds` at which validation is over.
pub(super) const RUNNING_STARTS: f64 = 0.2;
/// … at which half of the lines are done.
const RUNNING_HALF: f64 = 0.5;
/// Share of `batch_seconds` at which the last line is done.
pub(super) const RUNNING_ENDS: f64 = 0.85;
/// Share of `batch_seconds` from `cancelling` to `cancelled`.
const CANCELLING: f64 = 0.1;

/// Lives the batch, until it ends or the simulator does.
pub(super) async fn run(state: Arc<State>, batch: Arc<Batch>) {
    tokio::select! {
        () = batch.forget.cancelled() => {}
        () = state.tasks.stop_token().cancelled() => {}
        () = live(&state, &batch) => {}
    }
}

async fn live(state: &Arc<State>, batch: &Arc<Batch>) {
    if !wait(state, batch, RUNNING_STARTS, state.faults.take(Fault::StuckValidating)).await {
        return cancelled(state, batch, None).await;
    }
    let (input, share) = match admit(state, batch).await {
        Ok(admitted) => admitted,
        Err(errors) => return fail(state, batch, errors),
    };
    let input = Arc::new(input);
    let is_stuck = state.faults.take(Fault::StuckInProgress);
    if !start(state, batch, &input, is_stuck) {
        drop(share);
        return cancelled(state, batch, None).await;
    }
    let expiry = expiry(state, batch, input.lines.len());
    let early = early_results(state, batch, &input, expiry).await;
    if !wait(state, batch, RUNNING_ENDS, is_stuck).await {
        return cancelled(state, batch, Some(Running { input, share, early })).await;
    }
    if let Some(done) = expiry {
        let rest = output::produce(state, batch, &input, early.lines..done, Unfinished::Expired).await;
        drop(share);
        finish(state, batch, early.produced.and(rest), Status::Expired);
        return;
    }
    if !start_finalizing(state, batch) {
        return cancelled(state, batch, Some(Running { input, share, early })).await;
    }
    let rest = output::produce(state, batch, &input, early.lines..input.lines.len(), Unfinished::Never).await;
    pause(state, batch.started, 1.0).await;
    drop(share);
    finish(state, batch, early.produced.and(rest), Status::Completed);
}

/// A batch that runs.
struct Running {
    input: Arc<Input>,
    share: PoolShare,
    early: Early,
}

/// What can be read before the end: the first lines that ran.
#[derive(Default)]
struct Early {
    lines: usize,
    produced: Produced,
}

/// Where results can be read during the run (providers.md, section 4.11): half of the lines, at half of the time.
async fn early_results(state: &Arc<State>, batch: &Arc<Batch>, input: &Arc<Input>, expiry: Option<usize>) -> Early {
    let lines = expiry.unwrap_or(input.lines.len()) / 2;
    if !batch.account.dialect.rules().partial || lines == 0 || !wait(state, batch, RUNNING_HALF, false).await {
        return Early::default();
    }
    let produced = output::produce(state, batch, input, 0..lines, Unfinished::NotYet).await;
    if let Some(pieces) = produced.output.clone() {
        let file = StoredFile { incomplete: true, ..result_file(state, batch, "output", pieces) };
        batch.progress.lock().output_file_id = Some(file.id.clone());
        state.files.insert(state, file);
    }
    Early { lines, produced }
}

/// Validates the file and takes its tokens from the pool; the share of the pool is given back when it is dropped.
async fn admit(state: &Arc<State>, batch: &Arc<Batch>) -> Result<(Input, PoolShare), Vec<LineError>> {
    let rules = batch.account.dialect.rules();
    let not_found = || LineError::whole("invalid_request", format!("Cannot find file {}", batch.input_file_id));
    let file = state.files.get(state, &batch.account, &batch.input_file_id).ok_or_else(|| vec![not_found()])?;
    if state.faults.take(Fault::FileNotFound) {
        return Err(vec![not_found()]);
    }
    if file.purpose != rules.purpose || batch.file_was_not_settled {
        let message = format!("File {} is not there for batches: its purpose is '{}'.", file.id, file.purpose);
        return Err(vec![LineError::whole("invalid_request", message)]);
    }
    let dialect = batch.account.dialect;
    let terms =
        Terms { dialect, endpoint: batch.endpoint, limits: state.limits(dialect), job_model: batch.job_model.clone() };
    let bytes = file.pieces.first().cloned().unwrap_or_default();
    let checked = tokio::task::spawn_blocking(move || validate::validate(&bytes, &terms)).await;
    let input = checked.unwrap_or_else(|panic| Err(vec![LineError::whole("server_error", panic.to_string())]))?;
    invented_errors(state, &input, batch)?;
    let limit = state.settings().enqueued_token_limit;
    state
        .pool
        .take(&batch.account, &input.model, input.tokens, limit)
        .map_err(|message| vec![LineError::whole("token_limit_exceeded", message)])?;
    let share = PoolShare {
        state: Arc::clone(state),
        batch: Arc::clone(batch),
        model: input.model.clone(),
        tokens: input.tokens,
    };
    Ok((input, share))
}

/// What marks a line that some faults refuse.
const BAD_LINE: &str = "BAD-LINE";

/// The errors that faults bring upon a valid file.
fn invented_errors(state: &State, input: &Input, batch: &Batch) -> Result<(), Vec<LineError>> {
    let take = |fault| state.faults.take(fault);
    let total = input.lines.len();
    let bad = |line: usize| LineError {
        code: "invalid_request",
        message: "This line is refused by an injected fault.".to_owned(),
        param: Some("body.messages".to_owned()),
        line: Some(line),
    };
    if take(Fault::QueueFull) {
        let limit = state.settings().enqueued_token_limit.unwrap_or(2_000_000);
        return Err(vec![LineError::whole("token_limit_exceeded", queue_full(&batch.account, &input.model, limit))]);
    }
    if take(Fault::ModelNotFound) {
        let message = format!("The provided model '{}' is not supported by the Batch API.", input.model);
        return Err(vec![LineError::whole("model_not_found", message)]);
    }
    if take(Fault::ValidationNoLine) {
        return Err(vec![LineError::whole("invalid_request", "The batch is refused by an injected fault.")]);
    }
    let marked: Vec<usize> = (1..)
        .zip(&input.lines)
        .filter(|(_, line)| input.text(&line.body).contains(BAD_LINE))
        .map(|(number, _)| number)
        .collect();
    if !marked.is_empty() && take(Fault::ValidationUnnamed) {
        return Err(vec![LineError::whole("invalid_value", "A line is refused by an injected fault.")]);
    }
    if !marked.is_empty() && take(Fault::ValidationMarked) {
        return Err(marked.into_iter().map(bad).collect());
    }
    if take(Fault::ValidationAllBad) {
        return Err((1..=total).map(bad).collect());
    }
    if take(Fault::ValidationTruncated) {
        return Err(vec![bad(1)]);
    }
    if take(Fault::ValidationWrongLine) {
        return Err(vec![bad(total + 7)]);
    }
    let mut lines: Vec<usize> = (1..=total).collect();
    state.rng(batch.number).shuffle(&mut lines);
    for (fault, count) in [(Fault::ValidationOneBad, 1), (Fault::ValidationTenBad, 10)] {
        if take(fault) {
            lines.truncate(count);
            lines.sort_unstable();
            return Err(lines.into_iter().map(bad).collect());
        }
    }
    Ok(())
}

/// Tokens taken from the pool; given back when dropped.
struct PoolShare {
    state: Arc<State>,
    batch: Arc<Batch>,
    model: String,
    tokens: u64,
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.state.pool.release(&self.batch.account, &self.model, self.tokens);
    }
}

/// Enters `in_progress` unless the batch was asked to cancel.
fn start(state: &State, batch: &Batch, input: &Input, is_stuck: bool) -> bool {
    let mut progress = batch.progress.lock();
    if progress.status == Status::Cancelling {
        return false;
    }
    progress.enter(Status::InProgress, state.clock.unix_now());
    progress.model = Some(input.model.clone());
    progress.total = input.lines.len();
    progress.running_since = Some(Instant::now());
    progress.stuck = is_stuck;
    true
}

fn fail(state: &State, batch: &Batch, errors: Vec<LineError>) {
    let mut progress = batch.progress.lock();
    progress.errors = errors;
    progress.enter(Status::Failed, state.clock.unix_now());
}

/// How many lines are done when the batch expires, if it is to expire.
fn expiry(state: &State, batch: &Batch, total: usize) -> Option<usize> {
    if !batch.account.dialect.rules().expires {
        return None;
    }
    let shares = [(Fault::ExpireNone, 0.0), (Fault::ExpireHalf, 0.5), (Fault::ExpireMost, 0.9)];
    let done = shares.into_iter().find(|(fault, _)| state.faults.take(*fault)).map(|(_, share)| share_of(total, share));
    done.map(|lines| if batch.account.dialect.rules().expires_without_results { 0 } else { lines })
}

/// From `cancelling` to `cancelled`, with the results of the lines that were done.
async fn cancelled(state: &Arc<State>, batch: &Arc<Batch>, running: Option<Running>) {
    let since = Instant::now();
    let share = view::share_done(state, &batch.progress.lock());
    let produced = match running {
        Some(Running { input, share: pool, early }) => {
            let done = share_of(input.lines.len(), share).max(early.lines);
            let rest = output::produce(state, batch, &input, early.lines..done, Unfinished::Cancelled).await;
            pause(state, since, CANCELLING).await;
            drop(pool);
            early.produced.and(rest)
        }
        None => {
            pause(state, since, CANCELLING).await;
            Produced::default()
        }
    };
    finish(state, batch, produced, Status::Cancelled);
}

/// Stores the result files and ends the batch.
fn finish(state: &State, batch: &Batch, produced: Produced, status: Status) {
    let now = state.clock.unix_now();
    let begun = batch.progress.lock().output_file_id.clone();
    let output_file_id = produced.output.map(|pieces| {
        let file = result_file(state, batch, "output", pieces);
        let id = begun.clone().unwrap_or_else(|| file.id.clone());
        match begun {
            Some(id) => state.files.replace(StoredFile { id, ..file }),
            None => drop(state.files.insert(state, file)),
        }
        id
    });
    let error_file_id = produced.errors.map(|pieces| {
        let file = result_file(state, batch, "error", pieces);
        state.files.insert(state, file).id.clone()
    });
    let mut progress = batch.progress.lock();
    progress.output_file_id = output_file_id;
    progress.error_file_id = error_file_id;
    progress.completed = produced.completed;
    progress.failed = produced.failed;
    progress.usage = produced.usage;
    progress.enter(status, now);
}

/// A file that the batch writes.
fn result_file(state: &State, batch: &Batch, kind: &str, pieces: Vec<Bytes>) -> StoredFile {
    let now = state.clock.unix_now();
    StoredFile {
        id: state.ids.long("file-"),
        account: batch.account.clone(),
        filename: format!("{}_{kind}.jsonl", batch.id),
        purpose: "batch_output".to_owned(),
        created_at: now,
        expires_at: Some(now + batch.output_lifetime.unwrap_or(DEFAULT_LIFETIME)),
        pieces,
        uploaded: None,
        incomplete: false,
    }
}

/// Enters `finalizing` unless the batch was asked to cancel.
fn start_finalizing(state: &State, batch: &Batch) -> bool {
    let mut progress = batch.progress.lock();
    if progress.status == Status::Cancelling {
        return false;
    }
    view::freeze_counts(state, &mut progress);
    progress.enter(Status::Finalizing, state.clock.unix_now());
    true
}

/// Waits until `share` of the batch's time is over, for ever where it is stuck; `false` when it is cancelled.
async fn wait(state: &State, batch: &Batch, share: f64, is_stuck: bool) -> bool {
    let passing = async {
        if is_stuck {
            std::future::pending::<()>().await;
        }
        pause(state, batch.started, share).await;
    };
    tokio::select! {
        biased;
        () = batch.cancel.cancelled() => false,
        () = passing => true,
    }
}

/// Sleeps until `share` of `batch_seconds` has passed since `from`, whatever `batch_seconds` becomes meanwhile.
pub(super) async fn pause(state: &State, from: Instant, share: f64) {
    let mut settings = state.settings.subscribe();
    loop {
        let seconds = settings.borrow_and_update().batch_seconds * share;
        let until = from + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
