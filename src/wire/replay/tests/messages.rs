use serde_json::json;

use super::*;

/// All events, with the form that every one of them must have.
fn told(body: &Value) -> Vec<Value> {
    let stream = stream(ReplayEndpoint::Messages, &body.to_string(), false);
    assert!(!stream.contains("[DONE]") && !stream.contains("sequence_number"));
    let check = |(name, data): (String, String)| {
        let event: Value = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert_eq!(event["type"], name.as_str(), "the SDKs read the name of the event");
        event
    };
    events(&stream).into_iter().map(check).collect()
}

/// Puts the message together again the way the SDKs do it.
fn accumulated(events: &[Value]) -> Value {
    let mut message = Value::Null;
    let mut json = String::new();
    for event in events {
        let at = usize::try_from(event["index"].as_u64().unwrap_or(0)).unwrap();
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(message["content"].as_array().unwrap().len(), at);
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
                json.clear();
            }
            "content_block_delta" => {
                let block = &mut message["content"][at];
                let delta = &event["delta"];
                let mut append = |name: &str| {
                    let joined = block[name].as_str().unwrap().to_owned() + delta[name].as_str().unwrap();
                    block[name] = json!(joined);
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append("text"),
                    "thinking_delta" => append("thinking"),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "citations_delta" => block["citations"].as_array_mut().unwrap().push(delta["citation"].clone()),
                    "input_json_delta" => {
                        json.push_str(delta["partial_json"].as_str().unwrap());
                        if let Ok(input) = serde_json::from_str(&json) {
                            block["input"] = input;
                        }
                    }
                    other => panic!("{other}"),
                }
            }
            "message_delta" => {
                for (name, value) in event["delta"].as_object().unwrap() {
                    message[name] = value.clone();
                }
                message["usage"] = event["usage"].clone();
            }
            "content_block_stop" | "message_stop" => {}
            other => panic!("{other}"),
        }
    }
    message
}

fn message(content: &Value) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-5-5", "content": content,
        "stop_reason": "tool_use", "stop_sequence": null, "container": {"id": "c1"},
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 40, "service_tier": "batch"}})
}

#[test]
fn a_small_answer_byte_for_byte() {
    let body = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":4}}"#;
    let expected = [
        (
            "message_start",
            r#","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}"#,
        ),
        ("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
        ("content_block_delta", r#","index":0,"delta":{"type":"text_delta","text":"hi"}"#),
        ("content_block_stop", r#","index":0"#),
        (
            "message_delta",
            r#","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":9,"output_tokens":4}"#,
        ),
        ("message_stop", ""),
    ];
    let expected: String =
        expected.iter().map(|(kind, rest)| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n")).collect();
    assert_eq!(stream(ReplayEndpoint::Messages, body, true), expected);
}

#[test]
fn every_kind_of_block_comes_out_as_it_went_in() {
    let body = message(&json!([
        {"type": "thinking", "thinking": "let me \"see\"\n", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eHg="},
        {"type": "text", "text": "The sky", "citations": [{"type": "char_location", "cited_text": "a"}, {"n": 2}]},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "é \"x\" \\ y"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"place": "Paris", "days": 1.50}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        {"type": "of_a_later_day", "text": 7},
        {"type": "text", "text": ""},
    ]));
    let events = told(&body);
    assert_eq!(accumulated(&events), body);
    assert_eq!(events[0]["message"]["usage"]["output_tokens"], 1);
    assert_eq!(events.last().unwrap(), &json!({"type": "message_stop"}));
}

#[test]
fn a_refusal_keeps_its_details() {
    let mut body = message(&json!([]));
    body["stop_reason"] = json!("refusal");
    body["stop_details"] = json!({"type": "refusal", "category": "x"});
    let events = told(&body);
    assert_eq!(events[0]["message"]["stop_details"], Value::Null);
    assert_eq!(accumulated(&events), body);
}

#[test]
fn signs_of_life_and_errors_are_events_with_names() {
    assert_eq!(heartbeat_event(ReplayEndpoint::Messages), b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
    let own = error_event(ReplayEndpoint::Messages, "m", "batch_failed", "api_error");
    let events = events(std::str::from_utf8(&own).unwrap());
    let data: Value = serde_json::from_str(&events[0].1).unwrap();
    assert_eq!(
        (events[0].0.as_str(), &data["type"], &data["error"]["type"]),
        ("error", &json!("error"), &json!("api_error"))
    );
    let body =
        "{\"type\":\"error\",\n\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"},\"request_id\":\"r\"}";
    let event = error_event_from_body(ReplayEndpoint::Messages, &Bytes::from(body)).unwrap();
    assert_eq!(event, format!("event: error\ndata: {}\n\n", body.replace('\n', "")));
}

proptest! {
    #[test]
    fn joined_deltas_are_the_text(text in any_text()) {
        let body = message(&json!([{"type": "text", "text": text}, {"type": "tool_use", "id": "t", "name": "n", "input": {"x": text}}]));
        prop_assert_eq!(accumulated(&told(&body)), body);
    }
}
