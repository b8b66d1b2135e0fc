//! The one place where nightbus's own errors become responses.
//!
//! Invariant: every error says by `x-should-retry` whether an SDK should send the call again, and `Retry-After` is
//! never above 60 seconds (providers.md, section 6.1). Called by everything in `intake`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::{self, Body};
use crate::domain::lane::Api;
use crate::wire::api_error::ApiError;

/// Read by the official SDKs before their own rules.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// `error` in the envelope of the caller's API.
pub fn error_response(api: Api, error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, error.body(api));
    let should_retry = if error.should_retry() { "true" } else { "false" };
    response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static(should_retry));
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A JSON text that is ready to be sent.
pub fn json_response(status: StatusCode, json: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_error_is_an_envelope_with_the_headers_sdks_read() {
        let response = error_response(Api::OpenAi, &ApiError::queue_full("come back later"));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/json");
        assert_eq!(response.headers().get("retry-after").unwrap(), "30");
        assert_eq!(response.headers().get("x-should-retry").unwrap(), "true");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["error"]["code"], "queue_full");
    }

    #[test]
    fn what_cannot_get_better_is_not_retried() {
        let response = error_response(Api::OpenAi, &ApiError::invalid_request("no model"));
        assert_eq!(response.headers().get("x-should-retry").unwrap(), "false");
        assert!(!response.headers().contains_key("retry-after"));
    }
}
