//! Lines of the batch input file (providers.md, section 1.6).

use crate::domain::ids::RequestId;
use crate::domain::lane::Endpoint;

/// What stands around a body in its line: the length of the line is known before the body is read, so that a file's
/// `Content-Length` is known before its upload begins.
pub(in crate::wire) fn line_length(endpoint: Endpoint, body_len: u64) -> u64 {
    let around =
        PREFIX.len() + RequestId::PREFIX.len() + 32 + MIDDLE.len() + endpoint.as_str().len() + BODY.len() + END.len();
    body_len.saturating_add(u64::try_from(around).unwrap_or(u64::MAX))
}

/// Appends one line, newline included.
pub(in crate::wire) fn push_line(out: &mut Vec<u8>, id: RequestId, endpoint: Endpoint, body: &[u8]) {
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(MIDDLE);
    out.extend_from_slice(endpoint.as_str().as_bytes());
    out.extend_from_slice(BODY);
    out.extend_from_slice(body);
    out.extend_from_slice(END);
}

/// The same for lines without method and URL.
pub(in crate::wire) fn bare_line_length(body_len: u64) -> u64 {
    let around = PREFIX.len() + RequestId::PREFIX.len() + 32 + BODY.len() + END.len();
    body_len.saturating_add(u64::try_from(around).unwrap_or(u64::MAX))
}

/// Appends one of these.
pub(in crate::wire) fn push_bare_line(out: &mut Vec<u8>, id: RequestId, body: &[u8]) {
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(BODY);
    out.extend_from_slice(body);
    out.extend_from_slice(END);
}

const PREFIX: &[u8] = b"{\"custom_id\":\"";
const MIDDLE: &[u8] = b"\",\"method\":\"POST\",\"url\":\"";
const BODY: &[u8] = b"\",\"body\":";
const END: &[u8] = b"}\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;
    use crate::domain::lane::Api;

    #[test]
    fn line_is_json_with_the_clients_bytes_and_has_the_predicted_length() {
        let id = IdSource::default().request_id(Micros::from_unix_seconds(1_795_420_800), 1);
        for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| endpoint.api() == Api::OpenAi) {
            let body = br#"{"model":"m","temperature":1.10}"#;
            let mut line = Vec::new();
            push_line(&mut line, id, endpoint, body);
            assert_eq!(line.len() as u64, line_length(endpoint, body.len() as u64));
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(value["custom_id"], id.to_string());
            assert_eq!(value["method"], "POST");
            assert_eq!(value["url"], endpoint.as_str());
            assert_eq!(line.last(), Some(&b'\n'));
            assert!(line.windows(body.len()).any(|window| window == body));
            let mut bare = Vec::new();
            push_bare_line(&mut bare, id, body);
            assert_eq!(bare.len() as u64, bare_line_length(body.len() as u64));
            let bare: serde_json::Value = serde_json::from_slice(&bare).unwrap();
            assert_eq!((bare["custom_id"] == value["custom_id"], bare.get("url")), (true, None));
        }
    }
}
