//! Whole files: each format by its fixture, mixed and damaged ones, and that memory does not grow with the file.

use std::io::{self, Cursor, Read, Write as _};

use super::*;
use crate::audit::verdict::Tolerance;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/audit/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn audit(bytes: &[u8]) -> Report {
    let mut auditor = Auditor::new();
    auditor.read("log", bytes).unwrap();
    auditor.finish()
}

fn format_of(report: &Report) -> Vec<(&'static str, u64)> {
    report.files[0].formats.clone()
}

fn count(report: &Report, kind: &str) -> u64 {
    report.problems.iter().find(|problem| problem.kind == kind).map_or(0, |problem| problem.count)
}

fn near(amount: Option<f64>, expected: f64) -> bool {
    amount.is_some_and(|amount| (amount - expected).abs() < 1e-9)
}

/// gpt-5.4-mini: 0.75 in, 0.075 cached, 4.50 out; batch 0.375, 0.0375, 2.25.
#[test]
fn pairs_of_the_openai_api() {
    let report = audit(&fixture("openai-pairs.jsonl"));
    assert_eq!(format_of(&report), [("OpenAI JSON", 6)]);
    let totals = &report.totals;
    assert_eq!((totals.calls, totals.failed, totals.priced, totals.unread), (6, 1, 4, 0));
    // 1 + 2: 1.65 + (0.375 + 0.0375 + 0.9); 3: 0.075 + 0.45; 4: flex, half of 0.0012.
    let spend = 1.65 + 1.3125 + 0.525 + 0.0006;
    assert!(near(totals.spend_usd, spend), "{:?}", totals.spend_usd);
    assert!((totals.already_discounted_usd - 0.0006).abs() < 1e-9);
    assert_eq!((count(&report, "no_usage"), count(&report, "no_time"), count(&report, "failed_call")), (1, 1, 1));
    let group = |label: &str| report.groups.iter().find(|group| group.label == label).unwrap();
    let (job, chat) = (group("review-classifier"), group("support-chat"));
    assert_eq!((job.could_wait, job.calls, chat.could_wait), (Tolerance::Yes, 3, Tolerance::No));
    assert!(near(job.would_save_usd, (1.65 + 1.3125) / 2.0), "{:?}", job.would_save_usd);
    // The first and the last call are 24 h apart.
    assert!(near(report.savings.per_day_usd, (1.65 + 1.3125) / 2.0));
    assert!(near(report.savings.per_month_usd, (1.65 + 1.3125) / 2.0 * 30.0));
}

#[test]
fn results_of_batches_are_at_their_discount_already() {
    let report = audit(&fixture("batch-output.jsonl"));
    assert_eq!((report.totals.calls, report.totals.failed, report.totals.priced), (2, 1, 1));
    assert!(near(report.totals.spend_usd, 0.375) && near(Some(report.totals.already_discounted_usd), 0.375));
    assert_eq!((report.savings.saved_usd, report.savings.could_wait_share), (0.0, None));
}

#[test]
fn litellms_spend_logs() {
    let report = audit(&fixture("litellm.json"));
    assert_eq!(format_of(&report), [("LiteLLM spend log", 4)]);
    assert_eq!((report.totals.calls, report.totals.failed, report.totals.priced), (4, 1, 2));
    // Logged 2.50, although the list says 1.50: what was charged counts, and batch halves it.
    assert!(near(report.totals.spend_usd, 2.5), "{:?}", report.totals.spend_usd);
    assert!(near(report.groups[0].would_save_usd, 1.25), "{:?}", report.groups[0]);
    assert_eq!(report.unpriced_models, [("house-model".to_owned(), 1)]);
    assert_eq!((report.groups[0].label.as_str(), report.groups[0].could_wait), ("nightly-summaries", Tolerance::Yes));
    let listed = format!("{{\"data\":{},\"total\":4}}", String::from_utf8(fixture("litellm.json")).unwrap());
    assert_eq!(audit(listed.as_bytes()).totals.calls, 4, "as the paged route answers");
}

#[test]
fn langfuses_exports() {
    let report = audit(&fixture("langfuse-ui.json"));
    assert_eq!(format_of(&report), [("Langfuse export", 3)]);
    assert_eq!((report.totals.calls, report.totals.failed, count(&report, "not_a_call")), (3, 1, 1));
    assert_eq!((report.totals.input_tokens, report.totals.cached_tokens), (2_000_000, 400_000));
    assert!(near(report.totals.spend_usd, 0.93 + 0.75), "{:?}", report.totals.spend_usd);
    let blob = audit(&fixture("langfuse-blob.jsonl"));
    assert_eq!((blob.totals.calls, blob.groups[0].label.as_str()), (1, "daily-digest"));
    assert!(near(blob.totals.spend_usd, 0.75));
}

#[test]
fn helicones_exports() {
    let report = audit(&fixture("helicone.jsonl"));
    assert_eq!(format_of(&report), [("Helicone export", 2)]);
    assert_eq!((report.totals.failed, report.groups[0].label.as_str()), (1, "catalogue-enrichment"));
    assert!(near(report.totals.spend_usd, 0.75));
    let csv = audit(&fixture("helicone.csv"));
    assert_eq!((csv.totals.calls, csv.totals.priced, count(&csv, "no_usage")), (2, 1, 1));
    assert!(near(csv.totals.spend_usd, 1.2));
    assert_eq!(csv.groups[0].could_wait, Tolerance::No, "it streams and says chat: {:?}", csv.groups[0]);
}

#[test]
fn openrouters_activity() {
    let report = audit(&fixture("openrouter.csv"));
    assert_eq!(format_of(&report), [("OpenRouter activity", 2)]);
    assert!(near(report.totals.spend_usd, 1.75));
    assert_eq!(count(&report, "no_batch_price"), 1);
    let crawler = &report.groups[0];
    assert_eq!((crawler.label.as_str(), crawler.could_wait), ("Crawler, nightly", Tolerance::Yes));
    assert!(near(crawler.would_save_usd, 0.75));
    let daily = audit(br#"{"date":"2026-11-02","model":"openai/gpt-5.4-mini","model_permaslug":"openai/gpt-5.4-mini-2026-03-17","endpoint_id":"e","provider_name":"OpenAI","usage":7.5,"byok_usage_inference":0,"requests":10,"prompt_tokens":10000000,"completion_tokens":0,"reasoning_tokens":0}"#);
    assert_eq!((daily.totals.calls, daily.totals.priced), (10, 10));
    assert!(near(daily.groups[0].would_save_usd, 3.75), "{:?}", daily.groups[0]);
}

#[test]
fn access_logs_are_counts_and_no_money() {
    for (name, calls) in [("nginx.txt", 3), ("alb.txt", 1)] {
        let report = audit(&fixture(name));
        assert_eq!((report.totals.calls, report.totals.priced, report.totals.spend_usd), (calls, 0, None), "{name}");
        assert!(report.savings.per_year_usd.is_none_or(|usd| usd == 0.0));
        assert!(report.groups.iter().all(|group| group.spend_usd.is_none() && group.worth_it.is_none()));
    }
}

#[test]
fn mixed_files_are_read_line_by_line_and_the_rest_is_counted() {
    let report = audit(&fixture("mixed.txt"));
    assert_eq!(format_of(&report), [("OpenAI JSON", 2), ("access log", 1)]);
    assert_eq!((report.totals.calls, report.totals.records, report.totals.unread), (3, 7, 3));
    assert_eq!((count(&report, "not_json"), count(&report, "unrecognised")), (2, 1));
    assert_eq!(count(&report, "inconsistent_usage"), 1);
    let broken = report.problems.iter().find(|problem| problem.kind == "not_json").unwrap();
    assert_eq!(broken.samples, ["log:3", "log:7"]);
}

#[test]
fn damaged_and_packed_files_give_what_is_in_them() {
    let plain = fixture("openai-pairs.jsonl").repeat(200);
    let packed = zstd::encode_all(plain.as_slice(), 1).unwrap();
    assert_eq!(audit(&packed).totals.calls, 1_200);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let half = audit(&gzip[..gzip.len() / 2]);
    assert!((500..700).contains(&half.totals.calls), "{}", half.totals.calls);
    assert_eq!(count(&half, "broken_file"), 1);
    let latin1 =
        b"{\"model\":\"gpt-5.4-mini\",\"tag\":\"N\xe4chtlich\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n";
    let report = audit(latin1);
    assert_eq!((report.totals.priced, count(&report, "not_utf8")), (1, 1));
    let ignored = b"{\"model\":\"gpt-5.4-mini\",\"choices\":[{\"x\":\"\xe4\"}],\"usage\":{\"prompt_tokens\":1}}\n";
    assert_eq!(audit(ignored).totals.priced, 1);
    assert_eq!(audit(b"").totals.calls, 0);
    assert_eq!(count(&audit(b"PK\x03\x04..."), "archive"), 1);
}

#[test]
fn a_line_of_a_megabyte_is_one_call() {
    let line = format!(
        r#"{{"model":"gpt-5.4-mini","messages":[{{"role":"user","content":"{}"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}"#,
        "x\\n".repeat(400_000)
    );
    let report = audit(format!("{line}\n{line}\n").as_bytes());
    assert_eq!((report.totals.calls, report.totals.priced), (2, 2));
}

/// Gives the same bytes again and again, and notes how much it was asked for at once.
struct Endless {
    line: Cursor<Vec<u8>>,
    left: usize,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        assert!(out.len() <= 4 * 1024 * 1024, "asked for {} bytes at once: the buffer grows", out.len());
        let read = self.line.read(out)?;
        if read > 0 || self.left == 0 {
            return Ok(read);
        }
        self.left -= 1;
        self.line.set_position(0);
        self.line.read(out)
    }
}

#[test]
fn the_buffer_does_not_grow_with_the_file() {
    let lines = fixture("openai-pairs.jsonl");
    let calls = 6 * 5_001;
    let mut auditor = Auditor::new();
    auditor.read("endless", Endless { line: Cursor::new(lines), left: 5_000 }).unwrap();
    assert_eq!(auditor.finish().totals.calls, calls);
}

#[test]
fn several_files_are_one_report() {
    let mut auditor = Auditor::new();
    for name in ["openai-pairs.jsonl", "litellm.json", "nginx.txt"] {
        auditor.read(name, fixture(name).as_slice()).unwrap();
    }
    let report = auditor.finish();
    assert_eq!(report.files.iter().map(|file| file.calls).collect::<Vec<_>>(), [6, 4, 3]);
    assert_eq!(report.totals.calls, 13);
    let page = page(&report);
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(page.contains("default-src 'none'") && !page.contains("<script") && !page.contains("http://"));
}

#[test]
fn nothing_of_a_log_becomes_markup_or_a_lost_page() {
    let evil = r#"{"model":"<script>alert(1)</script>","tag":"\"><img src=x onerror=y>","choices":[],"usage":{"prompt_tokens":1}}"#;
    let page = page(&audit(evil.as_bytes()));
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(page.contains("&lt;script&gt;"));
    assert!(super::page(&audit(b"")).contains("</html>"));
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_end_the_run(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _report = audit(&bytes);
        }

        #[test]
        fn no_damage_ends_the_run(name in 0..8_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let names = ["openai-pairs.jsonl", "litellm.json", "langfuse-ui.json", "helicone.csv", "openrouter.csv", "nginx.txt", "alb.txt", "mixed.txt"];
            let mut bytes = fixture(names[name]);
            let length = bytes.len();
            bytes[at.index(length)] = byte;
            bytes.truncate(cut.index(length) + 1);
            let report = audit(&bytes);
            prop_assert!(report.totals.priced <= report.totals.calls);
        }
    }
}
