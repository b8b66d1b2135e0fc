//! The HTTP client towards providers: a bounded pool of HTTP/1.1 connections, with time-outs of our own.
//!
//! Invariants: bytes are never changed (no redirects, no decompression, no added headers); bodies stream both ways
//! with back-pressure; dropping the future or the response body closes the connection, which is how a provider
//! learns that nobody waits any more.
//!
//! A pooled connection that the provider closed while it was idle costs nothing: the pool takes the request back
//! and sends it on another one, as long as not one byte of it was written (`retry_canceled_requests`). A
//! connection that dies after the first byte is an error, because the provider may have begun to work.
//!
//! Called by `intake::passthrough` and the provider adapters.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, Sleep};

use crate::body::{self, Body, BoxError};
use crate::config::UpstreamConfig;
use crate::upstream::connect::Connector;
use crate::upstream::error::{Phase, UpstreamError};
use crate::upstream::outbound_proxy::OutboundProxy;
use crate::upstream::tls::LazyTls;

/// Idle connections kept per provider; more than this many calls at once open short-lived ones.
const MAX_IDLE_PER_HOST: usize = 256;
/// Below the 60 s after which common load balancers close idle connections, so that we close first.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);
/// Read and write buffer of one connection, and the largest response head.
const MAX_BUFFER: usize = 64 * 1024;
/// Uploads at least this large, or of unknown size, get their first-byte time counted from their last chunk.
const LONG_UPLOAD: u64 = 64 * 1024;

/// Time-outs of one call. Put into the request's extensions, it overrides the configured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the last progress of the upload to the response head.
    pub first_byte: Duration,
    /// Between two frames of the response body.
    pub idle: Duration,
}

/// Sends requests to providers. Clones share one pool.
#[derive(Clone, Debug)]
pub struct UpstreamClient {
    http: legacy::Client<Connector, Body>,
    proxy: OutboundProxy,
    timeouts: Timeouts,
}

impl UpstreamClient {
    /// A client with the outbound proxies that the environment names.
    ///
    /// # Errors
    /// [`UpstreamError::Config`] when the configured certificate file cannot be used.
    pub fn new(config: &UpstreamConfig) -> Result<Self, UpstreamError> {
        Self::with_proxy(config, OutboundProxy::from_env())
    }

    /// A client with the given outbound proxies.
    ///
    /// # Errors
    /// As [`UpstreamClient::new`].
    pub fn with_proxy(config: &UpstreamConfig, proxy: OutboundProxy) -> Result<Self, UpstreamError> {
        let tls = LazyTls::new(config.tls_roots.clone())?;
        let connector = Connector::new(tls, proxy.clone(), config.connect_timeout);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(MAX_IDLE_TIME)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http1_max_buf_size(MAX_BUFFER)
            .http1_writev(false)
            .retry_canceled_requests(true)
            .set_host(true)
            .build(connector);
        let timeouts = Timeouts { first_byte: config.first_byte_timeout, idle: config.idle_timeout };
        Ok(Self { http, proxy, timeouts })
    }

    /// Sends `request`, whose URI is absolute, and returns the response as soon as its head is there.
    ///
    /// `Host` is added when missing. The response's body yields [`UpstreamError`]s. A `101` response can be
    /// upgraded with [`hyper::upgrade::on`].
    ///
    /// # Errors
    /// See [`UpstreamError`]; [`UpstreamError::may_have_been_sent`] says whether the provider can have seen it.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let timeouts = request.extensions_mut().remove::<Timeouts>().unwrap_or(self.timeouts);
        *request.version_mut() = Version::HTTP_11;
        self.proxy.authorize(&mut request);
        let (request, upload) = watch_upload(request);
        let response = first_byte(self.http.request(request), upload.as_deref(), timeouts.first_byte).await?;
        Ok(response.map(|incoming| {
            if incoming.is_end_stream() {
                return body::empty();
            }
            IdleTimeout { inner: incoming, limit: timeouts.idle, waiting: None }.boxed_unsync()
        }))
    }
}

/// Waits for the response head: at most `limit` after the call, or after the upload's last progress.
async fn first_byte<F, T, E>(response: F, upload: Option<&Upload>, limit: Duration) -> Result<T, UpstreamError>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + 'static,
{
    let mut response = std::pin::pin!(response);
    let mut left = limit;
    loop {
        if let Ok(outcome) = tokio::time::timeout(left, &mut response).await {
            return outcome.map_err(|error| UpstreamError::from_send(&error));
        }
        left = upload.map_or(Duration::ZERO, |upload| limit.saturating_sub(upload.silent_for()));
        if left.is_zero() {
            return Err(UpstreamError::Timeout { phase: Phase::FirstByte, after: limit });
        }
    }
}

/// When a long upload last moved.
#[derive(Debug)]
struct Upload {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Upload {
    fn moved(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Watches the request's body if its upload can take long, so that it is not taken for the provider's silence.
fn watch_upload(request: Request<Body>) -> (Request<Body>, Option<Arc<Upload>>) {
    if request.body().size_hint().upper().is_some_and(|size| size < LONG_UPLOAD) {
        return (request, None);
    }
    let upload = Arc::new(Upload { begun: Instant::now(), last_ms: AtomicU64::new(0) });
    let watched = Arc::clone(&upload);
    (request.map(|inner| Watched { inner, upload: watched }.boxed_unsync()), Some(upload))
}

struct Watched {
    inner: Body,
    upload: Arc<Upload>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.upload.moved();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body that fails when the provider is silent for longer than `limit`.
///
/// Only the time in which somebody wanted the next frame counts: a slow reader is not the provider's silence.
struct IdleTimeout {
    inner: Incoming,
    limit: Duration,
    waiting: Option<Waiting>,
}

struct Waiting {
    /// Since when the next frame is wanted; none while nobody wants one.
    since: Option<Instant>,
    /// Kept from frame to frame, and moved only when it strikes: most frames never touch the timer wheel.
    alarm: Pin<Box<Sleep>>,
}

impl IdleTimeout {
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        let limit = self.limit;
        let waiting =
            self.waiting.get_or_insert_with(|| Waiting { since: None, alarm: Box::pin(tokio::time::sleep(limit)) });
        let since = *waiting.since.get_or_insert_with(Instant::now);
        loop {
            ready!(waiting.alarm.as_mut().poll(cx));
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Poll::Ready(UpstreamError::Timeout { phase: Phase::Body, after: limit });
            }
            waiting.alarm.set(tokio::time::sleep(left));
        }
    }
}

impl hyper::body::Body for IdleTimeout {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.since = None;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| UpstreamError::from_body(&error).into())))
            }
            Poll::Pending => self.poll_alarm(cx).map(|error| Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn upload() -> Upload {
        Upload { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_provider_runs_into_the_limit() {
        let begun = Instant::now();
        let never = std::future::pending::<Result<(), std::io::Error>>();
        let outcome = first_byte(never, None, LIMIT).await;
        assert_eq!(outcome, Err(UpstreamError::Timeout { phase: Phase::FirstByte, after: LIMIT }));
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_is_not_the_providers_silence() {
        let upload = upload();
        let slow = async {
            for _chunk in 0..5 {
                tokio::time::sleep(LIMIT * 9 / 10).await;
                upload.moved();
            }
            tokio::time::sleep(LIMIT / 2).await;
            Ok::<_, std::io::Error>("answered")
        };
        assert_eq!(first_byte(slow, Some(&upload), LIMIT).await, Ok("answered"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_slow_upload_the_limit_still_counts() {
        let upload = upload();
        let slow = async {
            tokio::time::sleep(LIMIT * 9 / 10).await;
            upload.moved();
            std::future::pending::<Result<(), std::io::Error>>().await
        };
        let begun = Instant::now();
        let outcome = first_byte(slow, Some(&upload), LIMIT).await;
        assert_eq!(outcome, Err(UpstreamError::Timeout { phase: Phase::FirstByte, after: LIMIT }));
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs() * 19 / 10);
    }
}
