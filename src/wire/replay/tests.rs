//! The streams are read back by the SSE reader and put together again the way the SDKs do it.

mod chat;
mod messages;
mod responses;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::wire::openai::sse::SseReader;

/// The whole stream as text.
fn stream(endpoint: ReplayEndpoint, body: &str, include_usage: bool) -> String {
    let frames = replay(endpoint, &Bytes::copy_from_slice(body.as_bytes()), include_usage).unwrap();
    String::from_utf8(frames.flatten().collect()).unwrap()
}

/// Name and data of each event.
fn events(stream: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let mut reader = SseReader::new(1 << 24);
    reader.feed(stream.as_bytes(), |event| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        events.push((text(event.event), text(event.data)));
    });
    assert_eq!(reader.skipped(), 0);
    events
}

/// The chunks of a chat or completions stream, which must end with `[DONE]`.
fn chunks(stream: &str) -> Vec<Value> {
    let mut events = events(stream);
    assert_eq!(events.pop(), Some((String::new(), "[DONE]".to_owned())));
    events
        .iter()
        .map(|(name, data)| {
            assert_eq!(name, "");
            serde_json::from_str(data).unwrap()
        })
        .collect()
}

/// Text with everything that JSON escapes, short and longer than a piece.
fn any_text() -> impl Strategy<Value = String> {
    let text = prop_oneof![any::<String>(), "[a-z \"\\\\\n\r\t/\u{0}-\u{1f}\u{7f}\u{2028}éß漢😀]{0,40}",];
    (text, prop_oneof![Just(1_usize), 0..200_usize]).prop_map(|(text, times)| text.repeat(times))
}

/// JSON text with all non-ASCII characters escaped, as Python's `json.dumps` prints it.
fn ascii(value: &Value) -> String {
    let mut out = String::new();
    for character in value.to_string().chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// The same body in the three ways in which providers print JSON.
fn printed(value: &Value) -> [String; 3] {
    [value.to_string(), serde_json::to_string_pretty(value).unwrap(), ascii(value)]
}

#[test]
fn what_is_no_finished_answer_is_refused() {
    for endpoint in [ReplayEndpoint::Chat, ReplayEndpoint::Completions, ReplayEndpoint::Responses] {
        for body in [
            "",
            "[]",
            "1",
            "{",
            "{}",
            "{\"choices\":[1]}",
            "{\"choices\":{}}",
            "{\"choices\":[{}]}",
            "{\"error\":{}}",
            "\u{feff}{}",
        ] {
            assert!(replay(endpoint, &Bytes::from(body), true).is_err(), "{endpoint:?} {body}");
        }
    }
    let unfinished = Bytes::from_static(br#"{"id":"resp_1","status":"queued","output":[]}"#);
    assert!(matches!(replay(ReplayEndpoint::Responses, &unfinished, false), Err(ReplayError::NotFinished)));
}

#[test]
fn a_large_body_comes_in_pieces_and_not_much_larger() {
    let text = "word ".repeat(200_000);
    let body = format!(r#"{{"id":"c","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}}}}]}}"#);
    let frames: Vec<Bytes> = replay(ReplayEndpoint::Chat, &Bytes::from(body.clone()), false).unwrap().collect();
    assert!(frames.iter().all(|frame| frame.len() < FRAME_BYTES + 2 * PIECE_BYTES));
    let total: usize = frames.iter().map(Bytes::len).sum();
    assert!(total < body.len() * 5 / 4, "{total} bytes for {}", body.len());
}

#[test]
fn paths_name_their_streams() {
    assert_eq!(ReplayEndpoint::of_path("/v1/responses"), Some(ReplayEndpoint::Responses));
    assert_eq!(ReplayEndpoint::of_path("/v1/embeddings"), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0..2000_usize,
        flipped in any::<u8>(),
    ) {
        let mut damaged = [chat::EXAMPLE, responses::EXAMPLE].map(|example| example.as_bytes().to_vec());
        for example in &mut damaged {
            let at = cut % example.len();
            example[at] = flipped;
        }
        let [chat, response] = damaged;
        for body in [bytes, chat, response] {
            for endpoint in [ReplayEndpoint::Chat, ReplayEndpoint::Completions, ReplayEndpoint::Responses] {
                if let Ok(frames) = replay(endpoint, &Bytes::from(body.clone()), true) {
                    let _length = frames.map(|frame| frame.len()).sum::<usize>();
                }
                let _event = error_event_from_body(endpoint, &Bytes::from(body.clone()));
            }
        }
    }
}
