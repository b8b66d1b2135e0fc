//! The held call: what the caller gets, what reaches the provider, and which calls share a batch.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::common::client::{CHAT, Client, DEFER, chat, eventually, probe};
use super::common::provider::{Provider, Tap};
use super::common::proxy::{Proxy, toml};

/// A call on each endpoint that can be deferred, with a marker.
fn calls() -> [(&'static str, Value); 5] {
    [
        (CHAT, chat("hello probe-chat")),
        ("/v1/responses", json!({"model": "gpt-6-luna", "input": "hello probe-responses"})),
        ("/v1/embeddings", json!({"model": "text-embedding-3-small", "input": "hello probe-embeddings"})),
        ("/v1/completions", json!({"model": "gpt-3.5-turbo-instruct", "prompt": "hello probe-completions"})),
        ("/v1/moderations", json!({"model": "omni-moderation-latest", "input": "hello probe-moderations"})),
    ]
}

/// The raw text of `member` in the line whose `custom_id` is `id`.
fn raw_body(lines: &[String], id: &str) -> String {
    let line = lines.iter().find(|line| line.contains(id)).unwrap_or_else(|| panic!("no line of {id}: {lines:?}"));
    let (_, rest) = line.split_once("\"body\":").unwrap();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Box<serde_json::value::RawValue>>();
    values.next().unwrap().unwrap().get().to_owned()
}

async fn tapped() -> (Provider, Tap, Proxy) {
    tapped_with("").await
}

async fn tapped_with(tables: &str) -> (Provider, Tap, Proxy) {
    let provider = Provider::quick().await;
    let tap = Tap::before(&provider).await;
    let proxy = Proxy::from_toml(&toml(&tap.base_url(), "store = \"memory\"", tables)).await;
    (provider, tap, proxy)
}

#[tokio::test]
async fn each_endpoint_answers_on_the_line_with_the_batchs_own_bytes() {
    let (provider, tap, proxy) = tapped().await;
    let client = &proxy.client;
    let replies = join_all(calls().map(|(path, body)| async move { (path, client.held(path, &body).await) })).await;
    for (path, reply) in &replies {
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        let id = reply.header("x-nightbus-request-id");
        assert_eq!(String::from_utf8_lossy(&reply.body), raw_body(&tap.result_lines(), id), "{path}");
        assert!(id.starts_with("req_") && id.len() == 36, "{id}");
        assert_eq!(reply.header("x-nightbus-state"), "completed", "{path}");
        assert_eq!(reply.header("x-nightbus-service"), "batch", "{path}");
        assert!(reply.header("x-nightbus-batch-id").starts_with("bat_"), "{path}");
        assert!(reply.header("x-nightbus-wait-ms").parse::<u64>().unwrap() > 0, "{path}");
        assert!(reply.headers.contains_key("x-request-id"), "{path}: the provider's id of the exchange");
    }
    let executions = provider.executions().await;
    for name in ["chat", "responses", "embeddings", "completions", "moderations"] {
        assert_eq!(executions[format!("probe-{name}")], 1, "{executions}");
    }
    assert_eq!(provider.count("live_calls"), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn price_headers_are_there_where_the_price_is_known_and_only_there() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let unknown = json!({"model": "gpt-unheard-of", "messages": [{"role": "user", "content": "x"}]});
    let (known, unknown) = tokio::join!(async { proxy.client.held(CHAT, &chat("hello")).await }, async {
        proxy.client.held(CHAT, &unknown).await
    });
    let dollars = |name: &str| known.header(name).parse::<f64>().unwrap();
    let usage = known.json()["usage"].clone();
    let of = |name: &str| usage[name].as_f64().unwrap();
    // gpt-6-luna: 0.05 and 0.25 dollars for a million tokens in a batch, 0.1 and 0.5 live.
    let batch = (of("prompt_tokens") * 0.05 + of("completion_tokens") * 0.25) / 1e6;
    assert!((dollars("x-nightbus-cost-usd") - batch).abs() < 1e-9, "{known:?}");
    assert!((dollars("x-nightbus-saved-usd") - batch).abs() < 1e-9, "{known:?}");
    assert_eq!(unknown.status, 200, "{unknown:?}");
    assert!(!unknown.headers.contains_key("x-nightbus-cost-usd"), "never guessed: {unknown:?}");
    assert!(!unknown.headers.contains_key("x-nightbus-saved-usd"), "never guessed: {unknown:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_failing_line_keeps_its_own_status_and_the_providers_error() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let bad = async { proxy.client.held(CHAT, &chat("fail-400 probe-bad")).await };
    let good = async { proxy.client.held(CHAT, &chat("probe-good")).await };
    let (bad, good) = tokio::join!(bad, good);
    assert!(good.text().contains("probe-good"));
    assert_eq!(bad.status, 400, "{bad:?}");
    assert_ne!(bad.json()["error"]["type"], "nightbus_error", "{bad:?}");
    assert!(bad.json()["error"]["message"].is_string());
    // The provider's 400 is an answer.
    assert_eq!(bad.header("x-nightbus-state"), "completed");
    assert_eq!(bad.header("x-should-retry"), "false");
    let live = provider.client().with_key("sk").post(CHAT, &[], chat("fail-400 probe-bad").to_string()).await;
    assert_eq!(bad.json(), live.json(), "exactly what the live call says");
    assert_eq!(provider.count("batches"), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn two_hundred_callers_ride_in_one_batch_and_each_gets_its_own_answer() {
    let provider = Provider::quick().await;
    let tables = "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"\n[flight]\nenabled = false";
    let proxy = Proxy::with(&provider, tables).await;
    let client = &proxy.client;
    let calls = join_all((0..200).map(|at| async move {
        let reply = client.held(CHAT, &chat(&format!("label {}", probe(at)))).await;
        assert!(reply.text().ends_with(&format!("label {}", probe(at))), "caller {at}: {reply:?}");
        reply.header("x-nightbus-request-id").to_owned()
    }));
    let replies = proxy.together(200, calls).await;
    assert_eq!(replies.iter().collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(provider.count("batches"), 1, "{}", provider.counters());
    assert_eq!(provider.count("lines_executed"), 200);
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn identical_calls_at_the_same_time_are_two_requests() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let (one, two) = tokio::join!(async { proxy.client.held(CHAT, &chat("probe-same")).await }, async {
        proxy.client.held(CHAT, &chat("probe-same")).await
    });
    assert_ne!(one.header("x-nightbus-request-id"), two.header("x-nightbus-request-id"));
    assert_eq!(provider.executions_of("probe-same").await, 2, "sampling two answers gives two answers");
    proxy.stop().await;
}

#[tokio::test]
async fn model_key_organisation_project_and_endpoint_each_make_a_lane() {
    let (provider, tap, proxy) = tapped_with("[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"").await;
    let client = &proxy.client;
    let other = client.with_key("sk-other");
    let mut model = chat("probe-model");
    model["model"] = json!("gpt-5.6-luna");
    let send = |client: Client, path: &'static str, header: Option<(&'static str, &'static str)>, body: Value| async move {
        let headers: Vec<_> = [DEFER].into_iter().chain(header).collect();
        let reply = client.post(path, &headers, body.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.header("x-nightbus-batch-id").to_owned()
    };
    let calls = join_all([
        send(client.clone(), CHAT, None, chat("probe-a")),
        send(client.clone(), CHAT, None, chat("probe-b")),
        send(client.clone(), CHAT, None, model),
        send(other, CHAT, None, chat("probe-key")),
        send(client.clone(), CHAT, Some(("openai-organization", "org-1")), chat("probe-org")),
        send(client.clone(), CHAT, Some(("openai-project", "proj-1")), chat("probe-project")),
        send(client.clone(), "/v1/responses", None, json!({"model": "gpt-6-luna", "input": "probe-endpoint"})),
    ]);
    let batches = proxy.together(7, calls).await;
    assert_eq!(batches[0], batches[1], "the same lane");
    assert_eq!(batches.iter().collect::<BTreeSet<_>>().len(), 6, "{batches:?}");
    // Each lane's batch is the caller's own at the provider.
    let header_of = |probe: &str, name: &str| {
        let upload = tap
            .all()
            .into_iter()
            .find(|seen| seen.path == "/v1/files" && String::from_utf8_lossy(&seen.sent).contains(probe));
        upload.unwrap().headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(header_of("probe-key", "authorization").as_deref(), Some("Bearer sk-other"));
    assert_eq!(header_of("probe-org", "openai-organization").as_deref(), Some("org-1"));
    assert_eq!(header_of("probe-project", "openai-project").as_deref(), Some("proj-1"));
    assert_eq!(header_of("probe-a", "openai-organization"), None);
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    proxy.stop().await;
}

async fn batches_of_eight(tables: &str) -> Vec<usize> {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, tables).await;
    let client = &proxy.client;
    let ids = join_all((0..8).map(|at| async move { client.accepted(CHAT, &chat(&probe(at))).await })).await;
    proxy.flush().await;
    for id in &ids {
        assert_eq!(client.result(id).await.status, 200);
    }
    assert_eq!((provider.count("lines_executed"), provider.count("max_executions_per_probe")), (8, 1));
    let batches = provider.batches().await;
    proxy.stop().await;
    let mut sizes: Vec<usize> = batches
        .iter()
        .map(|batch| usize::try_from(batch["request_counts"]["total"].as_u64().unwrap()).unwrap())
        .collect();
    sizes.sort_unstable();
    sizes
}

#[tokio::test]
async fn a_lane_is_split_at_the_limit_of_requests() {
    let sizes =
        batches_of_eight("max_requests = 3\n[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"").await;
    assert_eq!(sizes, [2, 3, 3]);
}

#[tokio::test]
async fn a_lane_is_split_at_the_limit_of_bytes() {
    // Lines of about 200 bytes.
    let sizes =
        batches_of_eight("max_bytes = 700\n[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"").await;
    assert!(sizes.len() >= 3 && sizes.iter().all(|size| *size <= 3), "{sizes:?}");
}

#[tokio::test]
async fn the_oldest_requests_age_ends_the_wait_of_a_busy_lane() {
    let provider = Provider::quick().await;
    let tables = "[batching]\nidle = \"60s\"\nmax_age = \"200ms\"\npoll = \"100ms\"";
    let proxy = Proxy::with(&provider, tables).await;
    assert!(proxy.client.held(CHAT, &chat("probe-old")).await.text().contains("probe-old"));
    proxy.stop().await;
}

/// The data of an event stream, comments left out.
fn events(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("data: ")).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn streams_are_answered_as_streams_with_usage_where_it_was_asked_for() {
    let (provider, tap, proxy) = tapped().await;
    let call = |mut body: Value, with_usage: bool| {
        body["stream"] = json!(true);
        if with_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    };
    let (chat_path, chat_body) = (CHAT, call(chat("stream probe-chat"), true));
    let plain = call(chat("stream probe-plain"), false);
    let responses = call(json!({"model": "gpt-6-luna", "input": "stream probe-responses"}), false);
    let completions = call(json!({"model": "gpt-3.5-turbo-instruct", "prompt": "stream probe-completions"}), false);
    let client = &proxy.client;
    let (chatted, plain, responded, completed) = tokio::join!(
        client.held(chat_path, &chat_body),
        client.held(CHAT, &plain),
        client.held("/v1/responses", &responses),
        client.held("/v1/completions", &completions),
    );
    for reply in [&chatted, &plain, &responded, &completed] {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.header("content-type").starts_with("text/event-stream"), "{reply:?}");
        assert!(reply.body.starts_with(b": nightbus queued\n\n"), "a sign of life at once: {reply:?}");
        assert!(reply.header("x-nightbus-request-id").starts_with("req_"));
    }
    let text_of = |reply: &[u8]| -> String {
        let chunks = events(reply);
        let deltas = chunks.iter().filter_map(|chunk| serde_json::from_str::<Value>(chunk).ok());
        deltas.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned)).collect()
    };
    assert!(text_of(&chatted.body).ends_with("stream probe-chat"));
    assert_eq!(events(&chatted.body).last().unwrap(), "[DONE]");
    let has_usage = |body: &[u8]| events(body).iter().any(|event| event.contains("\"usage\":{"));
    assert!(has_usage(&chatted.body) && !has_usage(&plain.body), "usage only where it was asked for");
    let last: Value = serde_json::from_str(events(&responded.body).last().unwrap()).unwrap();
    assert_eq!(last["type"], "response.completed", "{last}");
    assert!(last.to_string().contains("stream probe-responses"));
    let texts: String = events(&completed.body)
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["text"].as_str().map(ToOwned::to_owned))
        .collect();
    assert!(texts.ends_with("stream probe-completions"), "{texts}");
    assert_eq!(events(&completed.body).last().unwrap(), "[DONE]");
    for line in tap.input_lines() {
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(line["body"].get("stream").is_none() && line["body"].get("stream_options").is_none(), "{line}");
    }
    assert_eq!(provider.count("lines_executed"), 4);
    proxy.stop().await;
}

#[tokio::test]
async fn a_failure_inside_a_stream_is_the_apis_own_error_event() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let mut body = chat("fail-400 probe-x");
    body["stream"] = json!(true);
    let reply = proxy.client.held(CHAT, &body).await;
    let events = events(&reply.body);
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert!(last["error"]["message"].is_string(), "{last}");
    assert!(!events.iter().any(|event| event == "[DONE]"), "never a success: {events:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn the_line_holds_the_callers_own_bytes_without_what_a_batch_refuses() {
    let (_provider, tap, proxy) = tapped().await;
    let odd = r#"{"messages":[{"role":"user","content":"é A probe-odd"}],  "temperature":1.00e0,"model":"gpt-6-luna","metadata":{"b":"1","a":"2"}}"#;
    let raw_newlines = "{\n  \"model\": \"gpt-6-luna\",\r\n  \"messages\": [\n{\"role\":\"user\",\"content\":\"line\\nbreak probe-newline\"}]\n}\n";
    let suffix = r#"{"model":"gpt-6-luna:batch","messages":[{"role":"user","content":"probe-suffix"}]}"#;
    let stripped = r#"{"model":"gpt-6-luna","stream":false,"service_tier":"default","messages":[{"role":"user","content":"probe-stripped"}],"stream_options":null}"#;
    let client = &proxy.client;
    let (one, two, three, four) = tokio::join!(
        client.post(CHAT, &[DEFER], odd),
        client.post(CHAT, &[DEFER], raw_newlines),
        client.post(CHAT, &[], suffix),
        client.post(CHAT, &[DEFER], stripped),
    );
    let lines = tap.input_lines();
    let sent = |reply: &super::common::client::Reply| {
        assert_eq!(reply.status, 200, "{reply:?}");
        raw_body(&lines, reply.header("x-nightbus-request-id"))
    };
    assert_eq!(sent(&one), odd, "byte for byte");
    let newlines = sent(&two);
    assert_eq!(serde_json::from_str::<Value>(&newlines).unwrap(), serde_json::from_str::<Value>(raw_newlines).unwrap());
    assert_eq!(serde_json::from_str::<Value>(&sent(&three)).unwrap()["model"], "gpt-6-luna");
    let stripped = serde_json::from_str::<Value>(&sent(&four)).unwrap();
    let keys: Vec<&String> = stripped.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["messages", "model"], "{stripped}");
    assert_eq!(lines.len(), 4, "one line each: {lines:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn input_files_are_deleted_once_their_results_are_durable_and_carry_an_expiry() {
    let (provider, tap, proxy) = tapped().await;
    proxy.client.held(CHAT, &chat("probe-files")).await;
    eventually("input and output file are deleted", || async { (provider.count("files_deleted") == 2).then_some(()) })
        .await;
    let upload = tap.all().into_iter().find(|seen| seen.path == "/v1/files").unwrap();
    assert!(String::from_utf8_lossy(&upload.sent).contains("expires_after[anchor]"));
    let create = tap.all().into_iter().find(|seen| seen.path == "/v1/batches").unwrap();
    let create: Value = serde_json::from_slice(&create.sent).unwrap();
    assert!(create["metadata"]["nightbus_batch"].as_str().unwrap().starts_with("bat_"), "{create}");
    proxy.stop().await;
}

const SHORT_HOLD: &str = "[hold]\ncommit_after = \"100ms\"\nheartbeat = \"1s\"";

#[tokio::test]
async fn a_long_hold_begins_its_answer_with_white_space_that_json_allows() {
    let provider = Provider::quick().await;
    provider.batch_seconds(2.5).await;
    let proxy = Proxy::with(&provider, SHORT_HOLD).await;
    let reply = proxy.client.held(CHAT, &chat("probe-long")).await;
    assert!(reply.text().contains("probe-long"));
    let blanks = reply.body.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    assert!(blanks >= 2, "signs of life: {blanks}");
    assert_eq!(reply.header("content-type"), "application/json");
    proxy.stop().await;
}

#[tokio::test]
async fn a_failure_after_a_long_hold_breaks_off_and_the_result_route_knows_its_status() {
    let provider = Provider::quick().await;
    provider.batch_seconds(1.0).await;
    let proxy = Proxy::with(&provider, SHORT_HOLD).await;
    let client = &proxy.client;
    let body = chat("fail-400 probe-broken").to_string();
    let broken = client.send(http::Method::POST, CHAT, &[DEFER], body).await;
    assert!(broken.is_err(), "never a success: {broken:?}");
    let list = client.get("/nightbus/v1/requests").await.json();
    assert_eq!((&list["data"][0]["state"], &list["data"][0]["status_code"]), (&json!("completed"), &json!(400)));
    let result = client.result(list["data"][0]["id"].as_str().unwrap()).await;
    assert_eq!(result.status, 400);
    proxy.stop().await;
}

#[tokio::test]
async fn who_left_the_line_finds_the_answer_by_its_id() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"").await;
    let client = &proxy.client;
    let body = chat("probe-left");
    let there = eventually("the request is there", || async {
        let list = client.get("/nightbus/v1/requests").await.json();
        list["data"][0]["id"].as_str().map(ToOwned::to_owned)
    });
    let id = tokio::select! {
        id = there => id,
        answer = client.held(CHAT, &body) => panic!("nothing has left yet: {answer:?}"),
    };
    eventually("nobody is on the line", || async { (proxy.app().engine().waiters().count() == 0).then_some(()) }).await;
    proxy.flush().await;
    assert!(client.result(&id).await.text().contains("probe-left"));
    assert_eq!(provider.executions_of("probe-left").await, 1);
    proxy.stop().await;
}
