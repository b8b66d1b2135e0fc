//! The Batch object as JSON (providers.md, section 1.4), and the ways in which a reader may be misled about it.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::sim::batches::{Batch, Progress, Status};
use crate::sim::dialect::rfc3339;
use crate::sim::faults::Fault;
use crate::sim::life::{RUNNING_ENDS, RUNNING_STARTS};
use crate::sim::state::State;

/// Seconds from creation to expiry.
const WINDOW: i64 = 86_400;
/// Reads for which the fault `null-file-ids` hides the file ids.
const HIDDEN_READS: u32 = 3;

/// The batch as it is.
pub(super) fn object(state: &State, batch: &Batch) -> Value {
    let progress = batch.progress.lock();
    batch.account.dialect.dress(render(state, batch, &progress))
}

/// The batch as one read shows it: with the faults that are armed.
pub(super) fn read(state: &State, batch: &Batch) -> Value {
    let mut object = {
        let mut progress = batch.progress.lock();
        let is_done = progress.status == Status::Completed;
        let shows_files = batch.account.dialect.rules().result_files;
        if is_done && shows_files && progress.hidden_reads == 0 && state.faults.take(Fault::NullFileIds) {
            progress.hidden_reads = HIDDEN_READS;
        }
        let mut object = render(state, batch, &progress);
        if is_done && progress.hidden_reads > 0 {
            progress.hidden_reads -= 1;
            set(&mut object, "output_file_id", Value::Null);
            set(&mut object, "error_file_id", Value::Null);
        }
        object
    };
    let has_started = object.get("in_progress_at").is_some_and(|at| !at.is_null());
    if has_started && state.faults.take(Fault::StatusBackwards) {
        for name in ["in_progress_at", "finalizing_at", "completed_at", "output_file_id", "error_file_id"] {
            set(&mut object, name, Value::Null);
        }
        set(&mut object, "status", json!("validating"));
        set(&mut object, "request_counts", json!({"total": 0, "completed": 0, "failed": 0}));
    }
    let mut object = batch.account.dialect.dress(object);
    if object.get("status").is_some() && state.faults.take(Fault::StatusUnknown) {
        set(&mut object, "status", json!("rebalancing"));
    }
    if state.faults.take(Fault::Capitals) {
        let capitals = object.get("status").and_then(Value::as_str).map(str::to_ascii_uppercase);
        set(&mut object, "status", json!(capitals));
    }
    if state.faults.take(Fault::Rfc3339Times) {
        for (name, value) in object.as_object_mut().into_iter().flatten() {
            if let Some(text) = name.ends_with("_at").then(|| value.as_i64().and_then(rfc3339)).flatten() {
                *value = Value::from(text);
            }
        }
    }
    if state.faults.take(Fault::MissingFields) {
        let kept = ["id", "batch_id", "status", "output_file_id", "error_file_id", "output_file", "error_file"];
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|name, value| kept.contains(&name.as_str()) && !value.is_null());
        }
    }
    object
}

/// Keeps the counts of a running batch as they are shown now.
pub(super) fn freeze_counts(state: &State, progress: &mut Progress) {
    let share = share_done(state, progress);
    progress.completed = shown(progress.total, share);
}

/// How much of a running batch is done, 0 to 1; 0 where it does not run.
pub(super) fn share_done(state: &State, progress: &Progress) -> f64 {
    let Some(since) = progress.running_since else { return 0.0 };
    if progress.stuck {
        return 0.5;
    }
    let seconds = state.settings().batch_seconds * (RUNNING_ENDS - RUNNING_STARTS);
    let elapsed = Instant::now().saturating_duration_since(since).as_secs_f64();
    if seconds > 0.0 { (elapsed / seconds).min(1.0) } else { 1.0 }
}

/// `share` of `total`, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of at most 50,000 lines"
)]
pub(super) fn share_of(total: usize, share: f64) -> usize {
    ((total as f64 * share) as usize).min(total)
}

/// Counts lag: nine tenths of what is done.
fn shown(total: usize, share: f64) -> usize {
    share_of(total, share * 0.9)
}

fn render(state: &State, batch: &Batch, progress: &Progress) -> Value {
    let completed = if progress.status == Status::InProgress {
        shown(progress.total, share_done(state, progress))
    } else {
        progress.completed
    };
    let errors = if progress.errors.is_empty() {
        Value::Null
    } else {
        json!({"object": "list", "data": progress.errors.iter().map(|error| error.json()).collect::<Vec<_>>()})
    };
    let usage = progress.usage;
    json!({
        "id": batch.id, "object": "batch", "endpoint": batch.endpoint.path(), "model": progress.model,
        "errors": errors, "input_file_id": batch.input_file_id, "completion_window": batch.window,
        "status": progress.status.name(),
        "output_file_id": progress.output_file_id, "error_file_id": progress.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": progress.time_of(Status::InProgress),
        "expires_at": batch.created_at + WINDOW,
        "finalizing_at": progress.time_of(Status::Finalizing),
        "completed_at": progress.time_of(Status::Completed),
        "failed_at": progress.time_of(Status::Failed),
        "expired_at": progress.time_of(Status::Expired),
        "cancelling_at": progress.time_of(Status::Cancelling),
        "cancelled_at": progress.time_of(Status::Cancelled),
        "request_counts": {"total": progress.total, "completed": completed, "failed": progress.failed},
        "usage": {
            "input_tokens": usage.input, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage.output, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input + usage.output,
        },
        "metadata": batch.metadata,
    })
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(slot) = object.get_mut(name) {
        *slot = value;
    }
}
