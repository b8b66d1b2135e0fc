//! Faults: each does what it says, as often as it says.

use std::time::Duration;

use http::Method;
use nightbus::sim::{Sim, SimOptions};
use serde_json::{Value, json};

use super::client::{Api, FORM, answer_of, chat, chat_lines, form, jsonl, quick, with_fault};

fn order(file: &Value) -> Value {
    json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"})
}

#[tokio::test]
async fn unknown_names_are_refused_with_the_list() {
    let error = nightbus::sim::start(with_fault("creat-lost"), nightbus::tasks::Tasks::new()).await.unwrap_err();
    assert!(error.to_string().contains("creat-lost") && error.to_string().contains("create-lost"), "{error}");
    let api = Api::quick().await;
    assert!(api.sim.set_faults(&["nope".to_owned()]).is_err());
    let reply = api.post("/sim/faults", &json!({"faults": ["nope"]})).await;
    assert_eq!(reply.status, 400);
    api.post("/sim/faults", &json!({"faults": ["live-500:2", "crlf:always"]})).await;
    assert_eq!(api.get("/sim/faults").await.json()["armed"], json!(["crlf:always", "live-500:2"]));
    assert_eq!(api.delete("/sim/faults").await.json()["armed"], json!([]));
    assert_eq!(api.get("/sim/faults").await.json()["known"].as_object().unwrap().len(), Sim::fault_names().len());
}

#[tokio::test]
async fn create_may_be_lost_or_answered_with_an_error_although_the_batch_exists() {
    for (fault, status) in [("create-lost", None), ("create-500-after", Some(500))] {
        let api = Api::start(with_fault(fault)).await;
        let file = api.upload(&jsonl(&chat_lines(2))).await.json();
        let reply = api.send(Method::POST, "/v1/batches", "application/json", order(&file).to_string()).await;
        assert_eq!(reply.ok().map(|reply| reply.status.as_u16()), status, "{fault}");
        let listed = api.get("/v1/batches").await.json();
        assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{fault}");
        assert_eq!(api.ended(&listed["data"][0]).await["status"], "completed");
        assert_eq!(api.sim.counters()["lines_executed"], 2);
        assert_eq!(api.post("/v1/batches", &order(&file)).await.status, 200, "once is once");
    }
}

#[tokio::test]
async fn create_may_be_refused_without_a_batch() {
    for (fault, status, code) in [
        ("create-500", 500, Value::Null),
        ("create-429", 429, json!("rate_limit_exceeded")),
        ("quota", 429, json!("insufficient_quota")),
        ("billing", 400, json!("billing_hard_limit_reached")),
    ] {
        let api = Api::start(with_fault(fault)).await;
        let file = api.upload(&jsonl(&chat_lines(1))).await.json();
        let reply = api.post("/v1/batches", &order(&file)).await;
        assert_eq!((reply.status.as_u16(), &reply.error()["code"]), (status, &code), "{fault}");
        if fault == "create-429" {
            assert_eq!(reply.headers["retry-after"], "120");
        }
        assert_eq!(api.get("/v1/batches").await.json()["data"], json!([]));
    }
}

#[tokio::test]
async fn uploads_may_fail_or_be_lost() {
    let send = async |api: &Api| {
        api.send(Method::POST, "/v1/files", FORM, form(&[("purpose", "batch")], "a.jsonl", b"{}")).await
    };
    let api = Api::start(with_fault("upload-500")).await;
    assert_eq!(send(&api).await.unwrap().status, 500);
    assert_eq!(api.sim.counters()["files"], 0);
    let api = Api::start(with_fault("upload-lost")).await;
    assert!(send(&api).await.is_err());
    assert_eq!(api.get("/v1/files").await.json()["data"].as_array().unwrap().len(), 1);
    let api = Api::start(with_fault("upload-timeout")).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), send(&api)).await.is_err());
    assert_eq!(send(&api).await.unwrap().status, 200, "the next one goes through");
    assert_eq!(api.sim.counters()["files"], 1);
}

#[tokio::test]
async fn polls_may_fail_or_mislead() {
    let api = Api::quick().await;
    let batch = api.ended(&api.submit(&chat_lines(1)).await).await;
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    let arm = async |fault: &str| {
        api.sim.set_faults(&[fault.to_owned()]).unwrap();
        api.send(Method::GET, &path, "", "").await
    };
    assert_eq!(arm("poll-500").await.unwrap().status, 500);
    assert_eq!(arm("poll-404").await.unwrap().status, 404);
    assert!(arm("poll-cut").await.is_err());
    let known =
        ["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"];
    let status = arm("status-unknown").await.unwrap().json()["status"].take();
    assert!(!known.contains(&status.as_str().unwrap()));
    let stale = arm("status-backwards").await.unwrap().json();
    assert_eq!((&stale["status"], &stale["output_file_id"]), (&json!("validating"), &Value::Null));
    assert_eq!(arm("capitals").await.unwrap().json()["status"], "COMPLETED");
    let times = arm("rfc3339-times").await.unwrap().json();
    assert!(times["created_at"].as_str().unwrap().ends_with('Z') && times["failed_at"].is_null());
    let bare = arm("missing-fields").await.unwrap().json();
    assert_eq!(bare.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "output_file_id", "status"]);
    for read in 0..4 {
        let hidden = if read == 0 { arm("null-file-ids").await.unwrap() } else { api.get(&path).await }.json();
        assert_eq!(hidden["status"], "completed");
        assert_eq!(hidden["output_file_id"].is_null(), read < 3, "{read}");
    }
    api.sim.set_faults(&[]).unwrap();
    assert_eq!(api.get(&path).await.json(), batch);
}

#[tokio::test]
async fn lists_may_fail_or_be_stale() {
    let api = Api::start(SimOptions { faults: vec!["list-500".into(), "list-stale".into()], ..quick() }).await;
    api.submit(&chat_lines(1)).await;
    assert_eq!(api.get("/v1/batches").await.status, 500);
    assert_eq!(api.get("/v1/batches").await.json()["data"], json!([]));
    assert_eq!(api.get("/v1/batches").await.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn validation_may_fail_without_reason() {
    for (fault, lines) in [
        ("validation-one-bad", 1),
        ("validation-ten-bad", 10),
        ("validation-all-bad", 20),
        ("validation-no-line", 1),
        ("validation-truncated", 1),
        ("validation-wrong-line", 1),
        ("model-not-found", 1),
        ("queue-full", 1),
        ("file-not-found", 1),
    ] {
        let api = Api::start(with_fault(fault)).await;
        let batch = api.ended(&api.submit(&chat_lines(20)).await).await;
        assert_eq!(batch["status"], "failed", "{fault}");
        let errors = batch["errors"]["data"].as_array().unwrap();
        assert_eq!(errors.len(), lines, "{fault}");
        let line = errors[0]["line"].as_u64();
        match fault {
            "validation-no-line" | "model-not-found" | "queue-full" | "file-not-found" => {
                assert_eq!(line, None, "{fault}");
            }
            "validation-wrong-line" => assert!(line.unwrap() > 20),
            _ => assert!((1..=20).contains(&line.unwrap()), "{fault}"),
        }
        if fault == "queue-full" {
            assert_eq!(errors[0]["code"], "token_limit_exceeded");
            assert!(errors[0]["message"].as_str().unwrap().contains("Limit: 2,000,000"));
        }
        assert_eq!(api.sim.counters()["lines_executed"], 0);
        assert_eq!(api.ended(&api.submit(&chat_lines(2)).await).await["status"], "completed", "once is once");
    }
}

#[tokio::test]
async fn batches_may_be_stuck_until_cancelled() {
    let api = Api::start(with_fault("stuck-in-progress")).await;
    let created = api.submit(&chat_lines(4)).await;
    api.until(&created, &["in_progress"]).await;
    for _ in 0..20 {
        assert_eq!(api.batch(&created).await["status"], "in_progress");
    }
    api.post(&format!("/v1/batches/{}/cancel", created["id"].as_str().unwrap()), &json!({})).await;
    let batch = api.ended(&created).await;
    assert_eq!(batch["status"], "cancelled");
    assert_eq!(batch["request_counts"], json!({"total": 4, "completed": 2, "failed": 0}));
}

/// The text of the output file and the counters of a batch of ten lines with this fault.
async fn tampered(fault: &str) -> (Api, Value, Vec<u8>) {
    let api = Api::start(with_fault(fault)).await;
    let batch = api.ended(&api.submit(&chat_lines(10)).await).await;
    assert_eq!(batch["status"], "completed");
    let text = api.content(&batch["output_file_id"]).await.body.to_vec();
    (api, batch, text)
}

/// The `custom_id` of each line that can be read.
fn ids(text: &[u8]) -> Vec<String> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect()
}

fn distinct(ids: &[String]) -> usize {
    ids.iter().collect::<std::collections::HashSet<_>>().len()
}

#[tokio::test]
async fn results_may_miss_or_repeat_lines() {
    let (api, batch, text) = tampered("missing-line").await;
    assert_eq!((ids(&text).len(), &batch["error_file_id"]), (9, &Value::Null));
    assert_eq!(api.sim.counters()["lines_executed"], 9);
    let (api, _, text) = tampered("duplicate-line").await;
    assert_eq!((ids(&text).len(), distinct(&ids(&text))), (11, 10));
    assert_eq!(api.sim.counters()["lines_executed"], 10);
    let (_, _, text) = tampered("duplicate-differs").await;
    let lines: Vec<Value> =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let last = lines.last().unwrap();
    let first = lines.iter().find(|line| line["custom_id"] == last["custom_id"]).unwrap();
    assert_ne!(answer_of(first), answer_of(last));
    let (_, _, text) = tampered("unknown-id").await;
    assert_eq!((ids(&text).len(), distinct(&ids(&text))), (11, 11));
}

#[tokio::test]
async fn results_may_be_ill_formed() {
    let (_, _, text) = tampered("half-last-line").await;
    assert_eq!(ids(&text).len(), 9);
    assert!(!text.ends_with(b"\n"));
    let (_, _, text) = tampered("blank-lines").await;
    assert!(text.windows(2).any(|pair| pair == b"\n\n") && ids(&text).len() == 10);
    let (_, _, text) = tampered("crlf").await;
    assert_eq!(text.windows(2).filter(|pair| pair == b"\r\n").count(), 10);
    let (_, _, text) = tampered("invalid-utf8").await;
    assert!(std::str::from_utf8(&text).is_err());
    assert_eq!(text.split(|byte| *byte == b'\n').filter(|line| std::str::from_utf8(line).is_err()).count(), 1);
    let (_, _, text) = tampered("long-line").await;
    assert!(text.len() > 20_000_000 && ids(&text).len() == 10);
}

#[tokio::test]
async fn lines_may_end_without_an_answer() {
    let (api, _, text) = tampered("null-response").await;
    let line = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .find(|line| line["response"].is_null());
    assert!(line.unwrap()["error"].is_null());
    assert_eq!(api.sim.counters()["lines_executed"], 9);
    for (fault, pointer, value) in [
        ("line-429", "/response/status_code", json!(429)),
        ("line-500", "/response/status_code", json!(500)),
        ("request-timeout", "/error/code", json!("request_timeout")),
    ] {
        let (api, batch, text) = tampered(fault).await;
        assert_eq!(ids(&text).len(), 9, "{fault}");
        let errors = api.lines(&batch["error_file_id"]).await;
        assert_eq!((errors.len(), errors[0].pointer(pointer)), (1, Some(&value)), "{fault}");
        assert_eq!(api.sim.counters()["lines_executed"], 9);
    }
    let (api, batch, text) = tampered("empty-error-file").await;
    assert_eq!(ids(&text).len(), 10);
    assert!(api.content(&batch["error_file_id"]).await.body.is_empty());
}

#[tokio::test]
async fn downloads_may_fail() {
    let api = Api::quick().await;
    let batch = api.ended(&api.submit(&chat_lines(100)).await).await;
    let path = format!("/v1/files/{}/content", batch["output_file_id"].as_str().unwrap());
    let whole = api.get(&path).await.body;
    let arm = async |fault: &str| {
        api.sim.set_faults(&[fault.to_owned()]).unwrap();
        api.send(Method::GET, &path, "", "").await
    };
    assert!(arm("content-cut").await.is_err());
    assert_eq!(arm("content-404").await.unwrap().status, 404);
    assert_eq!(arm("content-500").await.unwrap().status, 500);
    let zipped = arm("content-gzip").await.unwrap();
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.body.starts_with(&[0x1f, 0x8b]));
    // Stored blocks: ten bytes of head, five before the one block, five of an empty block and eight of checksum after.
    assert_eq!(zipped.body.len(), whole.len() + 10 + 5 * whole.len().div_ceil(65_535) + 5 + 8);
    assert_eq!(api.get(&path).await.body, whole);
}

#[tokio::test]
async fn live_calls_may_fail() {
    let api = Api::quick().await;
    let arm = async |fault: &str, call: &Value| {
        api.sim.set_faults(&[fault.to_owned()]).unwrap();
        api.send(Method::POST, "/v1/chat/completions", "application/json", call.to_string()).await
    };
    assert_eq!(arm("live-500", &chat("x")).await.unwrap().status, 500);
    let limited = arm("live-429", &chat("x")).await.unwrap();
    assert_eq!((limited.status.as_u16(), limited.headers["retry-after"].as_bytes()), (429, &b"1"[..]));
    let silent = tokio::time::timeout(Duration::from_millis(200), arm("live-silent", &chat("x"))).await;
    assert!(silent.is_err());
    assert_eq!(api.sim.counters()["live_calls"], 0);
    assert!(arm("live-cut", &chat("x")).await.is_err());
    let mut stream = chat("a text");
    stream["stream"] = json!(true);
    assert!(arm("live-cut", &stream).await.is_err());
    assert_eq!(api.sim.counters()["live_calls"], 2, "both were executed");
    let mut flex = chat("x");
    flex["service_tier"] = json!("flex");
    let refused = arm("flex-unavailable", &flex).await.unwrap();
    assert_eq!(refused.error()["code"], "resource_unavailable");
    assert_eq!(api.post("/v1/chat/completions", &flex).await.json()["service_tier"], "flex");
}
