//! `nightbus run` against the Message Batches API: Anthropic's own lines and bare bodies, its output shape, its key.

use serde_json::{Value, json};

use crate::command::done;
use crate::run::Stage;

fn body(number: usize) -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": format!("say probe-{number:04}")}]})
}

fn line(number: usize) -> String {
    format!("{}\n", json!({"custom_id": format!("c{number}"), "params": body(number)}))
}

/// Every message is there once, under its id, and was executed once.
fn assert_whole(stage: &Stage, output: &str, ids: &[&str]) {
    let answers = stage.read(output);
    assert_eq!(answers.len(), ids.len());
    for (number, (answer, id)) in answers.iter().zip(ids).enumerate() {
        assert_eq!((&answer["custom_id"], &answer["result"]["type"]), (&json!(id), &json!("succeeded")));
        let message = &answer["result"]["message"];
        assert_eq!((&message["type"], &message["usage"]["service_tier"]), (&json!("message"), &json!("batch")));
        let text = message["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(&format!("probe-{number:04}")), "{id}: {text}");
        assert_eq!(answer.as_object().unwrap().len(), 2, "the provider's own shape: {answer}");
    }
    let executions = stage.executions();
    assert!(executions.len() == ids.len() && executions.values().all(|times| *times == 1), "{executions:?}");
}

#[test]
fn its_own_lines_come_back_in_its_own_shape() {
    let stage = Stage::with(&["--batch-seconds", "0.2"]);
    let lines: String = (0..40).map(line).collect();
    stage.write("in.jsonl", &lines);
    let priced = stage.run(&["in.jsonl", "-o", "out.jsonl", "--dry-run"]);
    assert!(priced.err.contains("40 calls of /v1/messages for claude-haiku-4-5"), "{}", priced.err);
    assert!(priced.err.contains("Estimated price: $"), "a known model has a price: {}", priced.err);
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    let ids: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    assert_whole(&stage, "out.jsonl", &ids.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn bare_bodies_go_to_a_running_server() {
    let stage = Stage::with(&["--batch-seconds", "0.2"]);
    stage.write("in.jsonl", &format!("{}\n\n{}\n", body(0), body(1)));
    let server = stage.serve();
    let arguments = ["in.jsonl", "-o", "out.jsonl", "--endpoint", "messages", "--server", &server.url];
    let ran = stage.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("Handing in at http://"), "{}", ran.err);
    assert_whole(&stage, "out.jsonl", &["line-1", "line-3"]);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_refused_line_is_errored_and_rides_again_when_it_is_mended() {
    let stage = Stage::with(&["--batch-seconds", "0.2"]);
    let refused = line(1).replace("say probe-0001", "");
    let refused = refused.replace("[{\"content\":\"\",\"role\":\"user\"}]", "[]");
    assert!(refused.contains("\"messages\":[]"), "{refused}");
    stage.write("in.jsonl", &(line(0) + &refused + &line(2)));
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert!(ran.code == 1 && ran.err.contains("1 of 3 lines failed"), "{}", ran.err);
    let errors = stage.read("out.errors.jsonl");
    assert_eq!((errors.len(), &errors[0]["custom_id"]), (1, &json!("c1")));
    assert_eq!(errors[0]["result"]["type"], "errored");
    assert_eq!(errors[0]["result"]["error"]["error"]["type"], "invalid_request_error");
    stage.write("in.jsonl", &(0..3).map(line).collect::<String>());
    let mended = stage.run(&["in.jsonl", "-o", "out.jsonl", "--retry-failed"]);
    assert_eq!(mended.code, 0, "{}", mended.err);
    assert_whole(&stage, "out.jsonl", &["c0", "c1", "c2"]);
    assert!(!stage.path("out.errors.jsonl").exists());
}

#[test]
fn the_missing_key_is_named_and_nothing_is_left_behind() {
    let stage = Stage::with(&["--batch-seconds", "0.2"]);
    stage.write("in.jsonl", &line(0));
    let without = done(stage.command(&["in.jsonl", "-o", "out.jsonl"]).env_remove("ANTHROPIC_API_KEY"));
    assert!(
        without.code == 2 && without.err.contains("set the environment variable ANTHROPIC_API_KEY"),
        "{}",
        without.err
    );
    assert!(!stage.path("out.jsonl.nightbus").exists());
    let nowhere = stage.run(&["in.jsonl", "-o", "missing/out.jsonl"]);
    assert!(nowhere.code == 2 && nowhere.err.contains("missing/out.jsonl"), "{}", nowhere.err);
    assert!(!stage.path("missing").exists());
}
