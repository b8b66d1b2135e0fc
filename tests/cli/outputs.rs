//! The output of every command in a pipe, as people and as programs get it, when it works and when it does not.

use std::path::Path;

use serde_json::Value;

use crate::command::{Running, command, done};
use crate::roi::roi;
use crate::run::{Stage, batch_file};
use crate::snapshots::{assert_none, check, ending, masked};
use crate::stand_in;

type Case = (&'static str, &'static [&'static str]);

/// Asked of a stand-in with fixed answers.
const ASKED: [Case; 27] = [
    ("status", &["status"]),
    ("status-json", &["status", "--json"]),
    ("requests", &["requests"]),
    ("requests-json", &["requests", "--json"]),
    ("requests-by-tag", &["requests", "--state", "queued", "--tag", "nightly-eval"]),
    ("requests-none", &["requests", "--tag", "nobody"]),
    ("requests-unauthorized", &["requests", "req_01a208029b42700085bca67e4ade0ad8"]),
    ("batches", &["batches"]),
    ("batches-json", &["batches", "--json"]),
    ("flights", &["flights"]),
    ("flights-json", &["flights", "--json"]),
    ("flights-approve", &["flights", "approve", "flt_01a208029b42700085bca67e4ade0ad4"]),
    ("flights-approve-nothing", &["flights", "approve"]),
    ("savings", &["savings"]),
    ("savings-json", &["savings", "--json"]),
    ("savings-by-model", &["savings", "--by", "model"]),
    ("savings-csv", &["savings", "--by", "model", "--csv"]),
    ("flush", &["flush"]),
    ("flush-json", &["flush", "--json"]),
    ("flush-wrong-token", &["flush", "--admin-token", "wrong"]),
    ("reload", &["reload"]),
    ("reload-refused", &["reload", "--admin-token", "wrong"]),
    ("cancel-submitted", &["cancel", "req_01a208029b42700085bca67e4ade0ad7"]),
    ("cancel-batch", &["cancel", "bat_01a208029b42700085bca67e4ade0ad2"]),
    ("cancel-nothing", &["cancel", "something"]),
    ("healthcheck", &["healthcheck"]),
    ("top-in-a-pipe", &["top"]),
];

/// Asked where nobody listens.
const NOBODY: [Case; 3] = [
    ("status-nobody", &["status", "--admin", "http://127.0.0.1:9"]),
    ("healthcheck-nobody", &["healthcheck", "--admin", "http://127.0.0.1:9"]),
    ("savings-no-url", &["savings", "--admin", "ftp://127.0.0.1:9"]),
];

/// Need nothing but files.
const ALONE: [Case; 19] = [
    ("roi", roi!("--model", "gpt-5.4")),
    (
        "roi-json",
        &[
            "roi",
            "--requests-per-day",
            "10",
            "--input-tokens",
            "6",
            "--output-tokens",
            "1",
            "--input-price",
            "3",
            "--output-price",
            "15",
            "--json",
        ],
    ),
    (
        "roi-unknown-model",
        &["roi", "--requests-per-day", "1", "--input-tokens", "1", "--output-tokens", "1", "--model", "nobody-knows"],
    ),
    ("audit", &["audit", "calls.jsonl"]),
    ("audit-json", &["audit", "calls.jsonl", "--json"]),
    ("audit-nothing", &["audit", "empty.txt"]),
    ("audit-missing", &["audit", "missing.jsonl"]),
    ("check-config", &["check-config", "--config", "good.toml"]),
    ("check-config-json", &["check-config", "--config", "good.toml", "--json"]),
    ("check-config-wrong", &["check-config", "--config", "wrong.toml"]),
    ("serve-wrong", &["serve", "--config", "wrong.toml"]),
    ("man", &["man", "pages"]),
    ("simulate-faults", &["simulate", "--fault", "list"]),
    ("simulate-wrong-fault", &["simulate", "--listen", "127.0.0.1:0", "--fault", "nonsense"]),
    ("run-dry", &["run", "in.jsonl", "-o", "out.jsonl", "--dry-run"]),
    ("run-faults", &["run", "faults.jsonl", "-o", "out.jsonl"]),
    ("run-no-key", &["run", "in.jsonl", "-o", "out.jsonl", "--config", "good.toml"]),
    ("run-unknown-price", &["run", "unknown.jsonl", "-o", "out.jsonl"]),
    ("run-nothing-to-retry", &["run", "in.jsonl", "-o", "out.jsonl", "--retry-failed"]),
];

/// Printed by tests of their own, below.
const OTHERS: [&str; 14] = [
    "completions",
    "demo",
    "demo-json",
    "doctor",
    "doctor-nobody",
    "requests-one",
    "batches-one",
    "run",
    "run-failed",
    "run-retried",
    "run-there-already",
    "serve-lines",
    "simulate-lines",
    "simulate-taken",
];

/// Every file of `snapshots/output`.
pub(crate) fn names() -> Vec<&'static str> {
    let of = |cases: &[Case]| cases.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    [of(&ASKED), of(&NOBODY), of(&ALONE), OTHERS.to_vec()].concat()
}

fn file(name: &str) -> String {
    assert!(OTHERS.contains(&name), "{name}");
    format!("output/{name}.txt")
}

#[test]
fn of_the_commands_that_ask_a_running_proxy() {
    let admin = stand_in::admin();
    let mut wrong = Vec::new();
    for (name, arguments) in ASKED {
        let said = done(&mut command(&[arguments, &["--admin", &admin]].concat()));
        check(&format!("output/{name}.txt"), &ending(&said, &[(&admin, "{admin}")]), &mut wrong);
    }
    for (name, arguments) in NOBODY {
        check(&format!("output/{name}.txt"), &ending(&done(&mut command(arguments)), &[]), &mut wrong);
    }
    assert_none(&wrong);
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn of_the_commands_that_need_only_files() {
    let home = tempfile::tempdir().unwrap();
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/audit/openai-pairs.jsonl");
    std::fs::copy(log, home.path().join("calls.jsonl")).unwrap();
    write(home.path(), "empty.txt", "nothing of interest\n");
    // Nobody listens on the discard port.
    write(
        home.path(),
        "good.toml",
        "listen = \"127.0.0.1:9\"\n[batching]\nidle = \"2s\"\n[admin]\ntoken = \"s3cret\"\n",
    );
    write(home.path(), "wrong.toml", "listn = \"127.0.0.1:6000\"\n[batching]\nidle = \"soon\"\n");
    let good = batch_file(2);
    write(home.path(), "in.jsonl", &good);
    write(home.path(), "unknown.jsonl", &good.replace("gpt-6-luna", "of-tomorrow"));
    write(home.path(), "faults.jsonl", &format!("{good}{{}}\nnonsense\n{good}"));
    let mut wrong = Vec::new();
    for (name, arguments) in ALONE {
        let mut command = command(arguments);
        command.current_dir(home.path()).env_remove("OPENAI_API_KEY").env_remove("ANTHROPIC_API_KEY");
        let text = without(&ending(&done(&mut command), &[]), &["Prices:"]);
        check(&format!("output/{name}.txt"), &text, &mut wrong);
    }
    let script = done(&mut command(&["completions", "bash"]));
    let beginning: String = script.out.split_inclusive('\n').take(12).collect();
    check(&file("completions"), &masked(&beginning, &[]), &mut wrong);
    assert_none(&wrong);
}

#[test]
fn of_a_run_its_failures_and_what_it_leaves_at_a_running_proxy() {
    let stage = Stage::with(&["--batch-seconds", "0.2", "--fault", "validation-one-bad"]);
    stage.write("in.jsonl", &batch_file(20));
    let config = stage.path("proxy.toml");
    let arguments = ["serve", "--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let serve = Running::start(&arguments, "admin listening on ");
    let server = serve.said.lines().find_map(|line| line.strip_prefix("nightbus listening on ")).unwrap();
    let mut wrong = Vec::new();
    check(&file("serve-lines"), &masked(&serve.said, &[]), &mut wrong);
    let run =
        |more: &[&str]| ending(&stage.run(&[&["in.jsonl", "-o", "out.jsonl", "--server", server], more].concat()), &[]);
    check(&file("run-failed"), &run(&[]), &mut wrong);
    check(&file("run-there-already"), &run(&[]), &mut wrong);
    check(&file("run-retried"), &run(&["--retry-failed"]), &mut wrong);
    check(&file("run"), &run(&["--force", "--attempt", "2"]), &mut wrong);
    let ask = |arguments: &[&str]| done(&mut command(&[arguments, &["--admin", &serve.url]].concat()));
    for (command, name) in [("requests", "requests-one"), ("batches", "batches-one")] {
        let list: Value = serde_json::from_str(&ask(&[command, "--json", "--limit", "1"]).out).unwrap();
        let one = ask(&[command, list["data"][0]["id"].as_str().unwrap()]);
        // How many are in the newest batch depends on how fast they came.
        check(&file(name), &without(&ending(&one, &[]), &["counts.total", "counts.completed"]), &mut wrong);
    }
    assert_eq!(serve.stop(), Some(0));
    assert_none(&wrong);
}

/// The lines that begin so are about this machine or this moment.
fn without(text: &str, beginnings: &[&str]) -> String {
    let line = |line: &str| match beginnings.iter().find(|beginning| line.trim_start().starts_with(**beginning)) {
        Some(beginning) => format!("{beginning} {{differs}}\n"),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

#[test]
fn of_the_simulator_and_of_the_doctor_in_front_of_it() {
    let home = tempfile::tempdir().unwrap();
    let sim = Running::start(&["simulate", "--listen", "127.0.0.1:0"], "simulator listening on ");
    let mut wrong = Vec::new();
    check(&file("simulate-lines"), &masked(&sim.said, &[]), &mut wrong);
    let taken = done(&mut command(&["simulate", "--listen", sim.url.strip_prefix("http://").unwrap()]));
    check(&file("simulate-taken"), &ending(&taken, &[]), &mut wrong);
    for (name, url) in [("doctor", sim.url.as_str()), ("doctor-nobody", "http://127.0.0.1:9")] {
        let (upstream, data) = (format!("{url}/v1"), home.path().join("data"));
        let arguments = ["doctor", "--upstream", &upstream, "--data-dir", data.to_str().unwrap()];
        let mut command =
            command(&[&arguments[..], &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]].concat());
        let said = done(command.env("OPENAI_API_KEY", "sk-doctor"));
        let text = ending(&said, &[(home.path().to_str().unwrap(), "{folder}")]);
        let machine = ["ok    data directory", "ok    open files", "warn  open files", "ok    clock"];
        check(&file(name), &without(&text, &machine).replace("warn  open", "ok    open"), &mut wrong);
    }
    assert_none(&wrong);
}

#[test]
fn of_the_demonstration() {
    let mut wrong = Vec::new();
    for (name, more) in [("demo", &[][..]), ("demo-json", &["--json"])] {
        let said = done(&mut command(&[&["demo", "--calls", "20", "--batch-seconds", "0"], more].concat()));
        let text = without(&ending(&said, &[]), &["Time", "Batches", "\"seconds\":", "\"batches\":"]);
        check(&file(name), &text, &mut wrong);
    }
    assert_none(&wrong);
}
