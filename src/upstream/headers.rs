//! Which headers end here and which go on: hop-by-hop ones, nightbus's own, and the credential.
//!
//! Used in both directions by `intake::passthrough`, and for deferred calls by the engine. Everything that is not
//! named here goes through as it came, duplicates included, in its order per name.

use http::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{KeyHeader, ProviderKind};

/// What every header of nightbus's own begins with.
pub const OWN_PREFIX: &str = "x-nightbus-";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// RFC 7240: how the caller wants to be answered.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// draft-ietf-httpapi-idempotency-key-header: names a call, so that its repetition is known.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

static HOP_BY_HOP: [HeaderName; 6] =
    [TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE];

/// Removes what concerns one connection only (RFC 9110, section 7.6.1), with the names that `Connection` lists.
///
/// `TE: trailers` and `Trailer` stay, as trailers are relayed.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in listed_in_connection(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if headers.contains_key(TE) {
        let trailers = has_token(headers, &TE, "trailers");
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    // One look at each name instead of a search for each of these: most heads have none of them.
    let found: Vec<HeaderName> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether it is one of nightbus's own.
pub fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with(OWN_PREFIX)
}

/// Removes all `x-nightbus-…` headers.
pub fn remove_own(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers.keys().filter(|name| is_own(name)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// Removes the standard headers that nightbus itself answers when a call is deferred: `Prefer` and
/// `Idempotency-Key`. On live calls they belong to the provider.
pub fn remove_consumed(headers: &mut HeaderMap) {
    headers.remove(PREFER);
    headers.remove(IDEMPOTENCY_KEY);
}

/// Replaces whatever credential the caller sent by `key`, in the form that `kind` expects.
///
/// A key that cannot be a header value leaves the call without any credential: the provider answers 401, and the
/// caller's own key still does not leave.
pub fn set_credential(headers: &mut HeaderMap, kind: ProviderKind, key: &SecretString) {
    headers.remove(ProviderKind::API_KEY);
    headers.remove(ProviderKind::X_API_KEY);
    headers.remove(AUTHORIZATION);
    let key = key.expose_secret();
    let (name, value) = match kind.key_header() {
        KeyHeader::Bearer => (AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}"))),
        KeyHeader::XApiKey => (ProviderKind::X_API_KEY, HeaderValue::try_from(key)),
        KeyHeader::ApiKey => (ProviderKind::API_KEY, HeaderValue::try_from(key)),
    };
    match value {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Err(_not_a_header_value) => tracing::error!("the provider's key has characters that no header can hold"),
    }
}

/// Whether the comma-separated list `name` has `token`, in any case.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).map(str::trim)
}

/// The names in `Connection` that are headers of their own. The common options are skipped without allocation;
/// `TE` is settled by the caller.
fn listed_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    const SETTLED: [&str; 5] = ["close", "keep-alive", "upgrade", "te", ""];
    tokens(headers, &CONNECTION)
        .filter(|token| !SETTLED.iter().any(|known| known.eq_ignore_ascii_case(token)))
        .filter_map(|token| HeaderName::try_from(token).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_headers_and_those_listed_go_the_rest_stays() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Session"),
            ("connection", "x-other"),
            ("x-session", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("proxy-authorization", "Basic x"),
            ("trailer", "x-sum"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["cookie", "cookie", "te", "trailer"]);
        assert_eq!(headers.get("te").unwrap(), "trailers");
        let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }

    #[test]
    fn own_headers_go_and_only_they() {
        let mut headers = map(&[("x-nightbus-defer", "true"), ("x-nightbus-tag", "a"), ("x-nightbusy", "b")]);
        remove_own(&mut headers);
        assert_eq!(names(&headers), ["x-nightbusy"]);
    }

    #[test]
    fn the_callers_credential_is_replaced_in_every_form() {
        let mut headers = map(&[("authorization", "Bearer client"), ("x-api-key", "client"), ("api-key", "client")]);
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer second"));
        set_credential(&mut headers, ProviderKind::OpenAi, &SecretString::from("sk-provider"));
        let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(all, [("authorization", "Bearer sk-provider")]);
        assert!(!format!("{headers:?}").contains("sk-provider"), "the key must not show in debug output");
    }

    #[test]
    fn anthropics_key_has_a_header_of_its_own() {
        let mut headers = map(&[("authorization", "Bearer client"), ("x-api-key", "client")]);
        set_credential(&mut headers, ProviderKind::Anthropic, &SecretString::from("sk-ant"));
        let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(all, [("x-api-key", "sk-ant")]);
    }

    #[test]
    fn azures_key_has_its_own_header() {
        let mut headers = map(&[("authorization", "Bearer client")]);
        set_credential(&mut headers, ProviderKind::Azure, &SecretString::from("az"));
        let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(all, [("api-key", "az")]);
    }

    #[test]
    fn a_key_no_header_can_hold_leaves_no_credential_at_all() {
        let mut headers = map(&[("authorization", "Bearer client")]);
        set_credential(&mut headers, ProviderKind::OpenAi, &SecretString::from("line\nbreak"));
        assert!(headers.is_empty());
    }
}
