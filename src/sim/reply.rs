//! How handlers answer: JSON, the provider's error envelope (providers.md, section 1.15), or a cut connection.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::body::{self, Body};

/// What a handler gives back.
pub(super) type Outcome = Result<Response<Body>, Failure>;

/// Why a handler has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection ends here, without an answer.
    Cut,
    /// An error in the provider's envelope.
    Api(Box<ApiFailure>),
}

/// An error as the provider tells it.
#[derive(Clone, Debug)]
pub(super) struct ApiFailure {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) code: Option<&'static str>,
    pub(super) param: Option<String>,
    pub(super) message: String,
    pub(super) retry_after: Option<u32>,
}

impl ApiFailure {
    /// 400 (or another 4xx) `invalid_request_error`.
    pub(super) fn invalid(
        status: u16,
        code: impl Into<Option<&'static str>>,
        param: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        let param = param.map(str::to_owned);
        Self {
            status,
            kind: "invalid_request_error",
            code: code.into(),
            param,
            message: message.into(),
            retry_after: None,
        }
    }

    /// 500 `server_error`.
    pub(super) fn server() -> Self {
        let message = "The server had an error while processing your request. Sorry about that!".to_owned();
        Self { status: 500, kind: "server_error", code: None, param: None, message, retry_after: None }
    }

    /// 429 `rate_limit_exceeded`.
    pub(super) fn rate_limit(retry_after: u32) -> Self {
        Self {
            status: 429,
            kind: "requests",
            code: Some("rate_limit_exceeded"),
            param: None,
            message: format!("Rate limit reached. Please try again in {retry_after}s."),
            retry_after: Some(retry_after),
        }
    }

    /// The envelope, as in a response body.
    pub(super) fn envelope(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }

    /// The whole response.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json_value(self.status, &self.envelope());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<ApiFailure> for Failure {
    fn from(failure: ApiFailure) -> Self {
        Self::Api(Box::new(failure))
    }
}

/// A 400 `invalid_request_error` about `param`.
pub(super) fn bad_request(code: &'static str, param: &str, message: impl Into<String>) -> Failure {
    ApiFailure::invalid(400, code, Some(param), message).into()
}

/// A 404 `invalid_request_error`.
pub(super) fn not_found(param: Option<&str>, message: impl Into<String>) -> Failure {
    ApiFailure::invalid(404, None, param, message).into()
}

/// A response with a JSON body that is already text.
pub(super) fn json_bytes(status: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// A response with a JSON body.
pub(super) fn json_value(status: u16, value: &Value) -> Response<Body> {
    json_bytes(status, value.to_string())
}

/// 200 with a JSON body.
pub(super) fn ok(value: &Value) -> Response<Body> {
    json_value(200, value)
}
