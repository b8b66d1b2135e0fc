//! The way of a call on the main listener: guard, route, caller, marks, then deferred, live, or one of nightbus's
//! own routes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_ENCODING, HeaderValue, ORIGIN, USER_AGENT};
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;

use crate::body::Body;
use crate::config::{BatchWire, ProviderConfig, ProviderKind};
use crate::domain::lane::{Api, Endpoint};
use crate::intake::accepted::Accepted;
use crate::intake::accounts::SeenAccounts;
use crate::intake::call_body::{self, CallBody, WholeBody};
use crate::intake::caller::{self, Caller};
use crate::intake::classify::{self, Call, Mark};
use crate::intake::client::Client;
use crate::intake::cors;
use crate::intake::defer::{Deferral, Desk, NotDeferred};
use crate::intake::listener::ConnectionInfo;
use crate::intake::marks::{self, Marks};
use crate::intake::meter::{self, Meter, Metered};
use crate::intake::passthrough::{self, Target};
use crate::intake::respond::error_response;
use crate::intake::results::OwnCall;
use crate::intake::route::{Route, deferrable_endpoint, is_messages, path_of, route};
use crate::intake::routing::{self, Routed, TranslatedChat};
use crate::intake::translated;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::with_api_version;
use crate::upstream::headers;
use crate::wire::api_error::ApiError;
use crate::wire::edit;
use crate::wire::peek::{may_have_batch_suffix, without_batch_suffix};

/// The main listener's service.
#[derive(Clone, Debug)]
pub struct Intake {
    desk: Arc<Desk>,
    client: UpstreamClient,
    meter: Meter,
    accounts: Arc<SeenAccounts>,
}

/// A call of a provider's API, as far as it is known from its head.
struct ApiCall<'a> {
    provider: &'a ProviderConfig,
    /// The path names its provider: no route applies.
    named: bool,
    rest: &'a str,
    batch: bool,
    /// A route sends it to a provider of another API shape.
    chat: Option<TranslatedChat>,
    caller: Caller<'a>,
    marks: Marks,
    connection: &'a ConnectionInfo,
}

impl ApiCall<'_> {
    /// The endpoint of the provider that answers a call of `endpoint`.
    const fn answered_by(&self, endpoint: Endpoint) -> Endpoint {
        if self.chat.is_some() { Endpoint::Messages } else { endpoint }
    }

    /// Name of the client key it came with.
    fn key(&self) -> Option<&str> {
        self.caller.client.map(|client| client.name.as_str())
    }

    /// For the search for its mark.
    fn described<'a>(&'a self, headers: &'a HeaderMap, uri: &'a http::Uri, body: Option<&'a [u8]>) -> Call<'a> {
        Call {
            marks: &self.marks,
            batch_prefix: self.batch,
            path: uri.path(),
            user_agent: headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default(),
            key: self.key(),
            body,
        }
    }
}

/// What became of a call.
enum Answered {
    /// It is answered.
    Now(Response<Body>),
    /// It is durable; its caller waits.
    Later(BoxFuture<'static, Response<Body>>),
}

impl Intake {
    /// Over a running engine.
    pub fn new(
        config: Arc<crate::config::Config>,
        engine: crate::engine::Engine,
        tasks: crate::tasks::Tasks,
        client: UpstreamClient,
    ) -> Self {
        let meter = Meter::start(&engine, Arc::clone(&config.prices), &tasks);
        Self { desk: Arc::new(Desk { config, engine, tasks }), client, meter, accounts: Arc::default() }
    }

    /// The same with another configuration: for calls from now on.
    #[must_use]
    pub fn with_config(&self, config: Arc<crate::config::Config>) -> Self {
        let Desk { engine, tasks, config: old } = &*self.desk;
        let meter = match old.prices == config.prices {
            true => self.meter.clone(),
            // The old one ends with its last call.
            false => Meter::start(engine, Arc::clone(&config.prices), tasks),
        };
        let desk = Desk { config, engine: engine.clone(), tasks: tasks.clone() };
        Self { desk: Arc::new(desk), meter, ..self.clone() }
    }

    /// Answers one call. While it is held, nothing of the request is kept: its head would pin the connection's read buffer.
    ///
    /// Not an `async fn`, which keeps room for all that it was given beside what it waits with: held calls are many.
    pub fn handle(
        self,
        request: Request<Incoming>,
        info: ConnectionInfo,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        let origin = request.headers().get(ORIGIN).cloned();
        let api = self.api_of(&request);
        let guarded = Box::pin(self.guarded(request, info));
        async move {
            let (desk, result) = guarded.await;
            let mut response = match result {
                Ok(Answered::Now(response)) => response,
                Ok(Answered::Later(waiting)) => waiting.await,
                Err(error) => {
                    desk.engine.telemetry().request_refused(error.code);
                    error_response(api, &error)
                }
            };
            cors::let_read(&desk.config.cors.allow_origins, origin, response.headers_mut());
            response
        }
    }

    /// What becomes of a call, with what the rest of its way needs.
    async fn guarded(
        self,
        request: Request<Incoming>,
        info: ConnectionInfo,
    ) -> (Arc<Desk>, Result<Answered, ApiError>) {
        let config = &self.desk.config;
        let allowed = cors::guard(&config.cors.allow_origins, request.headers());
        let result = match allowed.and_then(|()| cors::guard_host(config, &request)) {
            Ok(()) if cors::is_preflight(&request) => Ok(Answered::Now(cors::preflight(request.headers()))),
            Ok(()) => self.route(request, &info).await,
            Err(error) => Err(error),
        };
        (self.desk, result)
    }

    /// The provider of a call that names one or none. Messages go to one of kind `anthropic`; so do other calls whose
    /// `anthropic-version` says that they are meant for it: its SDKs have one base URL for all of them.
    fn provider_name<'a>(&'a self, named: Option<&'a str>, rest: &str, headers: &HeaderMap) -> &'a str {
        let config = &self.desk.config;
        let default = config.default_provider.as_str();
        if let Some(named) = named {
            return named;
        }
        if !is_messages(rest) && !headers.contains_key(ProviderKind::VERSION_HEADER) {
            return default;
        }
        let is_anthropic =
            |name: &str| config.providers.get(name).is_some_and(|provider| provider.kind == ProviderKind::Anthropic);
        let preferred = [default, ProviderKind::Anthropic.as_str()].into_iter();
        preferred.chain(config.providers.keys().map(String::as_str)).find(|name| is_anthropic(name)).unwrap_or(default)
    }

    /// In whose envelope errors are told.
    fn api_of(&self, request: &Request<Incoming>) -> Api {
        let config = &self.desk.config;
        let path = request.uri().path();
        match route(request.method(), path, |name| config.providers.contains_key(name)) {
            Route::Api { provider, rest, .. } => {
                // Whoever answers it in the end: a caller of chat completions reads OpenAI's envelope.
                if let Some(endpoint) = deferrable_endpoint(request.method(), rest) {
                    return endpoint.api();
                }
                let name = self.provider_name(provider, rest, request.headers());
                config.providers.get(name).map_or(Api::OpenAi, |provider| provider.kind.api())
            }
            Route::Own(_) | Route::Webhook(_) | Route::DeferredCompletion(_) | Route::Unknown => Api::OpenAi,
        }
    }

    async fn route(&self, request: Request<Incoming>, info: &ConnectionInfo) -> Result<Answered, ApiError> {
        let desk = &*self.desk;
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let providers = &desk.config.providers;
        let place = route(request.method(), &path, |name| providers.contains_key(name));
        if place == Route::Unknown {
            return Err(ApiError::not_found(format!(
                "no route for {:?}: the base URL is http://…/v1, /PROVIDER/v1 or /batch/v1",
                path_of(&path)
            )));
        }
        if let Route::Webhook(provider) = place {
            return desk.webhook(provider, request).await.map(Answered::Now);
        }
        let caller = caller::identify(&desk.config, request.headers())?;
        let marks = marks::read(request.headers(), desk.engine.clock().now())?;
        match place {
            Route::Api { provider, rest, batch } => {
                let name = self.provider_name(provider, rest, request.headers());
                let named = provider.is_some();
                let provider =
                    providers.get(name).ok_or_else(|| ApiError::not_found(format!("no provider {name:?}")))?;
                caller.may_use(name)?;
                let call = ApiCall { provider, named, rest, batch, chat: None, caller, marks, connection: info };
                self.api_call(request, call).await
            }
            Route::Own(path_only) => {
                let query = path.split_once('?').map_or("", |(_, query)| query);
                let call = OwnCall {
                    method: request.method(),
                    path: path_only,
                    query,
                    caller: caller.fingerprint(&**desk.engine.store(), request.headers()),
                    wait: marks.wait,
                };
                desk.own_route(&call, self.client_of(request.headers(), request.version(), info))
                    .await
                    .map(Answered::Now)
            }
            Route::DeferredCompletion(id) => {
                let caller = caller.fingerprint(&**desk.engine.store(), request.headers());
                desk.deferred_completion(id, caller).await.map(Answered::Now)
            }
            Route::Webhook(_) | Route::Unknown => Err(ApiError::not_found("no such route")),
        }
    }

    async fn api_call(&self, request: Request<Incoming>, call: ApiCall<'_>) -> Result<Answered, ApiError> {
        let Some(endpoint) = deferrable_endpoint(request.method(), call.rest) else {
            // Rules and the default are for calls that could be deferred: they do not make every other call tell why it is live.
            let reason = call.marks.defer.unwrap_or(call.batch).then_some("endpoint-not-batchable");
            return Ok(Answered::Now(self.live(request.map(body_of), &call, reason, None).await));
        };
        if call.marks.defer.unwrap_or(call.batch)
            && classify::is_on(&self.desk.config)
            && self.is_capable(&call, endpoint)
        {
            // A call that would be refused anyway is refused before its body is read.
            self.desk.may_wait(&call.marks)?;
        }
        let (parts, incoming) = request.into_parts();
        let body = match call_body::read(incoming, self.desk.config.limits.max_body_bytes).await? {
            CallBody::Whole(body) => body,
            CallBody::TooLong { prefix, body } => {
                let request = Request::from_parts(parts, body);
                let reason = self.too_long(&request, &prefix, &call, self.is_capable(&call, endpoint))?;
                let metered = self.metered(request.headers(), &call, endpoint, &prefix);
                drop(prefix);
                return Ok(Answered::Now(self.live(request, &call, reason, metered).await));
            }
        };
        let bytes = body.bytes();
        let routed = match call.named {
            true => None,
            false => routing::routed(&self.desk.config, call.provider, endpoint, &parts.headers, &bytes)?,
        };
        let Some(routed) = routed else { return Box::pin(self.whole_call(parts, None, call, endpoint, body)).await };
        let Routed { provider, body, headers, chat } = routed;
        call.caller.may_use(&provider.name)?;
        let rest = if chat.is_some() { Endpoint::Messages.relative() } else { call.rest };
        let call = ApiCall { provider, rest, chat, ..call };
        Box::pin(self.whole_call(parts, Some(headers), call, endpoint, WholeBody::of(body))).await
    }

    /// Who waits, for calls that may wait.
    fn client_of(&self, headers: &HeaderMap, version: Version, connection: &ConnectionInfo) -> Client {
        let client = Client::of(headers, version, connection.interim.as_ref(), &self.desk.config.hold);
        Client { carrier: connection.carrier.clone(), ..client }
    }

    fn is_capable(&self, call: &ApiCall<'_>, endpoint: Endpoint) -> bool {
        let capability = self.desk.engine.capability(&call.provider.name);
        capability.is_some_and(|capability| capability.endpoints.contains(&call.answered_by(endpoint)))
    }

    /// A call whose body is there: deferred or live. `upstream`: the headers that go to the provider, if not the caller's.
    async fn whole_call(
        &self,
        mut parts: http::request::Parts,
        upstream: Option<HeaderMap>,
        call: ApiCall<'_>,
        endpoint: Endpoint,
        body: WholeBody,
    ) -> Result<Answered, ApiError> {
        let bytes = body.bytes();
        let (mark, suffix) =
            classify::classify(&self.desk.config, &call.described(&parts.headers, &parts.uri, Some(&bytes)));
        let is_capable = self.is_capable(&call, endpoint);
        let mut observed = false;
        let reason = match mark {
            Mark::Live => None,
            Mark::Defer if classify::observes(&self.desk.config) && is_capable => {
                observed = true;
                // What the configuration alone would defer is not touched at all.
                call.marks.defer.unwrap_or(call.batch || suffix).then_some("observe")
            }
            Mark::Defer if !classify::is_on(&self.desk.config) => Some(off(&self.desk.config)),
            Mark::Defer if !is_capable => Some(not_batchable(call.provider)),
            Mark::Defer => match self.defer(&parts.headers, upstream.as_ref(), &call, endpoint, &bytes).await? {
                Ok(accepted) => {
                    let client = self.client_of(&parts.headers, parts.version, call.connection);
                    return Ok(Answered::Later(accepted.answer(Arc::clone(&self.desk), &call.marks, client)));
                }
                Err(reason) => Some(reason),
            },
        };
        // The ledger knows the call as the provider does.
        let sent_body = match &call.chat {
            Some(chat) => chat.request.body.as_slice(),
            None => bytes.as_ref(),
        };
        let metered = self
            .metered(upstream.as_ref().unwrap_or(&parts.headers), &call, endpoint, sent_body)
            .map(|metered| Metered { observed: observed.then(|| meter::program(&parts.headers)), ..metered });
        let is_routed = upstream.is_some();
        if let Some(headers) = upstream {
            parts.headers = headers;
        }
        let request = match &call.chat {
            Some(chat) => call_body::with_body(parts, Bytes::from(chat.live_body())),
            None if suffix => call_body::without_suffix(parts, &bytes),
            None if is_routed => call_body::with_body(parts, bytes),
            None => Request::from_parts(parts, body.into_body()),
        };
        let response = self.live(request, &call, reason, metered).await;
        let Some(chat) = call.chat else { return Ok(Answered::Now(response)) };
        let created = self.desk.engine.clock().now().unix_seconds();
        Ok(Answered::Now(translated::answer(response, created, chat.include_usage).await))
    }

    /// Why a call that is too long to be deferred goes live, if it was marked. One that asks for deferral itself (by
    /// header, prefix or suffix) is refused: it must not be bought at twice the price that it asked for.
    fn too_long(
        &self,
        request: &Request<Body>,
        prefix: &[u8],
        call: &ApiCall<'_>,
        capable: bool,
    ) -> Result<Option<&'static str>, ApiError> {
        let config = &self.desk.config;
        if !call.named && routing::is_routed(config, prefix) {
            return Err(ApiError::too_large(format!(
                "a call that [[routes]] send elsewhere may have {} bytes (limits.max_body_bytes): raise it",
                config.limits.max_body_bytes
            )));
        }
        // The cheap look first: a body of this size is not parsed for nothing.
        let suffixed = || {
            may_have_batch_suffix(prefix)
                && edit::model_of_prefix(prefix).is_some_and(|model| without_batch_suffix(&model).is_some())
        };
        let asked = call.marks.defer.unwrap_or_else(|| call.batch || suffixed());
        let marked = asked
            || (call.marks.defer.is_none() && {
                let described = call.described(request.headers(), request.uri(), None);
                classify::may_be_marked_by_configuration(config, &described)
            });
        if !marked {
            Ok(None)
        } else if !classify::is_on(config) {
            Ok(Some(off(config)))
        } else if !capable {
            Ok(Some(not_batchable(call.provider)))
        } else if asked {
            Err(ApiError::too_large(format!(
                "a deferred call may have {} bytes (limits.max_body_bytes): raise it, or send the call live",
                config.limits.max_body_bytes
            )))
        } else {
            Ok(Some("too-large"))
        }
    }

    /// Makes a call durable. The inner error: the call goes live, for this reason.
    async fn defer(
        &self,
        headers: &HeaderMap,
        upstream_headers: Option<&HeaderMap>,
        call: &ApiCall<'_>,
        endpoint: Endpoint,
        body: &Bytes,
    ) -> Result<Result<Accepted, &'static str>, ApiError> {
        refuse_encoded(headers)?;
        let deferral = Deferral {
            provider: call.provider,
            endpoint,
            caller: call.caller.fingerprint(&**self.desk.engine.store(), headers),
            marks: call.marks.clone(),
            headers,
            upstream_headers: upstream_headers.unwrap_or(headers),
            body: body.clone(),
            translated: call.chat.as_ref().map(|chat| &chat.request),
            key: call.key(),
        };
        match Box::pin(self.desk.accept(&deferral)).await {
            Ok(accepted) => Ok(Ok(accepted)),
            Err(NotDeferred::Live(reason)) => Ok(Err(reason)),
            Err(NotDeferred::Refused(error)) => Err(error),
        }
    }

    async fn live(
        &self,
        mut request: Request<Body>,
        call: &ApiCall<'_>,
        reason: Option<&'static str>,
        metered: Option<Metered>,
    ) -> Response<Body> {
        if reason.is_some() {
            // The call was meant for nightbus; on an unmarked one these headers are the provider's.
            headers::remove_consumed(request.headers_mut());
        }
        let versioned = call.provider.api_version.as_deref().map(|version| with_api_version(call.rest, version));
        let target = Target {
            provider: call.provider,
            path_and_query: versioned.as_deref().unwrap_or(call.rest),
            replace_credential: call.provider.api_key.as_ref().map(|key| &key.value),
        };
        let response = passthrough::forward(&self.client, request, target, reason).await;
        self.desk.engine.telemetry().passthrough_finished(&call.provider.name, response.status().as_u16(), reason);
        match metered {
            Some(metered) => self.meter.watch(response, metered),
            None => response,
        }
    }

    /// What the ledger needs to know of a live call; none: the endpoint has no price.
    fn metered(&self, headers: &HeaderMap, call: &ApiCall<'_>, endpoint: Endpoint, body: &[u8]) -> Option<Metered> {
        if endpoint == Endpoint::Moderations {
            return None;
        }
        // The mark at its end is nightbus's own.
        let model = edit::model_of_prefix(body)
            .map(|model| without_batch_suffix(&model).map_or_else(|| model.clone(), str::to_owned));
        Some(Metered {
            provider: Arc::from(call.provider.name.as_str()),
            kind: call.provider.kind.as_str(),
            account: self.accounts.fingerprint(&**self.desk.engine.store(), call.provider, headers),
            model,
            endpoint,
            tag: call.marks.tag.clone(),
            key: call.key().map(str::to_owned),
            observed: None,
        })
    }
}

/// Why a marked call is live where the provider has no batch for it.
fn not_batchable(provider: &ProviderConfig) -> &'static str {
    let has_batches = !matches!(provider.kind.batch_wire(), BatchWire::None) || provider.endpoints.is_some();
    if has_batches { "endpoint-not-batchable" } else { "provider-has-no-batch" }
}

/// Why a marked call is live when nothing is deferred.
fn off(config: &crate::config::Config) -> &'static str {
    if classify::observes(config) { "observe" } else { "deferral-off" }
}

fn body_of(incoming: Incoming) -> Body {
    http_body_util::BodyExt::boxed_unsync(http_body_util::BodyExt::map_err(incoming, Into::into))
}

/// A batch line is plain JSON, and nothing here decompresses what a caller sends.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let message = "content-encoding: a deferred call cannot be compressed: send it uncompressed, or send it live";
    Err(ApiError::invalid_request(message).about("content-encoding"))
}
