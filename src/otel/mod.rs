//! Spans for an OpenTelemetry collector (feature `otel`): what has ended is read from the store, told as spans, and sent
//! in groups.
//!
//! Invariants:
//! - A span is made when what it tells of is over, from what is durable alone: its times and its place in the caller's trace
//!   are right although a day and some restarts lie between them, and nothing is kept in memory for it meanwhile.
//! - Ids are derived, not drawn: an end that is told twice is the same span.
//! - Callers pay nothing for a collector that is slow or gone: ends wait in a bounded line; what has no room there, or is
//!   not taken, is counted and lost.
//! - Nothing of a body, an answer or a key is in a span.
//!
//! Started by `app`. The exporter's own settings (endpoint, headers, time-out, sampler, resource) are read from the standard
//! `OTEL_…` variables by OpenTelemetry's crates.

mod collector;
mod spans;

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::OtelConfig;
use crate::domain::ids::{BatchId, RequestId};
use crate::otel::spans::{LINKS, Spans};
use crate::store::{BatchRecord, SharedStore, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::{Ended, Telemetry};
use crate::upstream::client::UpstreamClient;

pub use crate::otel::collector::CollectorError;

/// Ends that wait for their turn: more than the largest batch has lines, in 4 MiB.
const ROOM: usize = 131_072;
/// Ends whose spans travel together: at most three spans each.
const GROUP: usize = 256;
/// How long the first of a group waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a stop waits for what is still to be sent.
const FLUSH: Duration = Duration::from_secs(2);
/// How often a collector that takes nothing is spoken of.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What spans are made of and sent with.
#[derive(Debug)]
pub struct OtelParts {
    /// Where what has ended is read.
    pub store: SharedStore,
    /// Tells what has ended.
    pub telemetry: Telemetry,
    /// Owner of the task.
    pub tasks: Tasks,
    /// The way out: its outbound proxy and its authorities hold for the collector, too.
    pub client: UpstreamClient,
}

/// Sends spans of everything that ends from now on. Call it once, before the engine starts.
///
/// # Errors
/// [`CollectorError`] when the endpoint, or one of the standard variables, cannot be used.
pub fn start(config: &OtelConfig, parts: OtelParts) -> Result<(), CollectorError> {
    let exporter = collector::exporter(config, parts.client)?;
    let Some(ended) = parts.telemetry.listen_to_ends(ROOM) else { return Ok(()) };
    let stop = parts.tasks.stop_token().clone();
    let (store, telemetry) = (parts.store, parts.telemetry);
    let sender = Sender { ended, store, telemetry, stop, exporter, spans: Spans::new(), failing: Failing::default() };
    parts.tasks.spawn("spans", sender.run());
    Ok(())
}

struct Sender {
    ended: mpsc::Receiver<Ended>,
    store: SharedStore,
    telemetry: Telemetry,
    stop: CancellationToken,
    exporter: SpanExporter,
    spans: Spans,
    failing: Failing,
}

impl Sender {
    /// Until the process stops, and then for [`FLUSH`] at most.
    async fn run(mut self) {
        let mut group = Vec::with_capacity(GROUP);
        let stop = self.stop.clone();
        let time_is_over = async {
            stop.cancelled().await;
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            biased;
            () = self.work(&mut group) => {}
            () = time_is_over => self.telemetry.traces_exported("stopped", group.len() + self.ended.len()),
        }
    }

    async fn work(&mut self, group: &mut Vec<Ended>) {
        while self.gather(group).await {
            match self.export(group).await {
                Ok(()) => self.telemetry.traces_exported("sent", group.len()),
                Err(lost) => {
                    self.telemetry.traces_exported(lost.as_str(), group.len());
                    if let Some(count) = self.failing.note(group.len()) {
                        self.telemetry.collector_failing(count, &lost);
                    }
                }
            }
            group.clear();
        }
    }

    /// A group that is full, or whose first has waited long enough. `false`: the process stops, and all were told.
    async fn gather(&mut self, group: &mut Vec<Ended>) -> bool {
        tokio::select! {
            biased;
            _count = self.ended.recv_many(group, GROUP) => {}
            () = self.stop.cancelled() => {}
        }
        let until = Instant::now() + GATHER;
        while !group.is_empty() && group.len() < GROUP {
            let room = GROUP - group.len();
            let more = tokio::select! {
                biased;
                more = self.ended.recv_many(group, room) => more,
                () = self.stop.cancelled() => 0,
                () = tokio::time::sleep_until(until) => 0,
            };
            if more == 0 {
                break;
            }
        }
        !group.is_empty()
    }

    async fn export(&self, group: &[Ended]) -> Result<(), Lost> {
        let spans = self.spans_of(group).await?;
        if spans.is_empty() {
            return Ok(());
        }
        self.exporter.export(spans).await.map_err(|error| Lost::Refused(error.to_string()))
    }

    async fn spans_of(&self, group: &[Ended]) -> Result<Vec<SpanData>, StoreError> {
        let mut batches: HashMap<BatchId, Option<BatchRecord>> = HashMap::new();
        let requests: Vec<RequestId> = group
            .iter()
            .filter_map(|ended| match ended {
                Ended::Request(id) => Some(*id),
                Ended::Batch(_) => None,
            })
            .collect();
        let mut spans = Vec::with_capacity(group.len() * 2);
        for record in self.store.records(requests).await? {
            let mut batch = None;
            if let Some(id) = record.batch_id {
                batch = match batches.get(&id) {
                    Some(known) => known.clone(),
                    None => batches.entry(id).or_insert(self.store.batch(id).await?).clone(),
                };
            }
            spans.extend(self.spans.of_request(&record, batch.as_ref()));
        }
        for ended in group {
            let Ended::Batch(id) = ended else { continue };
            let Some(batch) = self.store.batch(*id).await? else { continue };
            let mut lines = self.store.batch_lines(*id).await?;
            lines.truncate(LINKS);
            let linked = self.store.records(lines).await?;
            spans.extend(self.spans.of_batch(&batch, &linked));
        }
        Ok(spans)
    }
}

/// Why the spans of a group are lost.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Unread(#[from] StoreError),
    #[error("{0}")]
    Refused(String),
}

impl Lost {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Unread(_) => "unread",
            Self::Refused(_) => "refused",
        }
    }
}

/// Speaks once in a while of what goes on all the time.
#[derive(Debug, Default)]
struct Failing {
    said: Option<Instant>,
    since: usize,
}

impl Failing {
    /// How many were lost since it was said last; none: it was said a moment ago.
    fn note(&mut self, lost: usize) -> Option<usize> {
        self.since += lost;
        if self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_gone_is_spoken_of_once_a_minute_with_all_that_was_lost() {
        let mut failing = Failing::default();
        assert_eq!(failing.note(3), Some(3));
        assert_eq!((failing.note(4), failing.note(5)), (None, None));
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(failing.note(1), Some(10));
    }
}
