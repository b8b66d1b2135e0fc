//! What a stream carries beside its answer: signs of life, and errors.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::ReplayEndpoint;
use super::json::{self, Object};

/// The connection lives: a comment, ignored by all clients (providers.md, section 1.14).
pub const fn heartbeat_event(endpoint: ReplayEndpoint) -> &'static [u8] {
    match endpoint {
        ReplayEndpoint::Chat | ReplayEndpoint::Completions | ReplayEndpoint::Responses => b": nightbus queued\n\n",
        // Its own sign of life (section 2.7).
        ReplayEndpoint::Messages => b"event: ping\ndata: {\"type\":\"ping\"}\n\n",
    }
}

/// A chat chunk without choices, for clients whose timer ignores comments (LangChain). Clients take it for what Azure
/// and the usage chunk look like, too; accumulators may keep its `model` and `created`, so both should be the call's
/// own (`created` in Unix seconds). There is no such event for Responses: its first one must be the real
/// `response.created`.
pub fn empty_chat_chunk(id: &str, model: &str, created: i64) -> Bytes {
    #[derive(Serialize)]
    struct Chunk<'a> {
        id: &'a str,
        object: &'static str,
        created: i64,
        model: &'a str,
        choices: [(); 0],
    }
    data(b"", &Chunk { id, object: "chat.completion.chunk", created, model, choices: [] })
}

/// The event that makes SDKs raise instead of ending the stream as if all were well; nothing may follow it.
///
/// Chat and completions: `data: {"error":{…}}`. Responses: the schema's flat `error` event *and* an `error` object in
/// it, because the SDKs yield the flat form without raising, and raise on any event whose data has a truthy `error`
/// (providers.md, section 1.14). Messages: an `error` event, whose name must be there (section 2.7). It is always the first event of such a stream, so its number is 0.
pub fn error_event(endpoint: ReplayEndpoint, message: &str, code: &str, error_type: &str) -> Bytes {
    #[derive(Serialize)]
    struct Error<'a> {
        message: &'a str,
        r#type: &'a str,
        param: Option<&'a str>,
        code: &'a str,
    }
    let error = Error { message, r#type: error_type, param: None, code };
    serde_json::value::to_raw_value(&error).map_or_else(|_never| Bytes::new(), |raw| event_of(endpoint, &raw))
}

/// The same for a provider's own error body (`{"error":{…}}`), whose object is passed on as it stands. None when the
/// body has no such object.
pub fn error_event_from_body(endpoint: ReplayEndpoint, body: &Bytes) -> Option<Bytes> {
    let body = json::on_one_line(body);
    let error = Object::parse(&body).ok()?.value("error").filter(|error| error.starts_with(b"{"))?.clone();
    let error = &error;
    if endpoint == ReplayEndpoint::Messages {
        // The event's data is the error response as it stands (section 2.7).
        return Some(Bytes::from([b"event: error\ndata: ".as_slice(), &body, b"\n\n"].concat()));
    }
    serde_json::from_slice::<&RawValue>(error).ok().map(|raw| event_of(endpoint, raw))
}

fn event_of(endpoint: ReplayEndpoint, error: &RawValue) -> Bytes {
    #[derive(Serialize)]
    struct Wrapped<'a> {
        error: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Flat<'a> {
        r#type: &'static str,
        sequence_number: u64,
        code: Option<Cow<'a, str>>,
        message: Option<Cow<'a, str>>,
        param: Option<Cow<'a, str>>,
        error: &'a RawValue,
    }
    #[derive(serde::Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, default)]
        code: Option<&'a RawValue>,
        #[serde(borrow, default)]
        message: Option<&'a RawValue>,
        #[serde(borrow, default)]
        param: Option<&'a RawValue>,
    }
    #[derive(Serialize)]
    struct Typed<'a> {
        r#type: &'static str,
        error: &'a RawValue,
    }
    if endpoint == ReplayEndpoint::Messages {
        return data(b"event: error\n", &Typed { r#type: "error", error });
    }
    if endpoint != ReplayEndpoint::Responses {
        return data(b"", &Wrapped { error });
    }
    let fields = serde_json::from_str::<Fields<'_>>(error.get()).ok();
    let text = |pick: fn(&Fields<'_>) -> Option<String>| fields.as_ref().and_then(pick).map(Cow::Owned);
    let flat = Flat {
        r#type: "error",
        sequence_number: 0,
        code: text(|fields| string(fields.code)),
        message: text(|fields| string(fields.message)),
        param: text(|fields| string(fields.param)),
        error,
    };
    data(b"event: error\n", &flat)
}

fn string(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

fn data(before: &[u8], value: &impl Serialize) -> Bytes {
    // These types always have a JSON form.
    let json = serde_json::to_vec(value).unwrap_or_default();
    json::join(&[before, b"data: ", &json, b"\n\n"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReplayEndpoint::{Chat, Responses};

    #[test]
    fn an_error_in_chat_is_an_error_object() {
        let event = error_event(Chat, "expired \"now\"\n", "batch_expired", "server_error");
        assert_eq!(
            event,
            "data: {\"error\":{\"message\":\"expired \\\"now\\\"\\n\",\"type\":\"server_error\",\"param\":null,\"code\":\"batch_expired\"}}\n\n"
        );
    }

    #[test]
    fn an_error_in_responses_is_flat_and_an_object() {
        let event = error_event(Responses, "expired", "batch_expired", "server_error");
        let error = r#"{"message":"expired","type":"server_error","param":null,"code":"batch_expired"}"#;
        assert_eq!(
            event,
            format!(
                "event: error\ndata: {{\"type\":\"error\",\"sequence_number\":0,\"code\":\"batch_expired\",\"message\":\"expired\",\"param\":null,\"error\":{error}}}\n\n"
            )
        );
    }

    #[test]
    fn a_providers_error_is_passed_on_as_it_stands() {
        let body = Bytes::from_static(b"{\n \"error\": {\"message\":\"bad \\u0041\",\"code\":null,\"x\":1.0}\n}");
        let event = error_event_from_body(Chat, &body).unwrap();
        assert_eq!(event, "data: {\"error\":{\"message\":\"bad \\u0041\",\"code\":null,\"x\":1.0}}\n\n");
        let event = error_event_from_body(Responses, &body).unwrap();
        assert!(event.starts_with(
            b"event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":null,\"message\":\"bad A\""
        ));
        for other in ["", "[]", "{}", "{\"error\":null}", "{\"error\":\"text\"}"] {
            assert_eq!(error_event_from_body(Chat, &Bytes::from(other)), None, "{other}");
        }
    }

    #[test]
    fn an_empty_chunk_has_all_required_fields() {
        assert_eq!(
            empty_chat_chunk("chatcmpl-q", "gpt-6-luna", 1),
            "data: {\"id\":\"chatcmpl-q\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-6-luna\",\"choices\":[]}\n\n"
        );
    }
}
