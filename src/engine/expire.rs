//! What is dropped with time: ended requests after their retention, old rows of the ledger, in small steps that leave room for others, and
//! queued orphans after their grace. Also keeps in the store whose answer was delivered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::engine::context::Context;
use crate::engine::{CancelOutcome, Engine};
use crate::store::{RequestOptions, StoreFuture};

const INTERVAL: Duration = Duration::from_secs(60);
const STEP: usize = 500;
/// The ledger's rows are kept for 30 days (in microseconds), their sums for good: long after the last moment at which a
/// batch could be read again.
const LEDGER_ROWS_KEPT: i64 = 30 * 24 * 3_600 * 1_000_000;

/// Runs until the process stops.
pub(crate) async fn run(context: Arc<Context>) {
    while context.sleep(INTERVAL.min(context.retention.max(Duration::from_secs(1)))).await {
        let retention = i64::try_from(context.retention.as_micros()).unwrap_or(i64::MAX);
        let before = Micros(context.now().0.saturating_sub(retention));
        in_steps(&context, || context.store.expire(before, STEP)).await;
        let rows_before = Micros(context.now().0.saturating_sub(LEDGER_ROWS_KEPT));
        in_steps(&context, || context.store.expire_ledger(rows_before, STEP)).await;
    }
}

/// Deletes until less than a step is left to delete.
async fn in_steps<'a>(context: &'a Context, delete: impl Fn() -> StoreFuture<'a, usize>) {
    loop {
        match delete().await {
            Ok(deleted) if deleted < STEP => break,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => {
                context.telemetry.store_failed(&error);
                break;
            }
        }
    }
}

/// Queued requests that nobody waits for any more are withdrawn after `hold.orphan_grace`. Those that are submitted or
/// ended keep their answer until the retention ends.
pub(crate) async fn drop_orphans(engine: Engine) {
    let grace = || engine.context.settings().orphan_grace;
    let interval = |grace: Duration| (grace / 10).clamp(Duration::from_millis(100), Duration::from_secs(10));
    while engine.context.sleep(interval(grace())).await {
        let grace = grace();
        for id in engine.context.orphans.alone_for(grace) {
            if !engine.context.orphans.claim(id) {
                continue;
            }
            match engine.abandon(id).await {
                Ok(CancelOutcome::Cancelled | CancelOutcome::NotFound) => engine.context.orphans.forget(id),
                Ok(CancelOutcome::AlreadySubmitted | CancelOutcome::AlreadyEnded) => engine.context.orphans.keep(id),
                Err(error) => {
                    engine.context.telemetry.store_failed(&error);
                    break;
                }
            }
        }
        for id in engine.context.orphans.perhaps_expired(engine.context.retention) {
            // A batch may take longer than the retention: only what the store has deleted is forgotten.
            if matches!(engine.context.store.request(id).await, Ok(None)) {
                engine.context.orphans.forget(id);
            }
        }
    }
}

/// Deliveries are written in groups. One that a crash swallows is handed out once more: late, but not bought again.
pub(crate) async fn record_deliveries(context: Arc<Context>, mut delivered: mpsc::UnboundedReceiver<RequestId>) {
    let mut ids = Vec::with_capacity(DELIVERIES);
    while receive(&context, &mut delivered, &mut ids).await {
        if let Err(error) = context.store.set_options(std::mem::take(&mut ids), RequestOptions::DELIVERED).await {
            context.telemetry.store_failed(&error);
        }
        // The next group gathers meanwhile.
        tokio::time::sleep(GATHER).await;
    }
}

/// Waits for the next group; `false` when the process stops and nothing came for a moment: the last answers are
/// written while it stops.
async fn receive(
    context: &Context,
    delivered: &mut mpsc::UnboundedReceiver<RequestId>,
    ids: &mut Vec<RequestId>,
) -> bool {
    tokio::select! {
        biased;
        received = delivered.recv_many(ids, DELIVERIES) => return received > 0,
        () = context.tasks.stop_token().cancelled() => {}
    }
    matches!(tokio::time::timeout(LAST_MOMENT, delivered.recv_many(ids, DELIVERIES)).await, Ok(received) if received > 0)
}

const GATHER: Duration = Duration::from_millis(20);
const LAST_MOMENT: Duration = Duration::from_millis(200);

const DELIVERIES: usize = 1_000;
