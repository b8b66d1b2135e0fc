//! Anthropic's errors in OpenAI's envelope (providers.md, sections 1.15, 2.5 and 3.2).

use serde::{Deserialize, Serialize};

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Inner,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    message: Option<String>,
    /// Only errors of nightbus's own have one.
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    param: Option<String>,
}

#[derive(Serialize)]
struct Told<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

/// The status that OpenAI's API has for an error of Anthropic's: it knows no 529.
pub const fn chat_status(status: u16) -> u16 {
    match status {
        529 => 503,
        other => other,
    }
}

/// An error body in OpenAI's envelope. A body that is none (of a gateway in between) is told by its status alone.
pub fn chat_error(status: u16, body: &[u8]) -> Vec<u8> {
    let error = serde_json::from_slice::<Envelope>(body).unwrap_or_default().error;
    let by_status = format!("the provider answered with status {status}");
    let (kind, code) = match (&error.code, error.r#type.as_deref()) {
        (Some(code), _) => ("nightbus_error", Some(code.as_str())),
        (None, Some(kind)) => kind_of(kind),
        (None, None) if status < 500 => ("invalid_request_error", None),
        (None, None) => ("server_error", None),
    };
    let message = error.message.as_deref().unwrap_or(&by_status);
    let told = Told { error: Error { message, r#type: kind, param: error.param.as_deref(), code } };
    serde_json::to_vec(&told).unwrap_or_default()
}

/// Type and code that OpenAI's API has for one of Anthropic's types.
pub(super) fn kind_of(kind: &str) -> (&str, Option<&'static str>) {
    match kind {
        "rate_limit_error" => ("rate_limit_error", Some("rate_limit_exceeded")),
        "authentication_error" => ("authentication_error", Some("invalid_api_key")),
        "not_found_error" => ("invalid_request_error", Some("not_found")),
        "request_too_large" => ("invalid_request_error", Some("request_too_large")),
        "billing_error" => ("insufficient_quota", Some("insufficient_quota")),
        "overloaded_error" => ("server_error", Some("overloaded")),
        "timeout_error" => ("server_error", Some("timeout")),
        "api_error" => ("server_error", None),
        other => (other, None),
    }
}
