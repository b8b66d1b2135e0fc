//! A batch's input (a file, or the body of the call that creates the batch) as a stream from the store: a few hundred bodies are in memory at once, whatever the file's size.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::body::{Body, BoxError};
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::Endpoint;
use crate::store::SharedStore;
use crate::wire::line::{LineForm, Place, frame, push_line};

/// Bodies read from the store at once. Bodies are at most `limits.max_body_bytes` large, so chunks shrink for large ones.
const CHUNK_LINES: usize = 128;
const CHUNK_BYTES: u64 = 4 << 20;

struct Reading {
    store: SharedStore,
    batch: BatchId,
    form: LineForm,
    endpoint: Endpoint,
    lines: Arc<[RequestId]>,
    at: usize,
    chunk: usize,
}

/// The lines' bodies, in order, in the provider's form. `average_bytes` of a line sizes the chunks.
pub(crate) fn stream_lines(
    store: SharedStore,
    batch: BatchId,
    (form, endpoint): (LineForm, Endpoint),
    lines: Arc<[RequestId]>,
    average_bytes: u64,
) -> Body {
    let by_bytes = usize::try_from(CHUNK_BYTES / average_bytes.max(1)).unwrap_or(CHUNK_LINES);
    let reading = Reading { store, batch, form, endpoint, lines, at: 0, chunk: by_bytes.clamp(1, CHUNK_LINES) };
    StreamBody::new(stream::try_unfold(reading, next_chunk)).boxed_unsync()
}

async fn next_chunk(mut reading: Reading) -> Result<Option<(Frame<Bytes>, Reading)>, BoxError> {
    let rest = reading.lines.get(reading.at..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let wanted: Vec<RequestId> = rest.iter().take(reading.chunk).copied().collect();
    let bodies = reading.store.bodies(wanted.clone()).await?;
    if bodies.len() != wanted.len() {
        return Err(
            format!("{} of {} bodies are missing in the store", wanted.len() - bodies.len(), wanted.len()).into()
        );
    }
    let mut text = Vec::with_capacity(bodies.iter().map(|(_, body)| body.len() + 160).sum());
    let (open, close) = frame(reading.endpoint.api());
    if reading.at == 0 {
        text.extend_from_slice(open);
    }
    for (at, (id, body)) in bodies.iter().enumerate() {
        let place = Place { batch: reading.batch, endpoint: reading.endpoint, first: reading.at + at == 0 };
        push_line(&mut text, reading.form, place, *id, body);
    }
    reading.at += wanted.len();
    if reading.at == reading.lines.len() {
        text.extend_from_slice(close);
    }
    Ok(Some((Frame::data(Bytes::from(text)), reading)))
}
