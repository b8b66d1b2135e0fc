//! Live calls: from the client to the provider and back, so that neither can tell that somebody is between them.
//!
//! Method, path and query byte for byte, headers except hop-by-hop ones and nightbus's own, body and trailers both
//! ways, as they arrive and no faster than the other side reads. Errors of the provider are its own; only a
//! provider that cannot be reached is answered by nightbus. Dropping the future or the response body (the client
//! went away) ends the upstream call. Called by the router for everything that is not deferred.

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;

use crate::body::{self, Body};
use crate::config::ProviderConfig;
use crate::intake::respond::error_response;
use crate::tasks::Tasks;
use crate::upstream::client::UpstreamClient;
use crate::upstream::error::UpstreamError;
use crate::upstream::headers;
use crate::wire::api_error::ApiError;

/// Why a marked call was not deferred.
const PASSTHROUGH: HeaderName = HeaderName::from_static("x-nightbus-passthrough");

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The provider.
    pub provider: &'a ProviderConfig,
    /// What comes after its `base_url`, such as `/chat/completions?x=1`.
    pub path_and_query: &'a str,
    /// nightbus's own key, to be sent in place of the caller's credential.
    pub replace_credential: Option<&'a SecretString>,
}

/// Relays one call. `passthrough_reason` is told to the client in `x-nightbus-passthrough`.
///
/// `Upgrade` (websocket) is relayed when the request's extensions hold the [`Tasks`] that shall own the relay, as
/// the listener provides them; without, the provider sees a plain request.
pub async fn forward(
    client: &UpstreamClient,
    request: Request<Body>,
    target: Target<'_>,
    passthrough_reason: Option<&'static str>,
) -> Response<Body> {
    let (request, upgrade) = match prepare(request, &target) {
        Ok(prepared) => prepared,
        Err(error) => return error_response(target.provider.kind.api(), &error),
    };
    let mut response = match client.send(request).await {
        Ok(response) => match upgrade {
            Some(upgrade) if response.status() == StatusCode::SWITCHING_PROTOCOLS => upgrade.accept(response),
            _ => as_received(response),
        },
        Err(error) => failed(target.provider, &error),
    };
    if let Some(reason) = passthrough_reason {
        response.headers_mut().insert(PASSTHROUGH, HeaderValue::from_static(reason));
    }
    response
}

/// Makes the request that goes upstream out of the one that came in.
fn prepare(
    mut request: Request<Body>,
    target: &Target<'_>,
) -> Result<(Request<Body>, Option<PendingUpgrade>), ApiError> {
    if request.method() == Method::CONNECT {
        return Err(ApiError::invalid_request("nightbus is not a CONNECT proxy: call it as the API's base URL"));
    }
    let upgrade = PendingUpgrade::of(&mut request);
    *request.uri_mut() = upstream_uri(&target.provider.base_url, target.path_and_query)?;
    let from_http2 = request.version() == Version::HTTP_2;
    let host = host_of(&target.provider.base_url)?;
    let headers = request.headers_mut();
    headers::remove_hop_by_hop(headers);
    headers::remove_own(headers);
    headers.insert(HOST, host);
    if from_http2 {
        join_cookies(headers);
    }
    if let Some(key) = target.replace_credential {
        headers::set_credential(headers, target.provider.kind, key);
    }
    if let Some(upgrade) = &upgrade {
        upgrade.announce(headers);
    }
    Ok((request, upgrade))
}

/// `base_url` with the rest of the path appended as it is: no decoding, no normalising.
fn upstream_uri(base_url: &Uri, path_and_query: &str) -> Result<Uri, ApiError> {
    let base_path = base_url.path().trim_end_matches('/');
    let slash = if base_path.is_empty() && !path_and_query.starts_with('/') { "/" } else { "" };
    let joined = Bytes::from([base_path, slash, path_and_query].concat());
    let mut parts = http::uri::Parts::default();
    parts.scheme = base_url.scheme().cloned();
    parts.authority = base_url.authority().cloned();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(joined).map_err(|error| bad_path(&error))?);
    Uri::from_parts(parts).map_err(|error| bad_path(&error))
}

fn bad_path(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::invalid_request(format!("the path cannot be sent to the provider: {error}"))
}

/// The provider's `Host`, without user name and without the scheme's own port.
fn host_of(base_url: &Uri) -> Result<HeaderValue, ApiError> {
    let default_port = if base_url.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let host = base_url.host().unwrap_or_default();
    let value = match base_url.port_u16().filter(|port| *port != default_port) {
        Some(port) => HeaderValue::try_from(format!("{host}:{port}")),
        None => HeaderValue::from_str(host),
    };
    value.map_err(|error| bad_path(&error))
}

/// HTTP/2 may split `Cookie`; HTTP/1.1 wants one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// The provider's response in the form the client's connection needs.
fn as_received(mut response: Response<Body>) -> Response<Body> {
    headers::remove_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response
}

/// The answer when there is none from the provider.
fn failed(provider: &ProviderConfig, error: &UpstreamError) -> Response<Body> {
    let (cause, api) = (error.cause(), provider.kind.api());
    let provider = &provider.name;
    tracing::warn!(provider, cause, "a live call got no answer");
    let what = if error.is_unreachable() {
        format!("the provider \"{provider}\" cannot be reached")
    } else {
        format!("the provider \"{provider}\" did not answer")
    };
    error_response(api, &ApiError::upstream_unreachable(format!("{what}: {cause}")))
}

/// A client that asked for another protocol.
struct PendingUpgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
    tasks: Tasks,
}

impl PendingUpgrade {
    fn of(request: &mut Request<Body>) -> Option<Self> {
        if !headers::has_token(request.headers(), &CONNECTION, "upgrade") {
            return None;
        }
        // HTTP/2 is no protocol to be relayed blindly: the client gets HTTP/1.1, as from most providers.
        let protocol = request.headers().get(UPGRADE).filter(|protocol| *protocol != "h2c")?.clone();
        let tasks = request.extensions_mut().remove::<Tasks>()?;
        Some(Self { protocol, client: hyper::upgrade::on(request), tasks })
    }

    /// Puts back what was removed as hop-by-hop: this hop upgrades too.
    fn announce(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// The provider agreed: relays bytes both ways from now on, beside the connection.
    fn accept(self, mut response: Response<Body>) -> Response<Body> {
        let agreed = response.headers().get(UPGRADE).cloned();
        let provider = hyper::upgrade::on(&mut response);
        let client = self.client;
        self.tasks.spawn("upgrade relay", async move {
            let (client, provider) = match futures_util::try_join!(client, provider) {
                Ok(both) => both,
                Err(error) => return tracing::debug!(%error, "an upgrade was not completed"),
            };
            let relayed = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(provider)).await;
            if let Err(error) = relayed {
                tracing::debug!(%error, "an upgraded connection broke off");
            }
        });
        let mut response = as_received(response.map(|_none| body::empty()));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, agreed.unwrap_or(self.protocol));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(base: &str, rest: &str) -> String {
        upstream_uri(&base.parse().unwrap(), rest).unwrap().to_string()
    }

    #[test]
    fn the_path_is_appended_byte_for_byte() {
        assert_eq!(uri("https://a/v1", "/chat/completions?x=1"), "https://a/v1/chat/completions?x=1");
        assert_eq!(uri("https://a/v1/", "/x//..%2F/%7e?q=%20+&&"), "https://a/v1/x//..%2F/%7e?q=%20+&&");
        assert_eq!(uri("http://a:8000", "/models"), "http://a:8000/models");
        assert_eq!(uri("http://a:8000", "?x"), "http://a:8000/?x");
        assert_eq!(uri("http://a/v1", "?x=1"), "http://a/v1?x=1");
        assert_eq!(uri("http://a/v1", ""), "http://a/v1");
    }

    #[test]
    fn host_is_the_providers_without_user_and_default_port() {
        let host = |base: &str| host_of(&base.parse().unwrap()).unwrap();
        assert_eq!(host("https://api.openai.com/v1"), "api.openai.com");
        assert_eq!(host("https://u:p@h:443/v1"), "h");
        assert_eq!(host("http://[::1]:8000/v1"), "[::1]:8000");
    }

    #[test]
    fn cookie_crumbs_become_one_cookie() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
