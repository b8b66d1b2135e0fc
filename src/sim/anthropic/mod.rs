//! The second dialect: Anthropic's Messages and Message Batches (providers.md, sections 2 and 8), on `/v1/messages…`.
//!
//! The same faults, counters and steering words as in the first dialect; what is refused, when, and in which form is
//! Anthropic's own: envelope-level faults at once, everything else per line.

mod batches;
mod life;
mod message;
mod params;
mod results;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use serde_json::{Value, json};

use crate::body::Body;
use crate::sim::dialect::Dialect;
use crate::sim::reply::{self, Failure, Outcome};
use crate::sim::server::Query;
use crate::sim::state::{Account, State};

pub(super) use crate::sim::anthropic::batches::MessageBatches;

/// Bytes of one batch call (section 2.5).
pub(super) const MAX_BATCH_BYTES: usize = 256_000_000;
/// Requests in one batch.
pub(super) const MAX_BATCH_REQUESTS: usize = 100_000;
/// The versions of the API (section 2.6); in the second one sampling parameters are gone.
const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// An error as this provider tells it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) message: String,
    retry_after: Option<u32>,
}

impl Refusal {
    /// With the status that errors of this type have (section 2.5).
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        let status = match kind {
            "invalid_request_error" => 400,
            "authentication_error" => 401,
            "not_found_error" => 404,
            "conflict_error" => 409,
            "request_too_large" => 413,
            "rate_limit_error" => 429,
            "overloaded_error" => 529,
            _ => 500,
        };
        Self { status, kind, message: message.into(), retry_after: None }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid_request_error", message)
    }

    fn rate_limit(seconds: u32) -> Self {
        let message = "This request would exceed your organization's rate limit. Please try again later.";
        Self { retry_after: Some(seconds), ..Self::new("rate_limit_error", message) }
    }

    fn server() -> Self {
        Self::new("api_error", "Internal server error")
    }

    /// The whole error response; in the result of a batch line it is nested once more.
    fn envelope(&self, request_id: &str) -> Value {
        json!({"type": "error", "error": {"type": self.kind, "message": self.message}, "request_id": request_id})
    }
}

/// Why a handler has no result.
enum Stop {
    Cut,
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

type Answer = Result<Response<Body>, Stop>;

/// Whether a path belongs to this dialect.
pub(super) fn speaks(path: &str, headers: &HeaderMap) -> bool {
    path.strip_prefix("/v1/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || (path == "/v1/models" && headers.contains_key("anthropic-version"))
}

/// Answers a call. `body`: none where it was larger than the provider takes.
pub(super) async fn handle(state: &Arc<State>, parts: &Parts, query: &Query, body: Option<Bytes>) -> Outcome {
    let request_id = state.ids.long("req_");
    let mut response = match route(state, parts, query, body).await {
        Ok(response) => response,
        Err(Stop::Cut) => return Err(Failure::Cut),
        Err(Stop::Refused(refusal)) => {
            let mut response = reply::json_value(refusal.status, &refusal.envelope(&request_id));
            if let Some(seconds) = refusal.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    };
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("request-id", request_id);
    }
    let organization = HeaderValue::from_static("00000000-0000-0000-0000-000000000000");
    response.headers_mut().insert("anthropic-organization-id", organization);
    Ok(response)
}

async fn route(state: &Arc<State>, parts: &Parts, query: &Query, body: Option<Bytes>) -> Answer {
    let account = account(state, &parts.headers)?;
    let version = version(&parts.headers)?;
    let too_large = || Refusal::new("request_too_large", "Request exceeds the maximum size");
    let body = body.ok_or_else(too_large)?;
    let path = parts.uri.path();
    let segments: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
    match (parts.method.as_str(), segments.as_slice()) {
        ("POST", ["messages"]) => message::live(state, &parts.headers, version, &body).await,
        ("POST", ["messages", "count_tokens"]) => message::count_tokens(&body),
        ("POST", ["messages", "batches"]) => batches::create(state, &account, version, &body),
        ("GET", ["messages", "batches"]) => batches::list(state, parts, &account, query),
        ("GET", ["messages", "batches", id]) => batches::get(state, parts, &account, id),
        ("DELETE", ["messages", "batches", id]) => batches::delete(state, &account, id),
        ("POST", ["messages", "batches", id, "cancel"]) => batches::cancel(state, parts, &account, id),
        ("GET", ["messages", "batches", id, "results"]) => results::download(state, &account, id),
        ("GET", ["models"]) => {
            let model = json!({"type": "model", "id": "claude-haiku-5-5", "display_name": "Claude Haiku 5.5",
                "created_at": "2026-09-01T00:00:00Z"});
            Ok(reply::ok(&json!({"data": [model], "has_more": false, "first_id": "claude-haiku-5-5",
                "last_id": "claude-haiku-5-5"})))
        }
        (method, _) => Err(Refusal::new("not_found_error", format!("Not found: {method} {path}")).into()),
    }
}

/// Both forms of the key are the same credential; batches belong to the key's workspace (sections 2.1 and 2.3).
fn account(state: &State, headers: &HeaderMap) -> Result<Account, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = text("authorization");
    let bearer = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let key = bearer.map_or_else(|| text("x-api-key"), |(_, key)| key.trim());
    if key.is_empty() && (state.require_key || state.api_keys.is_some()) {
        return Err(Refusal::new("authentication_error", "x-api-key header is required"));
    }
    if state.api_keys.as_ref().is_some_and(|known| !known.iter().any(|known| known == key)) {
        return Err(Refusal::new("authentication_error", "invalid x-api-key"));
    }
    let workspace = text("anthropic-workspace-id").to_owned();
    Ok(Account {
        dialect: Dialect::OpenAi,
        key: key.to_owned(),
        organization: "anthropic".to_owned(),
        project: workspace,
    })
}

/// The place of the version among [`VERSIONS`].
fn version(headers: &HeaderMap) -> Result<usize, Refusal> {
    let Some(version) = headers.get("anthropic-version").and_then(|value| value.to_str().ok()) else {
        return Err(Refusal::invalid("anthropic-version: header is required"));
    };
    VERSIONS
        .iter()
        .position(|known| *known == version)
        .ok_or_else(|| Refusal::invalid(format!("anthropic-version: \"{version}\" is not a valid version")))
}

/// Whether this dialect's calls may have long bodies.
pub(super) fn is_batch_creation(method: &Method, path: &str) -> bool {
    method == Method::POST && path == "/v1/messages/batches"
}
