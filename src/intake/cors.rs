//! Web pages on the main listener (contract, section 2): refused unless their origin is listed, and told what they
//! may read if it is.
//!
//! Invariant: nothing of a page that is not listed comes further than [`guard`], whatever its browser leaves out.
//! Called by `service` before and after everything else.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::body::{self, Body};
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
