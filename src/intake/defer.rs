//! Accepts a deferred call: durable first, then queued, then answered. Knows nothing of any provider's batch API.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::config::{Config, ProviderConfig};
use crate::crash;
use crate::domain::lane::{Endpoint, LaneKey};
use crate::domain::request::RequestState;
use crate::engine::Engine;
use crate::engine::object::{RequestObject, result_path};
use crate::intake::answer::{self, Asked};
use crate::intake::caller::{self, Caller};
use crate::intake::client::Client;
use crate::intake::hold::{self, Held};
use crate::intake::marks::Marks;
use crate::intake::respond::json_response;
use crate::store::{NewRequest, RequestOptions, RequestRecord, StoreError};
use crate::tasks::Tasks;
use crate::wire::api_error::ApiError;
use crate::wire::openai::batch_file::line_length;
use crate::wire::openai::edit;
use crate::wire::openai::peek::{Peek, peek, without_batch_suffix};

/// How soon a caller that polls should come back.
pub(crate) const POLL_SECONDS: u32 = 10;

/// Fields that a batch line must not hold (providers.md, section 1.6).
const NOT_IN_A_LINE: [&str; 4] = ["stream", "stream_options", "service_tier", "background"];

/// A call that is to be deferred.
#[derive(Debug)]
pub(crate) struct Deferral<'a> {
    pub(crate) provider: &'a ProviderConfig,
    pub(crate) endpoint: Endpoint,
    pub(crate) caller: Caller<'a>,
    pub(crate) marks: Marks,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
}

/// What a deferral needs of the process.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) config: Arc<Config>,
    pub(crate) engine: Engine,
    pub(crate) tasks: Tasks,
}

/// Why a marked call was not accepted.
#[derive(Debug)]
pub(crate) enum NotDeferred {
    /// The caller gets this error.
    Refused(ApiError),
    /// It goes live, and the caller is told why.
    Live(&'static str),
}

impl From<ApiError> for NotDeferred {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl Desk {
    /// Checks, stores and queues a call. When it returns the request is durable.
    pub(crate) async fn accept(&self, call: &Deferral<'_>) -> Result<Accepted, NotDeferred> {
        self.has_room(&call.marks)?;
        let peeked = peek(call.endpoint, &call.body).map_err(|error| {
            let refused = ApiError::invalid_request(error.message.clone());
            error.param.map_or_else(|| refused.clone(), |param| refused.clone().about(param))
        })?;
        if peeked.background {
            return Err(NotDeferred::Live("background"));
        }
        let model = without_batch_suffix(&peeked.model).unwrap_or(&peeked.model);
        let line = line_body(&call.body, &peeked, model);
        self.fits(call, &line)?;
        let account = caller::account(&**self.engine.store(), &call.caller, call.provider, call.headers)?;
        let lane = LaneKey {
            provider: Arc::from(call.provider.name.as_str()),
            account: account.fingerprint,
            endpoint: call.endpoint,
            model: Arc::from(model),
            deadline_class: 0,
        };
        if !self.engine.knows_account(account.fingerprint) {
            self.engine.keep_account(account).await.map_err(|error| unavailable(&error))?;
        }
        let request = self.new_request(call, &peeked, lane, &line);
        let waits = !call.marks.respond_async || call.marks.wait.is_some();
        let waiter = waits.then(|| self.engine.waiters().register(request.id));
        self.store(request.clone(), line).await?;
        crash::point("accepted");
        Ok(Accepted { request, waiter })
    }

    fn has_room(&self, marks: &Marks) -> Result<(), ApiError> {
        let limits = &self.config.limits;
        if self.engine.is_draining() {
            return Err(ApiError::shutting_down("nightbus is stopping: send the call again after the restart"));
        }
        if self.engine.queued_requests() >= limits.max_queued_requests {
            return Err(ApiError::queue_full(format!(
                "{} requests are queued already (limits.max_queued_requests): send the call again later",
                limits.max_queued_requests
            )));
        }
        if !marks.respond_async && self.engine.waiters().count() >= limits.max_held_connections {
            return Err(ApiError::queue_full(format!(
                "{} connections are held already (limits.max_held_connections): send the call again later, or with Prefer: respond-async",
                limits.max_held_connections
            )));
        }
        Ok(())
    }

    fn fits(&self, call: &Deferral<'_>, line: &Bytes) -> Result<(), ApiError> {
        let length = line_length(call.endpoint, u64::try_from(line.len()).unwrap_or(u64::MAX));
        let most = self.engine.capability(&call.provider.name).map_or(u64::MAX, |capability| capability.max_bytes);
        if length > most || u32::try_from(line.len()).is_err() {
            return Err(ApiError::too_large(format!(
                "the call takes {length} bytes as a batch line and the provider's batch file takes {most}: send it live"
            )));
        }
        Ok(())
    }

    fn new_request(&self, call: &Deferral<'_>, peeked: &Peek<'_>, lane: LaneKey, line: &Bytes) -> NewRequest {
        let store = self.engine.store();
        let marks = &call.marks;
        let caller = call.caller.fingerprint;
        let mut options = RequestOptions::default().with_inputs(peeked.inputs);
        for (wanted, bit) in [
            (peeked.stream, RequestOptions::STREAM),
            (peeked.include_usage, RequestOptions::INCLUDE_USAGE),
            (!marks.respond_async, RequestOptions::HOLD),
            (marks.fallback.as_ref().is_some_and(Vec::is_empty), RequestOptions::NO_FALLBACK),
        ] {
            if wanted {
                options = options.with(bit);
            }
        }
        NewRequest {
            id: self.engine.new_request_id(),
            caller,
            lane: Arc::new(lane),
            tag: marks.tag.clone(),
            created_at: self.engine.clock().now(),
            deadline_at: marks.deadline_at,
            options,
            body_hash: store.fingerprint(&[b"body", &caller.0, call.endpoint.as_str().as_bytes(), &call.body]),
            idempotency: marks
                .idempotency_key
                .as_ref()
                .map(|key| store.fingerprint(&[b"idempotency", &caller.0, key.as_bytes()])),
            body_len: u32::try_from(line.len()).unwrap_or(u32::MAX),
        }
    }

    /// In a task of its own: a client that leaves now must not leave a request that is stored and not queued.
    async fn store(&self, request: NewRequest, line: Bytes) -> Result<(), ApiError> {
        let engine = self.engine.clone();
        let stored = self.tasks.spawn("accept", async move {
            engine.store().accept(request.clone(), line).await?;
            engine.enqueue(&request);
            Ok::<(), StoreError>(())
        });
        match stored.await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(error))) => {
                self.engine.telemetry().store_failed(&error);
                Err(unavailable(&error))
            }
            Ok(None) | Err(_) => Err(ApiError::internal("the request could not be stored: see nightbus's log")),
        }
    }
}

/// The body as its line holds it; the client's own bytes wherever that is possible.
fn line_body(body: &Bytes, peeked: &Peek<'_>, model: &str) -> Bytes {
    let renamed = model != peeked.model;
    if peeked.needs_edit || renamed || edit::has_line_breaks(body) {
        Bytes::from(edit::for_batch_line(body, &NOT_IN_A_LINE, renamed.then_some(model)))
    } else {
        body.clone()
    }
}

/// The store cannot take anything now.
pub(crate) fn unavailable(error: &StoreError) -> ApiError {
    match error {
        StoreError::Closed => ApiError::shutting_down("nightbus is stopping: send the call again after the restart"),
        StoreError::Unwritable(_) | StoreError::Unreadable(_) | StoreError::Locked(_) => ApiError::store_unavailable(
            format!("the call could not be made durable and was not accepted ({error}): send it again later, or live"),
        ),
    }
}

/// A request that is durable and queued.
#[derive(Debug)]
pub(crate) struct Accepted {
    request: NewRequest,
    waiter: Option<crate::engine::waiters::Waiter>,
}

impl Accepted {
    /// Answers: at once, after a while, or when the request has ended.
    pub(crate) async fn answer(self, desk: &Desk, marks: &Marks, client: Client) -> Response<Body> {
        let asked = Asked {
            id: self.request.id,
            endpoint: self.request.lane.endpoint,
            options: self.request.options,
            created_at: self.request.created_at,
        };
        let Some(waiter) = self.waiter else {
            return accepted(&queued(self.request), desk, None);
        };
        let stop = desk.tasks.stop_token().clone();
        let held = Held::new(asked, waiter, stop, desk.engine.telemetry().clone());
        let Some(wait) = marks.wait else {
            return hold::until_answered(held, client).await;
        };
        match hold::for_at_most(held, wait, &client).await {
            Ok(answered) => answered,
            Err(held) => {
                drop(held);
                accepted(&queued(self.request), desk, Some(wait.as_secs()))
            }
        }
    }
}

fn queued(request: NewRequest) -> RequestRecord {
    RequestRecord {
        request,
        state: RequestState::Queued,
        submitted_at: None,
        finished_at: None,
        batch_id: None,
        attempts: 0,
        outcome: None,
    }
}

/// `202` with where to find the result, and the request object.
fn accepted(record: &RequestRecord, desk: &Desk, waited: Option<u64>) -> Response<Body> {
    let mut response = pending(record, desk.config.retention);
    let applied = waited.map_or_else(|| "respond-async".to_owned(), |seconds| format!("wait={seconds}"));
    if let Ok(value) = HeaderValue::try_from(applied) {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), value);
    }
    response
}

/// `202`: not ended yet.
pub(crate) fn pending(record: &RequestRecord, retention: std::time::Duration) -> Response<Body> {
    let mut response = json_response(StatusCode::ACCEPTED, RequestObject::new(record, retention).to_json());
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(result_path(record.request.id)) {
        headers.insert(LOCATION, location);
    }
    headers.insert(RETRY_AFTER, HeaderValue::from(POLL_SECONDS));
    answer::set_pending_headers(headers, record.request.id, record.state);
    response
}
