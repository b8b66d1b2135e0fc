//! Result files: what goes into which, errors of lines, expiry.

use serde_json::json;

use super::client::{Api, answer_of, chat_line, chat_lines, quick, with_fault};

#[tokio::test]
async fn lines_that_fail_are_in_the_error_file_with_their_response() {
    let api = Api::quick().await;
    let mut lines = vec![
        chat_line("good", "x"),
        chat_line("a", "fail-400"),
        chat_line("b", "fail-500"),
        chat_line("c", "fail-429"),
    ];
    lines.push(chat_line("wrong", "x"));
    lines[4]["body"]["messages"] = json!("no list");
    let batch = api.ended(&api.submit(&lines).await).await;
    assert_eq!(batch["status"], "completed");
    assert_eq!(batch["request_counts"], json!({"total": 5, "completed": 1, "failed": 4}));
    assert_eq!(api.lines(&batch["output_file_id"]).await[0]["custom_id"], "good");
    let errors = api.lines(&batch["error_file_id"]).await;
    for (id, status, code) in [
        ("a", 400, json!("context_length_exceeded")),
        ("b", 500, json!(null)),
        ("c", 429, json!("rate_limit_exceeded")),
        ("wrong", 400, json!("invalid_type")),
    ] {
        let line = errors.iter().find(|line| line["custom_id"] == id).unwrap();
        assert!(line["error"].is_null(), "the model answered: the error is in the response");
        assert_eq!(line["response"]["status_code"], status);
        assert_eq!(line["response"]["body"]["error"]["code"], code);
        assert!(line["response"]["request_id"].is_string() && line["id"].as_str().unwrap().starts_with("batch_req_"));
    }
    let counters = api.sim.counters();
    assert_eq!((&counters["lines_executed"], &counters["lines_failed"]), (&json!(1), &json!(4)));
}

#[tokio::test]
async fn no_output_file_where_every_line_failed() {
    let api = Api::quick().await;
    let batch = api.ended(&api.submit(&[chat_line("a", "fail-400")]).await).await;
    assert_eq!(batch["status"], "completed");
    assert!(batch["output_file_id"].is_null() && batch["error_file_id"].is_string());
    assert_eq!(batch["usage"]["total_tokens"], 0);
}

#[tokio::test]
async fn fail_rate_spoils_that_share_of_lines() {
    let api = Api::start(nightbus::sim::SimOptions { fail_rate: 0.3, seed: 7, ..quick() }).await;
    let batch = api.ended(&api.submit(&chat_lines(1_000)).await).await;
    let failed = batch["request_counts"]["failed"].as_u64().unwrap();
    assert!((200..400).contains(&failed), "{failed}");
    let errors = api.lines(&batch["error_file_id"]).await;
    assert_eq!(errors.len() as u64, failed);
    for status in [429, 500] {
        assert!(errors.iter().any(|line| line["response"]["status_code"] == status), "{status}");
    }
    assert_eq!(api.sim.counters()["lines_executed"], 1_000 - failed);
}

#[tokio::test]
async fn expired_batches_deliver_what_ran() {
    for (fault, done) in [("expire-none", 0), ("expire-half", 10), ("expire-most", 18)] {
        let api = Api::start(with_fault(fault)).await;
        let batch = api.ended(&api.submit(&chat_lines(20)).await).await;
        assert_eq!(batch["status"], "expired", "{fault}");
        assert!(batch["expired_at"].is_i64() && batch["completed_at"].is_null());
        let (output, errors) = (api.lines(&batch["output_file_id"]).await, api.lines(&batch["error_file_id"]).await);
        assert_eq!((output.len(), errors.len()), (done, 20 - done), "{fault}");
        assert_eq!(batch["output_file_id"].is_null(), done == 0);
        assert_eq!(batch["request_counts"], json!({"total": 20, "completed": done, "failed": 0}));
        assert!(errors.iter().all(|line| line["error"]["code"] == "batch_expired" && line["response"].is_null()));
        assert_eq!(api.sim.counters()["lines_executed"], done);
    }
}

#[tokio::test]
async fn repeated_executions_show_in_the_counters() {
    let api = Api::quick().await;
    for _ in 0..2 {
        api.ended(&api.submit(&chat_lines(3)).await).await;
    }
    let counters = api.sim.counters();
    assert_eq!(counters["max_executions_per_custom_id"], 2);
    assert_eq!(counters["max_executions_per_probe"], 2);
    assert_eq!((&counters["duplicates"], &counters["duplicate_probes"]), (&json!(3), &json!(3)));
    assert_eq!(api.get("/sim/executions?probe=probe-1").await.json()["executions"], 2);
    assert_eq!(api.get("/sim/executions?custom_id=id-1").await.json()["executions"], 2);
    assert_eq!(api.get("/sim/executions").await.json(), json!({"probe-0": 2, "probe-1": 2, "probe-2": 2}));
}

#[tokio::test]
async fn custom_ids_come_back_as_they_were_sent() {
    let api = Api::quick().await;
    let strange = "a\"b\\c\u{e9}\u{1F600}\n";
    let batch = api.ended(&api.submit(&[chat_line(strange, "hi")]).await).await;
    let lines = api.lines(&batch["output_file_id"]).await;
    assert_eq!(lines[0]["custom_id"], strange);
    assert!(answer_of(&lines[0]).ends_with("] hi"));
}

#[tokio::test]
async fn large_answers_can_be_asked_for() {
    let api = Api::quick().await;
    let batch = api.ended(&api.submit(&[chat_line("a", "sim-reply-bytes=100000")]).await).await;
    assert_eq!(answer_of(&api.lines(&batch["output_file_id"]).await[0]).len(), 100_000);
}
