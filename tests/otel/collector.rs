//! A collector that keeps what it gets. Reads protobuf by hand: what is wrong in the exporter's reading of OTLP must not be
//! wrong here in the same way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nightbus::tasks::Tasks;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::common::client::eventually;

/// One span, ids in hexadecimal digits, times in nanoseconds, values as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) events: Vec<String>,
    /// Trace and span.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) status: u64,
}

#[derive(Debug, Default)]
struct Kept {
    posts: Vec<(HeaderMap, Bytes)>,
    answer: Option<u16>,
}

/// The collector of one test.
pub(crate) struct Collector {
    addr: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    _tasks: Tasks,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, kept, tasks) = (listener.local_addr().unwrap(), Arc::<Mutex<Kept>>::default(), Tasks::new());
        let (shared, connections) = (Arc::clone(&kept), tasks.clone());
        tasks.spawn("collector", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| keep(Arc::clone(&shared), request));
                connections.spawn("connection", async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { addr, kept, _tasks: tasks }
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on every POST is answered so.
    pub(crate) fn answer(&self, status: u16) {
        self.kept.lock().answer = Some(status);
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.kept.lock().posts.iter().flat_map(|(_, body)| spans(body)).collect()
    }

    /// The only span of this name, as soon as it is there.
    pub(crate) async fn one(&self, name: &str) -> Span {
        let mut found = eventually(&format!("a span {name}"), || async {
            let found: Vec<Span> = self.spans().into_iter().filter(|span| span.name == name).collect();
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// The attributes of who sent the last spans.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let kept = self.kept.lock();
        let (_, body) = kept.posts.last().expect("something was sent");
        let resource = messages(body, 1).flat_map(|resource_spans| messages(resource_spans, 1)).next().unwrap();
        attributes(resource, 1)
    }

    /// A header of the last POST.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let kept = self.kept.lock();
        kept.posts.last()?.0.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// Whether these bytes were in anything that came.
    pub(crate) fn received(&self, bytes: &[u8]) -> bool {
        self.kept.lock().posts.iter().any(|(_, body)| body.windows(bytes.len()).any(|window| window == bytes))
    }
}

async fn keep(kept: Arc<Mutex<Kept>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    assert_eq!((head.method, head.uri.path()), (Method::POST, "/v1/traces"));
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    let body = body.collect().await?.to_bytes();
    let mut kept = kept.lock();
    let status = kept.answer.unwrap_or(200);
    if status == 200 {
        kept.posts.push((head.headers, body));
    }
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, in their order.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => Value::Number(u64::from_le_bytes(take(&mut message, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                Value::Bytes(take(&mut message, length))
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(take(&mut message, 4).try_into().unwrap()))),
            wire => panic!("no such wire type: {wire}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(length);
    *from = rest;
    taken
}

fn varint(from: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(from, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The messages in all fields of this number.
fn messages(of: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(of).into_iter().filter_map(move |(field, value)| match value {
        Value::Bytes(bytes) if field == number => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

fn number(of: &[u8], field: u64) -> u64 {
    fields(of)
        .into_iter()
        .find_map(|(at, value)| match value {
            Value::Number(number) if at == field => Some(number),
            Value::Bytes(_) | Value::Number(_) => None,
        })
        .unwrap_or(0)
}

fn text(of: &[u8], field: u64) -> String {
    messages(of, field).next().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).unwrap_or_default()
}

fn hex(of: &[u8], field: u64) -> String {
    messages(of, field).next().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `KeyValue`s with values of text or whole numbers.
fn attributes(of: &[u8], field: u64) -> BTreeMap<String, String> {
    let value = |value: &[u8]| match fields(value).first() {
        Some((1, Value::Bytes(text))) => String::from_utf8(text.to_vec()).unwrap(),
        Some((3, Value::Number(number))) => number.to_string(),
        other => panic!("neither text nor a whole number: {other:?}"),
    };
    messages(of, field).map(|pair| (text(pair, 1), value(messages(pair, 2).next().unwrap()))).collect()
}

/// `ExportTraceServiceRequest`, down to its spans.
fn spans(request: &[u8]) -> Vec<Span> {
    let scopes = messages(request, 1).flat_map(|resource| messages(resource, 2));
    scopes.flat_map(|scope| messages(scope, 2)).map(span).collect()
}

fn span(span: &[u8]) -> Span {
    Span {
        trace: hex(span, 1),
        id: hex(span, 2),
        parent: hex(span, 4),
        name: text(span, 5),
        kind: number(span, 6),
        from: number(span, 7),
        to: number(span, 8),
        attributes: attributes(span, 9),
        events: messages(span, 11).map(|event| text(event, 2)).collect(),
        links: messages(span, 13).map(|link| (hex(link, 1), hex(link, 2))).collect(),
        status: messages(span, 15).next().map_or(0, |status| number(status, 3)),
    }
}
