//! Who is calling, and with which credential the provider is called for them.
//!
//! With `[[client_keys]]` the caller's key is nightbus's own business and never goes upstream; without, the caller's
//! key is the provider's and passes through. Keys are compared in constant time and kept only sealed.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{ClientKey, Config, ProviderConfig, ProviderKind};
use crate::domain::lane::Fingerprint;
use crate::store::{Account, Store};
use crate::wire::api_error::ApiError;

/// A caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller<'a> {
    /// The configured client key it used.
    pub(crate) client: Option<&'a ClientKey>,
}

/// Headers that carry a credential. All of them count: two callers that share one but differ in another are different.
pub(crate) const CREDENTIAL_HEADERS: [HeaderName; 3] = [AUTHORIZATION, ProviderKind::API_KEY, ProviderKind::X_API_KEY];

/// Finds out who is calling.
pub(crate) fn identify<'a>(config: &'a Config, headers: &HeaderMap) -> Result<Caller<'a>, ApiError> {
    if config.client_keys.is_empty() {
        return Ok(Caller { client: None });
    }
    let Some(token) = token(headers) else {
        return Err(ApiError::unauthorized("no client key: send one of the configured keys as the API key"));
    };
    // All keys are compared, so that the time tells nothing about which one matched.
    let client =
        config.client_keys.iter().fold(None, |found, key| if matches(&key.key, token) { Some(key) } else { found });
    let client =
        client.ok_or_else(|| ApiError::unauthorized("unknown client key: ask whoever runs nightbus for one"))?;
    Ok(Caller { client: Some(client) })
}

/// Names and values, as they were sent.
fn credentials(headers: &HeaderMap) -> Vec<(HeaderName, &[u8])> {
    let value = |name: HeaderName| headers.get(&name).map(|value| (name, value.as_bytes()));
    CREDENTIAL_HEADERS.into_iter().filter_map(value).filter(|(_, value)| !value.is_empty()).collect()
}

/// The same, but a key alone in `x-api-key` stands as the bearer token that it could have been sent as: both forms are one
/// credential (providers.md, section 2.1), and one SDK's versions differ in it.
fn identity(headers: &HeaderMap) -> Vec<(HeaderName, Cow<'_, [u8]>)> {
    let sent = credentials(headers);
    match sent.as_slice() {
        [(name, key)] if *name == ProviderKind::X_API_KEY => {
            vec![(AUTHORIZATION, Cow::Owned([b"Bearer ".as_slice(), key].concat()))]
        }
        _ => sent.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect(),
    }
}

fn parts<'a>(what: &'a [u8], named: &'a [(HeaderName, Cow<'_, [u8]>)]) -> Vec<&'a [u8]> {
    std::iter::once(what).chain(named.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), &**value])).collect()
}

/// All lines of a header as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    (!lines.is_empty()).then(|| lines.join(b",".as_slice()))
}

impl Caller<'_> {
    /// Stands for the credential: what it made, only it may see. Live calls do without.
    pub(crate) fn fingerprint(&self, store: &dyn Store, headers: &HeaderMap) -> Fingerprint {
        match self.client {
            Some(client) => store.fingerprint(&[b"client", client.name.as_bytes()]),
            None => store.fingerprint(&parts(b"caller", &identity(headers))),
        }
    }

    /// Whether this caller may use the provider.
    pub(crate) fn may_use(&self, provider: &str) -> Result<(), ApiError> {
        let allowed = self
            .client
            .and_then(|client| client.providers.as_ref())
            .is_none_or(|providers| providers.iter().any(|allowed| allowed == provider));
        if allowed {
            Ok(())
        } else {
            Err(ApiError::unauthorized(format!("this client key may not use the provider {provider:?}")))
        }
    }
}

/// The upstream credential for a deferred call.
pub(crate) fn account(store: &dyn Store, provider: &ProviderConfig, headers: &HeaderMap) -> Result<Account, ApiError> {
    let mut kept: Vec<(HeaderName, Vec<u8>)> = Vec::with_capacity(4);
    if provider.api_key.is_none() {
        kept.extend(credentials(headers).into_iter().map(|(name, value)| (name, value.to_vec())));
        if kept.is_empty() {
            return Err(ApiError::unauthorized(
                "no API key: a deferred call needs the provider's key in its own header, or api_key_env in proxy.toml",
            ));
        }
    }
    if provider.kind == ProviderKind::Anthropic && !headers.contains_key(ProviderKind::VERSION_HEADER) {
        let message = "anthropic-version: the header is required, such as 2023-06-01";
        return Err(ApiError::invalid_request(message).about(ProviderKind::ANTHROPIC_VERSION));
    }
    kept.extend(lane_headers(provider, headers));
    Ok(Account {
        fingerprint: account_fingerprint(store, provider, headers),
        provider: provider.name.clone(),
        headers: kept.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect(),
    })
}

/// Stands for the upstream credential of any call; the same as [`account`] has.
pub(crate) fn account_fingerprint(store: &dyn Store, provider: &ProviderConfig, headers: &HeaderMap) -> Fingerprint {
    let mut same_as = if provider.api_key.is_none() { identity(headers) } else { Vec::new() };
    same_as.extend(lane_headers(provider, headers).map(|(name, value)| (name, Cow::Owned(value))));
    let env = provider.api_key.as_ref().map_or("", |key| key.env.as_str());
    let mut hashed = parts(b"account", &same_as);
    hashed.extend([provider.name.as_bytes(), env.as_bytes()]);
    store.fingerprint(&hashed)
}

/// The headers beside the credential that decide who pays, and by which version of the API.
fn lane_headers(provider: &ProviderConfig, headers: &HeaderMap) -> impl Iterator<Item = (HeaderName, Vec<u8>)> {
    let names = provider.kind.lane_headers().iter();
    names.filter_map(|name| joined(headers, name).map(|value| (name.clone(), value)))
}

/// The key itself, whichever header it came in.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).map(|value| {
        let value = value.as_bytes();
        match value.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => value,
        }
    });
    bearer
        .or_else(|| headers.get(ProviderKind::X_API_KEY).map(|value| value.as_bytes()))
        .or_else(|| headers.get(ProviderKind::API_KEY).map(|value| value.as_bytes()))
        .filter(|token| !token.is_empty())
}

fn matches(key: &SecretString, token: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(key.expose_secret().as_bytes(), token).is_ok()
}
