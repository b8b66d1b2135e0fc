//! After a start: everything that an earlier run left goes on. Open batches are driven from where they stand (a
//! create whose outcome is unknown is looked up first), queued requests are queued again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::domain::request::RequestState;
use crate::engine::context::Context;
use crate::engine::dispatch::Message;
use crate::engine::flight;
use crate::engine::live;
use crate::engine::quota::Quotas;
use crate::engine::run::{self, Load};
use crate::engine::settle::queued_of;
use crate::store::{BatchRecord, RequestOptions, StoreError};

const PAGE: usize = 2_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) queued: usize,
    pub(crate) batches: usize,
}

/// Reads the store and starts what has to go on. Runs before the listeners answer.
pub(crate) async fn recover(context: &Arc<Context>, quotas: &Quotas) -> Result<Found, StoreError> {
    context.accounts.load(&context.store).await?;
    context.learned.load(&context.store).await?;
    context.flights.load(&context.store).await?;
    context.budget.look(context).await?;
    let mut found = Found::default();
    let mut after = None;
    loop {
        let batches = context.store.batches(true, after, PAGE).await?;
        for batch in &batches {
            found.batches += 1;
            let load = load_of(context, quotas, batch).await?;
            run::resume(context, Arc::clone(&batch.lane), batch.id, load);
        }
        after = batches.last().map(|batch| batch.id);
        if batches.len() < PAGE {
            break;
        }
    }
    created_lately(context).await?;
    let mut after = None;
    loop {
        let records = context.store.unfinished(after, PAGE).await?;
        for record in &records {
            // Idempotent calls find their request by its key.
            let options = record.request.options;
            let owed = options.has(RequestOptions::HOLD) && !options.has(RequestOptions::DELIVERED);
            if owed && record.state != RequestState::Cancelled {
                let known_by = record.request.idempotency.unwrap_or(record.request.body_hash);
                context.orphans.add_alone(record.request.id, known_by);
            }
        }
        for record in records.iter().filter(|record| !record.state.is_terminal()) {
            context.watch_deadline(&record.request);
            if record.state == RequestState::Submitted && record.live.is_some() {
                live::start(context, &record.request.lane, vec![record.request.id], false);
            }
        }
        for record in records.iter().filter(|record| record.state == RequestState::Queued) {
            found.queued += 1;
            if context.flights.has_pilot(record.request.template, record.request.id) {
                continue;
            }
            context.queued.fetch_add(1, Ordering::Relaxed);
            context.tell(Message::Accepted(Arc::clone(&record.request.lane), queued_of(context, &record.request)));
        }
        after = records.last().map(|record| record.request.id);
        if records.len() < PAGE {
            break;
        }
    }
    flight::resume(context);
    Ok(found)
}

/// The batches of the last hour count against `batches_per_hour`, whatever became of them.
async fn created_lately(context: &Context) -> Result<(), StoreError> {
    let (now, mut after) = (context.now(), None);
    loop {
        let batches = context.store.batches(false, after, PAGE).await?;
        for batch in &batches {
            let ago = now.since(batch.created_at);
            if ago >= HOUR {
                return Ok(());
            }
            context.tell(Message::CreatedBefore { lane: Arc::clone(&batch.lane), ago });
        }
        after = batches.last().map(|batch| batch.id);
        if batches.len() < PAGE {
            return Ok(());
        }
    }
}

/// What a batch takes of the provider's queue and of the budget; counted only where there is a limit to keep, known or
/// learned.
async fn load_of(context: &Context, quotas: &Quotas, batch: &BatchRecord) -> Result<Load, StoreError> {
    let limited = quotas.tokens(&batch.lane).is_some()
        || context.provider(&batch.lane).is_some_and(|provider| provider.capability().in_flight_tokens.is_some());
    if !limited && !context.budget.is_kept() {
        return Ok(Load::default());
    }
    let lines = context.store.batch_lines(batch.id).await?;
    let mut queued = Vec::new();
    for record in context.store.records(lines).await? {
        let mut line = queued_of(context, &record.request);
        // Those that have ended are in the ledger.
        if !record.state.is_terminal() {
            line.estimate = context.budget.estimate(context, &batch.lane, &line);
        }
        queued.push(line);
    }
    Ok(Load::of(&queued))
}
