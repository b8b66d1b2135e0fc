//! `/healthz`, `/readyz` and `/metrics`: for supervisors, load balancers and scrapers. The first two need no token
//! and show nothing that would.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use super::AdminState;
use super::reply::{self, Reply};
use crate::body;
use crate::engine::HeldBack;
use crate::telemetry::Gauges;

/// A store that takes longer to make one row durable is not ready.
const STORE_PATIENCE: Duration = Duration::from_secs(3);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Serialize)]
struct Health {
    status: &'static str,
    reasons: Vec<String>,
}

/// The process runs and answers.
pub(super) fn alive() -> Reply {
    reply::ok(&Health { status: "ok", reasons: Vec::new() })
}

/// It can take deferred calls; if not, 503 with the reasons.
pub(super) async fn ready(state: &AdminState) -> Reply {
    let reasons = reasons(state).await;
    let (code, status) =
        if reasons.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    reply::json(code, &Health { status, reasons })
}

async fn reasons(state: &AdminState) -> Vec<String> {
    let mut reasons = (state.ready)();
    let config = state.config.get();
    if !config.providers.contains_key(&config.default_provider) {
        reasons.push(format!("no provider named {:?} is configured", config.default_provider));
    }
    match tokio::time::timeout(STORE_PATIENCE, state.engine.store().check()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => reasons.push(error.to_string()),
        Err(_elapsed) => reasons.push(format!("the store did not commit within {} s", STORE_PATIENCE.as_secs())),
    }
    reasons
}

/// All numbers, as OpenMetrics text. A store that does not answer leaves its own gauges out of date, no more.
pub(super) async fn metrics(state: &AdminState) -> Reply {
    let view = state.engine.view();
    let store_bytes = state.engine.store().stats().await.map_or(0, |stats| stats.bytes);
    let batches = super::status::open_batches(state).await.unwrap_or_default();
    let now = state.telemetry.now();
    state.telemetry.set_gauges(&Gauges {
        queued_requests: view.queued_requests,
        queued_bytes: view.queued_bytes,
        oldest_queued_seconds: view.oldest_queued_at.map_or(0.0, |at| now.since(at).as_secs_f64()),
        lanes: u64::try_from(view.lanes.len()).unwrap_or(u64::MAX),
        held_back: HeldBack::ALL
            .map(|why| {
                let count = view.lanes.iter().filter(|lane| lane.held_back == Some(why)).count();
                (why.label(), u64::try_from(count).unwrap_or(u64::MAX))
            })
            .to_vec(),
        batches,
        store_bytes,
    });
    Ok(reply::with_body(StatusCode::OK, OPEN_METRICS, body::full(state.telemetry.render())))
}
