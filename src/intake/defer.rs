//! Accepts a deferred call: durable first, then queued, then answered. Knows nothing of any provider's batch API.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::config::{Config, ProviderConfig};
use crate::crash;
use crate::domain::ids::RequestId;
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};
use crate::domain::request::RequestState;
use crate::domain::service::{Fallback, Service};
use crate::domain::trace::TraceContext;
use crate::engine::Engine;
use crate::engine::deadline::deadline_class;
use crate::engine::keys::Reservation;
use crate::engine::orphans::Attachment;
use crate::intake::accepted::Accepted;
use crate::intake::answer::{self, Asked};
use crate::intake::attach::{Found, Identity, was_abandoned};
use crate::intake::caller;
use crate::intake::marks::{self, Marks};
use crate::store::{NewRequest, RequestOptions, RequestRecord, StoreError, StoredResult};
use crate::tasks::Tasks;
use crate::wire::anthropic::cache_ttl;
use crate::wire::api_error::ApiError;
use crate::wire::edit;
use crate::wire::line::{LineForm, line_length};
use crate::wire::peek::{Peek, not_in_a_line, peek, without_batch_suffix};
use crate::wire::template::{Template, template};
use crate::wire::translate::Translated;

/// How soon a caller that polls should come back.
pub(crate) const POLL_SECONDS: u32 = 10;

/// A call that is to be deferred.
#[derive(Debug)]
pub(crate) struct Deferral<'a> {
    pub(crate) provider: &'a ProviderConfig,
    /// The one that was called.
    pub(crate) endpoint: Endpoint,
    /// Stands for the caller's credential.
    pub(crate) caller: Fingerprint,
    pub(crate) marks: Marks,
    pub(crate) headers: &'a HeaderMap,
    /// Those that go to the provider; the caller's own unless a route sends the call elsewhere.
    pub(crate) upstream_headers: &'a HeaderMap,
    pub(crate) body: Bytes,
    /// The body in the provider's API shape, where that is another one.
    pub(crate) translated: Option<&'a Translated>,
    /// Name of the client key.
    pub(crate) key: Option<&'a str>,
}

impl Deferral<'_> {
    /// The endpoint of the provider that answers it.
    const fn answered_by(&self) -> Endpoint {
        if self.translated.is_some() { Endpoint::Messages } else { self.endpoint }
    }
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
    /// Checks a call, and stores and queues it unless it is there already. When it returns the request is durable, or
    /// is being made so by the call that it joins.
    pub(crate) async fn accept(&self, call: &Deferral<'_>) -> Result<Accepted, NotDeferred> {
        self.may_wait(&call.marks)?;
        let key = marks::of_deferred(call.headers)?;
        let callback = marks::callback(call.headers, &self.engine.callback_policy())?;
        let peeked = peek(call.endpoint, &call.body).map_err(|error| {
            let refused = ApiError::invalid_request(error.message.clone());
            error.param.map_or_else(|| refused.clone(), |param| refused.clone().about(param))
        })?;
        if let Some(reason) = peeked.live {
            return Err(NotDeferred::Live(reason));
        }
        let model = without_batch_suffix(&peeked.model).unwrap_or(&peeked.model);
        let line = match call.translated {
            Some(translated) => Bytes::copy_from_slice(&translated.body),
            None => line_body(call, &peeked, model),
        };
        let hour = call.provider.cache_hour.then(|| cache_ttl::with_hour(&line)).flatten();
        let line = hour.map_or(line, Bytes::from);
        let model =
            edit::model_of_prefix(&line).filter(|_| call.translated.is_some()).unwrap_or_else(|| model.to_owned());
        let model = model.as_str();
        self.fits(call, &line)?;
        let account = caller::account(&**self.engine.store(), call.provider, call.upstream_headers)?;
        let identity = self.identity(call, account.fingerprint, key.as_deref());
        let (id, reservation) = loop {
            match self.find(&identity).await? {
                Found::New(id, reservation) => break (id, reservation),
                Found::Existing(attachment) => {
                    let id = attachment.id();
                    if let Some(joined) = self.join(attachment, &call.marks).await? {
                        self.keep_callback(id, callback.as_deref()).await?;
                        self.note_trace(id, marks::trace(call.headers));
                        return Ok(joined);
                    }
                }
            }
        };
        self.has_room(call)?;
        let fallback = self.fallback(call, &peeked);
        let lane = LaneKey {
            provider: Arc::from(call.provider.name.as_str()),
            account: account.fingerprint,
            endpoint: call.answered_by(),
            model: Arc::from(model),
            deadline_class: call
                .marks
                .deadline_at
                .map_or(0, |at| deadline_class(at, self.engine.clock().now(), fallback.may_rescue())),
        };
        if !self.engine.knows_account(account.fingerprint) {
            self.engine.keep_account(account).await.map_err(|error| unavailable(&error))?;
        }
        // Before the request: one that ends has its callback, whenever the process dies.
        self.keep_callback(id, callback.as_deref()).await?;
        let request = self.new_request(call, &peeked, id, &identity, (lane, fallback), &line);
        let trace = request.trace;
        let waiter = call.marks.waits().then(|| self.engine.waiters().register(id));
        let owed = request.options.has(RequestOptions::HOLD);
        let attachment = owed.then(|| self.engine.orphans().attach_new(id, identity.owed_as(), identity.attempt));
        self.store(request.clone(), line, reservation).await?;
        crash::point("accepted");
        self.note_trace(id, trace);
        Ok(Accepted { asked: asked_of(&request), pending: queued(request), waiter, attachment, answer: None })
    }

    async fn keep_callback(&self, id: RequestId, url: Option<&str>) -> Result<(), ApiError> {
        let Some(url) = url else { return Ok(()) };
        self.engine.keep_callback(id, url).await.map_err(|error| unavailable(&error))
    }

    /// From here on the request's id stands for the trace: in its batch line, in its answer, in what is logged of it.
    fn note_trace(&self, id: RequestId, trace: Option<TraceContext>) {
        if let Some(trace) = trace {
            self.engine.telemetry().request_traced(id, &trace);
        }
    }

    /// A request that is there already; none: it is gone, and the call is a new one.
    async fn join(&self, attachment: Attachment, marks: &Marks) -> Result<Option<Accepted>, ApiError> {
        let id = attachment.id();
        // Registered before the look: an answer that comes in between is not missed.
        let waiter = self.engine.waiters().register(id);
        let Some(StoredResult { record, body }) = self.once_stored(id).await? else {
            self.engine.forget(id);
            return Ok(None);
        };
        if was_abandoned(&record) {
            self.engine.forget(id);
            return Ok(None);
        }
        let answer = answer::stored(&record, body);
        let waiter = (answer.is_none() && marks.waits()).then_some(waiter);
        let asked = Asked::of(&record);
        Ok(Some(Accepted { asked, pending: Some(record), waiter, attachment: Some(attachment), answer }))
    }

    /// A request that is in the store, or is just being stored by another call.
    async fn once_stored(&self, id: RequestId) -> Result<Option<StoredResult>, ApiError> {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        loop {
            // Asked before the look: a commit between the two is seen by the look.
            let on_its_way = self.engine.is_being_accepted(id);
            let found = self.engine.store().result(id).await.map_err(|error| unavailable(&error))?;
            if found.is_some() || !on_its_way {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn identity(&self, call: &Deferral<'_>, account: Fingerprint, key: Option<&str>) -> Identity {
        let store = self.engine.store();
        let caller = call.caller.0;
        let endpoint = call.endpoint.as_str().as_bytes();
        Identity {
            body: store.fingerprint(&[b"body", &caller, &account.0, endpoint, &call.body]),
            key: key.map(|key| store.fingerprint(&[b"idempotency", &caller, &account.0, key.as_bytes()])),
            attempt: call.marks.attempt,
        }
    }

    /// Whether one more call may be taken in, be it new or one that joins a request.
    pub(crate) fn may_wait(&self, marks: &Marks) -> Result<(), ApiError> {
        if self.engine.is_draining() {
            return Err(ApiError::shutting_down("nightbus is stopping: send the call again after the restart"));
        }
        let most = self.config.limits.max_held_connections;
        if marks.waits() && self.engine.waiters().count() >= most {
            return Err(ApiError::queue_full(format!(
                "{most} connections are held already (limits.max_held_connections): send the call again later, or with Prefer: respond-async"
            )));
        }
        Ok(())
    }

    /// Whether one more request may be queued.
    fn has_room(&self, call: &Deferral<'_>) -> Result<(), ApiError> {
        let most = self.config.limits.max_queued_requests;
        let is_full = self.engine.queued_requests() >= most;
        if let Some(budget) = self.engine.used_up(call.marks.tag.as_deref(), call.key)
            && (is_full || call.marks.deadline_at.is_some_and(|at| at < budget.resets_at))
        {
            let whose = budget.scope.as_ref().map_or_else(
                || "the day's budget is used up (budget.daily_usd)".to_owned(),
                |scope| {
                    let (of, name) = scope.named();
                    format!("the day's budget of {of} \"{name}\" is used up (budget.limits)")
                },
            );
            return Err(ApiError::budget_exceeded(format!(
                "{whose} and what is queued waits for midnight (UTC): send the call again after that, or raise the budget"
            )));
        }
        if is_full {
            return Err(ApiError::queue_full(format!(
                "{most} requests are queued already (limits.max_queued_requests): send the call again later"
            )));
        }
        Ok(())
    }

    fn fits(&self, call: &Deferral<'_>, line: &Bytes) -> Result<(), ApiError> {
        let endpoint = call.answered_by();
        let length = line_length(LineForm::of(endpoint.api()), endpoint, u64::try_from(line.len()).unwrap_or(u64::MAX));
        let most = self.engine.capability(&call.provider.name).map_or(u64::MAX, |capability| capability.max_bytes);
        if length > most || u32::try_from(line.len()).is_err() {
            return Err(ApiError::too_large(format!(
                "the call takes {length} bytes as a batch line and the provider's batch file takes {most}: send it live"
            )));
        }
        Ok(())
    }

    /// Whether the provider has no batches, and a live call answers this one when there is a place.
    fn has_no_discount(&self, call: &Deferral<'_>) -> bool {
        self.engine.capability(&call.provider.name).is_some_and(|capability| capability.live_calls.is_some())
    }

    /// The services that may take this call over: the caller's list, else the configured one, without what the provider
    /// does not offer for the endpoint.
    fn fallback(&self, call: &Deferral<'_>, peeked: &Peek<'_>) -> Fallback {
        if self.has_no_discount(call) {
            // There is nothing else, and nothing to fall back from.
            return Fallback::of(&[Service::Sync]);
        }
        let listed = match &call.marks.fallback {
            // The caller's own list is taken at its word.
            Some(listed) => listed.clone(),
            None if call.marks.deadline_at.is_some() => with_windows(&self.config.deferral.fallback),
            None => self.config.deferral.fallback.clone(),
        };
        let endpoint = call.answered_by();
        let capability = self.engine.capability(&call.provider.name);
        let offered = |service: &Service| match service {
            Service::Flex => capability.is_some_and(|capability| capability.flex_endpoints.contains(&endpoint)),
            // The answer is fetched later: the provider has to keep it (providers.md, section 1.12).
            Service::Background8h | Service::Background2h => {
                endpoint == Endpoint::Responses
                    && !peeked.unstored
                    && capability.is_some_and(|capability| capability.windows.contains(service))
            }
            Service::Sync => true,
            Service::Batch => false,
        };
        Fallback::of(&listed.into_iter().filter(offered).collect::<Vec<_>>())
    }

    fn new_request(
        &self,
        call: &Deferral<'_>,
        peeked: &Peek<'_>,
        id: RequestId,
        identity: &Identity,
        (lane, fallback): (LaneKey, Fallback),
        line: &Bytes,
    ) -> NewRequest {
        let Template { identity: alike, most_output } = template(call.endpoint, &call.body);
        let flies = self.config.flight.enabled && !call.marks.no_flight;
        let hash = |alike: Vec<u8>| {
            let endpoint = call.endpoint.as_str().as_bytes();
            let (provider, model) = (lane.provider.as_bytes(), lane.model.as_bytes());
            self.engine.store().fingerprint(&[b"template", provider, &lane.account.0, endpoint, model, &alike])
        };
        NewRequest {
            id,
            caller: call.caller,
            template: alike.filter(|_| flies).map(hash),
            most_output,
            lane: Arc::new(lane),
            tag: call.marks.tag.clone(),
            key: call.key.map(str::to_owned),
            created_at: self.engine.clock().now(),
            deadline_at: call.marks.deadline_at,
            options: options_of(call, peeked, self.has_no_discount(call)).with_fallback(fallback),
            body_hash: identity.body,
            idempotency: identity.key,
            body_len: u32::try_from(line.len()).unwrap_or(u32::MAX),
            trace: marks::trace(call.headers),
        }
    }

    /// Ends whatever its caller does: a client that leaves now must not leave a request that is stored and not queued,
    /// nor a key that is free while its request is on its way into the store.
    async fn store(&self, request: NewRequest, line: Bytes, reservation: Option<Reservation>) -> Result<(), ApiError> {
        let engine = self.engine.clone();
        let storing = async move {
            let stored = engine.store().accept(request.clone(), line).await;
            drop(reservation);
            match stored {
                Ok(()) => {
                    engine.enqueue(&request);
                    Ok(())
                }
                Err(error) => {
                    engine.telemetry().store_failed(&error);
                    let error = unavailable(&error);
                    engine.refused(request.id, &error.message);
                    Err(error)
                }
            }
        };
        self.tasks.finish("accept", storing).await
    }
}

/// The body as its line holds it; the client's own bytes wherever that is possible.
fn line_body(call: &Deferral<'_>, peeked: &Peek<'_>, model: &str) -> Bytes {
    let body = &call.body;
    let renamed = model != peeked.model;
    if peeked.needs_edit || renamed || edit::has_line_breaks(body) {
        Bytes::from(edit::for_batch_line(body, not_in_a_line(call.endpoint.api()), renamed.then_some(model)))
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

/// The configured list with the background windows before the live price, unless it names one itself.
fn with_windows(listed: &[Service]) -> Vec<Service> {
    let names_one = listed.iter().any(|service| service.window().is_some());
    let before = |service: Service| {
        let windows: &[Service] =
            if service == Service::Sync && !names_one { &[Service::Background8h, Service::Background2h] } else { &[] };
        windows.iter().copied().chain([service])
    };
    listed.iter().copied().flat_map(before).collect()
}

fn options_of(call: &Deferral<'_>, peeked: &Peek<'_>, no_discount: bool) -> RequestOptions {
    [
        (peeked.stream, RequestOptions::STREAM),
        (peeked.include_usage, RequestOptions::INCLUDE_USAGE),
        (!call.marks.respond_async, RequestOptions::HOLD),
        (call.translated.is_some(), RequestOptions::FROM_CHAT),
        (no_discount, RequestOptions::NO_DISCOUNT),
    ]
    .into_iter()
    .filter(|(wanted, _)| *wanted)
    .fold(RequestOptions::default().with_inputs(peeked.inputs), |options, (_, bit)| options.with(bit))
}

fn asked_of(request: &NewRequest) -> Asked {
    Asked { id: request.id, endpoint: request.called(), options: request.options, created_at: request.created_at }
}

fn queued(request: NewRequest) -> Option<RequestRecord> {
    Some(RequestRecord {
        request,
        state: RequestState::Queued,
        submitted_at: None,
        finished_at: None,
        batch_id: None,
        attempts: 0,
        live: None,
        response: None,
        outcome: None,
    })
}
