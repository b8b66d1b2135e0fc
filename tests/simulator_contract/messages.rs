//! The second dialect: Messages and Message Batches (providers.md, section 2).

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::client::{Api, POLL, Reply, quick, with_fault};
use nightbus::sim::SimOptions;

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
const BATCHES: &str = "/v1/messages/batches";

fn message(text: &str) -> Value {
    json!({"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": text}]})
}

fn lines(count: usize) -> Value {
    let line = |at| json!({"custom_id": format!("id-{at}"), "params": message(&format!("text {at} probe-{at}m"))});
    json!({"requests": (0..count).map(line).collect::<Vec<_>>()})
}

async fn send(api: &Api, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Reply {
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", api.sim.addr()));
    request = request.header("content-type", "application/json");
    if !api.key.is_empty() {
        request = request.header("authorization", format!("Bearer {}", api.key));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
}

async fn call(api: &Api, method: Method, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(api, method, path, &[VERSION], body).await
}

fn refused(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    assert_eq!(body["type"], "error", "{body}");
    assert!(body["request_id"].is_string() && body["error"]["message"].is_string(), "{body}");
    (reply.status.as_u16(), body["error"]["type"].as_str().unwrap().to_owned())
}

async fn ended(api: &Api, created: &Value) -> Value {
    let path = format!("{BATCHES}/{}", created["id"].as_str().unwrap());
    loop {
        let batch = call(api, Method::GET, &path, &Value::Null).await.json();
        if batch["processing_status"] == "ended" {
            return batch;
        }
        assert!(batch["results_url"].is_null() && batch["ended_at"].is_null(), "{batch}");
        tokio::time::sleep(POLL).await;
    }
}

async fn results(api: &Api, batch: &Value) -> Vec<Value> {
    let url = batch["results_url"].as_str().unwrap();
    let path = &url[url.find("/v1/").unwrap()..];
    let reply = call(api, Method::GET, path, &Value::Null).await;
    assert_eq!(reply.headers["content-type"], "application/x-jsonl");
    reply
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[tokio::test]
async fn counts_are_processing_until_the_end_and_every_line_has_a_result() {
    let api = Api::start(SimOptions { batch_seconds: 0.1, ..quick() }).await;
    let created = call(&api, Method::POST, BATCHES, &lines(50)).await.json();
    assert_eq!((&created["type"], &created["processing_status"]), (&json!("message_batch"), &json!("in_progress")));
    let none = json!({"processing": 50, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0});
    assert_eq!(created["request_counts"], none);
    let batch = ended(&api, &created).await;
    assert_eq!(batch["request_counts"]["succeeded"], 50);
    let results = results(&api, &batch).await;
    let order: Vec<usize> =
        results.iter().map(|line| line["custom_id"].as_str().unwrap()[3..].parse().unwrap()).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    assert_ne!(sorted, order, "results come in any order");
    for line in &results {
        let message = &line["result"]["message"];
        let at = &line["custom_id"].as_str().unwrap()[3..];
        assert!(message["content"][0]["text"].as_str().unwrap().ends_with(&format!("probe-{at}m")), "{line}");
        assert_eq!(message["usage"]["service_tier"], "batch");
    }
    assert_eq!(api.sim.counters()["max_executions_per_probe"], 1);
}

#[tokio::test]
async fn only_the_envelope_is_checked_at_once() {
    let api = Api::quick().await;
    for (body, expected) in [
        (json!({"requests": []}), (400, "invalid_request_error")),
        (json!({"requests": [{"custom_id": "a b", "params": {}}]}), (400, "invalid_request_error")),
        (json!({"requests": [{"custom_id": "x".repeat(65), "params": {}}]}), (400, "invalid_request_error")),
        (
            json!({"requests": [{"custom_id": "a", "params": {}}, {"custom_id": "a", "params": {}}]}),
            (400, "invalid_request_error"),
        ),
        (json!({"requests": [{"custom_id": "a", "params": {}}], "metadata": {}}), (400, "invalid_request_error")),
    ] {
        let reply = call(&api, Method::POST, BATCHES, &body).await;
        assert_eq!(refused(&reply), (expected.0, expected.1.to_owned()), "{body}");
    }
    let mut streamed = message("x");
    streamed["stream"] = json!(true);
    let bad = json!({"requests": [
        {"custom_id": "none", "params": {}}, {"custom_id": "stream", "params": streamed},
        {"custom_id": "fine", "params": message("x")}]});
    let created = call(&api, Method::POST, BATCHES, &bad).await.json();
    let batch = ended(&api, &created).await;
    assert_eq!((&batch["request_counts"]["errored"], &batch["request_counts"]["succeeded"]), (&json!(2), &json!(1)));
    for line in results(&api, &batch).await.iter().filter(|line| line["custom_id"] != "fine") {
        assert_eq!(line["result"]["type"], "errored");
        assert_eq!(line["result"]["error"]["type"], "error", "the error response is nested whole");
        assert_eq!(line["result"]["error"]["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn keys_and_versions_are_required() {
    let api = Api::quick().await;
    let reply = send(&api, Method::POST, "/v1/messages", &[], message("x").to_string()).await;
    assert_eq!(refused(&reply), (400, "invalid_request_error".to_owned()));
    let nobody = api.as_key("");
    let reply = send(&nobody, Method::POST, "/v1/messages", &[VERSION], message("x").to_string()).await;
    assert_eq!(refused(&reply), (401, "authentication_error".to_owned()));
    let own = [VERSION, ("x-api-key", "sk-test")];
    let reply = send(&nobody, Method::POST, "/v1/messages", &own, message("x").to_string()).await;
    assert_eq!(reply.status, 200);
    let mut warm = message("x");
    warm["temperature"] = json!(1.0);
    let new = [("anthropic-version", "2026-10-21")];
    let reply = send(&api, Method::POST, "/v1/messages", &new, warm.to_string()).await;
    assert_eq!(refused(&reply), (400, "invalid_request_error".to_owned()));
    assert_eq!(call(&api, Method::POST, "/v1/messages", &warm).await.status, 200);
}

#[tokio::test]
async fn another_key_sees_nothing_and_pages_go_back_in_time() {
    let api = Api::quick().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let created = call(&api, Method::POST, BATCHES, &lines(1)).await.json();
        ids.insert(0, created["id"].as_str().unwrap().to_owned());
    }
    let page = call(&api, Method::GET, &format!("{BATCHES}?limit=2"), &Value::Null).await.json();
    assert_eq!(
        (&page["first_id"], &page["last_id"], &page["has_more"]),
        (&json!(ids[0]), &json!(ids[1]), &json!(true))
    );
    let rest = call(&api, Method::GET, &format!("{BATCHES}?limit=2&after_id={}", ids[1]), &Value::Null).await.json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (1, &json!(false)));
    let other = api.as_key("sk-other");
    let reply = call(&other, Method::GET, &format!("{BATCHES}/{}", ids[0]), &Value::Null).await;
    assert_eq!(refused(&reply), (404, "not_found_error".to_owned()));
}

#[tokio::test]
async fn cancelled_and_expired_lines_are_not_executed() {
    let api = Api::start(with_fault("expire-half")).await;
    let created = call(&api, Method::POST, BATCHES, &lines(4)).await.json();
    let batch = ended(&api, &created).await;
    assert_eq!((&batch["request_counts"]["succeeded"], &batch["request_counts"]["expired"]), (&json!(2), &json!(2)));
    assert_eq!(api.sim.counters()["lines_executed"], 2);
    api.sim.set_faults(&["stuck-in-progress".to_owned()]).unwrap();
    let created = call(&api, Method::POST, BATCHES, &lines(4)).await.json();
    let path = format!("{BATCHES}/{}", created["id"].as_str().unwrap());
    let early = call(&api, Method::DELETE, &path, &Value::Null).await;
    assert_eq!(refused(&early).0, 400, "one that runs cannot be deleted");
    let canceling = call(&api, Method::POST, &format!("{path}/cancel"), &Value::Null).await.json();
    assert!(canceling["cancel_initiated_at"].is_string(), "{canceling}");
    let batch = ended(&api, &created).await;
    assert_eq!((&batch["request_counts"]["succeeded"], &batch["request_counts"]["canceled"]), (&json!(2), &json!(2)));
    let deleted = call(&api, Method::DELETE, &path, &Value::Null).await.json();
    assert_eq!(deleted["type"], "message_batch_deleted");
}

#[tokio::test]
async fn a_live_stream_has_named_events() {
    let api = Api::quick().await;
    let mut body = message("say it");
    body["stream"] = json!(true);
    let reply = call(&api, Method::POST, "/v1/messages", &body).await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((names[0], names[1], names[names.len() - 1]), ("message_start", "ping", "message_stop"));
    for (name, data) in names.iter().zip(text.lines().filter_map(|line| line.strip_prefix("data: "))) {
        assert_eq!(serde_json::from_str::<Value>(data).unwrap()["type"], *name);
    }
}
