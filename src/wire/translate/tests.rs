//! Golden files (`golden/NAME.json`: `{"chat", "messages"}`, `{"message", "completion"}` or `{"chat", "refused"}`), and
//! properties: there and back keeps the meaning, and a stream says what the whole answer says.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ChatStream, chat_completion, chat_error, messages_request};
use crate::wire::openai::sse::SseReader;
use crate::wire::replay::{ReplayEndpoint, replay};
use bytes::Bytes;

mod edges;

fn request(chat: &Value) -> Value {
    let translated = messages_request(chat.to_string().as_bytes(), chat["model"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&translated.body).unwrap()
}

fn completion(message: &Value) -> Value {
    serde_json::from_slice(&chat_completion(message.to_string().as_bytes(), 1_700_000_000).unwrap()).unwrap()
}

fn refused(chat: &Value) -> String {
    messages_request(chat.to_string().as_bytes(), "claude-haiku-4-5").unwrap_err().field
}

#[test]
fn golden_files() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/translate/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let made = match (golden.get("chat"), golden.get("messages"), golden.get("message")) {
            (Some(chat), Some(_), _) => json!({"chat": chat, "messages": request(chat)}),
            (Some(chat), None, _) => json!({"chat": chat, "refused": refused(chat)}),
            (None, _, Some(message)) => json!({"message": message, "completion": completion(message)}),
            _ => panic!("{path:?} is no golden file"),
        };
        assert_eq!(made, golden, "{path:?}\nmade: {made:#}");
        seen += 1;
    }
    assert!(seen >= 10, "{seen} golden files");
}

#[test]
fn what_has_no_counterpart_is_refused_by_name() {
    let base = json!({"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hi"}]});
    assert!(request(&base).is_object());
    for (name, value) in [
        ("n", json!(2)),
        ("seed", json!(7)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({"50256": -100})),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-1)),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy", "format": "wav"})),
        ("store", json!(true)),
        ("service_tier", json!("flex")),
        ("verbosity", json!("low")),
        ("web_search_options", json!({})),
        ("functions", json!([{"name": "f"}])),
        ("temperature", json!("hot")),
        ("temperature", json!(3)),
        ("max_tokens", json!("many")),
        ("reasoning_effort", json!("heroic")),
        ("stop", json!(7)),
        ("invented", json!(1)),
    ] {
        let mut chat = base.clone();
        chat[name] = value;
        assert_eq!(refused(&chat), name);
    }
    for (field, neutral) in [
        ("n", json!(1)),
        ("logprobs", json!(false)),
        ("logit_bias", json!({})),
        ("presence_penalty", json!(0)),
        ("store", json!(false)),
        ("seed", json!(null)),
        ("metadata", json!({"run": "7"})),
        ("stream_options", json!({"include_usage": true})),
        ("service_tier", json!("auto")),
    ] {
        let mut chat = base.clone();
        chat[field] = neutral;
        assert_eq!(request(&chat), request(&base), "{field}");
    }
}

#[test]
fn what_is_wrong_inside_is_refused_by_its_path() {
    let chat = |messages: Value| json!({"model": "m", "messages": messages});
    let call = |arguments: &str| {
        chat(json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"id": "a",
            "type": "function", "function": {"name": "f", "arguments": arguments}}]}]))
    };
    for (body, field) in [
        (chat(json!([])), "messages"),
        (chat(json!([{"role": "system", "content": "alone"}])), "messages"),
        (chat(json!([{"role": "assistant", "content": "first"}])), "messages"),
        (chat(json!([{"role": "user", "content": ""}])), "messages[0].content"),
        (chat(json!([{"role": "user", "content": "x", "name": "bob"}])), "messages[0].name"),
        (chat(json!([{"role": "function", "name": "f", "content": "x"}])), "messages[0].role"),
        (
            chat(json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])),
            "messages[0].content[0].type",
        ),
        (
            chat(json!([{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}])),
            "messages[0].content[0].file.file_id",
        ),
        (
            chat(
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}}]}]),
            ),
            "messages[0].content[0].image_url.url",
        ),
        (
            chat(json!([{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]}])),
            "messages[0].content[0].type",
        ),
        (call("{\"a\":"), "messages[1].tool_calls[0].function.arguments"),
        (call("[1]"), "messages[1].tool_calls[0].function.arguments"),
    ] {
        assert_eq!(refused(&body), field);
    }
    let mut tools = chat(json!([{"role": "user", "content": "x"}]));
    tools["tools"] = json!([{"type": "custom", "custom": {"name": "c"}}]);
    assert_eq!(refused(&tools), "tools[0].type");
    tools["tools"] = json!([]);
    tools["tool_choice"] = json!("required");
    assert_eq!(refused(&tools), "tool_choice");
    let mut schema = chat(json!([{"role": "user", "content": "x"}]));
    schema["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "s",
        "schema": {"type": "object", "additionalProperties": {"type": "string"}}}});
    assert_eq!(refused(&schema), "response_format.json_schema.schema.additionalProperties");
}

#[test]
fn json_that_passes_through_keeps_its_bytes() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function",
        "function":{"name":"f","parameters":{"type":"object","properties":{"z":{"type":"number"},"a":{"const":1.50}}}}}],
        "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object","properties":{"zeta":
        {"type":"string","maxLength":3},"alpha":{"type":"integer","minimum":1}},"required":["zeta","alpha"]}}}}"#;
    let made = String::from_utf8(messages_request(body, "m").unwrap().body).unwrap();
    assert!(made.contains(r#"{"z":{"type":"number"},"a":{"const":1.50}}"#), "{made}");
    assert!(!made.contains('\n'), "one line: {made}");
    let zeta = made.find("\"zeta\"").unwrap();
    assert!(zeta < made.find("\"alpha\"").unwrap(), "{made}");
    assert!(!made.contains("maxLength") && !made.contains("minimum"), "{made}");
    let live = messages_request(body, "m").unwrap().streaming();
    assert_eq!(serde_json::from_slice::<Value>(&live).unwrap()["stream"], true);
}

#[test]
fn errors_have_the_other_envelope() {
    let error = |status, body: &str| serde_json::from_slice::<Value>(&chat_error(status, body.as_bytes())).unwrap();
    let rate = error(429, r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"},"request_id":"r"}"#);
    assert_eq!(
        rate,
        json!({"error": {"message": "slow", "type": "rate_limit_error", "param": null,
        "code": "rate_limit_exceeded"}})
    );
    let own =
        error(502, r#"{"type":"error","error":{"type":"api_error","message":"m","code":"upstream_unreachable"}}"#);
    assert_eq!(
        (&own["error"]["type"], &own["error"]["code"]),
        (&json!("nightbus_error"), &json!("upstream_unreachable"))
    );
    for odd in ["", "<html>", "[]", "{\"error\":null}", "{\"error\":\"x\"}"] {
        assert_eq!(error(503, odd)["error"]["type"], "server_error", "{odd}");
    }
}

/// All that a stream of chunks says, put together as an SDK does.
#[derive(Debug, Default, PartialEq)]
struct Said {
    content: String,
    reasoning: String,
    refusal: String,
    calls: Vec<[String; 3]>,
    finish: Value,
    usage: Value,
    done: bool,
}

fn put_together(stream: &[u8]) -> Said {
    let mut said = Said::default();
    SseReader::new(1 << 20).feed(stream, |event| {
        if event.is_done() {
            said.done = true;
            return;
        }
        let chunk: Value = serde_json::from_slice(event.data).unwrap();
        assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &json!("msg_1")), "{chunk}");
        if !chunk["usage"].is_null() {
            said.usage = chunk["usage"].clone();
        }
        let Some(choice) = chunk["choices"].get(0) else { return };
        let delta = &choice["delta"];
        said.content.push_str(delta["content"].as_str().unwrap_or_default());
        said.reasoning.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        said.refusal.push_str(delta["refusal"].as_str().unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            said.calls.resize(said.calls.len().max(index + 1), Default::default());
            for (at, text) in
                [&call["id"], &call["function"]["name"], &call["function"]["arguments"]].iter().enumerate()
            {
                said.calls[index][at].push_str(text.as_str().unwrap_or_default());
            }
        }
        if !choice["finish_reason"].is_null() {
            said.finish = choice["finish_reason"].clone();
        }
    });
    said
}

fn said_whole(completion: &Value) -> Said {
    let message = &completion["choices"][0]["message"];
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    let calls = message["tool_calls"].as_array().into_iter().flatten().map(|call| {
        [&call["id"], &call["function"]["name"], &call["function"]["arguments"]]
            .map(|text| text.as_str().unwrap().to_owned())
    });
    Said {
        content: text("content"),
        reasoning: text("reasoning_content"),
        refusal: text("refusal"),
        calls: calls.collect(),
        finish: completion["choices"][0]["finish_reason"].clone(),
        usage: completion["usage"].clone(),
        done: true,
    }
}

fn block() -> impl Strategy<Value = Value> {
    prop_oneof![
        ".{1,40}".prop_map(|text| json!({"type": "text", "text": text})),
        ".{1,40}".prop_map(|text| json!({"type": "thinking", "thinking": text, "signature": "c2ln"})),
        ("[a-z]{1,9}", "[A-Za-z0-9]{1,9}", proptest::collection::btree_map("[a-z]{1,5}", ".{0,9}", 0..3))
            .prop_map(|(name, id, input)| json!({"type": "tool_use", "id": id, "name": name, "input": input})),
        Just(json!({"type": "redacted_thinking", "data": "eA=="})),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let reason =
        prop_oneof![Just("end_turn"), Just("max_tokens"), Just("tool_use"), Just("refusal"), Just("pause_turn")];
    (proptest::collection::vec(block(), 0..5), reason, 0_u64..9_999, 0_u64..9_999).prop_map(
        |(content, reason, input, read)| {
            json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
            "content": content, "stop_reason": reason, "stop_sequence": null,
            "usage": {"input_tokens": input, "cache_creation_input_tokens": 3, "cache_read_input_tokens": read,
                "output_tokens": 5}})
        },
    )
}

proptest! {
    /// The live stream, cut anywhere, says what the whole answer says.
    #[test]
    fn a_stream_says_what_the_whole_answer_says(message in message(), piece in 1_usize..200) {
        let body = Bytes::from(message.to_string());
        let events: Vec<u8> = replay(ReplayEndpoint::Messages, &body, false).unwrap().flatten().collect();
        let mut chat = ChatStream::new(1_700_000_000, true);
        let mut told = Vec::new();
        for part in events.chunks(piece) {
            prop_assert!(!chat.has_ended());
            told.extend(chat.feed(part));
        }
        prop_assert!(chat.has_ended());
        prop_assert_eq!(put_together(&told), said_whole(&completion(&message)));
    }

    /// An answer that is sent back in the next call is the turn that the model made.
    #[test]
    fn there_and_back_an_answer_is_the_same_turn(message in message()) {
        let answer = &completion(&message)["choices"][0]["message"];
        let chat = json!({"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hi"}, answer,
            {"role": "user", "content": "and?"}]});
        let sent = request(&chat);
        let turns = sent["messages"].as_array().unwrap();
        let texts = |content: &Value| -> String {
            let blocks = content.as_array().unwrap().iter();
            blocks.filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str()).collect()
        };
        let uses = |content: &Value| -> Vec<Value> {
            content.as_array().unwrap().iter().filter(|block| block["type"] == "tool_use").cloned().collect()
        };
        let said = texts(&message["content"]);
        let is_refusal = message["stop_reason"] == "refusal";
        if said.is_empty() && uses(&message["content"]).is_empty() && !is_refusal {
            prop_assert_eq!(turns.len(), 1, "nothing was said: the user goes on");
        } else {
            prop_assert_eq!(&turns[1]["role"], "assistant");
            prop_assert!(texts(&turns[1]["content"]).starts_with(&said));
            prop_assert!(is_refusal || texts(&turns[1]["content"]) == said);
            prop_assert_eq!(uses(&turns[1]["content"]), uses(&message["content"]));
        }
    }

    /// Roles alternate, every text and every result is there once and in its order, whoever spoke how often in a row.
    #[test]
    fn a_conversation_keeps_all_that_was_said(said in proptest::collection::vec((0_usize..4, "[a-z]{1,9}"), 1..12)) {
        let mut messages = vec![json!({"role": "user", "content": "begin"})];
        for (role, text) in &said {
            messages.push(match role {
                0 => json!({"role": "user", "content": [{"type": "text", "text": text}]}),
                1 => json!({"role": "assistant", "content": text}),
                2 => json!({"role": "tool", "tool_call_id": text, "content": text}),
                _ => json!({"role": "system", "content": text}),
            });
        }
        let sent = request(&json!({"model": "m", "messages": messages}));
        let turns = sent["messages"].as_array().unwrap();
        for pair in turns.windows(2) {
            prop_assert_ne!(&pair[0]["role"], &pair[1]["role"]);
        }
        let of = |kind: &str, field: &str| -> Vec<String> {
            let blocks = turns.iter().flat_map(|turn| turn["content"].as_array().unwrap());
            blocks.filter(|block| block["type"] == kind).map(|block| block[field].as_str().unwrap().to_owned()).collect()
        };
        let wanted = |roles: &[usize]| -> Vec<String> {
            said.iter().filter(|(role, _)| roles.contains(role)).map(|(_, text)| text.clone()).collect()
        };
        prop_assert_eq!(&of("text", "text")[1..], &wanted(&[0, 1])[..]);
        prop_assert_eq!(of("tool_result", "tool_use_id"), wanted(&[2]));
        prop_assert_eq!(sent["system"].as_str().unwrap_or_default(), wanted(&[3]).join("\n"));
    }

    /// Whatever comes, nothing panics, and nothing that broke off ends as if it were whole.
    #[test]
    fn odd_bytes_are_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut chat = ChatStream::new(0, false);
        let told = chat.feed(&bytes);
        prop_assert!(!told.windows(6).any(|window| window == b"[DONE]"));
        prop_assert!(messages_request(&bytes, "m").is_err());
        prop_assert!(chat_completion(&bytes, 0).is_err());
    }
}

#[test]
fn an_error_ends_a_stream_and_nothing_follows() {
    let mut chat = ChatStream::new(0, true);
    let told = chat.feed(
        b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n\
          event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("data: {\"error\":{\"message\":\"busy\"") && !told.contains("[DONE]"), "{told}");
    assert!(chat.has_ended());
    assert!(chat.feed(b"data: {\"type\":\"message_stop\"}\n\n").is_empty());
}
