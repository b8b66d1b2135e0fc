//! One accepted connection, from TLS to its last response.
//!
//! Invariants: an HTTP/1.1 connection costs one task and about as much memory as one read buffer; a handler that
//! panics costs its caller a 500 and nobody else anything; a stop lets the current response finish and no more.
//! Called by `intake::listener`.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::body::Body;
use crate::domain::lane::Api;
use crate::engine::line::Carrier;
use crate::intake::carried::{Arrived, CarriedIo};
use crate::intake::interim;
use crate::intake::listener::ConnectionInfo;
use crate::intake::respond::error_response;
use crate::intake::sniff::{Protocol, Rewound, protocol_of};
use crate::tasks::Tasks;
use crate::wire::api_error::ApiError;

/// From the connection, or the last response, to the end of the next request head. Longer than the time for which
/// common clients keep idle connections (Go: 90 s), so that it is they who close.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// A TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest request head, and what is buffered of a body in each direction.
const MAX_BUFFER: usize = 64 * 1024;
/// Calls that one HTTP/2 connection may hold.
const MAX_STREAMS: u32 = 20_000;
/// What an HTTP/2 client may send ahead on all streams together. While it is used up, every stream that waits for more
/// sends what little it gets, and h2 ends the connection (`ENHANCE_YOUR_CALM`, `too_many_data_frames`) when unread
/// frames of less than 256 bytes add up to half of it: thousands of calls sent at once must stay below that. What one
/// stream may send ahead is still a mebibyte, hyper's own.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const _: () = assert!(CONNECTION_WINDOW / 2 > MAX_STREAMS * 256, "a small frame of each stream");
/// Finds dead HTTP/2 clients whose calls are held.
const PING_EVERY: Duration = Duration::from_secs(30);

/// The settings of both protocols, made once per listener.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<StreamExecutor>,
}

impl Protocols {
    pub(super) fn new(tasks: &Tasks) -> Self {
        let mut http1 = http1::Builder::new();
        // A date that the provider did not send would be a difference; those that it sent are passed on.
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_BUFFER)
            .writev(false)
            .auto_date_header(false);
        let mut http2 = http2::Builder::new(StreamExecutor(tasks.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .auto_date_header(false);
        Self { http1, http2 }
    }
}

/// What a connection needs from its listener.
pub(super) struct ConnectionContext<S> {
    pub(super) service: S,
    pub(super) info: ConnectionInfo,
    pub(super) protocols: Arc<Protocols>,
    pub(super) tasks: Tasks,
    pub(super) grace: Duration,
}

impl<S, F> ConnectionContext<S>
where
    S: Fn(Request<Incoming>, ConnectionInfo) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    /// Finds out the protocol and hands the connection to a task that speaks it, so that what only the handshake
    /// needed does not stay in memory. What goes wrong on a connection concerns its client alone.
    pub(super) async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let stop = self.tasks.stop_token().clone();
        let Some(acceptor) = tls else {
            let sniffed = tokio::select! {
                sniffed = tokio::time::timeout(HEAD_TIMEOUT, protocol_of(stream)) => sniffed,
                () = stop.cancelled() => return,
            };
            if let Ok(Ok((protocol, io))) = sniffed {
                self.speak(protocol, io);
            }
            return;
        };
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, Box::pin(acceptor.accept(stream))) => handshake,
            () = stop.cancelled() => return,
        };
        match handshake {
            Ok(Ok(io)) => {
                let http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
                self.speak(if http2 { Protocol::Http2 } else { Protocol::Http1 }, Rewound::untouched(io));
            }
            Ok(Err(error)) => tracing::debug!(peer = %self.info.peer, %error, "a TLS handshake failed"),
            Err(_elapsed) => tracing::debug!(peer = %self.info.peer, "a TLS handshake took too long"),
        }
    }

    fn speak<T: AsyncRead + AsyncWrite + Arrived + Send + Unpin + 'static>(self, protocol: Protocol, io: T) {
        let tasks = self.tasks.clone();
        // Boxed, as the task's wrapper would otherwise hold the state twice.
        drop(match protocol {
            Protocol::Http1 => tasks.spawn("connection", Box::pin(self.http1(io))),
            Protocol::Http2 => tasks.spawn("connection", Box::pin(self.http2(io))),
        });
    }

    async fn http1<T: AsyncRead + AsyncWrite + Arrived + Send + Unpin + 'static>(self, io: T) {
        let Self { service, info, protocols, tasks, grace } = self;
        let stop = tasks.stop_token().clone();
        let carrier = Carrier::of_one_call();
        let (io, calls) = interim::wrap(CarriedIo::new(io, carrier.clone()));
        let info = ConnectionInfo { carrier: Some(carrier), ..info };
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (sender, open) = calls.open();
            let interim = (request.version() == Version::HTTP_11).then_some(sender);
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(tasks.clone());
            }
            let handler = service(request, ConnectionInfo { interim, ..info.clone() });
            contained(handler, open)
        });
        let connection = protocols.http1.serve_connection(TokioIo::new(io), service).with_upgrades();
        drop(protocols);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stop.cancelled() => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            // An error or a time-out: either way it ends here.
            drop(tokio::time::timeout(grace, connection).await);
        }
    }

    async fn http2<T: AsyncRead + AsyncWrite + Arrived + Send + Unpin + 'static>(self, io: T) {
        let Self { service, info, protocols, tasks, grace } = self;
        let stop = tasks.stop_token().clone();
        let carrier = Carrier::default();
        let io = CarriedIo::new(io, carrier.clone());
        let info = ConnectionInfo { carrier: Some(carrier), ..info };
        let service = service_fn(move |request: Request<Incoming>| contained(service(request, info.clone()), ()));
        let mut connection = std::pin::pin!(protocols.http2.serve_connection(TokioIo::new(io), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stop.cancelled() => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            drop(tokio::time::timeout(grace, connection).await);
        }
    }
}

/// The handler's response, or a 500 when it panicked. `guard` lives exactly as long as the handler.
fn contained<F, G>(handler: F, guard: G) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send
where
    F: Future<Output = Response<Body>> + Send,
    G: Send,
{
    AssertUnwindSafe(handler).catch_unwind().map(move |outcome| {
        drop(guard);
        Ok(outcome.unwrap_or_else(|_panic| after_panic()))
    })
}

fn after_panic() -> Response<Body> {
    // The panic's own text went to standard error by the process's panic hook. On HTTP/2 hyper drops `Connection`.
    let mut response = error_response(Api::OpenAi, &ApiError::internal("nightbus failed on this call; see its log"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Runs the streams of HTTP/2 connections as tasks that somebody owns.
#[derive(Clone)]
struct StreamExecutor(Tasks);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn("http2 stream", Box::pin(future)));
    }
}
