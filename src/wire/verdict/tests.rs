use serde_json::json;

use super::*;

fn faults(endpoint: Endpoint, request: &Value, answer: &Value) -> Vec<Fault> {
    inspect(endpoint, request.to_string().as_bytes(), 200, answer.to_string().as_bytes()).faults
}

fn chat(request: &Value, message: &Value, reason: &str) -> Vec<Fault> {
    let answer = json!({"choices": [{"index": 0, "message": message, "finish_reason": reason}]});
    faults(Endpoint::ChatCompletions, request, &answer)
}

fn label() -> Value {
    json!({"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]})
}

#[test]
fn a_good_answer_has_no_faults_and_says_something() {
    let answer = json!({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}).to_string();
    let seen = inspect(Endpoint::ChatCompletions, b"{}", 200, answer.as_bytes());
    assert_eq!(seen, Inspected { faults: vec![], said: Some("yes".to_owned()) });
    assert_eq!(faults(Endpoint::Embeddings, &json!({}), &json!({})), []);
}

#[test]
fn errors_and_answers_of_another_kind_are_faults() {
    assert_eq!(inspect(Endpoint::Responses, b"{}", 404, b"{}").faults, [Fault::Status(404)]);
    for status in [199, 300] {
        assert_eq!(inspect(Endpoint::Responses, b"{}", status, b"{}").faults, [Fault::Status(status)]);
    }
    assert_eq!(inspect(Endpoint::Responses, b"{}", 200, b"<html>").faults, [Fault::Unreadable]);
    assert_eq!(faults(Endpoint::ChatCompletions, &json!({}), &json!({"choices": []})), [Fault::Unreadable]);
    assert_eq!(faults(Endpoint::Messages, &json!({}), &json!({"x": 1})), [Fault::Unreadable]);
}

#[test]
fn chat_answers_that_look_wrong() {
    let plain = json!({});
    assert_eq!(chat(&plain, &json!({"content": "so it"}), "length"), [Fault::Length]);
    assert_eq!(chat(&plain, &json!({"content": null}), "content_filter"), [Fault::ContentFilter]);
    assert_eq!(chat(&plain, &json!({"content": null, "refusal": "I cannot"}), "stop"), [Fault::Refusal]);
    assert_eq!(chat(&plain, &json!({"content": " \n"}), "stop"), [Fault::Empty]);
    assert_eq!(chat(&plain, &json!({"content": null}), "stop"), [Fault::Empty]);
}

#[test]
fn the_form_that_was_asked_for_is_checked() {
    let object = json!({"response_format": {"type": "json_object"}});
    assert_eq!(chat(&object, &json!({"content": "{\"a\":1}"}), "stop"), []);
    assert_eq!(chat(&object, &json!({"content": "Sure! {}"}), "stop"), [Fault::NotJson]);
    assert_eq!(chat(&object, &json!({"content": "[]"}), "stop"), [Fault::NotJson]);
    let strict = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "l", "schema": label()}}});
    assert_eq!(chat(&strict, &json!({"content": "{\"label\":\"x\"}"}), "stop"), []);
    assert_eq!(chat(&strict, &json!({"content": "{\"label\":7}"}), "stop"), [Fault::OffSchema("at /label".to_owned())]);
    let text = json!({"response_format": {"type": "text"}});
    assert_eq!(chat(&text, &json!({"content": "plain"}), "stop"), []);
}

#[test]
fn arguments_of_tools_are_checked() {
    let request = json!({"tools": [{"type": "function", "function": {"name": "file", "parameters": label()}}]});
    let call = |arguments: &str| {
        let call = json!({"id": "c", "type": "function", "function": {"name": "file", "arguments": arguments}});
        chat(&request, &json!({"content": null, "tool_calls": [call]}), "tool_calls")
    };
    assert_eq!(call("{\"label\":\"x\"}"), []);
    assert_eq!(call("{}"), [Fault::Arguments]);
    assert_eq!(call("{\"label\":"), [Fault::Arguments]);
}

#[test]
fn responses_are_read_by_their_items() {
    let read = |request: &Value, answer: &Value| faults(Endpoint::Responses, request, answer);
    let message = |text: &str| {
        json!({"status": "completed", "output": [{"type": "reasoning"},
            {"type": "message", "content": [{"type": "output_text", "text": text}]}]})
    };
    let strict = json!({"text": {"format": {"type": "json_schema", "name": "l", "schema": label()}}});
    assert_eq!(read(&json!({}), &message("fine")), []);
    assert_eq!(read(&strict, &message("{\"label\":\"x\"}")), []);
    assert_eq!(read(&strict, &message("fine")), [Fault::NotJson]);
    let cut = json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []});
    assert_eq!(read(&json!({}), &cut), [Fault::Length]);
    let refused = json!({"status": "completed", "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]});
    assert_eq!(read(&json!({}), &refused), [Fault::Refusal]);
    assert_eq!(read(&json!({}), &json!({"status": "completed", "output": []})), [Fault::Empty]);
    let tools = json!({"tools": [{"type": "function", "name": "file", "parameters": label()}]});
    let call = json!({"status": "completed", "output": [{"type": "function_call", "name": "file", "arguments": "{}"}]});
    assert_eq!(read(&tools, &call), [Fault::Arguments]);
}

#[test]
fn messages_are_read_by_their_blocks() {
    let read = |answer: &Value| {
        let request = json!({"tools": [{"name": "file", "input_schema": label()}]});
        faults(Endpoint::Messages, &request, answer)
    };
    let text = |text: &str, reason: &str| json!({"content": [{"type": "text", "text": text}], "stop_reason": reason});
    assert_eq!(read(&text("fine", "end_turn")), []);
    assert_eq!(read(&text("so it", "max_tokens")), [Fault::Length]);
    assert_eq!(read(&text("", "refusal")), [Fault::Refusal]);
    assert_eq!(read(&json!({"content": [], "stop_reason": "end_turn"})), [Fault::Empty]);
    let tool = |input: Value| json!({"content": [{"type": "tool_use", "name": "file", "input": input}]});
    assert_eq!(read(&tool(json!({"label": "x"}))), []);
    assert_eq!(read(&tool(json!({}))), [Fault::Arguments]);
}

#[test]
fn faults_say_nothing_of_the_answer() {
    let secret = json!({"content": "{\"label\":{\"hunter2\":1},\"hunter2\":2}"});
    let strict = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {
        "type": "object", "properties": {"label": {"type": "object", "additionalProperties": false}}}}}});
    let told: String = chat(&strict, &secret, "stop").iter().map(ToString::to_string).collect();
    assert!(told.contains("/label") && !told.contains("hunter2"), "{told}");
}
