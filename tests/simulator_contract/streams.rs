//! Live streams: the order and shape of events (providers.md 1.14).

use serde_json::{Value, json};

use super::client::{Api, chat};

/// The events: name (empty where there is none) and data.
async fn events(api: &Api, path: &str, call: &Value) -> Vec<(String, String)> {
    let reply = api.post(path, call).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.ends_with("\n\n"));
    let event = |block: &str| {
        let (name, data) = block.strip_prefix("event: ").map_or(("", block), |rest| rest.split_once('\n').unwrap());
        (name.to_owned(), data.strip_prefix("data: ").unwrap().to_owned())
    };
    text.trim_end().split("\n\n").map(event).collect()
}

async fn chunks(api: &Api, path: &str, mut call: Value) -> Vec<Value> {
    call["stream"] = json!(true);
    let mut events = events(api, path, &call).await;
    assert_eq!(events.pop().unwrap().1, "[DONE]");
    let chunks = events.iter().map(|(name, data)| {
        assert_eq!(name, "");
        serde_json::from_str::<Value>(data).unwrap()
    });
    chunks.collect()
}

#[tokio::test]
async fn chat_chunks_make_up_the_answer() {
    let api = Api::quick().await;
    let call = chat("a longer text, so that it comes in pieces: äöü 🚌");
    let chunks = chunks(&api, "/v1/chat/completions", call).await;
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
    let text: String =
        chunks[1..].iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(text.ends_with("] a longer text, so that it comes in pieces: äöü 🚌"));
    assert!(chunks.len() > 4);
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"][0]["delta"], &last["choices"][0]["finish_reason"]), (&json!({}), &json!("stop")));
    for chunk in &chunks {
        assert_eq!(
            (&chunk["object"], &chunk["id"], &chunk["created"]),
            (&json!("chat.completion.chunk"), &chunks[0]["id"], &chunks[0]["created"])
        );
        assert!(chunk.get("usage").is_none(), "nobody asked for it");
    }
    assert_eq!(api.sim.counters()["live_calls"], 1);
}

#[tokio::test]
async fn usage_comes_last_where_asked_for_and_is_null_before() {
    let api = Api::quick().await;
    let mut call = chat("hi");
    call["stream_options"] = json!({"include_usage": true});
    let chunks = chunks(&api, "/v1/chat/completions", call).await;
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["total_tokens"].is_u64());
    assert!(before.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
}

#[tokio::test]
async fn tool_calls_and_choices_are_streamed() {
    let api = Api::quick().await;
    let mut call = chat("use the tool");
    call["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    call["n"] = json!(2);
    let chunks = chunks(&api, "/v1/chat/completions", call).await;
    for index in 0..2 {
        let of_choice = || chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        let tools: Vec<&Value> =
            of_choice().map(|choice| &choice["delta"]["tool_calls"][0]).filter(|tool| !tool.is_null()).collect();
        assert_eq!((&tools[0]["function"]["name"], &tools[0]["function"]["arguments"]), (&json!("f"), &json!("")));
        assert!(tools[0]["id"].as_str().unwrap().starts_with("call_"));
        let arguments: String = tools[1..].iter().map(|tool| tool["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap()["choice"], index);
        assert_eq!(of_choice().next_back().unwrap()["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn text_completions_are_streamed() {
    let api = Api::quick().await;
    let call = json!({"model": "m", "prompt": "hello hello hello hello"});
    let chunks = chunks(&api, "/v1/completions", call).await;
    let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert!(text.ends_with("] hello hello hello hello"));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
}

/// The types of the events in order, repeated deltas as one; and the last event.
async fn response_events(api: &Api, mut call: Value) -> (Vec<String>, Vec<Value>) {
    call["stream"] = json!(true);
    let events = events(api, "/v1/responses", &call).await;
    let mut bodies = Vec::new();
    for (at, (name, data)) in events.iter().enumerate() {
        let body: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&body["type"], &body["sequence_number"]), (&json!(name), &json!(at)));
        bodies.push(body);
    }
    let mut names: Vec<String> = events.into_iter().map(|(name, _)| name).collect();
    names.dedup();
    (names, bodies)
}

#[tokio::test]
async fn response_events_come_in_order() {
    let api = Api::quick().await;
    let (names, bodies) = response_events(&api, json!({"model": "m", "input": "a text in some pieces"})).await;
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (&bodies[0]["response"]["status"], &bodies[0]["response"]["output"]),
        (&json!("in_progress"), &json!([]))
    );
    let text: String = bodies.iter().filter_map(|body| body["delta"].as_str()).collect();
    let response = &bodies.last().unwrap()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    assert!(text.ends_with("] a text in some pieces") && response["usage"]["total_tokens"].is_u64());
    assert!(bodies.iter().filter(|body| body["delta"].is_string()).all(|body| body["logprobs"] == json!([])));
}

#[tokio::test]
async fn response_function_calls_refusals_and_incomplete_ones() {
    let api = Api::quick().await;
    let tools = json!([{"type": "function", "name": "f"}]);
    let (names, bodies) = response_events(&api, json!({"model": "m", "input": "use the tool", "tools": tools})).await;
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, expected);
    assert_eq!(bodies[2]["item"]["arguments"], "");
    let done = bodies.iter().find(|body| body["type"] == "response.function_call_arguments.done").unwrap();
    assert_eq!(
        (&done["name"], &done["arguments"]),
        (&json!("f"), &bodies.last().unwrap()["response"]["output"][0]["arguments"])
    );
    let (names, _) = response_events(&api, json!({"model": "m", "input": "sim-refuse"})).await;
    assert!(
        names.contains(&"response.refusal.delta".to_owned()) && names.contains(&"response.refusal.done".to_owned())
    );
    let (names, bodies) = response_events(&api, json!({"model": "m", "input": "sim-length"})).await;
    assert_eq!(names.last().unwrap(), "response.incomplete");
    assert_eq!(bodies.last().unwrap()["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
}

#[tokio::test]
async fn embeddings_cannot_be_streamed() {
    let api = Api::quick().await;
    let call = json!({"model": "m", "input": "x", "stream": true});
    assert_eq!(api.post("/v1/embeddings", &call).await.status, 400);
    assert_eq!(api.sim.counters()["live_calls"], 0);
}
