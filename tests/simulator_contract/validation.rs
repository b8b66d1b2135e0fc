//! The validation of input files: every code of providers.md 1.9, with 1-based lines, several at once.

use nightbus::sim::SimOptions;
use serde_json::{Value, json};

use super::client::{Api, chat, chat_line, chat_lines, jsonl, quick};

/// Code, param and line of each error of a batch with this content.
async fn errors_to(api: &Api, endpoint: &str, content: &[u8]) -> Vec<(String, Value, Value)> {
    let batch = api.ended(&api.submit_to(endpoint, content).await).await;
    assert_eq!(batch["status"], "failed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 0, "completed": 0, "failed": 0}));
    assert!(batch["output_file_id"].is_null() && batch["error_file_id"].is_null() && batch["in_progress_at"].is_null());
    assert_eq!(api.sim.counters()["lines_executed"], 0, "nothing runs");
    let errors = batch["errors"]["data"].as_array().unwrap();
    errors.iter().map(|e| (e["code"].as_str().unwrap().to_owned(), e["param"].clone(), e["line"].clone())).collect()
}

async fn errors(content: &[u8]) -> Vec<(String, Value, Value)> {
    errors_to(&Api::quick().await, "/v1/chat/completions", content).await
}

fn error(code: &str, param: impl Into<Value>, line: impl Into<Value>) -> (String, Value, Value) {
    (code.to_owned(), param.into(), line.into())
}

/// A good line with one member changed.
fn changed(pointer: &str, value: Value) -> Value {
    let mut line = chat_line("a", "x");
    *line.pointer_mut(pointer).unwrap() = value;
    line
}

#[tokio::test]
async fn each_fault_of_a_line_has_its_code_and_names_its_line() {
    let cases = [
        (changed("/method", json!("GET")), error("invalid_method", "method", 2)),
        (changed("/method", Value::Null), error("missing_required_parameter", "method", 2)),
        (changed("/url", json!("/v1/embeddings")), error("invalid_url", "url", 2)),
        (changed("/url", json!("https://api.openai.com/v1/chat/completions")), error("invalid_url", "url", 2)),
        (changed("/custom_id", Value::Null), error("missing_required_parameter", "custom_id", 2)),
        (changed("/custom_id", json!(7)), error("invalid_type", "custom_id", 2)),
        (changed("/custom_id", json!("first")), error("duplicate_custom_id", "custom_id", 2)),
        (changed("/custom_id", json!("f\u{69}rst")), error("duplicate_custom_id", "custom_id", 2)),
        (changed("/body/model", json!("other")), error("mismatched_model", "body.model", 2)),
        (changed("/body/model", Value::Null), error("missing_required_parameter", "body.model", 2)),
        (changed("/body/messages", Value::Null), error("missing_required_parameter", "body.messages", 2)),
        (
            changed("/body", json!({"model": "gpt-6-luna", "messages": [], "stream": true})),
            error("invalid_request", "body.stream", 2),
        ),
        (changed("/body", json!("text")), error("invalid_request", "body", 2)),
    ];
    for (line, expected) in cases {
        let content = jsonl(&[chat_line("first", "x"), line.clone(), chat_line("last", "x")]);
        assert_eq!(errors(&content).await, [expected], "{line}");
    }
    let mut line = chat_line("a", "x");
    line.as_object_mut().unwrap().remove("body");
    assert_eq!(errors(&jsonl(&[line])).await, [error("missing_required_parameter", "body", 1)]);
}

#[tokio::test]
async fn texts_that_are_not_json_are_named_by_line() {
    let good = chat_line("a", "x").to_string();
    for bad in ["", "   ", "{", "[]", "null", "{} {}", "{\"custom_id\":\"a\",}"] {
        let content = format!("{good}\n{bad}\n{}\n", chat_line("b", "x"));
        assert_eq!(errors(content.as_bytes()).await, [error("invalid_json_line", Value::Null, 2)], "{bad:?}");
    }
    assert_eq!(
        errors(format!("\u{feff}{good}\n").as_bytes()).await,
        [error("invalid_json_line", Value::Null, 1)],
        "BOM"
    );
    assert_eq!(errors(format!("{good}\n\n").as_bytes()).await, [error("invalid_json_line", Value::Null, 2)]);
    let latin = [good.as_bytes(), b"\n{\"custom_id\":\"\xe9\"}\n"].concat();
    assert_eq!(errors(&latin).await, [error("invalid_json_line", Value::Null, 2)]);
}

#[tokio::test]
async fn all_bad_lines_are_reported_at_once() {
    let lines = [
        chat_line("a", "x"),
        changed("/method", json!("PUT")),
        chat_line("c", "x"),
        changed("/body/model", json!("other")),
        chat_line("c", "x"),
    ];
    let mut lines = lines.to_vec();
    lines[1]["custom_id"] = json!("b");
    lines[3]["custom_id"] = json!("d");
    let expected = [
        error("invalid_method", "method", 2),
        error("mismatched_model", "body.model", 4),
        error("duplicate_custom_id", "custom_id", 5),
    ];
    assert_eq!(errors(&jsonl(&lines)).await, expected);
}

#[tokio::test]
async fn a_last_line_without_its_end_is_fine() {
    let api = Api::quick().await;
    let content = jsonl(&chat_lines(2));
    let batch = api.submit_to("/v1/chat/completions", content.trim_ascii_end()).await;
    assert_eq!(api.ended(&batch).await["request_counts"]["completed"], 2);
}

#[tokio::test]
async fn empty_files_are_refused() {
    for content in ["", "\n", " \n\n"] {
        assert_eq!(errors(content.as_bytes()).await, [error("empty_file", Value::Null, Value::Null)], "{content:?}");
    }
}

#[tokio::test]
async fn files_above_the_limits_are_refused() {
    let api = Api::start(SimOptions { max_requests: Some(3), max_bytes: Some(2_000), ..quick() }).await;
    let endpoint = "/v1/chat/completions";
    assert_eq!(
        errors_to(&api, endpoint, &jsonl(&chat_lines(4))).await,
        [error("too_many_tasks", Value::Null, Value::Null)]
    );
    let large = jsonl(&[chat_line("a", &"x".repeat(2_000))]);
    assert_eq!(errors_to(&api, endpoint, &large).await, [error("file_too_large", Value::Null, Value::Null)]);
    assert_eq!(api.ended(&api.submit(&chat_lines(3)).await).await["status"], "completed");
}

#[tokio::test]
async fn fifty_thousand_lines_are_the_most() {
    let line = |at: usize| {
        format!(
            "{{\"custom_id\":\"{at}\",\"method\":\"POST\",\"url\":\"/v1/moderations\",\"body\":{{\"model\":\"m\",\"input\":\"x\"}}}}\n"
        )
    };
    let content: String = (0..=50_000).map(line).collect();
    let api = Api::quick().await;
    let too_many = [error("too_many_tasks", Value::Null, Value::Null)];
    assert_eq!(errors_to(&api, "/v1/moderations", content.as_bytes()).await, too_many);
    let fits = &content[..content.trim_end().rfind('\n').unwrap() + 1];
    let batch = api.ended(&api.submit_to("/v1/moderations", fits.as_bytes()).await).await;
    assert_eq!(batch["request_counts"], json!({"total": 50_000, "completed": 50_000, "failed": 0}));
    let output = api.content(&batch["output_file_id"]).await.body;
    assert_eq!(output.iter().filter(|byte| **byte == b'\n').count(), 50_000);
}

#[tokio::test]
async fn embedding_inputs_are_summed_over_the_batch() {
    let line = |id: &str, inputs: usize| {
        let body = json!({"model": "m", "input": vec!["x"; inputs], "dimensions": 1});
        json!({"custom_id": id, "method": "POST", "url": "/v1/embeddings", "body": body})
    };
    let api = Api::quick().await;
    let content = jsonl(&[line("a", 30_000), line("b", 20_001)]);
    let expected = [error("too_many_embedding_inputs", Value::Null, Value::Null)];
    assert_eq!(errors_to(&api, "/v1/embeddings", &content).await, expected);
    let content = jsonl(&[line("a", 30_000), line("b", 20_000)]);
    assert_eq!(api.ended(&api.submit_to("/v1/embeddings", &content).await).await["status"], "completed");
}

#[tokio::test]
async fn models_without_batch_are_refused() {
    let api = Api::quick().await;
    let mut lines = chat_lines(2);
    for line in &mut lines {
        line["body"]["model"] = json!("gpt-x-no-batch");
    }
    let expected = [error("model_not_found", "body.model", 1), error("model_not_found", "body.model", 2)];
    assert_eq!(errors_to(&api, "/v1/chat/completions", &jsonl(&lines)).await, expected);
    let batch = api.ended(&api.submit(&lines).await).await;
    let message = "The provided model 'gpt-x-no-batch' is not supported by the Batch API.";
    assert_eq!(batch["errors"]["data"][0]["message"], message);
    let mut live = chat("x");
    live["model"] = json!("gpt-x-no-batch");
    assert_eq!(api.post("/v1/chat/completions", &live).await.status, 200, "live it is served");
}

#[tokio::test]
async fn a_file_of_another_purpose_or_key_is_refused() {
    let api = Api::quick().await;
    let done = api.ended(&api.submit(&chat_lines(1)).await).await;
    let order =
        |file: &Value| json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let batch = api.post("/v1/batches", &order(&done["output_file_id"])).await.json();
    assert_eq!(api.ended(&batch).await["errors"]["data"][0]["code"], "invalid_request");
    let other = api.as_key("sk-other");
    let batch = other.post("/v1/batches", &order(&done["input_file_id"])).await.json();
    let message = other.ended(&batch).await["errors"]["data"][0]["message"].take();
    assert!(message.as_str().unwrap().starts_with("Cannot find file file-"), "{message}");
}
