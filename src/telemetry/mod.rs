//! What happened, told twice: once as a log line, once as a number.
//!
//! `events` holds one function for each thing that can happen; it writes the line and counts, so that the two never
//! disagree. Invariants: no body, no key and no caller's text is ever logged or used as a label (a refused code, a
//! provider's name and a model are nightbus's or the operator's words), and the numbers live in a value, not in a
//! global, so that several proxies can run in one process. `engine`, `intake` and `app` call the events; `admin` reads.

mod ends;
mod events;
pub mod logging;
mod metrics;
mod process;
mod totals;

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::domain::clock::{Micros, SharedClock, SystemClock};
pub use ends::Ended;
use metrics::Metrics;
use tokio::sync::mpsc;
pub use totals::Sums;

/// The handle through which everything is told. Clones are cheap and share the numbers.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    metrics: Metrics,
    sums: parking_lot::Mutex<Sums>,
    clock: SharedClock,
    started_at: Micros,
    ends: OnceLock<mpsc::Sender<Ended>>,
}

/// What is only known when somebody asks: set before each rendering.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Requests that wait for a batch.
    pub queued_requests: u64,
    /// Their bodies' bytes.
    pub queued_bytes: u64,
    /// How long the oldest of them has waited, in seconds.
    pub oldest_queued_seconds: f64,
    /// Lanes with something queued or in flight.
    pub lanes: u64,
    /// Lanes that wait although they are due, by reason: all reasons, each with its number.
    pub held_back: Vec<(&'static str, u64)>,
    /// Open batches by state.
    pub batches: Vec<(&'static str, u64)>,
    /// Bytes the store takes on disk.
    pub store_bytes: u64,
}

impl Telemetry {
    /// A fresh set of numbers under the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// A fresh set of numbers under another clock.
    pub fn with_clock(clock: SharedClock) -> Self {
        let started_at = clock.now();
        let sums = parking_lot::Mutex::default();
        Self {
            inner: Arc::new(Inner {
                metrics: Metrics::new(started_at),
                sums,
                clock,
                started_at,
                ends: OnceLock::new(),
            }),
        }
    }

    /// When this set of numbers began.
    pub fn started_at(&self) -> Micros {
        self.inner.started_at
    }

    /// The time as telemetry sees it.
    pub fn now(&self) -> Micros {
        self.inner.clock.now()
    }

    /// What was finished, paid and saved since the start.
    pub fn totals(&self) -> Sums {
        self.inner.sums.lock().clone()
    }

    /// Connections on the line, as counted by [`Telemetry::waiter_opened`] and [`Telemetry::waiter_closed`].
    pub fn held_connections(&self) -> u64 {
        u64::try_from(self.inner.metrics.held_connections.get()).unwrap_or(0)
    }

    /// Batches that ended since the start, by state.
    pub fn batches_ended(&self) -> Vec<(&'static str, u64)> {
        self.inner.metrics.batches_ended()
    }

    /// Takes over what only the asker knows.
    pub fn set_gauges(&self, gauges: &Gauges) {
        self.inner.metrics.set_gauges(gauges);
    }

    /// All numbers as OpenMetrics text.
    pub fn render(&self) -> String {
        self.inner.metrics.set_process(&process::Usage::read());
        self.inner.metrics.render()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("started_at", &self.inner.started_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
