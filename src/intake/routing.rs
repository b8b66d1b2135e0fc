//! `[[routes]]`: a call whose model another provider serves, with everything that goes there.
//!
//! Invariant: a caller's credential goes to the provider that it was sent for and to no other. Only for calls whose path
//! names no provider; called by the service once a body is known, before anything is decided about the call.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, USER_AGENT};

use crate::config::{Config, ProviderConfig, ProviderKind, RouteConfig};
use crate::domain::lane::{Api, Endpoint};
use crate::wire::api_error::ApiError;
use crate::wire::edit;
use crate::wire::peek::{peek, without_batch_suffix};
use crate::wire::translate::{Translated, messages_request};

/// The version that the mapping was made for (providers.md, section 2.6).
const ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// What a caller proves itself with, and what names its account.
const CREDENTIALS: [&str; 6] =
    ["authorization", "api-key", "x-api-key", "cookie", "openai-organization", "openai-project"];

/// Where a route sends a call.
#[derive(Debug)]
pub(crate) struct Routed<'c> {
    pub(crate) provider: &'c ProviderConfig,
    /// In the caller's API shape, with the model it is sent with.
    pub(crate) body: Bytes,
    /// The headers that go there.
    pub(crate) headers: HeaderMap,
    /// The same call in the provider's API shape, if that is another one.
    pub(crate) chat: Option<TranslatedChat>,
}

/// A chat completions call that a provider of Anthropic's shape answers.
#[derive(Clone, Debug)]
pub(crate) struct TranslatedChat {
    pub(crate) request: Translated,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl TranslatedChat {
    /// The body of the live call.
    pub(crate) fn live_body(&self) -> Vec<u8> {
        if self.stream { self.request.streaming() } else { self.request.body.clone() }
    }
}

/// A model's route, and the model without the mark.
fn route_of<'c>(config: &'c Config, body: &[u8]) -> Option<(&'c RouteConfig, String)> {
    if config.routes.is_empty() {
        return None;
    }
    let model = edit::model_of_prefix(body)?;
    let name = without_batch_suffix(&model).unwrap_or(&model);
    let route = config.routes.iter().find(|route| route.model.is_match(name))?;
    Some((route, model))
}

/// Whether a body of which only the beginning is there would be sent elsewhere.
pub(crate) fn is_routed(config: &Config, prefix: &[u8]) -> bool {
    route_of(config, prefix).is_some()
}

/// Where a call goes that came for `from`; none: there.
pub(crate) fn routed<'c>(
    config: &'c Config,
    from: &ProviderConfig,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Option<Routed<'c>>, ApiError> {
    let Some((route, model)) = route_of(config, body) else { return Ok(None) };
    let Some(provider) = config.providers.get(&route.provider) else { return Ok(None) };
    let bare = without_batch_suffix(&model);
    let sent = route.rename.as_deref().unwrap_or_else(|| bare.unwrap_or(&model));
    let is_same = provider.name == from.name;
    if is_same && route.rename.is_none() && endpoint.api() == provider.kind.api() {
        // It goes where it came for, as it is.
        return Ok(None);
    }
    if !is_same && provider.api_key.is_none() {
        return Err(ApiError::unauthorized(format!(
            "the model {model:?} is routed to the provider {0:?}, to which the caller's key is never sent: set \
             providers.{0}.api_key_env in proxy.toml",
            provider.name
        )));
    }
    let (body, chat) = match (endpoint, provider.kind.api()) {
        (Endpoint::ChatCompletions, Api::Anthropic) => (body.clone(), Some(translated(body, sent)?)),
        (endpoint, api) if endpoint.api() == api => {
            let mark = if bare.is_some() { ":batch" } else { "" };
            let body = match &route.rename {
                Some(name) => Bytes::from(edit::with_model(body, &format!("{name}{mark}"))),
                None => body.clone(),
            };
            (body, None)
        }
        _ => {
            return Err(ApiError::invalid_request(format!(
                "{endpoint}: the model {model:?} is routed to the provider {:?}, whose API has no such endpoint, and only \
                 chat completions are translated: call it by its own API",
                provider.name
            ))
            .about("model"));
        }
    };
    let headers = upstream_headers(headers, is_same, chat.is_some());
    Ok(Some(Routed { provider, body, headers, chat }))
}

fn translated(body: &Bytes, model: &str) -> Result<TranslatedChat, ApiError> {
    let peeked = peek(Endpoint::ChatCompletions, body).map_err(|error| {
        let refused = ApiError::invalid_request(error.message);
        error.param.map_or_else(|| refused.clone(), |param| refused.clone().about(param))
    })?;
    let request = messages_request(body, model)
        .map_err(|refused| ApiError::invalid_request(refused.to_string()).about(refused.field))?;
    Ok(TranslatedChat { request, stream: peeked.stream, include_usage: peeked.include_usage })
}

/// What goes to the provider: without the caller's credential where it is another one, and of a translated call only
/// what is known to mean the same there.
fn upstream_headers(headers: &HeaderMap, is_same: bool, is_translated: bool) -> HeaderMap {
    if !is_translated {
        let mut sent = headers.clone();
        if !is_same {
            for name in CREDENTIALS {
                sent.remove(name);
            }
        }
        return sent;
    }
    let own = [AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key"), COOKIE];
    let kept = own.into_iter().filter(|_| is_same).chain([USER_AGENT, ANTHROPIC_BETA]);
    let mut sent: HeaderMap = kept.filter_map(|name| Some((name.clone(), headers.get(&name)?.clone()))).collect();
    sent.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    sent.insert(ProviderKind::VERSION_HEADER, ANTHROPIC_VERSION);
    sent
}
