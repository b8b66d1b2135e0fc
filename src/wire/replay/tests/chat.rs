use serde_json::{Map, json};

use super::*;

pub(super) const EXAMPLE: &str = r#"{"id":"chatcmpl-CX1","object":"chat.completion","created":1795420870,"model":"gpt-6-luna","choices":[{"index":0,"message":{"role":"assistant","content":"hi","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"x":1.50},"service_tier":"default","system_fingerprint":null}"#;

fn chat(body: &Value, include_usage: bool) -> Vec<Value> {
    chunks(&stream(ReplayEndpoint::Chat, &body.to_string(), include_usage))
}

#[test]
fn a_small_answer_byte_for_byte() {
    let head = r#"data: {"id":"chatcmpl-CX1","object":"chat.completion.chunk","created":1795420870,"model":"gpt-6-luna","service_tier":"default","system_fingerprint":null,"#;
    let expected = [
        r#""choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#""choices":[{"index":0,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}"#,
        r#""choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"x":1.50}}"#,
    ];
    let expected: String = expected.iter().map(|rest| format!("{head}{rest}\n\n")).collect();
    assert_eq!(stream(ReplayEndpoint::Chat, EXAMPLE, true), expected + "data: [DONE]\n\n");
}

#[test]
fn usage_is_told_only_when_asked_for() {
    let without = stream(ReplayEndpoint::Chat, EXAMPLE, false);
    assert!(!without.contains("usage"));
    assert_eq!(events(&without).len(), 4);
    let no_usage = EXAMPLE.replace("\"usage\":{", "\"used\":{");
    let chunks = chunks(&stream(ReplayEndpoint::Chat, &no_usage, true));
    assert_eq!(chunks.len(), 3, "an unknown usage is not invented");
}

#[test]
fn several_tool_calls_open_with_their_name_and_then_tell_their_arguments() {
    let body = json!({"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls", "message":
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}, "extra": {"sig": "x"}},
            {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
            {"id": "call_3", "type": "custom", "custom": {"name": "h", "input": "raw"}}]}}]});
    let deltas: Vec<Value> = chat(&body, false).iter().map(|chunk| chunk["choices"][0]["delta"].clone()).collect();
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": null}),
            json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                "function": {"name": "f", "arguments": ""}, "extra": {"sig": "x"}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\":1}"}}]}),
            json!({"tool_calls": [{"index": 1, "id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}}]}),
            json!({"tool_calls": [{"index": 2, "id": "call_3", "type": "custom", "custom": {"name": "h", "input": "raw"}}]}),
            json!({}),
        ]
    );
}

#[test]
fn numbers_and_fields_of_other_providers_are_not_reprinted() {
    let body = r#"{"id":"c","created":1,"model":"m","citations":["http://x"],"choices":[{"index":0,"stop_reason":1e2,
        "message":{"role":"assistant","content":"a","reasoning_content":"because","audio":{"id":"au","data":"QQ=="}},
        "logprobs":{"content":[{"token":"a","logprob":-0.10,"bytes":[97],"top_logprobs":[]}],"refusal":null},
        "finish_reason":"stop","content_filter_results":{"score":0.500}}],"usage":{"cost":0.00010}}"#;
    let stream = stream(ReplayEndpoint::Chat, body, true);
    for part in [
        r#""delta":{},"logprobs":{"content":[{"token":"a","logprob":-0.10,"bytes":[97],"top_logprobs":[]}],"refusal":null},"finish_reason":null"#,
        r#""delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":1e2,"content_filter_results":{"score":0.500}}"#,
        r#""usage":{"cost":0.00010}"#,
        r#""delta":{"audio":{"id":"au","data":"QQ=="}}"#,
    ] {
        assert!(stream.contains(part), "{part} is not in {stream}");
    }
    let reasoning = stream.find("because").unwrap();
    assert!(reasoning < stream.find(r#"{"content":"a"}"#).unwrap(), "reasoning comes before the answer");
    assert_eq!(stream.matches("citations").count(), 1);
}

#[test]
fn escapes_stay_whole_when_text_is_cut() {
    let inside = r"\ud83d\ude00\n\u00e9".repeat(200);
    let body = format!(r#"{{"id":"c","choices":[{{"message":{{"content":"{inside}"}}}}]}}"#);
    let joined: String = chunks(&stream(ReplayEndpoint::Chat, &body, false))
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(joined, "\u{1f600}\n\u{e9}".repeat(200));
}

#[test]
fn no_choices_still_make_a_stream() {
    let chunks = chat(&json!({"id": "c", "created": 1, "model": "m", "choices": []}), false);
    assert_eq!(
        chunks,
        [json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []})]
    );
}

#[test]
fn completions_tell_text_and_finish() {
    let body = r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[
        {"text":"one","index":0,"logprobs":{"tokens":["one"]},"finish_reason":"length"},
        {"text":"","index":1,"logprobs":null,"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#;
    let chunks = chunks(&stream(ReplayEndpoint::Completions, body, true));
    let choices: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"]).collect();
    assert_eq!(
        choices,
        [
            &json!([{"index": 0, "text": "one", "logprobs": null, "finish_reason": null}]),
            &json!([{"index": 0, "text": "", "logprobs": {"tokens": ["one"]}, "finish_reason": "length"}]),
            &json!([{"index": 1, "text": "", "logprobs": null, "finish_reason": "stop"}]),
            &json!([]),
        ]
    );
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion" && chunk["id"] == "cmpl-1"));
    assert_eq!(chunks[3]["usage"], json!({"total_tokens": 3}));
    assert_eq!(chunks[0]["usage"], Value::Null);
}

/// openai-python's rule for joining deltas.
fn accumulate(whole: &mut Map<String, Value>, delta: &Map<String, Value>) {
    for (key, value) in delta {
        match (whole.get_mut(key), value) {
            (None | Some(Value::Null), _) => {
                whole.insert(key.clone(), value.clone());
            }
            (Some(have), value) if key == "index" || key == "type" => *have = value.clone(),
            (Some(Value::String(have)), Value::String(more)) => have.push_str(more),
            (Some(Value::Object(have)), Value::Object(more)) => accumulate(have, more),
            (Some(Value::Array(have)), Value::Array(more)) => {
                for entry in more {
                    let index = usize::try_from(entry["index"].as_u64().expect("a list entry needs an index")).unwrap();
                    match have.get_mut(index) {
                        Some(there) => accumulate(there.as_object_mut().unwrap(), entry.as_object().unwrap()),
                        None => have.push(entry.clone()),
                    }
                }
            }
            (have, value) => panic!("{key}: {have:?} and {value} cannot be joined"),
        }
    }
}

/// Puts a completion together from its chunks.
fn rebuild(chunks: &[Value]) -> Value {
    let mut body = chunks[0].as_object().unwrap().clone();
    let mut choices: Vec<Map<String, Value>> = Vec::new();
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["created"], &chunk["model"]), (&body["id"], &body["created"], &body["model"]));
        for choice in chunk["choices"].as_array().unwrap() {
            let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            if choices.len() == index {
                choices.push(Map::from_iter([("message".to_owned(), json!({}))]));
            }
            let whole = &mut choices[index];
            accumulate(whole["message"].as_object_mut().unwrap(), choice["delta"].as_object().unwrap());
            for (key, value) in choice.as_object().unwrap().iter().filter(|(key, _)| *key != "delta") {
                if !value.is_null() || !whole.contains_key(key) {
                    whole.insert(key.clone(), value.clone());
                }
            }
        }
        if !chunk["usage"].is_null() {
            assert_eq!(chunk["choices"], json!([]));
            body.insert("usage".to_owned(), chunk["usage"].clone());
        }
    }
    for choice in &mut choices {
        let calls = choice["message"].get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            call.as_object_mut().unwrap().remove("index");
        }
    }
    body.insert("object".to_owned(), json!("chat.completion"));
    body.insert("choices".to_owned(), json!(choices));
    Value::Object(body)
}

fn any_call() -> impl Strategy<Value = Value> {
    prop_oneof![
        ("[a-z]{1,9}", any_text()).prop_map(
            |(id, arguments)| json!({"id": id, "type": "function", "function": {"name": id, "arguments": arguments}})
        ),
        any_text().prop_map(|input| json!({"id": "x", "type": "custom", "custom": {"name": "n", "input": input}})),
    ]
}

fn any_message() -> impl Strategy<Value = Value> {
    let maybe = || proptest::option::of(any_text());
    let calls = proptest::option::of(proptest::collection::vec(any_call(), 0..4));
    (maybe(), maybe(), maybe(), calls, any::<bool>(), maybe()).prop_map(
        |(content, refusal, reasoning, calls, annotated, legacy)| {
            let mut message = json!({"role": "assistant", "content": content, "refusal": refusal});
            if let Some(reasoning) = reasoning {
                message["reasoning_content"] = json!(reasoning);
            }
            if let Some(calls) = calls {
                message["tool_calls"] = json!(calls);
            }
            if annotated {
                message["annotations"] = json!([{"type": "url_citation", "url_citation": {"start_index": 1}}]);
                message["audio"] = json!({"id": "a", "data": "AA=="});
            }
            if let Some(arguments) = legacy {
                message["function_call"] = json!({"name": "f", "arguments": arguments});
            }
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn joined_deltas_are_the_message(
        messages in proptest::collection::vec((any_message(), any::<bool>()), 1..4),
        tier in proptest::option::of("[a-z]{3}"),
    ) {
        let choices: Vec<Value> = messages.into_iter().enumerate().map(|(index, (message, likely))| {
            let logprobs = if likely { json!({"content": [{"token": "a", "logprob": -0.5}], "refusal": null}) } else { Value::Null };
            json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"})
        }).collect();
        let body = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices,
            "usage": {"prompt_tokens": 1}, "service_tier": tier, "system_fingerprint": "fp", "metadata": {"a": "b"}});
        for printed in printed(&body) {
            let chunks = chunks(&stream(ReplayEndpoint::Chat, &printed, true));
            prop_assert_eq!(rebuild(&chunks), body.clone());
        }
    }

    #[test]
    fn joined_texts_are_the_completion(texts in proptest::collection::vec(any_text(), 1..4)) {
        let choices: Vec<Value> = texts.iter().enumerate()
            .map(|(index, text)| json!({"index": index, "text": text, "logprobs": null, "finish_reason": "stop"})).collect();
        let body = json!({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices});
        for printed in printed(&body) {
            let mut joined = vec![String::new(); texts.len()];
            for chunk in chunks(&stream(ReplayEndpoint::Completions, &printed, false)) {
                let choice = &chunk["choices"][0];
                joined[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()].push_str(choice["text"].as_str().unwrap());
            }
            prop_assert_eq!(&joined, &texts);
        }
    }
}
