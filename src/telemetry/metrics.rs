//! The numbers themselves: one typed field for each metric, and the page they are rendered to.
//!
//! Labels come from closed sets (states, services, codes) or from the configuration (provider names); a set that
//! could grow is capped. Changed by `events` only, and by `set_gauges` when the page is asked for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Gauges;
use super::process::Usage;
use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;

/// A label set with one name of a closed set.
macro_rules! label {
    ($(#[$doc:meta])* $set:ident { $($field:ident: $kind:ty),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $set { $(pub(super) $field: $kind),+ }
    };
}

label!(/// What came of it, of a closed set.
    ByResult { outcome: &'static str });
label!(/// Which API.
    ByEndpoint { endpoint: &'static str });
label!(/// How it was served and what came of it.
    ByOutcome { service: &'static str, outcome: &'static str });
label!(/// How it was served.
    ByService { service: &'static str });
label!(/// A stable error code.
    ByCode { code: &'static str });
label!(/// Why.
    ByReason { reason: String });
label!(/// Why, of a closed set.
    ByWhy { reason: &'static str });
label!(/// Whose answer, and its class (`2xx`).
    ByProvider { provider: String, status: &'static str });
label!(/// A batch's state.
    ByState { state: &'static str });
label!(/// What was being done.
    ByOperation { operation: &'static str });
label!(/// A background task.
    ByTask { task: &'static str });

/// Distinct values of a label that is not closed by its type; more are counted as `other`.
const MAX_REASONS: usize = 64;

/// A counter whose label is text from elsewhere in the program, capped at [`MAX_REASONS`] different ones.
#[derive(Default)]
pub(super) struct ReasonCounter {
    family: Family<ByReason, Counter>,
    distinct: AtomicUsize,
}

impl ReasonCounter {
    /// Counts under `reason`, or under `other` once there are too many different ones.
    pub(super) fn inc_by(&self, reason: &str, by: u64) {
        let label = ByReason { reason: reason.to_owned() };
        if let Some(counter) = self.family.get(&label) {
            counter.inc_by(by);
            return;
        }
        let room = self.distinct.fetch_add(1, Ordering::Relaxed) < MAX_REASONS;
        let label = if room { label } else { ByReason { reason: "other".to_owned() } };
        self.family.get_or_create(&label).inc_by(by);
    }
}

type Seconds = Gauge<f64, AtomicU64>;
type Dollars = Counter<f64, AtomicU64>;
type Waits = Family<ByService, Histogram, fn() -> Histogram>;

/// Every metric.
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    pub(super) accepted: Family<ByEndpoint, Counter>,
    pub(super) accepted_bytes: Counter,
    pub(super) finished: Family<ByOutcome, Counter>,
    pub(super) wait: Waits,
    pub(super) cancelled: Counter,
    pub(super) refused: Family<ByCode, Counter>,
    pub(super) requeued: ReasonCounter,
    pub(super) fallbacks: Family<ByService, Counter>,
    pub(super) flights: Family<ByState, Counter>,
    pub(super) rescues: Counter,
    pub(super) unsettled: Family<ByService, Counter>,
    pub(super) batches_unsettled: Counter,
    pub(super) wasted: Family<ByService, Counter>,
    pub(super) wasted_usd: Dollars,
    pub(super) paid: Dollars,
    pub(super) saved: Dollars,
    pub(super) passthrough: Family<ByProvider, Counter>,
    pub(super) passthrough_marked: ReasonCounter,
    pub(super) ledger_lost: Counter,
    pub(super) held_connections: Gauge,
    pub(super) batches_submitted: Counter,
    pub(super) batches_ended: Family<ByState, Counter>,
    pub(super) batch_lines: Histogram,
    pub(super) submit_seconds: Histogram,
    pub(super) poll_seconds: Histogram,
    pub(super) harvest_seconds: Histogram,
    pub(super) harvest_lines: Counter,
    pub(super) provider_errors: Family<ByOperation, Counter>,
    pub(super) webhooks: Family<ByResult, Counter>,
    pub(super) callbacks: Family<ByResult, Counter>,
    pub(super) unusable_lines: ReasonCounter,
    pub(super) trace_exports: Family<ByResult, Counter>,
    pub(super) commit_rows: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) store_errors: Counter,
    pub(super) panics: Family<ByTask, Counter>,
    queued_requests: Gauge,
    queued_bytes: Gauge,
    oldest_queued: Seconds,
    lanes: Gauge,
    held_back: Family<ByWhy, Gauge>,
    pub(super) retries_delayed: Counter,
    batches: Family<ByState, Gauge>,
    store_bytes: Gauge,
    resident: Gauge,
    open_files: Gauge,
    started: Gauge,
}

/// From 100 microseconds to 13 seconds: a commit.
fn commit_latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

/// From 5 milliseconds to 11 minutes: an exchange with the provider.
fn exchanges() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 18))
}

/// From half a second to three days: how long a request waits.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.5, 2.0, 20))
}

/// From 1 to 65,536: lines, rows.
fn counts() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 17))
}

impl Metrics {
    /// All at zero.
    pub(super) fn new(started_at: Micros) -> Self {
        let mut metrics = Self {
            registry: Mutex::new(Registry::default()),
            accepted: Family::default(),
            accepted_bytes: Counter::default(),
            finished: Family::default(),
            wait: Family::new_with_constructor(waits),
            cancelled: Counter::default(),
            refused: Family::default(),
            requeued: ReasonCounter::default(),
            fallbacks: Family::default(),
            flights: Family::default(),
            rescues: Counter::default(),
            unsettled: Family::default(),
            batches_unsettled: Counter::default(),
            wasted: Family::default(),
            wasted_usd: Dollars::default(),
            paid: Dollars::default(),
            saved: Dollars::default(),
            passthrough: Family::default(),
            passthrough_marked: ReasonCounter::default(),
            ledger_lost: Counter::default(),
            held_connections: Gauge::default(),
            batches_submitted: Counter::default(),
            batches_ended: Family::default(),
            batch_lines: counts(),
            submit_seconds: exchanges(),
            poll_seconds: exchanges(),
            harvest_seconds: exchanges(),
            harvest_lines: Counter::default(),
            provider_errors: Family::default(),
            webhooks: Family::default(),
            callbacks: Family::default(),
            unusable_lines: ReasonCounter::default(),
            trace_exports: Family::default(),
            commit_rows: counts(),
            commit_seconds: commit_latencies(),
            store_errors: Counter::default(),
            panics: Family::default(),
            queued_requests: Gauge::default(),
            queued_bytes: Gauge::default(),
            oldest_queued: Seconds::default(),
            lanes: Gauge::default(),
            held_back: Family::default(),
            retries_delayed: Counter::default(),
            batches: Family::default(),
            store_bytes: Gauge::default(),
            resident: Gauge::default(),
            open_files: Gauge::default(),
            started: Gauge::default(),
        };
        metrics.started.set(started_at.unix_seconds());
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("nightbus");
        metrics.register_requests(own);
        metrics.register_queue(own);
        metrics.register_provider(own);
        metrics.register_store(own);
        metrics.register_process(&mut registry);
        metrics.registry = Mutex::new(registry);
        metrics
    }

    fn register_requests(&self, own: &mut Registry) {
        own.register("build", "The running version", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        own.register("requests_accepted", "Deferred requests that were made durable", self.accepted.clone());
        own.register_with_unit("request_body", "Of their bodies", Unit::Bytes, self.accepted_bytes.clone());
        own.register("requests_finished", "Deferred requests that ended", self.finished.clone());
        own.register_with_unit("request_wait", "From acceptance to the end", Unit::Seconds, self.wait.clone());
        own.register("requests_cancelled", "Deferred requests that were withdrawn", self.cancelled.clone());
        own.register("requests_refused", "Calls that nightbus itself refused", self.refused.clone());
        own.register("requests_requeued", "Lines that were put back into the queue", self.requeued.family.clone());
        own.register("flights", "Test flights by what became of them", self.flights.clone());
        own.register("fallbacks", "Requests served otherwise than by batch", self.fallbacks.clone());
        own.register("rescues", "Batches cancelled for a deadline", self.rescues.clone());
        let about = "Batches whose creation got no answer and cannot be looked up";
        own.register("batches_unsettled", about, self.batches_unsettled.clone());
        own.register("live_calls_unsettled", "Live calls whose answer was lost", self.unsettled.clone());
        own.register(
            "wasted_answers",
            "Executions that the ledger has as waste: too late, or of no use",
            self.wasted.clone(),
        );
        own.register("wasted_usd", "Paid for such answers, of known price", self.wasted_usd.clone());
        own.register("paid_usd", "Paid for finished requests of known price", self.paid.clone());
        own.register("saved_usd", "What the live calls would have cost more", self.saved.clone());
        own.register("passthrough_calls", "Live calls by provider and status class", self.passthrough.clone());
        own.register(
            "passthrough_marked",
            "Marked calls that could not be deferred and went live",
            self.passthrough_marked.family.clone(),
        );
        own.register("callbacks", "Attempts to deliver a callback, by what came of them", self.callbacks.clone());
        own.register("ledger_lost_calls", "Live calls that are missing in the ledger", self.ledger_lost.clone());
    }

    fn register_queue(&self, own: &mut Registry) {
        own.register("queue_requests", "Requests that wait for a batch", self.queued_requests.clone());
        own.register("queue_bytes", "Bytes of their bodies", self.queued_bytes.clone());
        own.register_with_unit(
            "queue_oldest_age",
            "Age of the oldest queued request",
            Unit::Seconds,
            self.oldest_queued.clone(),
        );
        own.register("lanes", "Lanes with something queued or in flight", self.lanes.clone());
        own.register("lanes_held_back", "Lanes that are due and wait", self.held_back.clone());
        own.register("held_connections", "Connections that wait for an answer", self.held_connections.clone());
    }

    fn register_provider(&self, own: &mut Registry) {
        own.register("batches", "Batches that have not ended, by state", self.batches.clone());
        own.register("batches_submitted", "Batches created at a provider", self.batches_submitted.clone());
        own.register("batches_ended", "Batches that ended, by state", self.batches_ended.clone());
        own.register("batch_lines", "Lines of each prepared batch", self.batch_lines.clone());
        own.register_with_unit("submit", "Upload and create of a batch", Unit::Seconds, self.submit_seconds.clone());
        own.register_with_unit("poll", "One look at a batch", Unit::Seconds, self.poll_seconds.clone());
        own.register_with_unit(
            "harvest",
            "From the provider's files to durable results",
            Unit::Seconds,
            self.harvest_seconds.clone(),
        );
        own.register("harvest_lines", "Result lines made durable", self.harvest_lines.clone());
        own.register("provider_errors", "Exchanges with a provider that failed", self.provider_errors.clone());
        own.register("webhooks_received", "Webhooks of providers, by what came of them", self.webhooks.clone());
        own.register(
            "retries_delayed",
            "Retries that waited for others of their provider",
            self.retries_delayed.clone(),
        );
        own.register("unusable_lines", "Result lines that answer nobody", self.unusable_lines.family.clone());
    }

    fn register_store(&self, own: &mut Registry) {
        own.register("store_commit_rows", "Changes in one group commit", self.commit_rows.clone());
        own.register_with_unit("store_commit", "One group commit", Unit::Seconds, self.commit_seconds.clone());
        own.register("store_errors", "Commits that failed", self.store_errors.clone());
        own.register("store_bytes", "Size of the store on disk", self.store_bytes.clone());
        own.register(
            "trace_exports",
            "Ended requests and batches by what became of their spans",
            self.trace_exports.clone(),
        );
        own.register("panics", "Panics contained in a background task", self.panics.clone());
    }

    /// Under the names that every Prometheus client uses.
    fn register_process(&self, registry: &mut Registry) {
        registry.register("process_resident_memory_bytes", "Resident memory", self.resident.clone());
        registry.register("process_open_fds", "Open file descriptors", self.open_files.clone());
        registry.register("process_start_time_seconds", "Start, in Unix seconds", self.started.clone());
    }

    pub(super) fn set_gauges(&self, gauges: &Gauges) {
        self.queued_requests.set(signed(gauges.queued_requests));
        self.queued_bytes.set(signed(gauges.queued_bytes));
        self.oldest_queued.set(gauges.oldest_queued_seconds);
        self.lanes.set(signed(gauges.lanes));
        self.store_bytes.set(signed(gauges.store_bytes));
        for (reason, count) in &gauges.held_back {
            self.held_back.get_or_create(&ByWhy { reason }).set(signed(*count));
        }
        for state in BatchState::ALL.into_iter().filter(|state| !state.is_terminal()) {
            let state = state.as_str();
            let count = gauges.batches.iter().find(|(name, _)| *name == state).map_or(0, |(_, count)| *count);
            self.batches.get_or_create(&ByState { state }).set(signed(count));
        }
    }

    /// Counts of ended batches, for each terminal state.
    pub(super) fn batches_ended(&self) -> Vec<(&'static str, u64)> {
        BatchState::ALL
            .into_iter()
            .filter(|state| state.is_terminal())
            .map(|state| {
                let state = state.as_str();
                (state, self.batches_ended.get(&ByState { state }).map_or(0, |counter| counter.get()))
            })
            .collect()
    }

    pub(super) fn set_process(&self, usage: &Usage) {
        self.resident.set(signed(usage.resident_bytes));
        self.open_files.set(signed(usage.open_files));
    }

    /// The page. Writing to a `String` does not fail.
    pub(super) fn render(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        match text::encode(&mut page, &self.registry.lock()) {
            Ok(()) => page,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
