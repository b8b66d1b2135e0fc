//! The way to the collector: OTLP over HTTP in protobuf, by the client that also calls the providers.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, ResponseBodyTooLarge};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;

use crate::body::{self, Body};
use crate::config::OtelConfig;
use crate::upstream::client::{Timeouts, UpstreamClient};

/// Where the base address of a collector takes spans.
const PATH: &str = "/v1/traces";
/// The longest answer that is read: it says what was rejected.
const LONGEST_ANSWER: usize = 1 << 20;
/// How long one attempt may take until its answer begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why spans cannot be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("otel: {0}")]
pub struct CollectorError(#[from] ExporterBuildError);

/// The exporter that `config` and the standard variables describe.
pub(super) fn exporter(config: &OtelConfig, client: UpstreamClient) -> Result<SpanExporter, CollectorError> {
    let mut builder =
        SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(Client(client));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')));
    }
    let mut exporter = builder.build()?;
    exporter.set_resource(&resource(config));
    Ok(exporter)
}

/// Who sends: the configured name, that of the standard variables, or `nightbus`.
fn resource(config: &OtelConfig) -> Resource {
    const NAME: Key = Key::from_static_str("service.name");
    let given = Resource::builder().build();
    let is_named = given.get(&NAME).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let name = config.service_name.clone().or_else(|| (!is_named).then(|| "nightbus".to_owned()));
    let own = name.map(|name| KeyValue::new(NAME, name)).into_iter();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder().with_attributes(own.chain([version])).build()
}

struct Client(UpstreamClient);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn send_bytes<'client, 'sent>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'client: 'sent,
        Self: 'sent,
    {
        Box::pin(exchange(&self.0, request))
    }
}

async fn exchange(client: &UpstreamClient, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (head, spans) = request.into_parts();
    let mut request = Request::from_parts(head, body::full(spans));
    request.extensions_mut().insert(Timeouts { first_byte: PATIENCE, idle: PATIENCE });
    let answered = match client.send(request).await {
        Ok(answered) => answered,
        Err(error) => {
            // The exporter's own error does not say why.
            tracing::debug!(%error, "the collector did not answer");
            return Err(Box::new(error));
        }
    };
    let (head, answer) = answered.into_parts();
    Ok(Response::from_parts(head, whole(answer).await?))
}

async fn whole(mut answer: Body) -> Result<Bytes, HttpError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + data.len() > LONGEST_ANSWER {
            return Err(Box::new(ResponseBodyTooLarge::new()));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
