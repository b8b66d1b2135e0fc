//! OpenRouter's batches (providers.md, section 4.12): lines in the call that creates one, results in the object that is polled.
//!
//! There is no list, and nothing on a batch that could be ours: one whose creation got no answer is not found again. The engine knows
//! ([`Capability::creation_patience`]) and never creates it anew.

use std::future::ready;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::body::{Body, BoxError};
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Content, Exchange, unreadable};
use crate::upstream::provider::{
    BatchInput, BatchProvider, CreateBatch, Credentials, LiveAnswer, LiveRequest, ProviderError, ProviderFuture,
    SUBMIT, Sought,
};
use crate::wire::batch::BatchObject;
use crate::wire::openrouter::{CREATION_END, ResultScanner, creation_head, parse_batch};

const BATCHES: &str = "/batches";
const POLL: &str = "poll";

/// A provider that speaks OpenRouter's batches.
#[derive(Debug)]
pub struct OpenRouterProvider {
    exchange: Exchange,
    capability: Capability,
    /// What stands before an endpoint in a creation.
    endpoint_prefix: String,
}

impl OpenRouterProvider {
    /// At `base_url` (with `/v1` at its end). `endpoint_prefix`: what stands before `/chat/completions` in a creation.
    pub fn new(client: UpstreamClient, base_url: &Uri, endpoint_prefix: &str, capability: Capability) -> Self {
        let exchange = Exchange::new(client, base_url);
        Self { exchange, capability, endpoint_prefix: endpoint_prefix.trim_end_matches('/').to_owned() }
    }

    async fn create_batch(&self, credentials: &Credentials, batch: CreateBatch) -> Result<BatchObject, ProviderError> {
        let BatchInput::Inline { length, content } = batch.input else {
            return Err(unreadable(SUBMIT, &"this kind of provider takes its lines inline"));
        };
        let (endpoint, window) = (batch.endpoint.relative(), &self.capability.completion_window);
        let head = creation_head(&self.endpoint_prefix, endpoint, &batch.model, window)
            .map_err(|error| unreadable(SUBMIT, &error))?;
        let around = u64::try_from(head.len() + CREATION_END.len()).unwrap_or(u64::MAX);
        let head = stream::once(ready(Ok::<_, BoxError>(Bytes::from(head))));
        let end = stream::once(ready(Ok(Bytes::from_static(CREATION_END))));
        let pieces = head.chain(content.into_data_stream()).chain(end).map(|piece| piece.map(Frame::data));
        let content = Content {
            length: length.saturating_add(around),
            content_type: "application/json".to_owned(),
            body: StreamBody::new(pieces).boxed_unsync(),
        };
        let body = self.exchange.post_content(SUBMIT, BATCHES, credentials, content).await?;
        parse_batch(&body, 0).map_err(|error| unreadable(SUBMIT, &error))
    }

    /// Reads a batch to its end: what is known of it may stand behind its results.
    async fn read(&self, credentials: &Credentials, batch: &str) -> Result<BatchObject, ProviderError> {
        let (_, mut body) = self.exchange.open_for(POLL, &format!("{BATCHES}/{batch}"), credentials).await?;
        let mut scanner = ResultScanner::default();
        while let Some(frame) = body.frame().await {
            let piece = frame.map_err(|error| unreadable(POLL, &error))?.into_data().unwrap_or_default();
            scanner.feed(&piece, None).map_err(|error| unreadable(POLL, &error))?;
        }
        let (rest, results) = scanner.end().map_err(|error| unreadable(POLL, &error))?;
        parse_batch(&rest, results).map_err(|error| unreadable(POLL, &error))
    }
}

/// The results of a batch object as lines, each handed on as it comes. An object that has none is not their end: there were some
/// when it was polled, and they are paid for.
fn lines_of(body: Body) -> Body {
    let pieces = stream::try_unfold(Some((body, ResultScanner::default())), |state| async move {
        let Some((mut body, mut scanner)) = state else { return Ok(None) };
        let mut lines = Vec::new();
        while lines.is_empty() {
            let Some(frame) = body.frame().await else {
                let (_, results) = scanner.end()?;
                return if results > 0 { Ok(None) } else { Err(BoxError::from("the batch shows no results")) };
            };
            scanner.feed(&frame?.into_data().unwrap_or_default(), Some(&mut lines))?;
        }
        Ok::<_, BoxError>(Some((Frame::data(Bytes::from(lines)), Some((body, scanner)))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl BatchProvider for OpenRouterProvider {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.exchange.call_live(credentials, call))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(self.create_batch(credentials, batch))
    }

    fn find<'a>(&'a self, _: &'a Credentials, _: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(ready(Err(unreadable("look-up", &"this kind of provider has no list of batches"))))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(self.read(credentials, batch))
    }

    /// Whether there is such a route is not known. The batch is: what is not there is the route, and that lasts.
    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("{BATCHES}/{batch}/cancel");
            let read = |body: &[u8]| parse_batch(body, 0);
            let asked = self.exchange.ask("cancel", (Method::POST, &path), credentials, None, read).await;
            asked.map_err(|error| match error {
                ProviderError::Refused { operation, status: 404, code, message, body, retry_after } => {
                    ProviderError::Refused { operation, status: 405, code, message, body, retry_after }
                }
                other @ (ProviderError::NoAnswer { .. }
                | ProviderError::Refused { .. }
                | ProviderError::Unreadable { .. }) => other,
            })
        })
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async move {
            let (_, body) = self.exchange.open(&format!("{BATCHES}/{file}"), credentials).await?;
            Ok(lines_of(body))
        })
    }
}
