//! Live calls through the assembled listener, pass-through and client: both ends are bare TCP, so that every
//! difference between the direct connection and the one through nightbus shows.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "passthrough/bodies.rs"]
mod bodies;
#[path = "passthrough/connections.rs"]
mod connections;
#[path = "passthrough/failures.rs"]
mod failures;
#[path = "passthrough/heads.rs"]
mod heads;
#[path = "common/origin.rs"]
mod origin;
#[path = "passthrough/proxies.rs"]
mod proxies;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use nightbus::body::Body;
use nightbus::config::{ProviderConfig, ProviderKind, TlsRoots, UpstreamConfig};
use nightbus::intake::listener::{ConnectionInfo, DEFAULT_BACKLOG, Listener};
use nightbus::intake::passthrough::{Target, forward};
use nightbus::tasks::Tasks;
use nightbus::upstream::client::UpstreamClient;
use nightbus::upstream::outbound_proxy::OutboundProxy;
use secrecy::SecretString;

/// A running listener that forwards `/v1/…` to one provider.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) tasks: Tasks,
}

/// How a proxy under test differs from the usual one.
pub(crate) struct Setup {
    pub(crate) base_url: String,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) outbound: OutboundProxy,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) replace_credential: Option<SecretString>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) grace: Duration,
}

impl Setup {
    pub(crate) fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            upstream: UpstreamConfig {
                connect_timeout: origin::DEADLINE,
                first_byte_timeout: origin::DEADLINE,
                idle_timeout: origin::DEADLINE,
                tls_roots: TlsRoots::Bundled,
            },
            outbound: OutboundProxy::direct(),
            tls: None,
            replace_credential: None,
            reason: None,
            grace: origin::DEADLINE,
        }
    }

    pub(crate) fn to(origin: SocketAddr) -> Self {
        Self::new(format!("http://{origin}/v1"))
    }

    pub(crate) async fn start(self) -> Proxy {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), DEFAULT_BACKLOG).await.unwrap();
        let addr = listener.local_addr();
        let tasks = Tasks::new();
        let route = Arc::new(Route {
            client: UpstreamClient::with_proxy(&self.upstream, self.outbound).unwrap(),
            provider: ProviderConfig {
                name: "openai".into(),
                kind: ProviderKind::OpenAi,
                base_url: self.base_url.parse().unwrap(),
                api_key: None,
                max_requests: None,
                max_bytes: None,
                in_flight_tokens: None,
                batches_per_hour: None,
                webhooks: None,
                api_version: None,
                completion_window: None,
                min_poll: None,
                creation_patience: None,
                endpoint_prefix: None,
                max_live_calls: None,
                cache_hour: false,
                background_windows: None,
                endpoints: None,
            },
            replace_credential: self.replace_credential,
            reason: self.reason,
        });
        let service = move |request, _info: ConnectionInfo| Arc::clone(&route).answer(request);
        tasks.spawn("listener", listener.serve(service, self.tls, tasks.clone(), self.grace));
        Proxy { addr, tasks }
    }
}

struct Route {
    client: UpstreamClient,
    provider: ProviderConfig,
    replace_credential: Option<SecretString>,
    reason: Option<&'static str>,
}

impl Route {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let uri = request.uri().clone();
        let whole = uri.path_and_query().map_or("", |path| path.as_str());
        assert!(whole != "/v1/panic", "asked to");
        let target = Target {
            provider: &self.provider,
            path_and_query: whole.strip_prefix("/v1").unwrap_or(whole),
            replace_credential: self.replace_credential.as_ref(),
        };
        forward(&self.client, request.map(|body| body.map_err(Into::into).boxed_unsync()), target, self.reason).await
    }
}

/// The part after the head of an error of nightbus's own.
pub(crate) fn error_of(body: &[u8]) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(value["error"]["type"], "nightbus_error");
    value["error"].clone()
}
