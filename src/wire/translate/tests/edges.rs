//! What the golden files leave open: found by the mutation check (docs/mutation.md).

use serde_json::{Value, json};

use super::{refused, request};
use crate::wire::translate::{ChatStream, chat_error, chat_status, messages_request};

const MODEL: &str = "claude-haiku-4-5";

fn chat(messages: &Value) -> Value {
    json!({"model": MODEL, "messages": messages})
}

#[test]
fn the_status_is_kept_but_for_the_one_that_openai_does_not_know() {
    for (theirs, told) in [(529, 503), (500, 500), (503, 503), (429, 429), (400, 400)] {
        assert_eq!(chat_status(theirs), told);
    }
}

#[test]
fn an_error_without_a_type_is_the_callers_below_500() {
    for (status, kind) in [(400, "invalid_request_error"), (499, "invalid_request_error"), (500, "server_error")] {
        let told: Value = serde_json::from_slice(&chat_error(status, b"<html>")).unwrap();
        assert_eq!(told["error"]["type"], kind, "{status}");
        assert!(told["error"]["message"].as_str().unwrap().contains(&status.to_string()), "{told}");
    }
}

#[test]
fn results_of_tools_come_first_in_their_turn_and_the_rest_keeps_its_order() {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let made = request(&chat(&json!([
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "user", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "tool", "tool_call_id": "call_1", "content": "four"},
    ])));
    let turn = made["messages"][2]["content"].as_array().unwrap();
    let told: Vec<&str> = turn.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(told, ["tool_result", "text", "text"], "{made:#}");
    assert_eq!((&turn[1]["text"], &turn[2]["text"]), (&json!("two"), &json!("three")));
}

#[test]
fn annotations_belong_to_texts_alone() {
    let answer = |part: Value| {
        chat(
            &json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": [part]}, {"role": "user", "content": "y"}]),
        )
    };
    let text = request(&answer(json!({"type": "text", "text": "a", "annotations": [{"type": "url_citation"}]})));
    assert_eq!(text["messages"][1]["content"][0], json!({"type": "text", "text": "a"}), "{text:#}");
    let refusal = answer(json!({"type": "refusal", "refusal": "no", "annotations": [{"type": "url_citation"}]}));
    assert_eq!(refused(&refusal), "messages[1].content[0].annotations");
}

#[test]
fn a_refusal_that_is_sent_back_is_a_text_unless_it_is_empty() {
    for (refusal, texts) in [("No.", &["a", "No."][..]), ("", &["a"])] {
        let made = request(&chat(&json!([
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "a", "refusal": refusal},
            {"role": "user", "content": "y"},
        ])));
        let blocks = made["messages"][1]["content"].as_array().unwrap();
        assert_eq!(blocks.iter().map(|block| block["text"].as_str().unwrap()).collect::<Vec<_>>(), texts, "{made:#}");
    }
}

#[test]
fn line_breaks_between_tokens_are_left_out_and_everything_else_stays() {
    let body = b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":\"function\",\
        \"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\r\n  \"properties\":{\"a\":\n{\"const\":1.50}}}}}]}";
    let made = String::from_utf8(messages_request(body, "m").unwrap().body).unwrap();
    assert!(made.contains(r#"{"type":"object",  "properties":{"a":{"const":1.50}}}"#), "{made}");
}

#[test]
fn a_system_prompt_with_one_marked_part_is_told_in_parts() {
    let made = request(&chat(&json!([
        {"role": "system", "content": [
            {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "short"},
        ]},
        {"role": "user", "content": "x"},
    ])));
    assert_eq!(made["system"].as_array().map(Vec::len), Some(2), "{made:#}");
    assert_eq!(made["system"][0]["cache_control"], json!({"type": "ephemeral"}));
    let plain = request(&chat(&json!([{"role": "system", "content": "a"}, {"role": "user", "content": "x"}])));
    assert_eq!(plain["system"], "a");
}

#[test]
fn a_temperature_up_to_one_is_sent_as_it_was_written() {
    for (given, sent) in [("1.0", "1.0"), ("0.25", "0.25"), ("1.01", "1"), ("2", "1")] {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"temperature":{given}}}"#);
        let made = String::from_utf8(messages_request(body.as_bytes(), "m").unwrap().body).unwrap();
        assert!(
            made.contains(&format!("\"temperature\":{sent},")) || made.contains(&format!("\"temperature\":{sent}}}")),
            "{given}: {made}"
        );
    }
}

#[test]
fn a_schema_with_properties_is_an_object_without_saying_so() {
    let schema = json!({"required": ["a"], "properties": {"a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
    let made =
        request(&json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "response_format": format}));
    assert_eq!(made["output_config"]["format"]["schema"]["additionalProperties"], false, "{made:#}");
}

#[test]
fn a_message_that_is_no_object_is_named_by_its_place() {
    assert_eq!(refused(&chat(&json!(["x"]))), "messages[0]");
    let body = messages_request(b"[]", "m").unwrap_err();
    assert_eq!(body.field, "body");
}

#[test]
fn a_stream_that_cannot_be_read_ends_with_one_error() {
    let mut stream = ChatStream::new(0, true);
    let told = String::from_utf8(stream.feed(b"data: {\"type\n\ndata: {\"type\n\n")).unwrap();
    assert_eq!(told.matches("data: ").count(), 1, "{told}");
    assert!(told.contains("\"type\":\"server_error\"") && told.contains("cannot be read"), "{told}");
    assert!(stream.has_ended() && stream.feed(b"data: {\"type\":\"ping\"}\n\n").is_empty());
}

#[test]
fn a_stream_with_an_event_beyond_all_bounds_ends_with_an_error() {
    let mut stream = ChatStream::new(0, false);
    let mut told = stream.feed(b"data: ");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..17 {
        told.extend(stream.feed(&piece));
    }
    told.extend(stream.feed(b"\n\n"));
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("is too long") && stream.has_ended(), "{told}");
}

#[test]
fn chunks_of_a_stream_are_of_its_one_choice() {
    let mut stream = ChatStream::new(0, false);
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}});
    let told = String::from_utf8(stream.feed(format!("data: {start}\n\n").as_bytes())).unwrap();
    let chunk: Value = serde_json::from_str(told.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        (&chunk["choices"][0]["index"], &chunk["choices"][0]["delta"]["role"]),
        (&json!(0), &json!("assistant"))
    );
}
