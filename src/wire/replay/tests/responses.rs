use serde_json::json;

use super::*;

pub(super) const EXAMPLE: &str = r#"{"id":"resp_0a1","object":"response","created_at":1795420870,"completed_at":1795420872,"status":"completed","error":null,"model":"gpt-6-luna","output":[{"id":"msg_0a1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"hi","annotations":[],"logprobs":[]}]}],"temperature":1.0,"usage":{"input_tokens":9,"output_tokens":2}}"#;

/// All events, with the form that every one of them must have.
fn told(body: &str) -> Vec<Value> {
    let stream = stream(ReplayEndpoint::Responses, body, false);
    assert!(!stream.contains("[DONE]"));
    let events = events(&stream);
    events
        .iter()
        .enumerate()
        .map(|(number, (name, data))| {
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!(event["type"], name.as_str());
            assert_eq!(event["sequence_number"], number);
            event
        })
        .collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap()).collect()
}

fn with_output(output: &Value) -> Value {
    json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "error": null,
        "incomplete_details": null, "output": output, "usage": {"input_tokens": 1}})
}

#[test]
fn a_small_answer_byte_for_byte() {
    let opened = r#"{"id":"resp_0a1","object":"response","created_at":1795420870,"completed_at":null,"status":"in_progress","error":null,"model":"gpt-6-luna","output":[],"temperature":1.0,"usage":null}"#;
    let place = r#""item_id":"msg_0a1","output_index":0,"content_index":0"#;
    let part = r#"{"type":"output_text","text":"hi","annotations":[],"logprobs":[]}"#;
    let expected = [
        ("created", format!("\"response\":{opened}")),
        ("in_progress", format!("\"response\":{opened}")),
        ("output_item.added", r#""output_index":0,"item":{"id":"msg_0a1","type":"message","status":"in_progress","role":"assistant","content":[]}"#.to_owned()),
        ("content_part.added", format!(r#"{place},"part":{{"type":"output_text","text":"","annotations":[],"logprobs":[]}}"#)),
        ("output_text.delta", format!(r#"{place},"delta":"hi","logprobs":[]"#)),
        ("output_text.done", format!(r#"{place},"text":"hi","logprobs":[]"#)),
        ("content_part.done", format!(r#"{place},"part":{part}"#)),
        ("output_item.done", format!(r#""output_index":0,"item":{{"id":"msg_0a1","type":"message","status":"completed","role":"assistant","content":[{part}]}}"#)),
        ("completed", format!("\"response\":{EXAMPLE}")),
    ];
    let expected: String = expected
        .iter()
        .enumerate()
        .map(|(number, (kind, rest))| {
            format!(
                "event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":{number},{rest}}}\n\n"
            )
        })
        .collect();
    assert_eq!(stream(ReplayEndpoint::Responses, EXAMPLE, true), expected);
}

#[test]
fn every_kind_of_item_is_told_in_its_own_events() {
    let output = json!([
        {"id": "rs_1", "type": "reasoning", "encrypted_content": "zz", "summary": [{"type": "summary_text", "text": "thus"}],
            "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}", "status": "completed"},
        {"id": "ct_1", "type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "go"},
        {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "yes", "annotations": [{"type": "url_citation", "url": "u"}]},
            {"type": "refusal", "refusal": "no"},
            {"type": "hologram", "data": 1}]},
        {"type": "of_the_future", "x": [1]},
        7,
    ]);
    let events = told(&with_output(&output).to_string());
    assert_eq!(
        kinds(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.annotation.added",
            "output_text.done",
            "content_part.done",
            "content_part.added",
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "content_part.added",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "output_item.done",
            "output_item.added",
            "output_item.done",
            "completed",
        ]
    );
    let of = |kind: &str| events.iter().find(|event| event["type"] == format!("response.{kind}")).unwrap();
    assert_eq!(
        *of("function_call_arguments.done"),
        json!({"type": "response.function_call_arguments.done", "sequence_number": 16, "item_id": "fc_1", "output_index": 2,
            "name": "f", "arguments": "{}"})
    );
    assert_eq!(of("reasoning_summary_text.delta")["summary_index"], 0);
    assert_eq!(of("output_text.annotation.added")["annotation"], json!({"type": "url_citation", "url": "u"}));
    assert_eq!(of("refusal.done")["refusal"], "no");
    let web_search: Vec<&Value> =
        events.iter().filter(|event| event["output_index"] == 1).map(|event| &event["item"]).collect();
    assert_eq!(web_search, [&output[1], &output[1]], "hosted tools come whole");
}

#[test]
fn the_last_event_follows_the_status() {
    for (status, last) in
        [("completed", "completed"), ("incomplete", "incomplete"), ("failed", "failed"), ("cancelled", "failed")]
    {
        let body = EXAMPLE.replacen("\"completed\"", &format!("\"{status}\""), 1);
        let events = told(&body);
        assert_eq!(kinds(&events).last(), Some(&last));
        assert_eq!(events.last().unwrap()["response"], serde_json::from_str::<Value>(&body).unwrap());
        assert_eq!(events[0]["response"]["status"], "in_progress");
    }
}

/// Puts the output together from the events alone, as openai-node does.
fn rebuild(events: &[Value]) -> Value {
    let mut output: Vec<Value> = Vec::new();
    for event in events {
        let at = usize::try_from(event["output_index"].as_u64().unwrap_or(0)).unwrap();
        let nth = |key: &str| usize::try_from(event[key].as_u64().unwrap()).unwrap();
        let kind = event["type"].as_str().unwrap();
        match kind.strip_prefix("response.").unwrap() {
            "output_item.added" => {
                assert_eq!(output.len(), at);
                output.push(event["item"].clone());
            }
            "content_part.added" => {
                let content = output[at]["content"].as_array_mut().unwrap();
                assert_eq!(content.len(), nth("content_index"));
                content.push(event["part"].clone());
            }
            "reasoning_summary_part.added" => output[at]["summary"].as_array_mut().unwrap().push(event["part"].clone()),
            "output_text.delta" | "reasoning_text.delta" => {
                append(&mut output[at]["content"][nth("content_index")]["text"], event);
            }
            "refusal.delta" => append(&mut output[at]["content"][nth("content_index")]["refusal"], event),
            "reasoning_summary_text.delta" => append(&mut output[at]["summary"][nth("summary_index")]["text"], event),
            "function_call_arguments.delta" => append(&mut output[at]["arguments"], event),
            "custom_tool_call_input.delta" => append(&mut output[at]["input"], event),
            "output_text.annotation.added" => {
                let part = &mut output[at]["content"][nth("content_index")];
                part["annotations"].as_array_mut().unwrap().push(event["annotation"].clone());
            }
            "output_text.done" | "reasoning_text.done" => {
                assert_eq!(output[at]["content"][nth("content_index")]["text"], event["text"]);
            }
            "function_call_arguments.done" => assert_eq!(output[at]["arguments"], event["arguments"]),
            "output_item.done" => {
                if output[at].get("status").is_some() {
                    output[at]["status"] = event["item"]["status"].clone();
                }
                assert_eq!(output[at], event["item"], "what was told is what is done");
            }
            _ => {}
        }
    }
    json!(output)
}

fn append(text: &mut Value, event: &Value) {
    assert!(!event["delta"].as_str().unwrap().is_empty(), "empty deltas are not told");
    *text = json!(format!("{}{}", text.as_str().unwrap(), event["delta"].as_str().unwrap()));
}

fn any_item() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        any_text().prop_map(|text| json!({"type": "output_text", "text": text, "annotations": [{"type": "file_citation"}], "logprobs": []})),
        any_text().prop_map(|text| json!({"type": "refusal", "refusal": text})),
    ];
    prop_oneof![
        proptest::collection::vec(part, 0..3).prop_map(
            |content| json!({"id": "msg", "type": "message", "status": "completed", "role": "assistant", "content": content})
        ),
        any_text().prop_map(
            |text| json!({"id": "fc", "type": "function_call", "call_id": "c", "name": "f", "arguments": text, "status": "completed"})
        ),
        any_text().prop_map(|text| json!({"id": "ct", "type": "custom_tool_call", "call_id": "c", "name": "f", "input": text})),
        (any_text(), any_text()).prop_map(|(thought, summary)| json!({"id": "rs", "type": "reasoning",
            "summary": [{"type": "summary_text", "text": summary}], "content": [{"type": "reasoning_text", "text": thought}]})),
        any_text().prop_map(|text| json!({"id": "ig", "type": "image_generation_call", "status": "completed", "result": text})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn joined_events_are_the_output(output in proptest::collection::vec(any_item(), 0..4)) {
        let body = with_output(&json!(output));
        for printed in printed(&body) {
            let events = told(&printed);
            prop_assert_eq!(rebuild(&events), body["output"].clone());
            prop_assert_eq!(&events.last().unwrap()["response"], &body);
        }
    }
}
