//! The command line's HTTP client: one JSON exchange at a time, past all outbound proxies, for the admin API, the demonstration and
//! the health check.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::config::TlsRoots;
use crate::upstream::connect::Connector;
use crate::upstream::error::UpstreamError;
use crate::upstream::outbound_proxy::OutboundProxy;
use crate::upstream::tls::LazyTls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An exchange that could not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// What was to be sent is no HTTP request.
    #[error(transparent)]
    Request(#[from] http::Error),
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Keeps connections; clones share them.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
}

impl HttpClient {
    /// For `https` URLs `roots` are trusted.
    ///
    /// # Errors
    /// A file of certificates that cannot be used.
    pub(super) fn new(roots: TlsRoots) -> Result<Self, UpstreamError> {
        let connector = Connector::new(LazyTls::new(roots)?, OutboundProxy::direct(), CONNECT_TIMEOUT);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Sends `json` (empty: no body) with `headers` besides the usual ones, and waits at most `patience` for all of the answer.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: Uri,
        bearer: Option<&str>,
        headers: &[(&'static str, &str)],
        json: Bytes,
        patience: Duration,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(USER_AGENT, HeaderValue::from_static(concat!("nightbus-cli/", env!("CARGO_PKG_VERSION"))));
        if !json.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(bearer) = bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {bearer}")).map_err(http::Error::from)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(json))?;
        let exchange = Box::pin(async {
            let response = self.client.request(request).await.map_err(|error| unreachable(&error))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| unreachable(&error))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        });
        tokio::time::timeout(patience, exchange).await.unwrap_or(Err(HttpError::Late(patience)))
    }
}

/// The innermost cause says most: "Connection refused".
fn unreachable(error: &dyn std::error::Error) -> HttpError {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    HttpError::Unreachable(cause.to_string())
}
