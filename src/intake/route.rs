//! Which part of nightbus a path belongs to (contract, section 2). Byte for byte: nothing is decoded or normalised.

use http::Method;

use crate::domain::lane::Endpoint;

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A provider's API.
    Api {
        /// The provider's name; none: the default one.
        provider: Option<&'a str>,
        /// What comes after `/v1`, with the query.
        rest: &'a str,
        /// The path began with `/batch`.
        batch: bool,
    },
    /// nightbus's own routes: what comes after `/nightbus/v1`, without the query.
    Own(&'a str),
    /// `/nightbus/v1/webhooks/{name}`: what the provider of that name has to say.
    Webhook(&'a str),
    /// `GET [/batch]/v1/chat/deferred-completion/{id}`: a client has one base URL for all its calls.
    DeferredCompletion(&'a str),
    /// Nothing we know.
    Unknown,
}

/// Reads a path with its query. `is_provider` tells which names are configured.
pub(crate) fn route<'a>(method: &Method, path_and_query: &'a str, is_provider: impl Fn(&str) -> bool) -> Route<'a> {
    if let Some(rest) = path_and_query.strip_prefix("/nightbus/v1") {
        let path = path_of(rest);
        if let Some(provider) = path.strip_prefix("/webhooks/") {
            return Route::Webhook(provider);
        }
        return if path.is_empty() || path.starts_with('/') { Route::Own(path) } else { Route::Unknown };
    }
    let (batch, rest) = match path_and_query.strip_prefix("/batch/") {
        // The slash stays with the rest.
        Some(_) => (true, path_and_query.get("/batch".len()..).unwrap_or_default()),
        None => (false, path_and_query),
    };
    if let Some(rest) = after_v1(rest) {
        if method == Method::GET
            && let Some(id) = path_of(rest).strip_prefix("/chat/deferred-completion/")
            && id.starts_with("req_")
        {
            return Route::DeferredCompletion(id);
        }
        return Route::Api { provider: None, rest, batch };
    }
    let Some((name, after)) = rest.strip_prefix('/').and_then(|rest| rest.split_once('/')) else {
        return Route::Unknown;
    };
    let after = rest.get(rest.len() - after.len() - 1..).unwrap_or_default();
    match after_v1(after) {
        Some(rest) if is_provider(name) => Route::Api { provider: Some(name), rest, batch },
        _ => Route::Unknown,
    }
}

/// The endpoint that `rest` (what comes after `/v1`) names, if a call of `method` on it can be deferred.
pub(crate) fn deferrable_endpoint(method: &Method, rest: &str) -> Option<Endpoint> {
    let path = path_of(rest);
    (method == Method::POST).then(|| Endpoint::ALL.into_iter().find(|endpoint| endpoint.relative() == path)).flatten()
}

/// Whether `rest` is a route of Anthropic's Messages (contract, section 2).
pub(crate) fn is_messages(rest: &str) -> bool {
    path_of(rest).strip_prefix("/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The part before the query.
pub(crate) fn path_of(path_and_query: &str) -> &str {
    path_and_query.split('?').next().unwrap_or_default()
}

fn after_v1(path: &str) -> Option<&str> {
    path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Route<'_> {
        route(&Method::GET, path, |name| name == "groq")
    }

    #[test]
    fn paths_of_the_contract() {
        let api = |provider, rest, batch| Route::Api { provider, rest, batch };
        for (path, expected) in [
            ("/v1/chat/completions?x=%2F", api(None, "/chat/completions?x=%2F", false)),
            ("/v1", api(None, "", false)),
            ("/v1?x", api(None, "?x", false)),
            ("/batch/v1/embeddings", api(None, "/embeddings", true)),
            ("/groq/v1/models", api(Some("groq"), "/models", false)),
            ("/batch/groq/v1/models", api(Some("groq"), "/models", true)),
            ("/other/v1/models", Route::Unknown),
            ("/v10/models", Route::Unknown),
            ("/batch/batch/v1/x", Route::Unknown),
            ("/", Route::Unknown),
            ("/nightbus/v1/requests?limit=3", Route::Own("/requests")),
            ("/nightbus/v1requests", Route::Unknown),
            ("/nightbus/v1/webhooks/groq?x", Route::Webhook("groq")),
            ("/nightbus/v1/webhooks", Route::Own("/webhooks")),
            ("/v1/chat/deferred-completion/req_1", Route::DeferredCompletion("req_1")),
            ("/batch/v1/chat/deferred-completion/req_1?x", Route::DeferredCompletion("req_1")),
            ("/batch/v1/chat/deferred-completion/abc", api(None, "/chat/deferred-completion/abc", true)),
            ("/v1/chat/deferred-completion/abc", api(None, "/chat/deferred-completion/abc", false)),
        ] {
            assert_eq!(get(path), expected, "{path}");
        }
    }

    #[test]
    fn deferrable_endpoints_are_posts_on_exact_paths() {
        assert_eq!(deferrable_endpoint(&Method::POST, "/responses?a=b"), Some(Endpoint::Responses));
        assert_eq!(deferrable_endpoint(&Method::GET, "/responses"), None);
        assert_eq!(deferrable_endpoint(&Method::POST, "/responses/"), None);
        assert_eq!(deferrable_endpoint(&Method::POST, "/audio/speech"), None);
    }
}
