//! One call of a provider's batch API: sent with the lane's credentials, bounded in time, its refusals read.
//!
//! Bodies of answers other than downloads are read up to 8 MiB, those of live calls up to 256 MiB. Used by each kind's module beside this one.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::body::{Body, empty, full};
use crate::upstream::client::{Timeouts, UpstreamClient};
use crate::upstream::provider::{Credentials, LiveAnswer, LiveRequest, ProviderError};
use crate::wire::openai::batch::text_of;
use crate::wire::openai::response::BackgroundResponse;

/// A small call and its answer, whole.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A call with a long body gets this long and a second for each [`BYTES_PER_SECOND`].
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(120);
const BYTES_PER_SECOND: u64 = 100_000;
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Embeddings of thousands of inputs are large.
const MAX_LIVE_ANSWER_BYTES: usize = 256 << 20;
const LIVE: &str = "live call";
/// Where the providers put the id of an exchange.
const EXCHANGE_IDS: [&str; 2] = ["x-request-id", "request-id"];

/// The way to one provider.
#[derive(Debug)]
pub(super) struct Exchange {
    client: UpstreamClient,
    /// Without a slash at its end.
    base_url: String,
    /// The `api-version` of every call, where one is needed.
    version: Option<String>,
}

/// A path with the `api-version` that Azure OpenAI wants (providers.md, section 4.1), unless it has one.
pub(crate) fn with_api_version(path: &str, version: &str) -> String {
    if path.contains("api-version=") {
        return path.to_owned();
    }
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}api-version={version}")
}

/// A body whose length is known before it is sent.
pub(super) struct Content {
    pub(super) length: u64,
    pub(super) content_type: String,
    pub(super) body: Body,
}

impl Exchange {
    /// To the provider at `base_url` (with `/v1` at its end).
    pub(super) fn new(client: UpstreamClient, base_url: &dyn Display) -> Self {
        Self { client, base_url: base_url.to_string().trim_end_matches('/').to_owned(), version: None }
    }

    /// With an `api-version` in every call.
    pub(super) fn with_version(self, version: Option<&str>) -> Self {
        Self { version: version.map(str::to_owned), ..self }
    }

    /// What comes after the base URL in `url`, if it begins with it.
    pub(super) fn path_of<'u>(&self, url: &'u str) -> Option<&'u str> {
        url.strip_prefix(&self.base_url).filter(|path| path.starts_with('/'))
    }

    fn request(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        credentials: &Credentials,
        body: Body,
    ) -> Result<Request<Body>, ProviderError> {
        let path = match &self.version {
            Some(version) => Cow::Owned(with_api_version(path, version)),
            None => Cow::Borrowed(path),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .body(body)
            .map_err(|error| no_answer(operation, error.to_string(), false))?;
        *request.headers_mut() = credentials.0.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(request)
    }

    /// Sends and reads the whole answer; statuses other than 2xx are errors.
    async fn call(
        &self,
        operation: &'static str,
        request: Request<Body>,
        bound: Duration,
        most: usize,
    ) -> Result<(HeaderMap, Bytes), ProviderError> {
        let exchange = async {
            let response = self.send(operation, request).await?;
            let (parts, body) = response.into_parts();
            let body = read(operation, body, most).await?;
            if parts.status.is_success() {
                Ok((parts.headers, body))
            } else {
                Err(refused(operation, parts.status, &parts.headers, body))
            }
        };
        tokio::time::timeout(bound, exchange).await.unwrap_or_else(|_elapsed| {
            Err(no_answer(operation, format!("no answer within {} s", bound.as_secs()), true))
        })
    }

    async fn send(&self, operation: &'static str, request: Request<Body>) -> Result<Response<Body>, ProviderError> {
        self.client.send(request).await.map_err(|error| no_answer(operation, error.cause(), error.may_have_been_sent()))
    }

    /// A call with a short JSON body, or none.
    pub(super) async fn call_json(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        credentials: &Credentials,
        json: Option<Vec<u8>>,
    ) -> Result<Bytes, ProviderError> {
        self.call_for_headers(operation, (method, path), credentials, json).await.map(|(_, body)| body)
    }

    /// The same, with the headers of the answer.
    pub(super) async fn call_for_headers(
        &self,
        operation: &'static str,
        (method, path): (Method, &str),
        credentials: &Credentials,
        json: Option<Vec<u8>>,
    ) -> Result<(HeaderMap, Bytes), ProviderError> {
        let has_body = json.is_some();
        let body = json.map_or_else(empty, full);
        let mut request = self.request(operation, method, path, credentials, body)?;
        if has_body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        self.call(operation, request, CALL_TIMEOUT, MAX_ANSWER_BYTES).await
    }

    /// The same, with its answer read by `parse`.
    pub(super) async fn ask<T, E: Display>(
        &self,
        operation: &'static str,
        (method, path): (Method, &str),
        credentials: &Credentials,
        json: Option<Vec<u8>>,
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, ProviderError> {
        let body = self.call_json(operation, method, path, credentials, json).await?;
        parse(&body).map_err(|error| unreadable(operation, &error))
    }

    /// A `POST` with a body that may be long; it has as much more time as it is long.
    pub(super) async fn post_content(
        &self,
        operation: &'static str,
        path: &str,
        credentials: &Credentials,
        content: Content,
    ) -> Result<Bytes, ProviderError> {
        let bound = LONG_CALL_TIMEOUT + Duration::from_secs(content.length / BYTES_PER_SECOND);
        let mut request = self.request(operation, Method::POST, path, credentials, content.body)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.length));
        if let Ok(value) = HeaderValue::from_str(&content.content_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        self.call(operation, request, bound, MAX_ANSWER_BYTES).await.map(|(_, body)| body)
    }

    /// A live call, read whole.
    pub(super) async fn call_live(
        &self,
        credentials: &Credentials,
        call: LiveRequest,
    ) -> Result<LiveAnswer, ProviderError> {
        let LiveRequest { endpoint, body, bound } = call;
        let mut request = self.request(LIVE, Method::POST, endpoint.relative(), credentials, full(body))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.extensions_mut().insert(Timeouts { first_byte: bound, idle: bound });
        let exchange = async {
            let (parts, body) = self.send(LIVE, request).await?.into_parts();
            let body = read(LIVE, body, MAX_LIVE_ANSWER_BYTES).await?;
            if !parts.status.is_success() {
                return Err(refused(LIVE, parts.status, &parts.headers, body));
            }
            if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
                return Err(unreadable(LIVE, &"the answer is no JSON"));
            }
            let request_id = EXCHANGE_IDS.iter().find_map(|name| parts.headers.get(*name)?.to_str().ok());
            Ok(LiveAnswer { status: parts.status.as_u16(), request_id: request_id.map(ToOwned::to_owned), body })
        };
        tokio::time::timeout(bound, exchange)
            .await
            .unwrap_or_else(|_elapsed| Err(no_answer(LIVE, format!("no answer within {} s", bound.as_secs()), true)))
    }

    /// A page of results, whole; it may be long.
    pub(super) async fn read_page(&self, path: &str, credentials: &Credentials) -> Result<Bytes, ProviderError> {
        let (_, body) = self.open(path, credentials).await?;
        let reading = read("download", body, MAX_LIVE_ANSWER_BYTES);
        tokio::time::timeout(LONG_CALL_TIMEOUT, reading)
            .await
            .unwrap_or_else(|_elapsed| Err(no_answer("download", "no whole page in time".to_owned(), true)))
    }

    /// Reads a background response, or has it cancelled. It may be as long as any live answer.
    pub(super) async fn response(
        &self,
        credentials: &Credentials,
        method: Method,
        path: String,
    ) -> Result<BackgroundResponse, ProviderError> {
        const OPERATION: &str = "background response";
        let request = self.request(OPERATION, method, &path, credentials, empty())?;
        let (_, body) = self.call(OPERATION, request, LONG_CALL_TIMEOUT, MAX_LIVE_ANSWER_BYTES).await?;
        BackgroundResponse::read(body).map_err(|error| unreadable(OPERATION, &error))
    }

    /// Opens a result file as a stream.
    pub(super) async fn open(&self, path: &str, credentials: &Credentials) -> Result<(HeaderMap, Body), ProviderError> {
        self.open_for("download", path, credentials).await
    }

    /// Opens anything that may be long as a stream.
    pub(super) async fn open_for(
        &self,
        operation: &'static str,
        path: &str,
        credentials: &Credentials,
    ) -> Result<(HeaderMap, Body), ProviderError> {
        let request = self.request(operation, Method::GET, path, credentials, empty())?;
        let response = tokio::time::timeout(CALL_TIMEOUT, self.send(operation, request))
            .await
            .unwrap_or_else(|_elapsed| Err(no_answer(operation, "no answer in time".to_owned(), true)))?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return match parts.headers.get(CONTENT_ENCODING) {
                Some(encoding) if encoding != "identity" => {
                    Err(unreadable(operation, &format!("encoded as {encoding:?}, which was not asked for")))
                }
                _ => Ok((parts.headers, body)),
            };
        }
        let body = tokio::time::timeout(CALL_TIMEOUT, read(operation, body, MAX_ANSWER_BYTES))
            .await
            .unwrap_or_else(|_elapsed| Ok(Bytes::new()))?;
        Err(refused(operation, parts.status, &parts.headers, body))
    }
}

/// A value as it stands in a query.
pub(super) fn query_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    value
}

async fn read(operation: &'static str, mut body: Body, most: usize) -> Result<Bytes, ProviderError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| no_answer(operation, error.to_string(), true))?;
        whole.extend_from_slice(&frame.into_data().unwrap_or_default());
        if whole.len() > most {
            return Err(unreadable(operation, &"the answer is too long"));
        }
    }
    Ok(whole.freeze())
}

const fn no_answer(operation: &'static str, cause: String, may_have_taken_effect: bool) -> ProviderError {
    ProviderError::NoAnswer { operation, cause, may_have_taken_effect }
}

/// An answer that cannot be understood.
pub(super) fn unreadable(operation: &'static str, cause: &dyn Display) -> ProviderError {
    ProviderError::Unreadable { operation, cause: cause.to_string() }
}

/// Each member of the error is read by itself: a number where a text should be must not hide the others.
fn refused(operation: &'static str, status: StatusCode, headers: &HeaderMap, body: Bytes) -> ProviderError {
    let envelope = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let error = envelope.get("error").unwrap_or(&Value::Null);
    let text = |name| error.get(name).and_then(text_of);
    ProviderError::Refused {
        operation,
        status: status.as_u16(),
        code: text("code").or_else(|| text("type")).unwrap_or_default(),
        message: text("message").or_else(|| text_of(error)).unwrap_or_default().chars().take(500).collect(),
        body,
        retry_after: headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().parse().ok())
            .map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_added_where_there_is_none() {
        assert_eq!(with_api_version("/batches", "v"), "/batches?api-version=v");
        assert_eq!(with_api_version("/batches?limit=1", "v"), "/batches?limit=1&api-version=v");
        assert_eq!(with_api_version("/x?api-version=own", "v"), "/x?api-version=own");
    }

    #[test]
    fn an_error_with_odd_types_is_read_as_far_as_it_goes() {
        for (body, expected) in [
            (
                r#"{"error":{"message":"no money","type":"t","code":"insufficient_quota"}}"#,
                ("insufficient_quota", "no money"),
            ),
            (r#"{"error":{"message":"no model","code":404,"param":3}}"#, ("404", "no model")),
            (r#"{"error":{"message":["a"],"type":"insufficient_quota","code":null}}"#, ("insufficient_quota", "")),
            (r#"{"error":{"message":12,"code":{}}}"#, ("", "12")),
            (r#"{"error":"not today"}"#, ("", "not today")),
            ("<html>", ("", "")),
        ] {
            let error = refused("create", StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), Bytes::from(body));
            let ProviderError::Refused { code, message, .. } = &error else { panic!("{error:?}") };
            assert_eq!((code.as_str(), message.as_str()), expected, "{body}");
        }
    }
}
