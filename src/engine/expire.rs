//! Retention: what ended long enough ago is deleted, in small steps that leave room for others.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::clock::Micros;
use crate::engine::context::Context;

const INTERVAL: Duration = Duration::from_secs(60);
const STEP: usize = 500;

/// Runs until the process stops.
pub(crate) async fn run(context: Arc<Context>) {
    while context.sleep(INTERVAL.min(context.retention.max(Duration::from_secs(1)))).await {
        let retention = i64::try_from(context.retention.as_micros()).unwrap_or(i64::MAX);
        let before = Micros(context.now().0.saturating_sub(retention));
        loop {
            match context.store.expire(before, STEP).await {
                Ok(deleted) if deleted < STEP => break,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => {
                    context.telemetry.store_failed(&error);
                    break;
                }
            }
        }
    }
}
