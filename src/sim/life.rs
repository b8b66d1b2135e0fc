//! The life of a batch (providers.md, section 1.5): one task each, from `validating` to its end.
//!
//! All times are shares of `batch_seconds` from the creation on, and follow when that setting is changed. Statuses
//! only ever move forward here; what a reader may be shown instead is `view`'s business.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::sim::batches::{Batch, Status};
use crate::sim::faults::Fault;
use crate::sim::files::{DEFAULT_LIFETIME, StoredFile};
use crate::sim::limits::queue_full;
use crate::sim::output::{self, Produced, Unfinished};
use crate::sim::state::State;
use crate::sim::validate::{self, Input, LineError};
use crate::sim::view::{self, share_of};

/// Share of `batch_seconds` at which validation is over.
pub(super) const RUNNING_STARTS: f64 = 0.2;
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
    let expiry = expiry(state, input.lines.len());
    if !wait(state, batch, RUNNING_ENDS, is_stuck).await {
        return cancelled(state, batch, Some((input, share))).await;
    }
    if let Some(done) = expiry {
        let produced = output::produce(state, batch, &input, done, Unfinished::Expired).await;
        drop(share);
        finish(state, batch, produced, Status::Expired);
        return;
    }
    if !start_finalizing(state, batch) {
        return cancelled(state, batch, Some((input, share))).await;
    }
    let produced = output::produce(state, batch, &input, input.lines.len(), Unfinished::Never).await;
    pause(state, batch.started, 1.0).await;
    drop(share);
    finish(state, batch, produced, Status::Completed);
}

/// Validates the file and takes its tokens from the pool; the share of the pool is given back when it is dropped.
async fn admit(state: &Arc<State>, batch: &Arc<Batch>) -> Result<(Input, PoolShare), Vec<LineError>> {
    let not_found = || LineError::whole("invalid_request", format!("Cannot find file {}", batch.input_file_id));
    let file = state.files.get(state, &batch.account, &batch.input_file_id).ok_or_else(|| vec![not_found()])?;
    if state.faults.take(Fault::FileNotFound) {
        return Err(vec![not_found()]);
    }
    if file.purpose != "batch" {
        let message = format!("File {} must have the purpose 'batch', not '{}'.", file.id, file.purpose);
        return Err(vec![LineError::whole("invalid_request", message)]);
    }
    let (endpoint, limits) = (batch.endpoint, state.limits);
    let bytes = file.pieces.first().cloned().unwrap_or_default();
    let checked = tokio::task::spawn_blocking(move || validate::validate(&bytes, endpoint, limits)).await;
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
fn expiry(state: &State, total: usize) -> Option<usize> {
    let shares = [(Fault::ExpireNone, 0.0), (Fault::ExpireHalf, 0.5), (Fault::ExpireMost, 0.9)];
    shares.into_iter().find(|(fault, _)| state.faults.take(*fault)).map(|(_, share)| share_of(total, share))
}

/// From `cancelling` to `cancelled`, with the results of the lines that were done.
async fn cancelled(state: &Arc<State>, batch: &Arc<Batch>, input: Option<(Arc<Input>, PoolShare)>) {
    let since = Instant::now();
    let share = view::share_done(state, &batch.progress.lock());
    let produced = match &input {
        Some((input, _)) => {
            let done = share_of(input.lines.len(), share);
            Some(output::produce(state, batch, input, done, Unfinished::Cancelled).await)
        }
        None => None,
    };
    pause(state, since, CANCELLING).await;
    drop(input);
    finish(state, batch, produced.unwrap_or_default(), Status::Cancelled);
}

/// Stores the result files and ends the batch.
fn finish(state: &State, batch: &Batch, produced: Produced, status: Status) {
    let now = state.clock.unix_now();
    let lifetime = batch.output_lifetime.unwrap_or(DEFAULT_LIFETIME);
    let store = |kind: &str, pieces| {
        let id = state.ids.long("file-");
        let file = StoredFile {
            id: id.clone(),
            account: batch.account.clone(),
            filename: format!("{}_{kind}.jsonl", batch.id),
            purpose: "batch_output".to_owned(),
            created_at: now,
            expires_at: Some(now + lifetime),
            pieces,
        };
        state.files.insert(state, file);
        id
    };
    let output_file_id = produced.output.map(|pieces| store("output", pieces));
    let error_file_id = produced.errors.map(|pieces| store("error", pieces));
    let mut progress = batch.progress.lock();
    progress.output_file_id = output_file_id;
    progress.error_file_id = error_file_id;
    progress.completed = produced.completed;
    progress.failed = produced.failed;
    progress.usage = produced.usage;
    progress.enter(status, now);
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
