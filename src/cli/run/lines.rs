//! Output lines in the provider's own shape (providers.md, sections 1.10 and 2.4), under the input's `custom_id`. Pure.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::lane::{Api, Endpoint};

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// nightbus's id; empty when the call was not accepted.
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) status: u16,
    /// The provider's id of the exchange, where it gave one.
    pub(super) exchange: String,
    /// JSON, unless something is very wrong.
    pub(super) body: Vec<u8>,
}

/// Who speaks in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The provider, be it to refuse.
    Answered,
    /// nightbus, which has no answer.
    Failed,
    /// nightbus, because the call was withdrawn.
    Cancelled,
}

impl Ended {
    /// Whether the line has what was asked for.
    pub(super) const fn went_well(&self) -> bool {
        matches!(self.kind, Kind::Answered) && matches!(self.status, 200..=299)
    }

    /// One line, without its end.
    pub(super) fn line(&self, endpoint: Endpoint, custom_id: &str) -> Vec<u8> {
        let custom_id = Value::from(custom_id);
        let body = one_line(&self.body);
        let line = match (endpoint.api(), self.kind) {
            (Api::OpenAi, Kind::Answered) => format!(
                "{{\"id\":{},\"custom_id\":{custom_id},\"response\":{{\"status_code\":{},\"request_id\":{},\"body\":{body}}},\"error\":null}}",
                Value::from(self.id.as_str()),
                self.status,
                Value::from(self.exchange.as_str()),
            ),
            (Api::OpenAi, Kind::Failed | Kind::Cancelled) => format!(
                "{{\"id\":{},\"custom_id\":{custom_id},\"response\":null,\"error\":{}}}",
                Value::from(self.id.as_str()),
                own_error(&self.body),
            ),
            (Api::Anthropic, Kind::Answered) if self.went_well() => {
                format!("{{\"custom_id\":{custom_id},\"result\":{{\"type\":\"succeeded\",\"message\":{body}}}}}")
            }
            (Api::Anthropic, Kind::Cancelled) => {
                format!("{{\"custom_id\":{custom_id},\"result\":{{\"type\":\"canceled\"}}}}")
            }
            (Api::Anthropic, Kind::Answered | Kind::Failed) => {
                format!("{{\"custom_id\":{custom_id},\"result\":{{\"type\":\"errored\",\"error\":{body}}}}}")
            }
        };
        line.into_bytes()
    }
}

/// The body as JSON on one line; what is no JSON becomes a string.
fn one_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if serde_json::from_str::<&RawValue>(text).is_err() {
        return Value::from(text).to_string();
    }
    // Raw line breaks can only be white space between the parts.
    text.replace(['\n', '\r'], " ")
}

/// `code` and `message` of nightbus's own error.
fn own_error(body: &[u8]) -> Value {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let member = |name: &str| body.pointer(&format!("/error/{name}")).cloned().unwrap_or_default();
    serde_json::json!({"code": member("code"), "message": member("message")})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(kind: Kind, status: u16, body: &str) -> Ended {
        Ended { id: "req_1".into(), kind, status, exchange: "x-1".into(), body: body.as_bytes().to_vec() }
    }

    fn line(ended: &Ended, endpoint: Endpoint) -> String {
        String::from_utf8(ended.line(endpoint, "a\"b")).unwrap()
    }

    #[test]
    fn openais_lines() {
        let good = ended(Kind::Answered, 200, "\n{\"x\":\n \"y\"}");
        assert!(good.went_well());
        assert_eq!(
            line(&good, Endpoint::Embeddings),
            r#"{"id":"req_1","custom_id":"a\"b","response":{"status_code":200,"request_id":"x-1","body":{"x":  "y"}},"error":null}"#
        );
        let refused = ended(Kind::Answered, 400, "{\"error\":{}}");
        assert!(!refused.went_well() && line(&refused, Endpoint::Embeddings).contains("\"status_code\":400"));
        let failed = ended(Kind::Failed, 502, r#"{"error":{"message":"gone","code":"batch_failed","type":"t"}}"#);
        assert_eq!(
            line(&failed, Endpoint::Embeddings),
            r#"{"id":"req_1","custom_id":"a\"b","response":null,"error":{"code":"batch_failed","message":"gone"}}"#
        );
        let html = ended(Kind::Answered, 200, "<p>\n");
        assert!(line(&html, Endpoint::Embeddings).contains(r#""body":"<p>""#));
    }

    #[test]
    fn anthropics_lines() {
        let good = line(&ended(Kind::Answered, 200, "{\"x\":1}"), Endpoint::Messages);
        assert_eq!(good, r#"{"custom_id":"a\"b","result":{"type":"succeeded","message":{"x":1}}}"#);
        let refused = line(&ended(Kind::Answered, 400, "{\"type\":\"error\"}"), Endpoint::Messages);
        assert_eq!(refused, r#"{"custom_id":"a\"b","result":{"type":"errored","error":{"type":"error"}}}"#);
        assert!(line(&ended(Kind::Cancelled, 410, "{}"), Endpoint::Messages).contains("canceled"));
    }
}
