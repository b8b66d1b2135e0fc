//! Live calls in the ledger: what an answer consumed is read as it passes by, and written beside the calls' own way.
//!
//! Invariants: no byte is changed, held back or waited for; what is kept of an answer is bounded ([`KEPT`]). Answers that
//! are compressed are unpacked beside their way ([`packed`]): nothing here asks for another encoding than the caller
//! did. Errors are not billed and not entered. What was read is added up and written by [`sums`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

mod packed;
mod sums;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::body::{Body, BoxError};
use crate::domain::lane::{Api, Endpoint, Fingerprint};
use crate::domain::pricing::PriceTable;
use crate::engine::Engine;
use crate::intake::meter::packed::{Coding, Packed};
use crate::intake::meter::sums::Sums;
use crate::tasks::Tasks;
use crate::wire::openai::usage::Consumption;
use crate::wire::usage::{consumption, consumption_of_tail};

/// How much of an answer's end is kept: usage stands there. Whole answers up to this size are read as a whole.
const KEPT: usize = 64 << 10;
/// The same for streams of events, of which thousands may be open: the last chunk of a chat is small.
const KEPT_OF_CHAT_STREAM: usize = 4 << 10;
/// How much of a Messages stream's beginning is kept: what the prompt took stands there.
const KEPT_AT_FRONT: usize = 2 << 10;

/// Where metered calls go.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    sums: Sums,
    packed: mpsc::Sender<Packed>,
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
    /// Starts the tasks that unpack and write.
    pub(crate) fn start(engine: &Engine, prices: Arc<PriceTable>, tasks: &Tasks) -> Self {
        let sums = Sums::start(engine.clone(), prices, tasks);
        let (packed, answers) = mpsc::channel(packed::LINE);
        let unpacked = sums.clone();
        tasks
            .spawn("packed answers", packed::unpack_all(answers, move |call, consumed| unpacked.enter(call, consumed)));
        Self { sums, packed }
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
            Coding::Plain | Coding::Gzip | Coding::Deflate | Coding::Zstd | Coding::Brotli => KEPT,
        };
        let in_front = events && coding == Coding::Plain && call.endpoint.api() == Api::Anthropic;
        let front_kept = if in_front { KEPT_AT_FRONT } else { 0 };
        let tail = Tail::new(kept);
        let reading =
            Reading { meter: self.clone(), call: Some(call), tail, front: Vec::new(), front_kept, events, coding };
        response.map(|body| Watched { body, reading }.boxed_unsync())
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
                    Err(unsent) => return self.meter.sums.enter(unsent.into_inner().call, &Consumption::default()),
                }
            }
            // Only its beginning would tell how the end is to be unpacked.
            Coding::Gzip | Coding::Deflate | Coding::Zstd | Coding::Brotli | Coding::Unknown => Consumption::default(),
        };
        self.meter.sums.enter(call, &consumed);
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
