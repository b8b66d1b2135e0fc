//! The listener and the routes (providers.md, section 1.1).
//!
//! Everything carries `x-request-id`. `/v1/…` needs a key; `/sim/…` does not. `/v1/messages…` is the second dialect; the paths
//! of the others are in `dialect`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::body::Body;
use crate::sim::answers::Endpoint;
use crate::sim::counters::Seen;
use crate::sim::dialect::Dialect;
use crate::sim::reply::{self, ApiFailure, Failure, Outcome};
use crate::sim::state::{Account, State};
use crate::sim::{admin, anthropic, background, batches, content, files, gemini, live, openrouter, upload, xai};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;
/// The largest JSON body.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// How long connections may go on when the process stops.
const GRACE: Duration = Duration::from_millis(500);

/// Binds the listener.
pub(super) fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts until the process stops.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    let stop = state.tasks.stop_token().clone();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => drop(state.tasks.spawn("sim-connection", connection(stream, Arc::clone(&state)))),
            // Out of file descriptors, or the peer is gone already: the next one may do better.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a simulator connection cannot be set to no delay");
    }
    let stop = state.tasks.stop_token().clone();
    let service = service_fn(move |request| respond(Arc::clone(&state), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a simulator connection ended early");
    }
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut by an injected fault")]
struct Cut;

async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let request_id = state.ids.long("req_");
    let mut response = match Box::pin(route(&state, request)).await {
        Ok(response) => response,
        Err(Failure::Api(failure)) => failure.response(),
        Err(Failure::Cut) => return Err(Cut),
    };
    let headers = response.headers_mut();
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-request-id", request_id);
    }
    headers.insert("openai-organization", HeaderValue::from_static("org-simulator"));
    headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
    headers.insert("openai-processing-ms", HeaderValue::from_static("1"));
    Ok(response)
}

async fn route(state: &Arc<State>, request: Request<Incoming>) -> Outcome {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if let Some(route) = path.strip_prefix("/sim/") {
        let body = read(body).await?;
        return admin::handle(state, &parts.method, route, &query, &body);
    }
    if anthropic::speaks(&path, &parts.headers) {
        let most =
            if anthropic::is_batch_creation(&parts.method, &path) { anthropic::MAX_BATCH_BYTES } else { MAX_BODY };
        let body = match Limited::new(body, most).collect().await {
            Ok(body) => Some(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => None,
            Err(_gone) => return Err(Failure::Cut),
        };
        let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        state.requests.push(Seen { method, uri, headers, body: body.clone().unwrap_or_default() });
        return anthropic::handle(state, &parts, &query, body).await;
    }
    let place = Dialect::place(&path);
    if place.versioned && query.get("api-version").is_none() {
        return Err(ApiFailure::invalid(404, None, None, "Resource not found: api-version is missing.").into());
    }
    let native = path.strip_prefix(gemini::NATIVE).filter(|_| place.dialect == Dialect::OpenAi);
    if let Some(route) = native {
        let body = read(body).await?;
        let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        state.requests.push(Seen { method, uri, headers, body: body.clone() });
        return gemini::handle(state, &parts, route, &query, body);
    }
    let account = account(state, place.dialect, &parts.headers)?;
    let path = place.path;
    let segments: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
    let method = parts.method.clone();
    let is_upload = method == Method::POST && segments == ["files"];
    let seen = |body: Bytes| Seen {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        headers: parts.headers.clone(),
        body,
    };
    if is_upload {
        state.requests.push(seen(Bytes::new()));
        return upload::upload(state, &account, &parts.headers, body).await;
    }
    let body = read(body).await?;
    state.requests.push(seen(body.clone()));
    if let Some(endpoint) = Endpoint::from_path(&path) {
        if method != Method::POST {
            return Err(wrong_method(&method, &path));
        }
        let mut answer = live::call(state, endpoint, &parts.headers, &body).await?;
        rate_limit_headers(answer.headers_mut());
        return Ok(answer);
    }
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["files"]) => files::list(state, &account, &query),
        ("GET", ["files", id]) => files::get(state, &account, id),
        ("DELETE", ["files", id]) => files::delete(state, &account, id),
        ("GET", ["files", id, "content"]) => content::download(state, &account, id, &query),
        ("POST", ["batches"]) => batches::create(state, &account, &body),
        ("GET", ["batches"]) if account.dialect == Dialect::Xai => xai::list(state, &account, &query),
        ("GET", ["batches", id, "results"]) if account.dialect == Dialect::Xai => {
            xai::results(state, &account, id, &query)
        }
        ("GET", ["batches"]) => batches::list(state, &account, &query),
        ("GET", ["batches", id]) if account.dialect == Dialect::OpenRouter => openrouter::get(state, &account, id),
        ("GET", ["batches", id]) => batches::get(state, &account, id),
        ("POST", ["batches", id, "cancel"]) => batches::cancel(state, &account, id),
        ("GET", ["models"]) => live::models(),
        ("GET", ["models", name]) => live::model(name),
        ("GET", ["responses", id]) => background::get(state, id),
        ("POST", ["responses", id, "cancel"]) => background::cancel(state, id),
        (_, ["files" | "batches" | "models" | "responses", ..]) if segments.len() <= 2 => {
            Err(wrong_method(&method, &path))
        }
        _ => Err(ApiFailure::invalid(404, None, None, format!("Invalid URL ({method} {path})")).into()),
    }
}

/// Whose call this is.
fn account(state: &State, dialect: Dialect, headers: &HeaderMap) -> Result<Account, Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let key = dialect.key(headers);
    let refused = |message: &str| Err(ApiFailure::invalid(401, "invalid_api_key", None, message).into());
    if key.is_empty() && (state.require_key || state.api_keys.is_some()) {
        return refused("You did not provide an API key. Provide it in an Authorization header: Bearer YOUR_KEY.");
    }
    if state.api_keys.as_ref().is_some_and(|known| !known.iter().any(|known| known == key)) {
        return refused("Incorrect API key provided.");
    }
    let (key, organization, project) = (key.to_owned(), text("openai-organization"), text("openai-project"));
    Ok(Account { dialect, key, organization, project })
}

fn wrong_method(method: &Method, path: &str) -> Failure {
    let message = format!("Not allowed to {method} on {path}.");
    ApiFailure::invalid(405, "method_not_supported", None, message).into()
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiFailure::invalid(413, None, None, "The request body is too large.").into())
        }
        Err(_gone) => Err(Failure::Cut),
    }
}

fn rate_limit_headers(headers: &mut HeaderMap) {
    let limits = [
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-tokens", "1999900"),
        ("x-ratelimit-reset-tokens", "3ms"),
    ];
    for (name, value) in limits {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The parameters of a URL.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
        )
    }

    /// The value of `name`; `None` where it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The whole number `name` within `range`; `default` where it is absent.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<usize>, default: usize) -> Result<usize, Failure> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let message = format!("Invalid '{name}': expected an integer from {} to {}.", range.start(), range.end());
            reply::bad_request("invalid_value", name, message)
        })
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().and_then(|pair| str::from_utf8(pair).ok());
        match (first, hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_decoded_and_numbers_are_checked() {
        let query = Query::parse("a=1%20x+y&limit=7&b&limit=9&z=%zz");
        assert_eq!(query.get("a"), Some("1 x y"));
        assert_eq!(query.get("b"), None);
        assert_eq!(query.get("z"), Some("%zz"));
        assert_eq!(query.number("limit", 1..=10, 3).unwrap(), 7);
        assert_eq!(query.number("none", 1..=10, 3).unwrap(), 3);
        assert!(query.number("limit", 1..=5, 3).is_err());
    }
}
