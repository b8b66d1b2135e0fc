//! Web pages on the main listener (contract, section 2): refused unless their origin is listed, and told what they
//! may read if it is.
//!
//! Invariant: nothing of a page that is not listed comes further than [`guard`] and [`guard_host`], whatever its browser
//! leaves out. Called by `service` before and after everything else; the admin listener's guard reads the host here, too.

use std::net::IpAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use crate::body::{self, Body};
use crate::config::Config;
use crate::wire::api_error::ApiError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a listed page may read beside the body. Browsers show a page no other header, and take `*` literally where
/// credentials are sent.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-nightbus-request-id, x-nightbus-state, x-nightbus-service, x-nightbus-batch-id, x-nightbus-wait-ms, \
     x-nightbus-cost-usd, x-nightbus-saved-usd, x-nightbus-expected-at, x-nightbus-passthrough, location, retry-after, preference-applied, \
     x-request-id, x-should-retry",
);

/// A web page must not spend or read anything through a browser. Browsers leave `Origin` out of what a page loads as
/// an image or a script, but say by `Sec-Fetch-Site` that it comes from elsewhere; programs send neither.
pub(crate) fn guard(allowed: &[String], headers: &HeaderMap) -> Result<(), ApiError> {
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    let passes = if origins.peek().is_some() {
        origins.all(|origin| allows(allowed, origin))
    } else {
        let elsewhere = |site: &HeaderValue| matches!(site.as_bytes(), b"cross-site" | b"same-site");
        !headers.get_all(SEC_FETCH_SITE).iter().any(elsewhere)
    };
    if passes {
        return Ok(());
    }
    Err(ApiError::forbidden_origin(
        "calls from web pages are refused: list the page's origin in cors.allow_origins to allow it",
    ))
}

/// Whether a host name may be one that a page's owner has pointed here (DNS rebinding). For such a page this is its own
/// origin: its browser sends neither `Origin` nor `Sec-Fetch-Site` with what it reads (with all that writes it does). Only a
/// public name can be a stranger's, and there is something to read only where nightbus's own key answers whoever asks.
pub(crate) fn guard_host<B>(config: &Config, request: &Request<B>) -> Result<(), ApiError> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let gives_to_anybody =
        config.client_keys.is_empty() && config.providers.values().any(|provider| provider.api_key.is_some());
    if !reads || !gives_to_anybody || request.headers().contains_key(ORIGIN) {
        return Ok(());
    }
    // Without a host there is no browser.
    let Some(host) = host_of(request.headers(), request.uri()) else { return Ok(()) };
    let is_listed =
        |allowed: &String| allowed.eq_ignore_ascii_case(host.host()) || allowed.eq_ignore_ascii_case(host.as_str());
    if !is_public_name(host.host()) || config.cors.allow_hosts.iter().any(is_listed) {
        return Ok(());
    }
    Err(ApiError::forbidden_origin(format!(
        "the host name {:?} might be a web page's: list it in cors.allow_hosts, or let callers authenticate ([[client_keys]])",
        host.host()
    )))
}

/// No address, no name without a dot, and none that the public DNS does not have (RFC 6761, 6762, 8375, and `internal`).
fn is_public_name(host: &str) -> bool {
    const PRIVATE: [&str; 6] = ["localhost", "local", "internal", "test", "home.arpa", "onion"];
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_below = |top: &&str| name.strip_suffix(*top).is_some_and(|rest| rest.ends_with('.'));
    let is_address = host.starts_with('[') || name.parse::<IpAddr>().is_ok();
    name.contains('.') && !is_address && !PRIVATE.iter().any(is_below)
}

/// From `Host`, or from `:authority` in HTTP/2. Several `Host` headers are as bad as none.
pub(crate) fn host_of(headers: &HeaderMap, uri: &Uri) -> Option<Authority> {
    let mut given = headers.get_all(HOST).iter();
    let host = match (given.next(), given.next()) {
        (Some(host), None) => host.to_str().ok()?.parse().ok(),
        (None, _) => uri.authority().cloned(),
        (Some(_), Some(_)) => None,
    };
    host.filter(|host: &Authority| !host.as_str().contains('@'))
}

fn allows(allowed: &[String], origin: &HeaderValue) -> bool {
    allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
}

/// Lets the page of a listed `origin` read the answer.
pub(crate) fn let_read(allowed: &[String], origin: Option<HeaderValue>, answer: &mut HeaderMap) {
    if let Some(origin) = origin.filter(|origin| allows(allowed, origin)) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // The provider's own list, if there is one, stays.
        answer.append(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        answer.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// Whether a browser asks beforehand what a page may send.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Allows what is asked for.
pub(crate) fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (asked, allowed) in [
        (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
        (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = headers.get(asked) {
            response.headers_mut().insert(allowed, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(lines: &[(HeaderName, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        guard(&["https://app.example".to_owned()], &headers).is_ok()
    }

    #[test]
    fn names_that_a_stranger_cannot_own_are_not_public() {
        for own in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "nightbus",
            "nightbus.default.svc.cluster.local",
            "host.docker.internal",
            "Box.Home.Arpa.",
            "app.localhost",
        ] {
            assert!(!is_public_name(own), "{own}");
        }
        for public in ["evil.example", "127.0.0.1.nip.io", "notlocal.evil", "local.evil.example.", "a.xlocal"] {
            assert!(is_public_name(public), "{public}");
        }
    }

    #[test]
    fn a_page_that_loads_us_as_an_image_sends_no_origin_and_is_refused() {
        for elsewhere in ["cross-site", "same-site"] {
            assert!(!passes(&[(SEC_FETCH_SITE, elsewhere)]), "{elsewhere}");
            assert!(passes(&[(SEC_FETCH_SITE, elsewhere), (ORIGIN, "https://app.example")]), "{elsewhere}");
            assert!(!passes(&[(SEC_FETCH_SITE, elsewhere), (ORIGIN, "https://evil.example")]), "{elsewhere}");
        }
        // A person who typed the address, and programs.
        assert!(passes(&[(SEC_FETCH_SITE, "none")]) && passes(&[]));
        assert!(!passes(&[(ORIGIN, "https://app.example"), (ORIGIN, "https://evil.example")]));
    }
}
