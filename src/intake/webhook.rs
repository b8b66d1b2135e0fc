//! Webhooks of providers: a batch has ended, so look at it now (providers.md, section 1.11).
//!
//! Invariants: there is no route where no secret is configured; nothing is read of a message before its signature fits; of
//! one that fits nothing is believed but that the batch is worth a look. What became of the batch is the provider's
//! answer to that look, so a forged or repeated message could cost one poll and nothing else. Called by `service`, before it asks who
//! calls: a provider has no client key.

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use crate::body::{self, Body};
use crate::intake::call_body::{self, CallBody};
use crate::intake::defer::Desk;
use crate::wire::api_error::ApiError;

/// A message has a few hundred bytes.
const LONGEST: u64 = 64 << 10;
const LONGEST_ID: usize = 256;
const ENDS: [&str; 4] = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"];

/// Of the message, what is looked at.
#[derive(Deserialize)]
struct Event {
    r#type: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: String,
}

impl Desk {
    /// Takes one webhook of the provider of this name.
    ///
    /// # Errors
    /// 404 where none is taken, 401 when it is not signed as it should be; neither says more.
    pub(crate) async fn webhook(&self, provider: &str, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let webhooks = self.config.providers.get(provider).and_then(|provider| provider.webhooks.as_ref());
        let Some(webhooks) = webhooks.filter(|_| *request.method() == Method::POST) else {
            return Err(ApiError::not_found("no webhooks are taken here"));
        };
        let (parts, incoming) = request.into_parts();
        let body = match call_body::read(incoming, LONGEST).await? {
            CallBody::Whole(body) => body.bytes(),
            CallBody::TooLong { .. } => return Err(ApiError::too_large("no webhook is as long as that")),
        };
        let text = |name| header(&parts.headers, name);
        let id = text("webhook-id").filter(|id| id.len() <= LONGEST_ID);
        let signed = match (id, text("webhook-timestamp"), text("webhook-signature")) {
            (Some(id), Some(timestamp), Some(signatures)) => {
                webhooks.verifier.accepts(id, timestamp, signatures, &body, self.engine.clock().now()).then_some(id)
            }
            _ => None,
        };
        let Some(id) = signed else {
            self.engine.telemetry().webhook_received(provider, "refused");
            return Err(ApiError::unauthorized("the webhook is not signed as it should be"));
        };
        let outcome = match serde_json::from_slice::<Event>(&body) {
            Ok(event) if ENDS.contains(&event.r#type.as_str()) => self.engine.heard(provider, id, &event.data.id),
            // Whatever else a provider has to say is none of our business, and must not be sent again.
            Ok(_) | Err(_) => "ignored",
        };
        self.engine.telemetry().webhook_received(provider, outcome);
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
