//! Live calls: shapes, errors, keys, the log of requests.

use http::{Method, Request};
use http_body_util::Full;
use nightbus::sim::SimOptions;
use serde_json::{Value, json};

use super::client::{Api, chat, quick};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn chat_echoes_the_last_user_text_with_a_hash_of_the_body() {
    let api = Api::quick().await;
    let mut call = chat("first");
    call["messages"] = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}, {"role": "assistant", "content": "x"}]);
    let reply = api.post(CHAT, &call).await;
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "gpt-6-luna");
    assert_eq!(answer["service_tier"], "default");
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["index"], &choice["finish_reason"], &choice["logprobs"]),
        (&json!(0), &json!("stop"), &Value::Null)
    );
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["refusal"].is_null() && choice["message"].get("tool_calls").is_none());
    let text = choice["message"]["content"].as_str().unwrap().to_owned();
    assert!(text.ends_with("] hello"), "{text}");
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap())
    );
    assert!(
        reply.headers.contains_key("x-ratelimit-limit-requests") && reply.headers.contains_key("openai-processing-ms")
    );

    let again = api.post(CHAT, &call).await.json();
    assert_eq!(again["choices"], answer["choices"], "the same call has the same answer");
    assert_ne!(again["id"], answer["id"]);
    call["seed"] = json!(1);
    assert_ne!(
        api.post(CHAT, &call).await.json()["choices"][0]["message"]["content"],
        json!(text),
        "another body, another hash"
    );
}

#[tokio::test]
async fn choices_tools_json_and_refusals() {
    let api = Api::quick().await;
    let mut call = chat("hi");
    call["n"] = json!(3);
    let answer = api.post(CHAT, &call).await.json();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 3);
    assert!(answer["choices"][2]["message"]["content"].as_str().unwrap().ends_with("] hi #2"));

    let mut call = chat("please use the tool");
    call["tools"] = json!([{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    let choice = api.post(CHAT, &call).await.json()["choices"][0].take();
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert!(choice["message"]["content"].is_null());
    let tool = &choice["message"]["tool_calls"][0];
    assert_eq!((&tool["type"], &tool["function"]["name"]), (&json!("function"), &json!("look_up")));
    let arguments: Value = serde_json::from_str(tool["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].as_str().unwrap().contains("please use the tool"));
    call["tool_choice"] = json!("none");
    assert!(api.post(CHAT, &call).await.json()["choices"][0]["message"]["content"].is_string());
    call["messages"] = chat("no word of it")["messages"].take();
    call["tool_choice"] = json!("auto");
    assert!(api.post(CHAT, &call).await.json()["choices"][0]["message"]["content"].is_string());
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "look_up"}})] {
        call["tool_choice"] = choice;
        assert_eq!(api.post(CHAT, &call).await.json()["choices"][0]["finish_reason"], "tool_calls");
    }

    let mut call = chat("label me");
    call["response_format"] = json!({"type": "json_object"});
    let content = |answer: Value| -> Value {
        serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap()
    };
    assert_eq!(content(api.post(CHAT, &call).await.json())["echo"], "label me");
    let schema = json!({"type": "object", "properties": {"label": {"enum": ["spam", "ham"]}}});
    call["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "l", "schema": schema}});
    let label = content(api.post(CHAT, &call).await.json())["label"].take();
    assert!(label == "spam" || label == "ham");
    assert!(api.post(CHAT, &chat("sim-refuse")).await.json()["choices"][0]["message"]["refusal"].is_string());
    assert_eq!(api.post(CHAT, &chat("sim-length")).await.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn responses_completions_moderations_and_models() {
    let api = Api::quick().await;
    let call = json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}], "metadata": {"a": "b"}});
    let answer = api.post("/v1/responses", &call).await.json();
    assert_eq!(
        (&answer["object"], &answer["status"], &answer["metadata"]),
        (&json!("response"), &json!("completed"), &json!({"a": "b"}))
    );
    assert!(answer["id"].as_str().unwrap().starts_with("resp_") && answer.get("output_text").is_none());
    assert!(answer["output"][0]["content"][0]["text"].as_str().unwrap().ends_with("] hello"));
    assert!(answer["usage"]["input_tokens"].is_u64());
    for required in [
        "incomplete_details",
        "instructions",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "temperature",
        "top_p",
        "error",
    ] {
        assert!(answer.get(required).is_some(), "{required}");
    }
    let tool =
        json!({"model": "m", "input": "use the tool", "tools": [{"type": "function", "name": "f", "parameters": {}}]});
    let item = api.post("/v1/responses", &tool).await.json()["output"][0].take();
    assert_eq!(
        (&item["type"], &item["name"], &item["status"]),
        (&json!("function_call"), &json!("f"), &json!("completed"))
    );

    let answer = api.post("/v1/completions", &json!({"model": "m", "prompt": "hello", "n": 2})).await.json();
    assert_eq!(answer["object"], "text_completion");
    assert!(answer["choices"][0]["text"].as_str().unwrap().ends_with("] hello") && answer["choices"][1]["index"] == 1);

    let answer = api.post("/v1/moderations", &json!({"input": ["fine", "sim-flag"]})).await.json();
    assert_eq!((&answer["results"][0]["flagged"], &answer["results"][1]["flagged"]), (&json!(false), &json!(true)));
    assert_eq!(
        (&answer["results"][1]["categories"]["violence"], &answer["model"]),
        (&json!(true), &json!("omni-moderation-latest"))
    );

    let models = api.get("/v1/models").await.json();
    let name = models["data"][0]["id"].as_str().unwrap();
    assert_eq!(api.get(&format!("/v1/models/{name}")).await.json(), models["data"][0]);
    assert_eq!(api.get("/v1/models/none").await.error()["code"], "model_not_found");
}

#[tokio::test]
async fn embeddings_are_the_same_as_floats_and_as_base64() {
    use base64::Engine as _;
    let api = Api::quick().await;
    let mut call = json!({"model": "text-embedding-3-small", "input": ["a", "b"]});
    let floats = api.post("/v1/embeddings", &call).await.json();
    assert_eq!((&floats["object"], &floats["data"][1]["index"]), (&json!("list"), &json!(1)));
    assert_eq!(floats["data"][0]["embedding"].as_array().unwrap().len(), 1_536);
    assert_ne!(floats["data"][0]["embedding"], floats["data"][1]["embedding"]);
    call["encoding_format"] = json!("base64");
    let packed = api.post("/v1/embeddings", &call).await.json();
    for at in 0..2 {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(packed["data"][at]["embedding"].as_str().unwrap())
            .unwrap();
        let unpacked: Vec<f32> =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        let expected: Vec<f32> = serde_json::from_value(floats["data"][at]["embedding"].clone()).unwrap();
        assert_eq!(unpacked, expected);
    }
    call["dimensions"] = json!(64);
    call["encoding_format"] = json!("float");
    assert_eq!(api.post("/v1/embeddings", &call).await.json()["data"][0]["embedding"].as_array().unwrap().len(), 64);
    for (name, value) in
        [("encoding_format", json!("hex")), ("dimensions", json!(0)), ("input", json!([])), ("input", json!(7))]
    {
        let mut call = call.clone();
        call[name] = value;
        assert_eq!(api.post("/v1/embeddings", &call).await.status, 400, "{call}");
    }
}

#[tokio::test]
async fn bad_calls_are_refused_in_the_envelope() {
    let api = Api::quick().await;
    let change = |name: &str, value: Value| {
        let mut call = chat("hi");
        call[name] = value;
        call
    };
    for (call, status, code, param) in [
        (change("model", Value::Null), 400, json!("missing_required_parameter"), json!("model")),
        (change("model", json!(1)), 400, json!("invalid_type"), json!("model")),
        (change("messages", Value::Null), 400, json!("missing_required_parameter"), json!("messages")),
        (change("messages", json!("x")), 400, json!("invalid_type"), json!("messages")),
        (change("messages", json!([])), 400, json!("empty_array"), json!("messages")),
        (change("messages", json!(["x"])), 400, json!("invalid_type"), json!("messages[0]")),
        (
            change("messages", json!([{"content": "x"}])),
            400,
            json!("missing_required_parameter"),
            json!("messages[0].role"),
        ),
        (
            change("messages", json!([{"role": "user"}])),
            400,
            json!("missing_required_parameter"),
            json!("messages[0].content"),
        ),
        (
            change("messages", json!([{"role": "bot", "content": ""}])),
            400,
            json!("invalid_value"),
            json!("messages[0].role"),
        ),
        (change("stream_options", json!({"include_usage": true})), 400, Value::Null, json!("stream_options")),
        (change("stream", json!("yes")), 400, json!("invalid_type"), json!("stream")),
        (change("model", json!("gpt-6-luna:batch")), 404, json!("model_not_found"), json!("model")),
        (change("n", json!(0)), 400, json!("invalid_value"), json!("n")),
        (change("temperature", json!(2.5)), 400, json!("invalid_value"), json!("temperature")),
        (change("model", json!("missing-model")), 404, json!("model_not_found"), json!("model")),
        (chat("fail-400"), 400, json!("context_length_exceeded"), json!("messages")),
        (chat("fail-429"), 429, json!("rate_limit_exceeded"), Value::Null),
        (chat("fail-500"), 500, Value::Null, Value::Null),
    ] {
        let reply = api.post(CHAT, &call).await;
        assert_eq!(reply.status, status, "{call}");
        let error = reply.error();
        assert_eq!((&error["code"], &error["param"]), (&code, &param), "{call}");
    }
    let raw = |body: &'static str, kind| api.send(Method::POST, CHAT, kind, body);
    assert_eq!(raw("{", "application/json").await.unwrap().status, 400);
    assert_eq!(raw("{\"model\":\"m\",\"messages\":[]}", "text/plain").await.unwrap().status, 400);
    assert_eq!(api.get(CHAT).await.status, 405);
    assert_eq!(api.get("/v1/nothing").await.status, 404);
    assert_eq!(api.get("/").await.status, 404);
    assert_eq!(api.sim.counters()["live_calls"], 0);
}

#[tokio::test]
async fn keys_are_checked() {
    let api = Api::start(SimOptions { api_keys: Some(vec!["sk-test".to_owned()]), ..quick() }).await;
    assert_eq!(api.get("/v1/models").await.status, 200);
    for key in ["", "sk-wrong"] {
        let reply = api.as_key(key).post(CHAT, &chat("x")).await;
        assert_eq!((reply.status.as_u16(), &reply.error()["code"]), (401, &json!("invalid_api_key")));
    }
    assert_eq!(api.as_key("").get("/sim/counters").await.status, 200);
    let open = Api::quick().await;
    assert_eq!(open.as_key("sk-any").get("/v1/models").await.status, 200);
    assert_eq!(open.as_key("").get("/v1/models").await.status, 401);
    let free = Api::start(SimOptions { require_key: false, ..quick() }).await;
    assert_eq!(free.as_key("").get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn another_project_is_another_account() {
    let api = Api::quick().await;
    let id = api.upload(b"{}").await.json()["id"].as_str().unwrap().to_owned();
    let request = Request::builder()
        .uri(format!("http://{}/v1/files/{id}", api.sim.addr()))
        .header("authorization", "Bearer sk-test")
        .header("openai-project", "proj_2");
    let reply = api.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn log_shows_what_arrived() {
    let api = Api::quick().await;
    api.post(&format!("{CHAT}?x=1"), &chat("probe-live")).await;
    api.get("/v1/models").await;
    let seen = api.get("/sim/requests?limit=1&path=/v1/chat").await.json()["data"][0].take();
    assert_eq!((&seen["method"], &seen["path"], &seen["query"]), (&json!("POST"), &json!(CHAT), &json!("x=1")));
    assert!(seen["headers"].as_array().unwrap().contains(&json!(["authorization", "Bearer sk-test"])));
    assert_eq!(seen["body"], chat("probe-live").to_string());
    assert_eq!(api.get("/sim/requests").await.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(api.get("/sim/executions?probe=probe-live").await.json()["executions"], 1);
}

#[tokio::test]
async fn background_responses_are_read_later() {
    let api = Api::quick().await;
    let call = json!({"model": "m", "input": "sim-sleep=100000 hello", "background": true});
    let queued = api.post("/v1/responses", &call).await.json();
    assert_eq!((&queued["status"], &queued["output"]), (&json!("queued"), &json!([])));
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.json()["status"], "in_progress");
    assert_eq!(api.post(&format!("{path}/cancel"), &json!({})).await.json()["status"], "cancelled");
    assert_eq!(api.get(&path).await.json()["status"], "cancelled");
    let quick = json!({"model": "m", "input": "hello", "background": true});
    let queued = api.post("/v1/responses", &quick).await.json();
    let done = api.get(&format!("/v1/responses/{}", queued["id"].as_str().unwrap())).await.json();
    assert_eq!((&done["status"], &done["id"]), (&json!("completed"), &queued["id"]));
    assert_eq!(api.get("/v1/responses/resp_none").await.status, 404);
    let counters = api.get("/sim/counters").await.json();
    assert_eq!((&counters["background"], &counters["background_cancelled"]), (&json!(2), &json!(1)));
    assert_eq!(counters["live_calls"], 1, "what is cancelled before it is ready is not executed");
}

#[tokio::test]
async fn completion_windows_are_of_standard_responses_alone() {
    let api = Api::quick().await;
    let refused = async |path: &str, call: Value| {
        let reply = api.post(path, &call).await;
        assert_eq!(reply.status, 400, "{call}");
        reply.json()["error"]["param"].as_str().unwrap_or_default().to_owned()
    };
    let windowed = |window: &str| json!({"model": "m", "input": "probe-window", "background": true, "background_options": {"completion_window": window}});
    for window in ["soonest", "2h", "8h"] {
        assert_eq!(api.post("/v1/responses", &windowed(window)).await.json()["status"], "queued");
    }
    assert_eq!(refused("/v1/responses", windowed("24h")).await, "background_options.completion_window");
    let mut live = windowed("2h");
    live["background"] = json!(false);
    assert_eq!(refused("/v1/responses", live).await, "background_options");
    let mut flex = windowed("2h");
    flex["service_tier"] = json!("flex");
    assert_eq!(refused("/v1/responses", flex).await, "service_tier");
    let mut stream = windowed("2h");
    stream["stream"] = json!(true);
    assert_eq!(refused("/v1/responses", stream).await, "stream");
    let mut messages = chat("probe-chat");
    messages["background"] = json!(true);
    assert_eq!(refused(CHAT, messages).await, "background");
    let bill = api.get("/sim/bill").await.json();
    assert!(bill.to_string().contains("background_8h") && bill.to_string().contains("background_2h"), "{bill}");
}
