//! Who may talk to the admin listener (contract, section 2): nothing that a web page of another origin makes a
//! browser send, and with a token configured nobody without it.
//!
//! Invariants: every route passes here first; a refusal tells nothing but how to be let in; comparing a token takes
//! the same time whatever it differs in. Called by `routes`.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Method};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::AdminConfig;
use crate::intake::cors::host_of;
use crate::wire::api_error::ApiError;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets `parts` pass or says why not. `own`: the configured address of the listener. `open`: the route needs no token
/// (health checks, and the files of the dashboard, which asks for the token itself).
///
/// # Errors
/// 403 `forbidden_origin` or 401 `unauthorized`.
pub(super) fn check(parts: &Parts, admin: &AdminConfig, own: IpAddr, open: bool) -> Result<(), ApiError> {
    let host = host_of(&parts.headers, &parts.uri).ok_or_else(|| {
        ApiError::forbidden_origin("The request names no valid Host. Call the admin listener by its address.")
    })?;
    check_host(&host, admin, own)?;
    check_origin(parts, &host)?;
    match &admin.token {
        Some(token) if !open => check_token(parts, token),
        _ => Ok(()),
    }
}

/// DNS rebinding sends a name that its owner points here; an address, or a name from the configuration, cannot be that.
fn check_host(host: &Authority, admin: &AdminConfig, own: IpAddr) -> Result<(), ApiError> {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let is_ours = name.eq_ignore_ascii_case("localhost")
        || address.is_some_and(|address| {
            address.to_canonical().is_loopback() || (!own.is_unspecified() && address.to_canonical() == own)
        })
        || admin
            .allowed_hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host.as_str()));
    if is_ours {
        return Ok(());
    }
    Err(ApiError::forbidden_origin(format!(
        "The admin listener does not answer to the host name {name:?}. Call it by a loopback address, or add the name to admin.allowed_hosts."
    )))
}

/// Browsers send `Origin` with everything another page starts, and `Sec-Fetch-Site` with all they do; programs send neither.
/// Following a link to the dashboard is fine, changing something from elsewhere is not.
fn check_origin(parts: &Parts, host: &Authority) -> Result<(), ApiError> {
    let refused = || {
        ApiError::forbidden_origin(
            "A web page of another origin may not call the admin listener. Use the dashboard, the command line or curl.",
        )
    };
    for origin in parts.headers.get_all(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str())) {
            return Err(refused());
        }
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let elsewhere = |site: &http::HeaderValue| !matches!(site.as_bytes(), b"same-origin" | b"none");
    if !reads && parts.headers.get_all(&SEC_FETCH_SITE).iter().any(elsewhere) {
        return Err(refused());
    }
    Ok(())
}

/// `Bearer`, or `Basic` with the token as password for tools that know no other way. Only `Bearer` is asked for: a
/// browser would answer a challenge for `Basic` with a window of its own, before the dashboard's question.
fn check_token(parts: &Parts, token: &SecretString) -> Result<(), ApiError> {
    let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(credential);
    let expected = digest(&SHA256, token.expose_secret().as_bytes());
    let matches =
        given.is_some_and(|given| verify_slices_are_equal(digest(&SHA256, &given).as_ref(), expected.as_ref()).is_ok());
    if matches {
        return Ok(());
    }
    Err(ApiError::unauthorized(
        "The admin token is missing or wrong. Send it as \"Authorization: Bearer …\"; the command line takes it from NIGHTBUS_ADMIN_TOKEN.",
    ))
}

fn credential(header: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests;
