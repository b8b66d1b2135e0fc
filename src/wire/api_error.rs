//! nightbus's own errors: a status, a stable code, and what to do next. `intake::respond` turns them into responses.

use serde::Serialize;

use crate::domain::lane::Api;

/// One of the errors of nightbus's own (the provider's errors are passed on as they are).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Stable code for programs.
    pub code: &'static str,
    /// What happened and what to do, for people.
    pub message: String,
    /// The header or body field at fault.
    pub param: Option<String>,
    /// `Retry-After` in seconds; never above 60, clients mishandle more (providers.md, section 6.1).
    pub retry_after: Option<u32>,
}

impl ApiError {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after: None }
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds.clamp(1, 60));
        self
    }

    /// Names the header or body field at fault.
    #[must_use]
    pub fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// 400: the call cannot be understood.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    /// 401: no client key, or not one of the configured ones.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", message)
    }

    /// 403: a web page of another origin.
    pub fn forbidden_origin(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden_origin", message)
    }

    /// 404: no such thing, or not this caller's.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message)
    }

    /// 409: the request is in a provider batch already.
    pub fn already_submitted(message: impl Into<String>) -> Self {
        Self::new(409, "already_submitted", message)
    }

    /// 410: the request was cancelled.
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(410, "cancelled", message)
    }

    /// 413: larger than nightbus or the provider's batch file takes.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "too_large", message)
    }

    /// 422: the idempotency key was used for another body.
    pub fn idempotency_mismatch(message: impl Into<String>) -> Self {
        Self::new(422, "idempotency_mismatch", message)
    }

    /// 422: the test flight of the request's template went wrong, and nothing was bought.
    pub fn flight_grounded(message: impl Into<String>) -> Self {
        Self::new(422, "flight_grounded", message)
    }

    /// 429: as many requests, bytes or connections are waiting as the configuration allows.
    pub fn queue_full(message: impl Into<String>) -> Self {
        Self::new(429, "queue_full", message).retry_after(30)
    }

    /// 429: the day's budget is used up.
    pub fn budget_exceeded(message: impl Into<String>) -> Self {
        Self::new(429, "budget_exceeded", message).retry_after(60)
    }

    /// 502: the batch gave no answer for this request.
    pub fn batch_failed(message: impl Into<String>) -> Self {
        Self::new(502, "batch_failed", message)
    }

    /// 502: the provider cannot be reached.
    pub fn upstream_unreachable(message: impl Into<String>) -> Self {
        Self::new(502, "upstream_unreachable", message)
    }

    /// 503: nightbus is stopping or cannot store anything now.
    pub fn shutting_down(message: impl Into<String>) -> Self {
        Self::new(503, "shutting_down", message).retry_after(10)
    }

    /// 503: what was accepted could not be made durable; nothing was bought.
    pub fn store_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "store_unavailable", message).retry_after(30)
    }

    /// 504: the deadline passed.
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(504, "deadline_exceeded", message)
    }

    /// 500: a fault of nightbus's own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "internal_error", message)
    }

    /// Whether the same call, sent again by an SDK at once, could fare better (`x-should-retry`).
    pub const fn should_retry(&self) -> bool {
        matches!((self.status, self.code.as_bytes()), (429 | 503, _) | (502, b"upstream_unreachable") | (500, _))
    }

    /// The body in the API's own envelope.
    pub fn body(&self, api: Api) -> Vec<u8> {
        match api {
            Api::OpenAi => self.openai_body(),
            Api::Anthropic => self.anthropic_body(),
        }
    }

    /// The type that Anthropic's own errors of this status have (providers.md, section 2.5), and with it nightbus's code.
    fn anthropic_body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            r#type: &'static str,
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            r#type: &'static str,
            message: &'a str,
            code: &'static str,
            param: Option<&'a str>,
        }
        let error = Inner {
            r#type: self.kind(Api::Anthropic),
            message: &self.message,
            code: self.code,
            param: self.param.as_deref(),
        };
        serde_json::to_vec(&Envelope { r#type: "error", error }).unwrap_or_default()
    }

    /// What stands as the error's `type` in the API's envelope.
    pub const fn kind(&self, api: Api) -> &'static str {
        match (api, self.status) {
            (Api::OpenAi, _) => "nightbus_error",
            (Api::Anthropic, status) => anthropic_type(status),
        }
    }

    /// All four keys, type `nightbus_error` (providers.md, section 1.15).
    fn openai_body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            r#type: &'static str,
            param: Option<&'a str>,
            code: &'static str,
        }
        let envelope = Envelope {
            error: Inner {
                message: &self.message,
                r#type: self.kind(Api::OpenAi),
                param: self.param.as_deref(),
                code: self.code,
            },
        };
        serde_json::to_vec(&envelope).unwrap_or_default()
    }
}

/// The type of Anthropic's own errors with that status (providers.md, section 2.5).
const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_has_all_four_keys() {
        let body = ApiError::invalid_request("no model: add \"model\"").about("model").body(Api::OpenAi);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"error": {"message": "no model: add \"model\"", "type": "nightbus_error",
                "param": "model", "code": "invalid_request"}})
        );
    }

    #[test]
    fn anthropics_envelope_has_its_type_and_our_code() {
        let body = ApiError::queue_full("come back later").body(Api::Anthropic);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"type": "error", "error": {"type": "rate_limit_error", "message": "come back later",
                "code": "queue_full", "param": null}})
        );
    }

    #[test]
    fn retry_after_is_never_above_sixty() {
        assert_eq!(ApiError::new(503, "x", "y").retry_after(3600).retry_after, Some(60));
    }

    #[test]
    fn every_error_has_its_status_its_pause_and_whether_it_is_tried_again() {
        type Make = fn(String) -> ApiError;
        let make: [(Make, u16, Option<u32>, bool); 17] = [
            (ApiError::invalid_request, 400, None, false),
            (ApiError::unauthorized, 401, None, false),
            (ApiError::forbidden_origin, 403, None, false),
            (ApiError::not_found, 404, None, false),
            (ApiError::already_submitted, 409, None, false),
            (ApiError::cancelled, 410, None, false),
            (ApiError::too_large, 413, None, false),
            (ApiError::idempotency_mismatch, 422, None, false),
            (ApiError::flight_grounded, 422, None, false),
            (ApiError::queue_full, 429, Some(30), true),
            (ApiError::budget_exceeded, 429, Some(60), true),
            (ApiError::batch_failed, 502, None, false),
            (ApiError::upstream_unreachable, 502, None, true),
            (ApiError::shutting_down, 503, Some(10), true),
            (ApiError::store_unavailable, 503, Some(30), true),
            (ApiError::deadline_exceeded, 504, None, false),
            (ApiError::internal, 500, None, true),
        ];
        for (make, status, retry_after, again) in make {
            let error = make(String::new());
            assert_eq!(
                (error.status, error.retry_after, error.should_retry()),
                (status, retry_after, again),
                "{}",
                error.code
            );
        }
        assert_eq!(ApiError::new(503, "x", "y").retry_after(0).retry_after, Some(1), "never at once");
    }
}
