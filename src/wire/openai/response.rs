//! A response that is made in the background (providers.md, sections 1.12 and 1.13): where it stands, and its error.
//!
//! Lenient: a status that nobody knows is one that runs, and an error is read member by member. Called by
//! `upstream::exchange` and `engine::background`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::wire::openai::batch::text_of;

/// Where a background response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseStatus {
    /// `queued`, `in_progress`, or a word that nobody knows.
    Running,
    /// `completed`, or `incomplete`: the answer of a live call, cut off where that would have been.
    Answered,
    /// `failed`.
    Failed,
    /// `cancelled`.
    Cancelled,
}

/// A response object as it was read.
#[derive(Clone, Debug)]
pub struct BackgroundResponse {
    /// The provider's id.
    pub id: String,
    /// Where it stands.
    pub status: ResponseStatus,
    /// It says of itself that it is none: the server took it as a live call.
    pub is_live: bool,
    /// The whole object.
    pub body: Bytes,
}

/// What became of a failed response, as the live call would have told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFailure {
    /// HTTP status.
    pub status: u16,
    /// `error.code`.
    pub code: String,
    /// `error.message`.
    pub message: String,
    /// The provider's error envelope (section 1.15).
    pub body: Bytes,
}

/// No response object.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// No JSON object, or members of the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Without an id that can stand in a path.
    #[error("it has no usable id")]
    Id,
}

#[derive(Deserialize)]
struct Fields {
    id: String,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    background: Value,
    #[serde(default)]
    error: Value,
}

impl BackgroundResponse {
    /// Reads a response object.
    ///
    /// # Errors
    /// [`ResponseError`] when it is none, or has no id that can be asked for.
    pub fn read(body: Bytes) -> Result<Self, ResponseError> {
        let Fields { id, status, background, .. } = serde_json::from_slice(&body)?;
        let in_a_path = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if id.is_empty() || id.len() > 256 || !id.bytes().all(in_a_path) {
            return Err(ResponseError::Id);
        }
        let status = match status.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("completed" | "incomplete") => ResponseStatus::Answered,
            Some("failed") => ResponseStatus::Failed,
            Some("cancelled" | "canceled") => ResponseStatus::Cancelled,
            _ => ResponseStatus::Running,
        };
        Ok(Self { id, status, is_live: background == Value::Bool(false), body })
    }

    /// The error of a failed one. A fault of the call itself is 400, want of room 429, everything else the provider's own.
    pub fn failure(&self) -> ResponseFailure {
        let error = serde_json::from_slice::<Fields>(&self.body).map(|fields| fields.error).unwrap_or_default();
        let text = |name: &str| error.get(name).and_then(text_of);
        let code = text("code").unwrap_or_else(|| "server_error".to_owned());
        let message = text("message").unwrap_or_else(|| "the background response failed".to_owned());
        let (status, kind) = match code.as_str() {
            "rate_limit_exceeded" => (429, "rate_limit_error"),
            "insufficient_quota" => (429, "insufficient_quota"),
            code if ["invalid_", "image_", "unsupported_", "empty_"].iter().any(|begin| code.starts_with(begin)) => {
                (400, "invalid_request_error")
            }
            _ => (500, "server_error"),
        };
        let envelope = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        ResponseFailure { status, code, message, body: Bytes::from(envelope.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<BackgroundResponse, ResponseError> {
        BackgroundResponse::read(Bytes::copy_from_slice(json.as_bytes()))
    }

    #[test]
    fn what_nobody_knows_runs_and_what_cannot_be_asked_for_is_none() {
        for (status, expected) in [
            ("\"queued\"", ResponseStatus::Running),
            ("\"in_progress\"", ResponseStatus::Running),
            ("\"napping\"", ResponseStatus::Running),
            ("null", ResponseStatus::Running),
            ("\"Completed\"", ResponseStatus::Answered),
            ("\"incomplete\"", ResponseStatus::Answered),
            ("\"failed\"", ResponseStatus::Failed),
            ("\"cancelled\"", ResponseStatus::Cancelled),
        ] {
            assert_eq!(read(&format!(r#"{{"id":"resp_0a-1","status":{status}}}"#)).unwrap().status, expected);
        }
        assert!(read(r#"{"id":"r","background":false}"#).unwrap().is_live && !read(r#"{"id":"r"}"#).unwrap().is_live);
        for odd in ["{}", "[]", r#"{"id":""}"#, r#"{"id":"../files"}"#, r#"{"id":7}"#, "<html>"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_failure_is_told_as_the_live_call_would_have() {
        let failure =
            |error: &str| read(&format!(r#"{{"id":"r","status":"failed","error":{error}}}"#)).unwrap().failure();
        let invalid = failure(r#"{"code":"invalid_prompt","message":"no"}"#);
        assert_eq!((invalid.status, invalid.code.as_str(), invalid.message.as_str()), (400, "invalid_prompt", "no"));
        let body: Value = serde_json::from_slice(&invalid.body).unwrap();
        assert_eq!(
            (&body["error"]["type"], &body["error"]["message"]),
            (&json!("invalid_request_error"), &json!("no"))
        );
        assert_eq!(failure(r#"{"code":"rate_limit_exceeded","message":7}"#).status, 429);
        assert_eq!((failure("null").status, failure("null").code.as_str()), (500, "server_error"));
        assert_eq!(failure(r#"{"code":"vector_store_timeout"}"#).status, 500);
    }
}
