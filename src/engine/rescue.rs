//! Rescue: a batch that will not make its lines' deadline (contract, section 7).
//!
//! First it is cancelled, so that its end comes and with it what it has finished; what it has not finished is queued
//! again, and goes from there to live calls because no batch would make it. When the end does not come in time, the lines
//! are bought although the batch still runs; what it answers after that is paid for twice, and counted as waste.
//!
//! Called by `poll`, `submit` and `collect`, in the task that owns the batch.

use std::sync::Arc;
use std::time::Duration;

use crate::crash;
use crate::domain::batch::BatchEvent;
use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::engine::context::Context;
use crate::engine::deadline::Schedule;
use crate::engine::fallback::take_over;
use crate::engine::run::{StepError, credentials};
use crate::engine::settle::{self, Tally};
use crate::store::BatchRecord;

const GROUP: usize = 1_000;
/// A batch that is being cancelled is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// The rescue of one batch.
#[derive(Debug)]
pub(crate) struct Rescue {
    schedule: Option<Schedule>,
    cancelled: bool,
    bought: bool,
}

impl Rescue {
    pub(crate) fn of(batch: &BatchRecord) -> Self {
        let schedule = Schedule::of_class(batch.lane.deadline_class, batch.created_at, batch.line_count);
        Self { schedule, cancelled: false, bought: false }
    }

    /// Of a batch that has ended, and whose results are waited for: there is nothing to cancel.
    pub(crate) fn of_ended(batch: &BatchRecord) -> Self {
        Self { cancelled: true, ..Self::of(batch) }
    }

    /// Does what is due for a batch that runs. A call that fails is made again at the next look.
    pub(crate) async fn act(&mut self, context: &Arc<Context>, batch: &BatchRecord) -> Result<(), StepError> {
        let Some(schedule) = self.schedule else { return Ok(()) };
        if !self.cancelled && context.now() >= schedule.cancel_at {
            let bound = self.bound(context.now()).unwrap_or(LOOK);
            self.cancelled = tokio::time::timeout(bound, cancel(context, batch)).await.unwrap_or(false);
        }
        if !self.bought && context.now() >= schedule.buy_at {
            let handed = hand_over(context, batch).await?;
            self.bought = true;
            if handed > 0 {
                tracing::warn!(batch = %batch.id, handed, "the batch's results come too late for its deadline: its lines are bought live");
            }
        }
        Ok(())
    }

    /// When something is due next, at the earliest in [`LOOK`]: no call to the provider may take longer. None: nothing is.
    pub(crate) fn bound(&self, now: Micros) -> Option<Duration> {
        let schedule = self.schedule.filter(|_| !self.bought)?;
        let due = if now < schedule.cancel_at { schedule.cancel_at } else { schedule.buy_at };
        Some(due.since(now).max(LOOK))
    }

    /// The longest pause until the next look.
    pub(crate) fn pause(&self, now: Micros) -> Option<Duration> {
        let schedule = self.schedule.filter(|_| !self.bought)?;
        let due = if now < schedule.cancel_at { schedule.cancel_at } else { schedule.buy_at.min(now.plus(LOOK)) };
        Some(due.since(now))
    }
}

/// Whether the provider has been asked, or says that there is nothing to cancel.
async fn cancel(context: &Context, batch: &BatchRecord) -> bool {
    let (Some((provider, credentials)), Some(id)) = (credentials(context, batch), &batch.provider.batch_id) else {
        return false;
    };
    match provider.cancel(&credentials, id).await {
        Ok(_cancelling) => {
            crash::point("rescue-cancelled");
            context.telemetry.batch_rescued(batch.id, batch.line_count);
            true
        }
        Err(error) => {
            context.telemetry.provider_error("cancel", &error, None);
            error.is_lasting()
        }
    }
}

async fn hand_over(context: &Arc<Context>, batch: &BatchRecord) -> Result<usize, StepError> {
    let lines: Vec<RequestId> = context.store.batch_lines(batch.id).await?;
    let mut handed = 0;
    for group in lines.chunks(GROUP) {
        let records = settle::riding(context, batch, group.to_vec()).await?;
        handed += take_over(context, &batch.lane, records, "deadline").await?.1;
    }
    Ok(handed)
}

/// When a batch that does not exist at the provider yet is not worth creating any more; none: it has no deadline.
pub(crate) fn too_late_in(context: &Context, batch: &BatchRecord) -> Option<Duration> {
    let schedule = Schedule::of_class(batch.lane.deadline_class, batch.created_at, batch.line_count)?;
    Some(schedule.cancel_at.since(context.now()))
}

/// Ends a batch that certainly does not exist at the provider: live calls serve its lines.
pub(crate) async fn instead_of(context: &Arc<Context>, batch: &BatchRecord) -> Result<(), StepError> {
    let handed = hand_over(context, batch).await?;
    let why = "the batch could not be created in time for its deadline".to_owned();
    settle::end_batch(context, batch, BatchEvent::Fail, Tally { handed, ..Tally::default() }, Some(why)).await
}

#[cfg(test)]
mod tests;
