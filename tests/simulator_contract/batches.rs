//! Batches: creating, life, counts, paging, cancelling.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::client::{Api, answer_of, chat_line, chat_lines, quick};

#[tokio::test]
async fn every_line_is_answered_once_with_its_own_answer_in_another_order() {
    let api = Api::quick().await;
    let created = api.submit(&chat_lines(200)).await;
    assert_eq!(created["status"], "validating");
    assert_eq!(created["request_counts"], json!({"total": 0, "completed": 0, "failed": 0}));
    assert_eq!(created["expires_at"], created["created_at"].as_i64().unwrap() + 86_400);
    assert!(created["errors"].is_null() && created["output_file_id"].is_null() && created["completed_at"].is_null());

    let batch = api.ended(&created).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({"total": 200, "completed": 200, "failed": 0}));
    assert_eq!(batch["model"], "gpt-6-luna");
    assert!(batch["error_file_id"].is_null());
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(batch[time].is_i64(), "{time}");
    }

    let lines = api.lines(&batch["output_file_id"]).await;
    let order: Vec<&str> = lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    let mut sorted = order.clone();
    sorted.sort_by_key(|id| id[3..].parse::<usize>().unwrap());
    assert_eq!(sorted, (0..200).map(|at| format!("id-{at}")).collect::<Vec<_>>());
    assert_ne!(sorted, order);
    let mut tokens = 0;
    for line in &lines {
        assert!(line["error"].is_null());
        assert_eq!(line["response"]["status_code"], 200);
        assert_eq!(line["response"]["body"]["service_tier"], "default");
        let at = &line["custom_id"].as_str().unwrap()[3..];
        assert!(answer_of(line).ends_with(&format!("] text {at} probe-{at}")), "{line}");
        tokens += line["response"]["body"]["usage"]["total_tokens"].as_u64().unwrap();
    }
    assert_eq!(batch["usage"]["total_tokens"], tokens);

    let counters = api.sim.counters();
    assert_eq!(counters["lines_executed"], 200);
    assert_eq!(counters["max_executions_per_custom_id"], 1);
    assert_eq!(counters["by_endpoint"]["/v1/chat/completions"], json!({"batch": 200, "live": 0}));
    assert_eq!(api.get("/sim/executions?probe=probe-17").await.json()["executions"], 1);
    assert_eq!(api.get("/sim/executions").await.json().as_object().unwrap().len(), 200);
}
