//! The life of a Message Batch: it runs, perhaps until it is cancelled or expires, and ends with a result for each line.

use std::sync::Arc;

use tokio::time::Instant;

use crate::sim::anthropic::batches::{MessageBatch, Status};
use crate::sim::anthropic::results::{self, Unfinished};
use crate::sim::faults::Fault;
use crate::sim::life::pause;
use crate::sim::state::State;
use crate::sim::view::share_of;

/// Share of `batch_seconds` from `canceling` to the end.
const CANCELING: f64 = 0.1;

/// Lives the batch, until it ends or the simulator does.
pub(super) async fn run(state: Arc<State>, batch: Arc<MessageBatch>) {
    tokio::select! {
        () = batch.forget.cancelled() => {}
        () = state.tasks.stop_token().cancelled() => {}
        () = live(&state, &batch) => {}
    }
}

async fn live(state: &Arc<State>, batch: &Arc<MessageBatch>) {
    let total = batch.lines.len();
    let is_stuck = state.faults.take(Fault::StuckInProgress) || state.faults.take(Fault::StuckValidating);
    let passing = async {
        if is_stuck {
            std::future::pending::<()>().await;
        }
        pause(state, batch.started, 1.0).await;
    };
    let is_cancelled = tokio::select! {
        biased;
        () = batch.cancel.cancelled() => true,
        () = passing => false,
    };
    let (done, left) = if is_cancelled {
        pause(state, Instant::now(), CANCELING).await;
        let seconds = state.settings().batch_seconds;
        let share = if is_stuck { 0.5 } else { batch.started.elapsed().as_secs_f64() / seconds.max(0.001) };
        (share_of(total, share.min(1.0)), Unfinished::Canceled)
    } else {
        let shares = [(Fault::ExpireNone, 0.0), (Fault::ExpireHalf, 0.5), (Fault::ExpireMost, 0.9)];
        let share = shares.into_iter().find(|(fault, _)| state.faults.take(*fault)).map(|(_, share)| share);
        (share_of(total, share.unwrap_or(1.0)), Unfinished::Expired)
    };
    let (worker_state, worker_batch) = (Arc::clone(state), Arc::clone(batch));
    let worked = tokio::task::spawn_blocking(move || results::produce(&worker_state, &worker_batch, done, left)).await;
    let (pieces, counts) = worked.unwrap_or_default();
    let mut progress = batch.progress.lock();
    progress.counts = counts;
    progress.results = Some(pieces);
    progress.ended_at = Some(state.clock.unix_now());
    progress.status = Status::Ended;
}
