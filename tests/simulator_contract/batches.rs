//! Batches: creating, life, counts, paging, cancelling.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::client::{Api, POLL, answer_of, chat_line, chat_lines, quick};

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

#[tokio::test]
async fn create_refuses_bad_fields_at_once_and_nothing_else() {
    let api = Api::quick().await;
    let good = json!({"input_file_id": "file-none", "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let changes = [
        ("input_file_id", Value::Null, "missing_required_parameter"),
        ("input_file_id", json!(7), "invalid_type"),
        ("endpoint", json!("/v1/chat"), "invalid_value"),
        ("endpoint", Value::Null, "missing_required_parameter"),
        ("completion_window", json!("48h"), "invalid_value"),
        ("metadata", json!({"a": 1}), "invalid_type"),
        ("metadata", json!([]), "invalid_type"),
        ("metadata", json!({"k".repeat(65): "v"}), "string_above_max_length"),
        ("metadata", json!({"k": "v".repeat(513)}), "string_above_max_length"),
        ("metadata", (0..17).map(|at| (at.to_string(), json!(""))).collect(), "object_above_max_properties"),
        ("output_expires_after", json!({"anchor": "created_at", "seconds": 3599}), "invalid_value"),
        ("output_expires_after", json!({"seconds": 3600}), "invalid_value"),
        ("surprise", json!(1), "unknown_parameter"),
    ];
    for (name, value, code) in changes {
        let mut order = good.clone();
        order[name] = value;
        let reply = api.post("/v1/batches", &order).await;
        assert_eq!(reply.status, 400, "{order}");
        let error = reply.error();
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(name)), "{order}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(api.post("/v1/batches", &json!([])).await.status, 400);
    assert_eq!(api.sim.counters()["batches"], 0);

    let created = api.post("/v1/batches", &good).await;
    assert_eq!(created.status, 200, "a file that is not there is found out later");
    let failed = api.ended(&created.json()).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["errors"]["object"], "list");
    assert_eq!(failed["errors"]["data"][0]["code"], "invalid_request");
    assert_eq!(failed["errors"]["data"][0]["message"], "Cannot find file file-none");
    assert!(failed["errors"]["data"][0]["line"].is_null() && failed["failed_at"].is_i64());
}

#[tokio::test]
async fn metadata_and_lifetime_of_results_are_kept() {
    let api = Api::quick().await;
    let file = api.upload(&super::client::jsonl(&chat_lines(1))).await.json();
    let created = api
        .post(
            "/v1/batches",
            &json!({
                "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
                "metadata": {"nightbus_batch": "bat_1"},
                "output_expires_after": {"anchor": "created_at", "seconds": 3600},
            }),
        )
        .await;
    let batch = api.ended(&created.json()).await;
    assert_eq!(batch["metadata"], json!({"nightbus_batch": "bat_1"}));
    assert_eq!(batch["input_file_id"], file["id"]);
    let output = api.get(&format!("/v1/files/{}", batch["output_file_id"].as_str().unwrap())).await.json();
    assert_eq!(output["purpose"], "batch_output");
    assert_eq!(output["expires_at"].as_i64().unwrap() - output["created_at"].as_i64().unwrap(), 3600);
}

#[tokio::test]
async fn statuses_come_in_order_and_counts_lag_until_the_end() {
    let api = Api::start(nightbus::sim::SimOptions { batch_seconds: 0.6, ..quick() }).await;
    let created = api.submit(&chat_lines(100)).await;
    let mut seen: Vec<String> = Vec::new();
    let mut most = 0;
    loop {
        let batch = api.batch(&created).await;
        let status = batch["status"].as_str().unwrap().to_owned();
        let completed = batch["request_counts"]["completed"].as_u64().unwrap();
        assert!(completed >= most);
        most = completed;
        if status != "completed" {
            assert!(batch["output_file_id"].is_null() && completed < 100, "{batch}");
        }
        if status == "validating" {
            assert_eq!(batch["request_counts"]["total"], 0);
            assert!(batch["model"].is_null());
        }
        if seen.last() != Some(&status) {
            seen.push(status.clone());
        }
        if status == "completed" {
            assert_eq!(completed, 100);
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(seen, ["validating", "in_progress", "finalizing", "completed"]);
}

#[tokio::test]
async fn list_is_newest_first_and_paged_and_of_one_key() {
    let api = Api::quick().await;
    let mut ids: Vec<Value> = Vec::new();
    for _ in 0..5 {
        ids.insert(0, api.submit(&chat_lines(1)).await["id"].take());
    }
    let page = api.get("/v1/batches?limit=2").await.json();
    assert_eq!(page["object"], "list");
    assert_eq!(
        page["data"].as_array().unwrap().iter().map(|batch| &batch["id"]).collect::<Vec<_>>(),
        [&ids[0], &ids[1]]
    );
    assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&ids[0], &ids[1], &json!(true)));
    let rest = api.get(&format!("/v1/batches?limit=3&after={}", ids[1].as_str().unwrap())).await.json();
    assert_eq!(
        rest["data"].as_array().unwrap().iter().map(|batch| &batch["id"]).collect::<Vec<_>>(),
        [&ids[2], &ids[3], &ids[4]]
    );
    assert_eq!(rest["has_more"], false);
    for bad in ["limit=0", "limit=101", "limit=x"] {
        assert_eq!(api.get(&format!("/v1/batches?{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(api.get("/v1/batches?after=batch_none").await.status, 404);

    let stranger = api.as_key("sk-other");
    assert_eq!(stranger.get("/v1/batches").await.json()["data"], json!([]));
    assert_eq!(stranger.get(&format!("/v1/batches/{}", ids[0].as_str().unwrap())).await.status, 404);
    assert_eq!(api.get("/sim/batches").await.json()["data"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn cancelled_batch_delivers_what_ran_and_names_what_did_not() {
    let api = Api::start(nightbus::sim::SimOptions { batch_seconds: 60.0, ..quick() }).await;
    let created = api.submit(&chat_lines(50)).await;
    // Speeds the batch up until it runs, and then slows it down so that half of it is done for a while.
    api.post("/sim/settings", &json!({"batch_seconds": 0.5})).await;
    let running = loop {
        let batch = api.batch(&created).await;
        if batch["request_counts"]["completed"].as_u64().unwrap() > 5 {
            break batch;
        }
        tokio::time::sleep(POLL).await;
    };
    assert_eq!(running["status"], "in_progress");
    let cancelling = api.post(&format!("/v1/batches/{}/cancel", created["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(cancelling.json()["status"], "cancelling");
    let batch = api.ended(&created).await;
    assert_eq!(batch["status"], "cancelled");
    assert!(batch["cancelling_at"].is_i64() && batch["cancelled_at"].is_i64() && batch["completed_at"].is_null());

    let (output, errors) = (api.lines(&batch["output_file_id"]).await, api.lines(&batch["error_file_id"]).await);
    assert!(!output.is_empty() && !errors.is_empty());
    assert_eq!(output.len() + errors.len(), 50);
    assert_eq!(batch["request_counts"], json!({"total": 50, "completed": output.len(), "failed": 0}));
    for line in &errors {
        assert_eq!(line["error"]["code"], "batch_cancelled");
        assert!(line["response"].is_null());
        let probe = line["custom_id"].as_str().unwrap().replace("id-", "probe-");
        assert_eq!(api.get(&format!("/sim/executions?probe={probe}")).await.json()["executions"], 0);
    }
    assert_eq!(api.sim.counters()["lines_executed"], output.len());
    assert_eq!(api.sim.counters()["cancelled"], 1);

    let again = api.post(&format!("/v1/batches/{}/cancel", created["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(again.status, 409);
    again.error();
}

#[tokio::test]
async fn cancelled_while_validating_has_no_files() {
    let api = Api::start(super::client::with_fault("stuck-validating")).await;
    let created = api.submit(&chat_lines(3)).await;
    assert_eq!(api.batch(&created).await["status"], "validating");
    api.post(&format!("/v1/batches/{}/cancel", created["id"].as_str().unwrap()), &json!({})).await;
    let batch = api.ended(&created).await;
    assert_eq!(batch["status"], "cancelled");
    assert!(batch["output_file_id"].is_null() && batch["error_file_id"].is_null());
    assert_eq!(api.sim.counters()["lines_executed"], 0);
    assert_eq!(api.post("/v1/batches/batch_none/cancel", &json!({})).await.status, 404);
}

#[tokio::test]
async fn token_queue_is_full_until_a_batch_ends() {
    let api =
        Api::start(nightbus::sim::SimOptions { batch_seconds: 3600.0, enqueued_token_limit: Some(1_500), ..quick() })
            .await;
    // 1,000 tokens each: two do not fit, but another model or key has a queue of its own.
    let line = |model: &str| {
        let mut line = chat_line("a", &"x".repeat(3_972));
        line["body"]["model"] = json!(model);
        line
    };
    let first = api.submit(&[line("m")]).await;
    api.post("/sim/settings", &json!({"batch_seconds": 0.0})).await;
    assert_eq!(api.ended(&first).await["status"], "completed");
    assert_eq!(api.sim.counters()["enqueued_tokens"], 0);

    api.post("/sim/faults", &json!({"faults": ["stuck-in-progress"]})).await;
    let holds = api.submit(&[line("m")]).await;
    api.until(&holds, &["in_progress"]).await;
    assert_eq!(api.sim.counters()["enqueued_tokens"], 1_000);
    let refused = api.ended(&api.submit(&[line("m")]).await).await;
    assert_eq!(refused["status"], "failed");
    let error = &refused["errors"]["data"][0];
    assert_eq!(error["code"], "token_limit_exceeded");
    assert!(error["message"].as_str().unwrap().contains("Limit: 1,500 enqueued tokens"), "{error}");
    assert!(error["line"].is_null() && error["param"].is_null());
    assert_eq!(api.ended(&api.submit(&[line("n")]).await).await["status"], "completed");
    let other = api.as_key("sk-other");
    assert_eq!(other.ended(&other.submit(&[line("m")]).await).await["status"], "completed");

    api.post(&format!("/v1/batches/{}/cancel", holds["id"].as_str().unwrap()), &json!({})).await;
    api.ended(&holds).await;
    assert_eq!(api.ended(&api.submit(&[line("m")]).await).await["status"], "completed");
}

#[tokio::test]
async fn every_endpoint_runs_in_a_batch_as_it_runs_live() {
    let api = Api::quick().await;
    let bodies: HashMap<&str, Value> = HashMap::from([
        ("/v1/responses", json!({"model": "m", "input": "hello"})),
        ("/v1/completions", json!({"model": "m", "prompt": "hello"})),
        ("/v1/embeddings", json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8})),
        ("/v1/moderations", json!({"model": "m", "input": "hello"})),
    ]);
    for (endpoint, body) in bodies {
        let line = json!({"custom_id": "a", "method": "POST", "url": endpoint, "body": body});
        let batch = api.ended(&api.submit_to(endpoint, &super::client::jsonl(&[line])).await).await;
        assert_eq!(batch["status"], "completed", "{batch}");
        let mut batched = api.lines(&batch["output_file_id"]).await.remove(0)["response"]["body"].take();
        let mut live = api.post(endpoint, &body).await.json();
        for answer in [&mut batched, &mut live] {
            for name in ["id", "created", "created_at", "completed_at"] {
                answer[name].take();
            }
            if endpoint == "/v1/responses" {
                answer["output"][0]["id"].take();
            }
        }
        assert_eq!(batched, live, "{endpoint}");
        assert_eq!(api.sim.counters()["by_endpoint"][endpoint], json!({"batch": 1, "live": 1}));
    }
}

#[tokio::test]
async fn reset_forgets_everything_and_stops_what_runs() {
    let api = Api::start(nightbus::sim::SimOptions { batch_seconds: 3600.0, ..quick() }).await;
    let created = api.submit(&chat_lines(3)).await;
    api.post("/sim/reset", &json!({})).await;
    assert_eq!(api.get(&format!("/v1/batches/{}", created["id"].as_str().unwrap())).await.status, 404);
    assert_eq!(api.get("/v1/files").await.json()["data"], json!([]));
    let counters = api.sim.counters();
    assert_eq!(
        (&counters["batches"], &counters["files"], &counters["files_stored"]),
        (&json!(0), &json!(0), &json!(0))
    );
}
