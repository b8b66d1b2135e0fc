//! A batch API that is never the bottleneck: takes files and batches, holds them back until it is told to complete
//! them, and notes when `completed` was first seen.
//!
//! Result lines are prepared before the batch completes, so that a download costs copying alone. (The strict
//! simulator is for tests: it checks each line and would share the measured second.)

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use memchr::memmem;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bodies;
use crate::origin::listen;
use crate::outcome::Outcome;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Pieces in which files are sent.
const PIECE: usize = 64 * 1024;

/// The running provider.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    answer_bytes: usize,
    /// The answer to live calls.
    live: Bytes,
    inputs: HashMap<String, Vec<String>>,
    outputs: HashMap<String, Vec<Bytes>>,
    batches: Vec<Batch>,
    released: bool,
    completed_seen: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Batch {
    id: String,
    input: String,
    lines: usize,
    metadata: Value,
}

impl Provider {
    /// Starts one whose answers take `answer_bytes` each; it ends with the process.
    pub(crate) fn start(answer_bytes: usize) -> Outcome<Self> {
        let state = Arc::new(Mutex::new(State {
            answer_bytes,
            live: Bytes::from(completion(answer_bytes)),
            ..State::default()
        }));
        let (tell, told) = std::sync::mpsc::channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || -> Outcome<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = listen()?;
                tell.send(listener.local_addr()?)?;
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    let state = Arc::clone(&shared);
                    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                    connections.spawn(async move {
                        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                    });
                }
            })
        });
        Ok(Self { address: told.recv()?, state })
    }

    /// Batches created, and lines in them.
    pub(crate) fn batches(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.batches.len(), state.batches.iter().map(|batch| batch.lines).sum())
    }

    /// Lets all batches complete.
    pub(crate) fn release(&self) {
        self.state.lock().released = true;
    }

    /// When the first `completed` went out.
    pub(crate) fn completed_seen(&self) -> Option<Instant> {
        self.state.lock().completed_seen
    }

    /// Bytes of all output files.
    pub(crate) fn output_bytes(&self) -> usize {
        self.state.lock().outputs.values().flatten().map(Bytes::len).sum()
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Outcome<Response<Body>> {
    let (parts, incoming) = request.into_parts();
    let body = incoming.collect().await?.to_bytes();
    let path: Vec<&str> = parts.uri.path().split('/').skip(2).collect();
    let mut state = state.lock();
    Ok(match (&parts.method, path.as_slice()) {
        (&Method::POST, ["files"]) => {
            let id = format!("file-in-{}", state.inputs.len());
            state.inputs.insert(id.clone(), custom_ids(&body));
            reply(&json!({"id": id, "object": "file", "bytes": body.len(), "filename": "in.jsonl", "purpose": "batch"}))
        }
        (&Method::POST, ["batches"]) => {
            let call: Value = serde_json::from_slice(&body)?;
            let input = call.get("input_file_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let ids = state.inputs.get(&input).cloned().unwrap_or_default();
            let id = format!("batch_{}", state.batches.len());
            let output = output(&ids, state.answer_bytes);
            state.outputs.insert(format!("out-{id}"), output);
            let metadata = call.get("metadata").cloned().unwrap_or_default();
            let batch = Batch { id, input, lines: ids.len(), metadata };
            state.batches.push(batch.clone());
            reply(&object(&batch, false))
        }
        (&Method::GET, ["batches"]) => {
            let data: Vec<Value> = state.batches.iter().map(|batch| object(batch, state.released)).collect();
            reply(&json!({"object": "list", "data": data, "has_more": false}))
        }
        (&Method::GET, ["batches", id]) => {
            let Some(batch) = state.batches.iter().find(|batch| batch.id == *id).cloned() else { return Ok(absent()) };
            if state.released {
                state.completed_seen.get_or_insert_with(Instant::now);
            }
            reply(&object(&batch, state.released))
        }
        (&Method::GET, ["files", id, "content"]) => {
            state.outputs.get(*id).map_or_else(absent, |pieces| download(pieces.clone()))
        }
        (&Method::POST, ["chat", "completions"]) => Response::new(Full::new(state.live.clone()).boxed_unsync()),
        (&Method::DELETE, ["files", id]) => reply(&json!({"id": id, "object": "file", "deleted": true})),
        _ => absent(),
    })
}

fn custom_ids(upload: &[u8]) -> Vec<String> {
    const NAME: &[u8] = b"\"custom_id\":\"";
    let ids = memmem::find_iter(upload, NAME).filter_map(|at| {
        let rest = upload.get(at + NAME.len()..)?;
        let end = memchr::memchr(b'"', rest)?;
        Some(String::from_utf8_lossy(rest.get(..end)?).into_owned())
    });
    ids.collect()
}

/// The output file, in a shuffled order.
fn output(ids: &[String], answer_bytes: usize) -> Vec<Bytes> {
    let answers: Vec<String> = (0..200).map(|_| completion(answer_bytes)).collect();
    let mut order: Vec<&String> = ids.iter().collect();
    fastrand::shuffle(&mut order);
    let (mut pieces, mut piece) = (Vec::new(), Vec::with_capacity(PIECE + answer_bytes + 512));
    for id in order {
        let answer = fastrand::choice(&answers).map_or("{}", String::as_str);
        piece.extend_from_slice(b"{\"id\":\"batch_req_1\",\"custom_id\":\"");
        piece.extend_from_slice(id.as_bytes());
        piece.extend_from_slice(b"\",\"response\":{\"status_code\":200,\"request_id\":\"0123456789abcdef\",\"body\":");
        piece.extend_from_slice(answer.as_bytes());
        piece.extend_from_slice(b"},\"error\":null}\n");
        if piece.len() >= PIECE {
            pieces.push(Bytes::from(std::mem::take(&mut piece)));
        }
    }
    pieces.push(Bytes::from(piece));
    pieces
}

/// A chat completion of about `bytes` bytes.
pub(crate) fn completion(bytes: usize) -> String {
    let text = bodies::prose(bytes.saturating_sub(330));
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1795420800,"model":"gpt-5-mini-2026-08-07","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":512,"completion_tokens":900,"total_tokens":1412}}}}"#
    )
}

fn object(batch: &Batch, released: bool) -> Value {
    let status = if released { "completed" } else { "in_progress" };
    let output = released.then(|| format!("out-{}", batch.id));
    let done = if released { batch.lines } else { 0 };
    json!({
        "id": batch.id, "object": "batch", "endpoint": "/v1/chat/completions", "status": status,
        "input_file_id": batch.input, "output_file_id": output, "error_file_id": null, "completion_window": "24h",
        "request_counts": {"total": batch.lines, "completed": done, "failed": 0}, "metadata": batch.metadata,
    })
}

fn reply(value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn absent() -> Response<Body> {
    let mut response = reply(&json!({"error": {"message": "no such thing", "code": "not_found"}}));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn download(pieces: Vec<Bytes>) -> Response<Body> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let frames = stream::iter(pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, http::HeaderValue::from(length));
    response
}
