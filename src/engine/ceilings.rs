//! Keeps what refusals taught of the provider's limits (`quota`) over restarts.
//!
//! The dispatcher must not wait for the disk, so one task writes, in the order of the lessons. A lesson that cannot be
//! written is taught again by the next refusal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::clock::Micros;
use crate::engine::context::Context;
use crate::engine::quota::Quotas;
use crate::store::{LearnedCeiling, StoreError};

/// A limit that was not met for so long is forgotten: quotas grow, and models go.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Reads what earlier runs learned.
pub(crate) async fn load(context: &Context) -> Result<Quotas, StoreError> {
    let at = context.now();
    let mut learned = context.store.ceilings().await?;
    learned.retain(|one| at.since(one.at) < FORGOTTEN_AFTER);
    Ok(Quotas::restored(learned, Instant::now(), at))
}

/// Writes down what is learned, until the dispatcher has ended.
pub(crate) async fn keep(context: Arc<Context>, mut lessons: mpsc::UnboundedReceiver<LearnedCeiling>) {
    let age = i64::try_from(FORGOTTEN_AFTER.as_micros()).unwrap_or(i64::MAX);
    while let Some(learned) = lessons.recv().await {
        let forget = Micros(context.now().0.saturating_sub(age));
        if let Err(error) = context.store.keep_ceiling(learned, forget).await {
            context.telemetry.store_failed(&error);
        }
    }
}
