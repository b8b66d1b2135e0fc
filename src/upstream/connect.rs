//! From a URI to a connected byte stream: TCP, then the outbound proxy's tunnel, then TLS, within one time-out.
//!
//! Every failure leaves here as the [`UpstreamError`] of its phase, so the client need not guess from texts.
//! Called by hyper-util's connection pools on behalf of `upstream::client` and `cli::http`.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::upstream::error::{Phase, UpstreamError, chain};
use crate::upstream::outbound_proxy::OutboundProxy;
use crate::upstream::tls::LazyTls;

/// Long answers leave a connection silent for minutes; probes keep address translators from forgetting it.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Makes connections. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tcp: HttpConnector,
    tls: LazyTls,
    proxy: OutboundProxy,
    timeout: Duration,
}

impl Connector {
    /// `timeout` bounds the whole way, TLS included.
    pub(crate) fn new(tls: LazyTls, proxy: OutboundProxy, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_keepalive_interval(Some(TCP_KEEPALIVE / 4));
        Self { shared: Arc::new(Shared { tcp, tls, proxy, timeout }) }
    }

    async fn connect(self, destination: Uri) -> Result<Transport, UpstreamError> {
        let after = self.shared.timeout;
        match tokio::time::timeout(after, self.route(destination)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(UpstreamError::Timeout { phase: Phase::Connect, after }),
        }
    }

    async fn route(self, destination: Uri) -> Result<Transport, UpstreamError> {
        let Some(proxy) = self.shared.proxy.intercept(&destination) else {
            return self.reach(destination).await;
        };
        if !proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("http")) {
            return Err(UpstreamError::Proxy { cause: "only http and https proxies can be used".into() });
        }
        let through = |error: UpstreamError| UpstreamError::Proxy { cause: error.cause() };
        if destination.scheme() != Some(&Scheme::HTTPS) {
            let transport = self.reach(proxy.uri().clone()).await.map_err(through)?;
            return Ok(Transport { absolute_form: true, ..transport });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), Reach(self.clone()));
        if let Some(credential) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credential.clone());
        }
        let transport =
            tunnel.call(destination.clone()).await.map_err(|error| UpstreamError::Proxy { cause: chain(&error) })?;
        self.encrypt(transport, &destination).await
    }

    /// Straight to `destination`, with TLS where its scheme says so.
    async fn reach(&self, destination: Uri) -> Result<Transport, UpstreamError> {
        let tcp = self.shared.tcp.clone().call(destination.clone()).await.map_err(|error| {
            let cause = chain(&error);
            if error.to_string().starts_with("dns error") {
                UpstreamError::Dns { cause }
            } else {
                UpstreamError::Connect { cause }
            }
        })?;
        let transport = Transport { stream: Stream::Tcp(tcp), absolute_form: false };
        if destination.scheme() == Some(&Scheme::HTTPS) {
            return self.encrypt(transport, &destination).await;
        }
        Ok(transport)
    }

    async fn encrypt(&self, transport: Transport, destination: &Uri) -> Result<Transport, UpstreamError> {
        let host = destination.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| UpstreamError::Tls { cause: chain(&error) })?;
        let config = self.shared.tls.get().await?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, TokioIo::new(transport))
            .await
            .map_err(|error| UpstreamError::Tls { cause: chain(&error) })?;
        Ok(Transport { stream: Stream::Layered(Box::new(TokioIo::new(stream))), absolute_form: false })
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<Transport, UpstreamError>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Transport;
    type Error = UpstreamError;
    type Future = Connecting;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Connecting {
        Box::pin(self.clone().connect(destination))
    }
}

/// [`Connector::reach`] in the form that `Tunnel` wants: the way to the proxy itself.
struct Reach(Connector);

impl Service<Uri> for Reach {
    type Response = Transport;
    type Error = UpstreamError;
    type Future = Connecting;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Connecting {
        let connector = self.0.clone();
        Box::pin(async move { connector.reach(destination).await })
    }
}

/// A connected stream.
pub(crate) struct Transport {
    stream: Stream,
    /// The other end is a proxy that wants whole URLs in request lines.
    absolute_form: bool,
}

enum Stream {
    Tcp(TokioIo<TcpStream>),
    Layered(Box<dyn Duplex>),
}

trait Duplex: Read + Write + Unpin + Send {}
impl<T: Read + Write + Unpin + Send> Duplex for T {}

impl Transport {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream),
            Stream::Layered(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl Connection for Transport {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.absolute_form)
    }
}

impl Read for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl Write for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Layered(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }
}
