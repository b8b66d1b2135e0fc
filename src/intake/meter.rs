//! Live calls in the ledger: what an answer consumed is read as it passes by, and written beside the calls' own way.
//!
//! Invariants: no byte is changed, held back or waited for; what is kept of an answer is bounded ([`KEPT`]); a call that
//! cannot be entered (the line to the store is full) is counted as lost and never blocks. Answers that are compressed
//! are unpacked beside their way ([`packed`]): nothing here asks for another encoding than the caller did. Errors are not
//! billed and not entered. A process that is killed loses the calls of its last moment ([`GATHER`]) from the ledger.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

mod packed;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::body::{Body, BoxError};
use crate::domain::lane::{Api, Endpoint, Fingerprint};
use crate::domain::pricing::{PriceTable, Seller};
use crate::domain::service::Service;
use crate::engine::Engine;
use crate::intake::meter::packed::{Coding, Packed};
use crate::store::ledger::{Charge, Execution, Observed, PassedCall};
use crate::tasks::Tasks;
use crate::wire::openai::usage::Consumption;
use crate::wire::usage::{consumption, consumption_of_tail};

/// Calls on their way to the store; more are lost to the ledger.
const LINE: usize = 8_192;
/// Calls that are written in one transaction.
const GROUP: usize = 1_000;
/// So long calls are gathered for one transaction.
const GATHER: Duration = Duration::from_millis(250);
/// How much of an answer's end is kept: usage stands there. Whole answers up to this size are read as a whole.
const KEPT: usize = 64 << 10;
/// The same for streams of events, of which thousands may be open: the last chunk of a chat is small.
const KEPT_OF_CHAT_STREAM: usize = 4 << 10;
/// How much of a Messages stream's beginning is kept: what the prompt took stands there.
const KEPT_AT_FRONT: usize = 2 << 10;

/// Where metered calls go.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    line: mpsc::Sender<PassedCall>,
    packed: mpsc::Sender<Packed>,
    engine: Engine,
    prices: Arc<PriceTable>,
}

/// What is known of a live call before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Metered {
    pub(crate) provider: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) account: Fingerprint,
    /// As it was asked for; none: not found, then the answer's own word counts.
    pub(crate) model: Option<String>,
    pub(crate) endpoint: Endpoint,
    pub(crate) tag: Option<String>,
    pub(crate) key: Option<String>,
    /// Observe mode: it would have been deferred. The caller's program, if it said which.
    pub(crate) observed: Option<Option<String>>,
}

impl Meter {
    /// Starts the task that writes.
    pub(crate) fn start(engine: &Engine, prices: Arc<PriceTable>, tasks: &Tasks) -> Self {
        let (line, calls) = mpsc::channel(LINE);
        tasks.spawn("live calls", record(engine.clone(), calls, tasks.clone()));
        let (packed, answers) = mpsc::channel(packed::LINE);
        let meter = Self { line, packed, engine: engine.clone(), prices };
        // Without a sender of its own, so that it ends with the last meter.
        let (engine, prices, line) = (meter.engine.clone(), Arc::clone(&meter.prices), meter.line.clone());
        tasks.spawn(
            "packed answers",
            packed::unpack_all(answers, move |call, consumed| {
                enter(&line, &engine, &prices, call, consumed);
            }),
        );
        meter
    }

    /// The same response, metered on its way if it is billed.
    pub(crate) fn watch(&self, response: Response<Body>, call: Metered) -> Response<Body> {
        if !response.status().is_success() {
            return response;
        }
        let headers = response.headers();
        let events = is_stream(headers);
        let coding = Coding::of(headers);
        let kept = match coding {
            Coding::Unknown => 0,
            Coding::Plain if events && call.endpoint != Endpoint::Responses => KEPT_OF_CHAT_STREAM,
            Coding::Plain | Coding::Gzip | Coding::Deflate | Coding::Zstd => KEPT,
        };
        let in_front = events && coding == Coding::Plain && call.endpoint.api() == Api::Anthropic;
        let front_kept = if in_front { KEPT_AT_FRONT } else { 0 };
        let tail = Tail::new(kept);
        let reading =
            Reading { meter: self.clone(), call: Some(call), tail, front: Vec::new(), front_kept, events, coding };
        response.map(|body| Watched { body, reading }.boxed_unsync())
    }

    fn enter(&self, call: Metered, consumed: &Consumption) {
        enter(&self.line, &self.engine, &self.prices, call, consumed);
    }
}

fn enter(line: &mpsc::Sender<PassedCall>, engine: &Engine, prices: &PriceTable, call: Metered, consumed: &Consumption) {
    let tier = consumed.service_tier.as_deref();
    let model = call.model.as_deref().or(consumed.model.as_deref()).unwrap_or_default();
    let seller = Seller { name: &call.provider, kind: call.kind, model };
    let priced = |service| consumed.usage.and_then(|usage| prices.price(seller, service, &usage));
    let price = Service::Sync.priced_as(tier).and_then(priced);
    let observed = call
        .observed
        .map(|agent| Observed { agent, batch_nanos: priced(Service::Batch).map(|price| price.paid_nanos) });
    let charge = Charge {
        model: Arc::from(model),
        provider: call.provider,
        account: call.account,
        service: Service::Sync.used(tier),
        execution: Execution::PassThrough,
        usage: consumed.usage,
        price,
    };
    let id = engine.new_request_id();
    let call = PassedCall { id, at: engine.clock().now(), tag: call.tag, key: call.key, charge, observed };
    if line.try_send(call).is_err() {
        engine.telemetry().ledger_lost(1);
    }
}

/// Writes calls in groups until nobody can send any more.
async fn record(engine: Engine, mut calls: mpsc::Receiver<PassedCall>, tasks: Tasks) {
    let mut group = Vec::with_capacity(GROUP);
    while calls.recv_many(&mut group, GROUP).await > 0 {
        let count = group.len();
        if let Err(error) = engine.store().record_calls(std::mem::take(&mut group)).await {
            engine.telemetry().store_failed(&error);
            engine.telemetry().ledger_lost(count);
        }
        if count < GROUP && !tasks.is_stopping() {
            tokio::select! {
                () = tasks.stop_token().cancelled() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// The first product of the `User-Agent`, such as `OpenAI/Python`.
pub(crate) fn program(headers: &HeaderMap) -> Option<String> {
    const LONGEST: usize = 64;
    let first = headers.get(USER_AGENT)?.to_str().ok()?.split_ascii_whitespace().next()?;
    Some(first.chars().filter(char::is_ascii_graphic).take(LONGEST).collect())
}

/// The end of what passed by.
#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    kept: usize,
    is_cut: bool,
}

impl Tail {
    const fn new(kept: usize) -> Self {
        Self { bytes: Vec::new(), kept, is_cut: false }
    }

    fn push(&mut self, chunk: &[u8]) {
        let new = chunk.get(chunk.len().saturating_sub(self.kept)..).unwrap_or_default();
        if new.len() < chunk.len() {
            // What was before does not join on to what is kept of this chunk.
            self.bytes.clear();
            self.is_cut = true;
        }
        // Moved to the front only when twice as much is there, so that small chunks cost what they are.
        if self.bytes.len().saturating_add(new.len()) > 2 * self.kept {
            let keep = self.kept.saturating_sub(new.len()).min(self.bytes.len());
            self.bytes.drain(..self.bytes.len() - keep);
            self.is_cut = true;
        }
        self.bytes.extend_from_slice(new);
    }
}

/// Reads one answer; enters its call when it is over, however it ends.
struct Reading {
    meter: Meter,
    call: Option<Metered>,
    tail: Tail,
    /// The beginning, where it is wanted: so many bytes of it.
    front: Vec<u8>,
    front_kept: usize,
    events: bool,
    coding: Coding,
}

impl Reading {
    fn push(&mut self, chunk: &[u8]) {
        let room = self.front_kept.saturating_sub(self.front.len());
        self.front.extend(chunk.iter().take(room));
        self.tail.push(chunk);
    }

    fn consumption(&mut self, api: Api) -> Consumption {
        if !self.events && !self.tail.is_cut {
            return consumption(api, &self.tail.bytes);
        }
        if self.tail.is_cut && !self.front.is_empty() {
            // What stands twice is read twice, and the last one counts.
            self.front.extend_from_slice(b"\n\n");
            self.front.append(&mut self.tail.bytes);
            return consumption_of_tail(api, &self.front);
        }
        consumption_of_tail(api, &self.tail.bytes)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let api = call.endpoint.api();
        let consumed = match self.coding {
            Coding::Plain => self.consumption(api),
            coding if !self.tail.is_cut && !self.tail.bytes.is_empty() => {
                let bytes = std::mem::take(&mut self.tail.bytes);
                match self.meter.packed.try_send(Packed { call, bytes, coding, events: self.events }) {
                    Ok(()) => return,
                    Err(unsent) => return self.meter.enter(unsent.into_inner().call, &Consumption::default()),
                }
            }
            // Only its beginning would tell how the end is to be unpacked.
            Coding::Gzip | Coding::Deflate | Coding::Zstd | Coding::Unknown => Consumption::default(),
        };
        self.meter.enter(call, &consumed);
    }
}

/// A body as it is, read along.
struct Watched {
    body: Body,
    reading: Reading,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(chunk) = frame.data_ref()
        {
            self.reading.push(chunk);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_whatever_the_chunks_are() {
        let text: Vec<u8> = (0..50_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for size in [1, 7, 99, 100, 101, 199, 1_000, 50_000] {
            let mut tail = Tail::new(100);
            for chunk in text.chunks(size) {
                tail.push(chunk);
                assert!(tail.bytes.len() <= 200, "bounded");
            }
            assert!(tail.is_cut && tail.bytes.len() >= 100 && text.ends_with(&tail.bytes), "{size}");
        }
        let mut whole = Tail::new(100);
        whole.push(&text[..60]);
        whole.push(&text[60..200]);
        assert!(!whole.is_cut || whole.bytes.len() >= 100);
        let mut nothing = Tail::new(0);
        nothing.push(&text);
        assert!(nothing.bytes.is_empty());
    }

    #[test]
    fn streams_are_told_from_whole_answers() {
        let of = |name, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        assert!(is_stream(&of(CONTENT_TYPE, "text/event-stream; charset=utf-8")));
        assert!(!is_stream(&of(CONTENT_TYPE, "application/json")));
    }

    #[test]
    fn a_program_is_named_without_what_follows() {
        let program = |text: &str| program(&HeaderMap::from_iter([(USER_AGENT, text.parse().unwrap())]));
        assert_eq!(program("OpenAI/Python 2.1.0").as_deref(), Some("OpenAI/Python"));
        assert_eq!(program("  "), None);
        assert_eq!(program(&"x".repeat(500)).unwrap().len(), 64);
    }
}
