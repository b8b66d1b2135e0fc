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

#[test]
fn packed_wide_and_strange_files_are_read_by_what_is_in_them() {
    use std::io::Write as _;
    let directory = tempfile::tempdir().unwrap();
    let call = |tokens: &str, text: &str| {
        format!(
            r#"{{"timestamp":"2026-11-23T08:00:00Z","request":{{"model":"gpt-5.4-mini","messages":[{{"role":"user","content":"{text}"}}]}},"response":{{"model":"gpt-5.4-mini","usage":{tokens}}}}}"#
        )
    };
    let good = r#"{"prompt_tokens":1000,"completion_tokens":0}"#;
    let long = call(good, &"night bus ".repeat(110_000));
    assert!(long.len() > 1_000_000);
    let lines =
        [long, call("null", "no usage"), call(r#"{"prompt_tokens":-3}"#, "odd"), call(good, "short")].join("\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let wide: Vec<u8> = [0xfeff].into_iter().chain(call(good, "ü").encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut latin = call(good, "N?chte").into_bytes();
    *latin.iter_mut().find(|byte| **byte == b'?').unwrap() = 0xe4;
    // Names that say something else: only the content counts.
    let files = [
        ("calls.csv", gzip.finish().unwrap()),
        ("calls.txt", zstd::encode_all(lines.as_bytes(), 1).unwrap()),
        ("wide.gz", wide),
        ("latin.zst", [latin, b"\n\x01\x02 not a line\n{\"half\":".to_vec()].concat()),
    ];
    let mut arguments = vec!["audit".to_owned(), "--json".to_owned()];
    for (name, bytes) in files {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = nightbus(&arguments);
    assert_eq!(done.code, 0, "{}", done.err);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let calls: Vec<u64> =
        report["files"].as_array().unwrap().iter().map(|file| file["calls"].as_u64().unwrap()).collect();
    assert_eq!((calls, &report["totals"]["priced"]), (vec![4, 4, 1, 1], &6.into()), "{}", done.out);
    // 1,000 tokens at 0.75 USD a million, six times; what has no usage has no price.
    assert!((report["totals"]["spend_usd"].as_f64().unwrap() - 6.0 * 0.00075).abs() < 1e-9, "{}", done.out);
    let count = |kind: &str| {
        let problems = report["problems"].as_array().unwrap();
        problems.iter().find(|problem| problem["kind"] == kind).map_or(0, |problem| problem["count"].as_u64().unwrap())
    };
    assert_eq!((count("no_usage"), count("inconsistent_usage"), count("not_json")), (2, 2, 2), "{}", done.out);
}
