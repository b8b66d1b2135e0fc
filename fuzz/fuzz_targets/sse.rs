//! The writer and the reader of event streams. Whatever a finished body holds, the stream made of it is one that a
//! reader takes apart again, event by event, each of them JSON; a text comes back whole, however it was escaped; and
//! where the bytes are cut on the way makes no difference.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nightbus::wire::openai::replay::{Replay, ReplayEndpoint, error_event_from_body, replay};
use nightbus::wire::openai::sse::SseReader;
use serde_json::Value;
use serde_json::value::RawValue;

const LIMIT: usize = 1 << 20;
const ENDPOINTS: [ReplayEndpoint; 3] = [ReplayEndpoint::Chat, ReplayEndpoint::Completions, ReplayEndpoint::Responses];

type Event = (Vec<u8>, Vec<u8>);

fuzz_target!(|input: &[u8]| {
    let [how, cut, rest @ ..] = input else { return };
    let cut = usize::from(*cut).max(1);
    let endpoint = ENDPOINTS[usize::from(how >> 2) % ENDPOINTS.len()];
    cuts_make_no_difference(rest, cut);
    any_body(endpoint, rest, how & 1 == 1, cut);
    if let Ok(text) = std::str::from_utf8(rest) {
        a_text_comes_back(endpoint, text, *how, cut);
    }
});

fn read(pieces: impl Iterator<Item = impl AsRef<[u8]>>, limit: usize) -> (Vec<Event>, u64) {
    let mut reader = SseReader::new(limit);
    let mut events = Vec::new();
    for piece in pieces {
        reader.feed(piece.as_ref(), |event| events.push((event.event.to_vec(), event.data.to_vec())));
    }
    (events, reader.skipped())
}

fn cuts_make_no_difference(stream: &[u8], cut: usize) {
    for limit in [LIMIT, 16] {
        let whole = read(std::iter::once(stream), limit);
        assert_eq!(whole, read(stream.chunks(cut), limit));
        assert_eq!(whole, read(stream.chunks(1), limit));
    }
}

/// The events of a stream that must be well formed, without its end mark.
fn events_of(endpoint: ReplayEndpoint, stream: Replay, cut: usize) -> Vec<Event> {
    let bytes = stream.collect::<Vec<_>>().concat();
    let (mut events, skipped) = read(bytes.chunks(cut), LIMIT);
    assert_eq!(skipped, 0);
    if endpoint != ReplayEndpoint::Responses {
        assert_eq!(events.pop().map(|(_, data)| data), Some(b"[DONE]".to_vec()));
    }
    for (name, data) in &events {
        let parsed: &RawValue = serde_json::from_slice(data).expect("every event is JSON");
        assert!(parsed.get().starts_with('{'));
        assert_eq!(name.is_empty(), endpoint != ReplayEndpoint::Responses);
    }
    events
}

fn any_body(endpoint: ReplayEndpoint, body: &[u8], include_usage: bool, cut: usize) {
    let body = Bytes::copy_from_slice(body);
    if let Ok(stream) = replay(endpoint, &body, include_usage) {
        events_of(endpoint, stream, cut);
    }
    if let Some(event) = error_event_from_body(endpoint, &body) {
        let (events, _) = read(std::iter::once(event), LIMIT);
        assert_eq!(events.len(), 1);
        let error: &RawValue = serde_json::from_slice(&events[0].1).expect("an error event is JSON");
        assert!(error.get().contains("\"error\":{"));
    }
}

/// `text` as a JSON string; `how` says what is escaped that need not be.
fn escaped(text: &str, how: u8) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        let must = matches!(character, '"' | '\\') || character < ' ';
        if must || (how & 2 != 0 && !character.is_ascii()) || (how & 1 != 0 && character.is_ascii_digit()) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    out + "\""
}

fn a_text_comes_back(endpoint: ReplayEndpoint, text: &str, how: u8, cut: usize) {
    let inside = escaped(text, how);
    let body = match endpoint {
        ReplayEndpoint::Chat => format!(
            r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":{inside},"refusal":null}},"finish_reason":"stop"}}],"usage":{{"total_tokens":1}}}}"#
        ),
        ReplayEndpoint::Completions => format!(
            r#"{{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{{"index":0,"text":{inside},"finish_reason":"stop","logprobs":null}}]}}"#
        ),
        ReplayEndpoint::Responses => format!(
            r#"{{"id":"r","object":"response","created_at":1,"status":"completed","model":"m","output":[{{"id":"i","type":"message","role":"assistant","status":"completed","content":[{{"type":"output_text","annotations":[],"text":{inside}}}]}}]}}"#
        ),
    };
    let stream = replay(endpoint, &Bytes::from(body), false).expect("an answer as the API gives it");
    let (path, wanted) = match endpoint {
        ReplayEndpoint::Chat => ("/choices/0/delta/content", ""),
        ReplayEndpoint::Completions => ("/choices/0/text", ""),
        ReplayEndpoint::Responses => ("/delta", "response.output_text.delta"),
    };
    let mut told = String::new();
    for (name, data) in events_of(endpoint, stream, cut) {
        let event: Value = serde_json::from_slice(&data).expect("no escape is cut apart");
        if name == wanted.as_bytes() {
            told.push_str(event.pointer(path).and_then(Value::as_str).unwrap_or_default());
        }
    }
    assert_eq!(told, text);
}
