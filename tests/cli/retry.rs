//! `nightbus run --retry-failed` from outside: only what failed is sent again, with a running proxy and without, killed on the way
//! or not, and the files are as if nothing had ever failed.

use std::fs;

use serde_json::{Value, json};

use crate::command::Running;
use crate::run::{Stage, assert_whole, batch_file};

const LINES: usize = 30;

/// After a run in which the provider called good lines bad, at most ten of one batch: and how many they were.
fn with_failures(batch_seconds: &str) -> (Stage, usize) {
    let stage = Stage::with(&["--batch-seconds", batch_seconds, "--fault", "validation-ten-bad"]);
    stage.write("in.jsonl", &batch_file(LINES));
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let failed = stage.read("out.errors.jsonl").len();
    assert!((1..=10).contains(&failed) && stage.read("out.jsonl").len() == LINES - failed, "{failed}");
    assert!(ran.err.contains(&format!("{failed} of 30 lines failed: see out.errors.jsonl.")), "{}", ran.err);
    assert!(ran.err.contains("--retry-failed"), "says what to do next: {}", ran.err);
    (stage, failed)
}

fn assert_mended(stage: &Stage) {
    assert_whole(stage, "out.jsonl", LINES);
    for left in ["out.errors.jsonl", "out.jsonl.nightbus", "out.jsonl.nightbus.done"] {
        assert!(!stage.path(left).exists(), "{left}");
    }
}

#[test]
fn only_the_failed_lines_are_sent_again_and_the_files_are_in_order() {
    let (stage, failed) = with_failures("0.2");
    let priced = stage.run(&["in.jsonl", "-o", "out.jsonl", "--retry-failed", "--dry-run"]);
    assert!(
        priced.code == 0 && priced.err.contains(&format!("{failed} call")),
        "the price of what is sent: {}",
        priced.err
    );
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl", "--retry-failed"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains(" answered: out.jsonl"), "{}", ran.err);
    assert_mended(&stage);
    let executed = stage.sim("counters")["lines_executed"].clone();
    let nothing = stage.run(&["in.jsonl", "-o", "out.jsonl", "--retry-failed"]);
    assert!(nothing.code == 0 && nothing.err.contains("nothing to do"), "{}", nothing.err);
    assert_eq!(stage.sim("counters")["lines_executed"], executed);
    assert_mended(&stage);
}

#[test]
fn a_running_server_is_asked_anew_and_not_for_the_failures_it_has_kept() {
    let stage = Stage::with(&["--batch-seconds", "0.2", "--fault", "validation-ten-bad:2"]);
    stage.write("in.jsonl", &batch_file(LINES));
    let server: Running = stage.serve();
    let run = |more: &[&str]| stage.run(&[&["in.jsonl", "-o", "out.jsonl", "--server", &server.url], more].concat());
    let ran = run(&[]);
    assert!(ran.code == 1 && ran.err.contains("of 30 lines failed"), "{}", ran.err);
    let ran = run(&["--retry-failed"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_mended(&stage);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn what_fails_again_stays_in_the_second_file_until_its_line_is_mended() {
    let stage = Stage::with(&["--batch-seconds", "0.2"]);
    let good = batch_file(3);
    let bad = good.replace("[{\"content\":\"say probe-0001\",\"role\":\"user\"}]", "[]");
    assert_ne!(good, bad);
    stage.write("in.jsonl", &bad);
    let arguments = ["in.jsonl", "-o", "out.jsonl"];
    let retry = ["in.jsonl", "-o", "out.jsonl", "--retry-failed"];
    assert_eq!(stage.run(&arguments).code, 1);
    let again = stage.run(&retry);
    assert!(again.code == 1 && again.err.contains("1 of 1 line failed again"), "{}", again.err);
    let ids = |name: &str| stage.read(name).iter().map(|line| line["custom_id"].clone()).collect::<Vec<Value>>();
    assert_eq!((ids("out.jsonl"), ids("out.errors.jsonl")), (vec![json!("c0"), json!("c2")], vec![json!("c1")]));
    stage.write("in.jsonl", &good);
    let mended = stage.run(&retry);
    assert_eq!(mended.code, 0, "{}", mended.err);
    assert_mended_lines(&stage, 3);
}

fn assert_mended_lines(stage: &Stage, lines: usize) {
    assert_whole(stage, "out.jsonl", lines);
    assert!(!stage.path("out.errors.jsonl").exists());
}

#[test]
fn killed_on_the_way_it_goes_on_and_nothing_is_bought_twice() {
    let (stage, _) = with_failures("1");
    let batches = || stage.sim("counters")["batches"].as_u64().unwrap();
    let (before, arguments) = (batches(), ["in.jsonl", "-o", "out.jsonl", "--retry-failed"]);
    let killed = stage.start(&arguments);
    stage.until("a batch of the retry", || batches() > before);
    drop(killed);
    let plain = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert!(plain.code == 2 && plain.err.contains("repeat it with --retry-failed"), "{}", plain.err);
    // What it needs of the earlier run, it has of its own.
    fs::remove_file(stage.path("out.errors.jsonl")).unwrap();
    let ran = stage.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("Going on: "), "{}", ran.err);
    assert_mended(&stage);
}

#[test]
fn without_an_earlier_run_it_says_what_to_do() {
    let stage = Stage::with(&["--batch-seconds", "30"]);
    stage.write("in.jsonl", &batch_file(2));
    let retry = |more: &[&str]| stage.run(&[&["in.jsonl", "--retry-failed"], more].concat());
    let none = retry(&["-o", "out.jsonl"]);
    assert!(none.code == 2 && none.err.contains("leave --retry-failed out"), "{}", none.err);
    let piped = retry(&["-o", "-"]);
    assert!(piped.code == 2 && piped.err.contains("-o"), "{}", piped.err);
    assert_eq!(retry(&["-o", "out.jsonl", "--force"]).code, 2);
    let killed = stage.start(&["in.jsonl", "-o", "out.jsonl"]);
    stage.until("a batch", || stage.sim("counters")["batches"].as_u64().unwrap() > 0);
    drop(killed);
    let open = retry(&["-o", "out.jsonl"]);
    assert!(open.code == 2 && open.err.contains("without --retry-failed"), "{}", open.err);
    stage.write("other.jsonl", "{\"custom_id\":\"c1\"}\n{\"custom_id\":\"c0\"}\n");
    let strange = retry(&["-o", "other.jsonl"]);
    assert!(strange.code == 2 && strange.err.contains("\"c0\" (line 1"), "{}", strange.err);
    assert!(!stage.path("other.jsonl.nightbus").exists(), "nothing is left of what was refused");
}
