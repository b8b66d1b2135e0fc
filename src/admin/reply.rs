//! Answers of the admin listener: JSON, text and the files of the dashboard, none of them ever cached or framed.
//! Errors have the envelope of the API (contract, section 6). Called by `routes` and the handlers.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::body::{self, Body};
use crate::domain::lane::Api;
use crate::intake::respond::error_response;
use crate::store::StoreError;
use crate::wire::api_error::ApiError;

/// Scripts and styles from this listener alone; nothing inline, nothing framed, no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// What a handler returns.
pub(super) type Reply = Result<Response<Body>, ApiError>;

/// `value` as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let text = serde_json::to_vec(value)
        .map_err(|error| ApiError::internal(format!("The answer could not be written as JSON: {error}.")))?;
    Ok(with_body(status, "application/json", body::full(text)))
}

/// `value` as JSON with status 200.
pub(super) fn ok<T: Serialize>(value: &T) -> Reply {
    json(StatusCode::OK, value)
}

/// Any body of any type.
pub(super) fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A file of the dashboard.
pub(super) fn asset(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = with_body(StatusCode::OK, content_type, body::full(Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// An error in the API's envelope. Who lacks the token is asked for it.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    let mut response = error_response(Api::OpenAi, error);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if error.status == StatusCode::UNAUTHORIZED.as_u16() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// 405 with the methods that the route knows.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = error(&ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        ..refusal("method_not_allowed", format!("This route answers to {allowed} only."))
    });
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// 409: too late, it has ended.
pub(super) fn already_ended(message: impl Into<String>) -> ApiError {
    refusal("already_ended", message)
}

fn refusal(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError { code, ..ApiError::already_submitted(message) }
}

/// The store's trouble as an answer.
pub(super) fn store_trouble(error: &StoreError) -> ApiError {
    ApiError::store_unavailable(format!("The store does not answer: {error}. Try again, or look at the log."))
}
