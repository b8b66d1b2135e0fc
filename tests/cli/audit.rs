//! `nightbus audit` from outside: tables, JSON, the page, and what goes wrong with files.

use serde_json::Value;

use crate::command::nightbus;

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/audit/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn several_logs_are_one_report_in_three_forms() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    let files = [fixture("openai-pairs.jsonl"), fixture("litellm.json"), fixture("mixed.txt")];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let tables = nightbus(&[&["audit", "--html", page.to_str().unwrap()], &files[..]].concat());
    assert_eq!(tables.code, 0, "{}", tables.err);
    for shown in
        ["13 calls", "review-classifier", "could wait", "somebody waits", "not_json", "mixed.txt:3", "unrecognised"]
    {
        assert!(tables.out.contains(shown), "{shown} in {}", tables.out);
    }
    assert!(!tables.out.contains('\x1b') && tables.err.contains("report.html"), "{}", tables.err);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("review-classifier"));
    let json = nightbus(&[&["audit", "--json"], &files[..]].concat());
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(report["object"], "nightbus.audit");
    assert_eq!((&report["totals"]["calls"], &report["totals"]["unread"]), (&13.into(), &3.into()));
    assert!(report["heuristics"].as_array().is_some_and(|rules| rules.len() > 5));
}

#[test]
fn nothing_found_and_nothing_there_are_failures_that_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.txt");
    std::fs::write(&other, "nothing of interest\n").unwrap();
    let nothing = nightbus(&["audit", other.to_str().unwrap()]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("no model call") && nothing.out.contains("not_json"), "{}", nothing.err);
    let missing = nightbus(&["audit", "/nowhere/at/all.jsonl"]);
    assert!(missing.code == 1 && missing.err.contains("/nowhere/at/all.jsonl"), "{}", missing.err);
    let folder = nightbus(&["audit", directory.path().to_str().unwrap()]);
    assert!(folder.code == 1 && folder.err.contains("directory"), "{}", folder.err);
    assert_eq!(nightbus(&["audit"]).code, 2);
}

#[test]
fn a_pipe_is_a_file() {
    let done = nightbus(&["audit", "-"]);
    assert!(done.code == 1 && done.err.contains("no model call"), "an empty standard input: {}", done.err);
}
