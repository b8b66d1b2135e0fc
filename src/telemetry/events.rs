//! One function for each event: the log line (a constant message with fields) and the metric together.
//!
//! What happens once per request is logged at `debug`, what happens once per batch at `info`, what needs eyes at
//! `warn`, and what loses money or data if it stays at `error`. Called by `engine`, `intake`, `store` and `app`.

use std::fmt::Display;
use std::time::Duration;

use super::metrics::{ByCode, ByEndpoint, ByOperation, ByOutcome, ByProvider, ByResult, ByService, ByState, ByTask};
use super::{Ended, Telemetry};
use crate::domain::batch::BatchState;
use crate::domain::ids::{BatchId, CallbackId, FlightId, RequestId};
use crate::domain::lane::{Endpoint, LaneKey};
use crate::domain::trace::TraceContext;

impl Telemetry {
    /// A deferred request is durable. `endpoint` as in a batch line, `bytes` of its body.
    pub fn request_accepted(&self, endpoint: &str, bytes: u64) {
        let endpoint = endpoint.parse::<Endpoint>().map_or("other", Endpoint::as_str);
        tracing::debug!(endpoint, bytes, "request accepted");
        self.inner.metrics.accepted.get_or_create(&ByEndpoint { endpoint }).inc();
        self.inner.metrics.accepted_bytes.inc_by(bytes);
    }

    /// The call of a deferred request, or one that joined it, is part of a trace.
    pub fn request_traced(&self, id: RequestId, trace: &TraceContext) {
        tracing::debug!(request = %id, trace_id = %trace, "request is part of a trace");
    }

    /// A deferred request ended with `status` by `service`; an empty `service`: nothing was executed.
    pub fn request_finished(&self, service: &str, status: u16, wait: Duration) {
        let service = service_label(service);
        let outcome = outcome_label(status);
        tracing::debug!(service, status, wait_ms = millis(wait), "request finished");
        self.inner.metrics.finished.get_or_create(&ByOutcome { service, outcome }).inc();
        self.inner.metrics.wait.get_or_create(&ByService { service }).observe(wait.as_secs_f64());
        self.inner.sums.lock().finish(service);
    }

    /// What a finished request cost, and what its live call would have cost more; call it only where the price is known.
    pub fn request_priced(&self, paid_nanos: i64, saved_nanos: i64) {
        self.inner.metrics.paid.inc_by(dollars(paid_nanos));
        self.inner.metrics.saved.inc_by(dollars(saved_nanos));
        self.inner.sums.lock().price(paid_nanos, saved_nanos);
    }

    /// Queued requests were withdrawn: by their callers, or because nobody waited for them any more.
    pub fn requests_cancelled(&self, count: usize, why: &'static str) {
        tracing::debug!(count, why, "requests cancelled");
        self.inner.metrics.cancelled.inc_by(wide(count));
    }

    /// nightbus itself refused a call (`invalid_request`, `queue_full`, `unauthorized`, …).
    pub fn request_refused(&self, code: &'static str) {
        tracing::debug!(code, "request refused");
        self.inner.metrics.refused.get_or_create(&ByCode { code }).inc();
    }

    /// A live call ended. `reason`: it was marked, and why it could not be deferred.
    pub fn passthrough_finished(&self, provider: &str, status: u16, reason: Option<&str>) {
        tracing::debug!(provider, status, reason, "call passed through");
        let label = ByProvider { provider: provider.to_owned(), status: class_label(status) };
        self.inner.metrics.passthrough.get_or_create(&label).inc();
        if let Some(reason) = reason {
            self.inner.metrics.passthrough_marked.inc_by(reason, 1);
        }
    }

    /// Live calls that did not get into the ledger: the line to the store was full, or the store failed.
    pub fn ledger_lost(&self, count: usize) {
        tracing::debug!(count, "live calls lost to the ledger");
        self.inner.metrics.ledger_lost.inc_by(wide(count));
    }

    /// The intent of a batch is durable.
    pub fn batch_prepared(&self, id: BatchId, lane: &LaneKey, lines: usize, bytes: u64) {
        tracing::info!(batch = %id, %lane, lines, bytes, "batch prepared");
        self.inner.metrics.batch_lines.observe(float(lines));
    }

    /// The provider has it.
    pub fn batch_submitted(&self, id: BatchId, provider_id: &str, lines: usize, took: Duration) {
        tracing::info!(batch = %id, provider_id, lines, took_ms = millis(took), "batch submitted");
        self.inner.metrics.batches_submitted.inc();
        self.inner.metrics.submit_seconds.observe(took.as_secs_f64());
    }

    /// It ended and all its results are durable. `took` since its intent was written.
    pub fn batch_ended(
        &self,
        id: BatchId,
        state: &str,
        answered: usize,
        requeued: usize,
        failed: usize,
        took: Duration,
    ) {
        let state = state.parse::<BatchState>().map_or("other", BatchState::as_str);
        tracing::info!(batch = %id, state, answered, requeued, failed, took_ms = millis(took), "batch ended");
        self.inner.metrics.batches_ended.get_or_create(&ByState { state }).inc();
        self.ended(Ended::Batch(id));
    }

    /// An exchange with a provider failed. `retry_in`: it is tried again; none: it is given up.
    pub fn provider_error(&self, operation: &'static str, error: &dyn Display, retry_in: Option<Duration>) {
        match retry_in {
            Some(wait) => {
                tracing::warn!(operation, %error, retry_ms = millis(wait), "provider call failed, will be tried again");
            }
            None => tracing::error!(operation, %error, "provider call failed for good"),
        }
        self.inner.metrics.provider_errors.get_or_create(&ByOperation { operation }).inc();
    }

    /// A retry waits because its provider has many of them.
    pub fn retry_delayed(&self) {
        self.inner.metrics.retries_delayed.inc();
    }

    /// A result line answers nobody: unknown id, duplicate, truncated, not JSON.
    pub fn line_unusable(&self, batch: BatchId, why: &'static str) {
        tracing::warn!(%batch, why, "result line cannot be used");
        self.inner.metrics.unusable_lines.inc_by(why, 1);
    }

    /// A batch's files were read and are durable.
    pub fn harvest(&self, lines: usize, bytes: u64, took: Duration) {
        tracing::debug!(lines, bytes, took_ms = millis(took), "results harvested");
        self.inner.metrics.harvest_lines.inc_by(wide(lines));
        self.inner.metrics.harvest_seconds.observe(took.as_secs_f64());
    }

    /// One look at a batch that succeeded.
    pub fn poll(&self, took: Duration) {
        tracing::trace!(took_ms = millis(took), "batch polled");
        self.inner.metrics.poll_seconds.observe(took.as_secs_f64());
    }

    /// Lines that certainly never ran, or may be tried again, are queued again.
    pub fn requests_requeued(&self, count: usize, why: &'static str) {
        if count > 0 {
            tracing::info!(count, why, "requests queued again");
            self.inner.metrics.requeued.inc_by(why, wide(count));
        }
    }

    /// Requests are served otherwise than by batch.
    pub fn fallback(&self, service: &str, count: usize, why: &'static str) {
        let service = service_label(service);
        tracing::debug!(service, count, why, "requests fall back to another service");
        self.inner.metrics.fallbacks.get_or_create(&ByService { service }).inc_by(wide(count));
    }

    /// The first requests of a template are tried live.
    pub fn flight_begun(&self, id: FlightId, lane: &LaneKey, pilots: usize) {
        tracing::info!(flight = %id, %lane, pilots, "test flight begun: the rest of its template waits");
        self.inner.metrics.flights.get_or_create(&ByState { state: "begun" }).inc();
    }

    /// A test flight has a verdict, or somebody has decided. `reasons` hold nothing of the answers.
    pub fn flight_turned(&self, id: FlightId, state: &'static str, reasons: &[String]) {
        if state == "grounded" {
            let reasons = reasons.join("; ");
            tracing::warn!(flight = %id, reasons, "test flight grounded: approve or reject it (nightbus flights)");
        } else {
            tracing::info!(flight = %id, state, "test flight decided");
        }
        self.inner.metrics.flights.get_or_create(&ByState { state }).inc();
    }

    /// A batch was asked to cancel because it will not make the deadline of its lines.
    pub fn batch_rescued(&self, id: BatchId, lines: u32) {
        tracing::warn!(batch = %id, lines, "the batch will not make its deadline: cancelled, what it has not finished is bought live");
        self.inner.metrics.rescues.inc();
    }

    /// The answer to a batch's creation was lost, and it cannot be looked up: it may run and be billed. Its requests end with an error
    /// after `wait`.
    pub fn batch_unsettled(&self, id: BatchId, lines: u32, wait: Duration) {
        tracing::warn!(batch = %id, lines, wait_ms = millis(wait), "the creation of a batch got no answer, and it cannot be looked up: it may be billed, and is not sent again");
        self.inner.metrics.batches_unsettled.inc();
    }

    /// The answer of a live call was lost: it may have been executed and billed. It is made again after `wait` at the earliest.
    pub fn live_call_unsettled(&self, id: RequestId, service: &str, wait: Duration) {
        let service = service_label(service);
        tracing::warn!(request = %id, service, wait_ms = millis(wait), "a live call got no answer: it may be billed");
        self.inner.metrics.unsettled.get_or_create(&ByService { service }).inc();
    }

    /// The ledger has entered waste: an answer came after its request had ended otherwise, or cannot be used, and is paid for
    /// all the same. `cost_nanos`: none where the price is unknown.
    pub fn answer_wasted(&self, id: RequestId, service: &str, cost_nanos: Option<i64>) {
        let service = service_label(service);
        tracing::warn!(request = %id, service, cost_nanos, "an answer came too late, or cannot be used, and is paid for all the same");
        self.inner.metrics.wasted.get_or_create(&ByService { service }).inc();
        self.inner.metrics.wasted_usd.inc_by(dollars(cost_nanos.unwrap_or(0)));
    }

    /// An attempt to deliver a callback ended: `delivered`, `retried` (it failed and is tried again), or without another
    /// attempt `gone` (its receiver wants no more of them) and `given_up`. `attempts` with this one.
    pub fn callback_tried(&self, id: CallbackId, request: RequestId, attempts: usize, outcome: &'static str) {
        if matches!(outcome, "gone" | "given_up") {
            tracing::warn!(callback = %id, %request, attempts, outcome, "a callback was given up");
        } else {
            tracing::debug!(callback = %id, %request, attempts, outcome, "a callback was sent");
        }
        self.inner.metrics.callbacks.get_or_create(&ByResult { outcome }).inc();
    }

    /// A provider's webhook came: `hint` (a batch is looked at), `unknown` (no open batch of ours), `ignored` (another
    /// kind of event), `duplicate`, or `refused` (not signed, or too old).
    pub fn webhook_received(&self, provider: &str, outcome: &'static str) {
        // Anybody who reaches the port can have one refused: the metric may count them, the log must not grow with them.
        tracing::debug!(provider, outcome, "a webhook was received");
        self.inner.metrics.webhooks.get_or_create(&ByResult { outcome }).inc();
    }

    /// Spans of so many requests and batches were `sent`, or lost: `no_room` (too many ended at once), `refused` (the
    /// collector did not take them), `unread` (the store failed), `stopped` (the process ended first).
    pub fn traces_exported(&self, outcome: &'static str, count: usize) {
        tracing::trace!(outcome, count, "spans exported");
        self.inner.metrics.trace_exports.get_or_create(&ByResult { outcome }).inc_by(wide(count));
    }

    /// The collector takes no spans; those of `lost` requests and batches are missing there since this was said last.
    pub fn collector_failing(&self, lost: usize, error: &dyn Display) {
        tracing::warn!(lost, %error, "spans cannot be sent to the collector and are left out");
    }

    /// A connection waits for an answer.
    pub fn waiter_opened(&self) {
        self.inner.metrics.held_connections.inc();
    }

    /// … and does not any more.
    pub fn waiter_closed(&self) {
        self.inner.metrics.held_connections.dec();
    }

    /// One group commit.
    pub fn store_commit(&self, rows: usize, seconds: f64) {
        self.inner.metrics.commit_rows.observe(float(rows));
        self.inner.metrics.commit_seconds.observe(seconds);
    }

    /// The store could not do what it was asked to.
    pub fn store_failed(&self, error: &dyn Display) {
        tracing::error!(%error, "store failed");
        self.inner.metrics.store_errors.inc();
    }

    /// A background task panicked and was contained.
    pub fn panic_contained(&self, task: &'static str) {
        tracing::error!(task, "panic contained");
        self.inner.metrics.panics.get_or_create(&ByTask { task }).inc();
    }
}

/// The services of the contract, section 1.
fn service_label(service: &str) -> &'static str {
    const SERVICES: [&str; 5] = ["batch", "flex", "background_8h", "background_2h", "sync"];
    if service.is_empty() {
        return "none";
    }
    SERVICES.into_iter().find(|name| *name == service).unwrap_or("other")
}

/// What came of a request, in words that an alert can name.
const fn outcome_label(status: u16) -> &'static str {
    match status {
        200..=299 => "ok",
        400..=499 => "client_error",
        _ => "server_error",
    }
}

const fn class_label(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a histogram does not need more than 2^53")]
const fn float(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "the exact sums are kept as integers in the ledger")]
fn dollars(nanos: i64) -> f64 {
    nanos.max(0) as f64 / 1e9
}
