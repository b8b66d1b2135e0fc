//! The binary as people call it: exit codes, what goes to which stream, and the commands against a running proxy.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail by panicking")]

#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/command.rs"]
mod command;
#[path = "cli/roi.rs"]
mod roi;

use command::{Running, nightbus};
use serde_json::Value;

#[test]
fn a_mistake_in_the_arguments_is_exit_code_2() {
    for arguments in [
        &["--nope"][..],
        &[],
        &["fly"],
        &["serve", "--port", "1"],
        &["requests", "--limit", "0"],
        &["requests", "--state", "done"],
        &["cancel", "something"],
        &["status", "--admin", "https://127.0.0.1:1"],
        &["simulate", "--fail-rate", "2"],
        &["simulate", "--batch-seconds", "soon"],
        &["simulate", "--listen", "127.0.0.1:0", "--fault", "nonsense"],
        &["demo", "--calls", "0"],
        &["completions", "tcsh"],
    ] {
        let done = nightbus(arguments);
        assert_eq!(done.code, 2, "{arguments:?}: {}", done.err);
        assert!(done.out.is_empty() && !done.err.is_empty(), "{arguments:?}: {}", done.out);
    }
}

#[test]
fn commands_of_later_versions_are_not_there() {
    let help = nightbus(&["--help"]);
    assert_eq!(help.code, 0);
    for command in [
        "serve",
        "demo",
        "simulate",
        "status",
        "requests",
        "batches",
        "flush",
        "cancel",
        "audit",
        "roi",
        "check-config",
    ] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command} in {}", help.out);
    }
    for command in ["run", "flights"] {
        assert_eq!(nightbus(&[command]).code, 2, "{command}");
    }
}

#[test]
fn nobody_there_is_exit_code_1_and_says_what_to_try() {
    for arguments in [&["status"][..], &["requests"], &["batches"], &["flush"], &["healthcheck"]] {
        let done = nightbus(&[arguments, &["--admin", "http://127.0.0.1:9"]].concat());
        assert_eq!(done.code, 1, "{arguments:?}");
        assert!(
            done.out.is_empty() && done.err.contains("nightbus serve") && done.err.contains("--admin"),
            "{}",
            done.err
        );
        assert!(!done.err.contains('\x1b'), "colours in a pipe: {:?}", done.err);
    }
}

#[test]
fn check_config_shows_what_is_in_force_or_every_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:6000\"\n[admin]\ntoken = \"s3cret\"\n").unwrap();
    let path = file.to_str().unwrap();
    let good = nightbus(&["check-config", "--config", path]);
    assert_eq!(good.code, 0, "{}", good.err);
    assert!(good.out.contains("127.0.0.1:6000") && !good.out.contains("s3cret"), "{}", good.out);
    let json: Value = serde_json::from_str(&nightbus(&["check-config", "--config", path, "--json"]).out).unwrap();
    assert!(json["listen"].as_str().is_some_and(|listen| listen.contains("127.0.0.1:6000")), "{json}");
    std::fs::write(&file, "listn = \"127.0.0.1:6000\"\n[batching]\nidle = \"soon\"\n").unwrap();
    for command in ["check-config", "serve"] {
        let bad = nightbus(&[command, "--config", path]);
        assert_eq!(bad.code, 2, "{}", bad.err);
        assert!(bad.err.contains("listn") && bad.err.contains("batching.idle"), "both mistakes: {}", bad.err);
        assert!(bad.out.is_empty(), "{}", bad.out);
    }
}

#[test]
fn faults_and_completions_are_printed_as_data() {
    let faults = nightbus(&["simulate", "--fault", "list"]);
    assert_eq!(faults.code, 0);
    assert!(faults.out.lines().count() > 20 && faults.out.contains("create-lost"), "{}", faults.out);
    for shell in ["bash", "zsh", "fish"] {
        let script = nightbus(&["completions", shell]);
        assert!(script.code == 0 && script.out.contains("check-config"), "{shell}");
    }
}

#[test]
fn the_commands_talk_to_a_running_proxy_until_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let sim = Running::start(&["simulate", "--listen", "127.0.0.1:0"], "simulator listening on ");
    let upstream = format!("{}/v1", sim.url);
    let serve = Running::start(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--upstream",
            &upstream,
            "--data-dir",
            data,
        ],
        "admin listening on ",
    );
    let ask = |arguments: &[&str]| nightbus(&[arguments, &["--admin", &serve.url]].concat());
    assert_eq!(ask(&["healthcheck"]).code, 0);
    let status: Value = serde_json::from_str(&ask(&["status", "--json"]).out).unwrap();
    assert_eq!(status["object"], "nightbus.status");
    assert!(ask(&["status"]).out.contains("queue"), "for people");
    for listing in ["requests", "batches"] {
        let list: Value = serde_json::from_str(&ask(&[listing, "--json"]).out).unwrap();
        assert_eq!(list["object"], "list");
        let empty = ask(&[listing]);
        assert_eq!((empty.code, empty.out.as_str()), (0, ""), "{}", empty.err);
    }
    assert_eq!(ask(&["flush"]).out, "Nothing was queued.\n");
    let nothing = ask(&["cancel", &format!("req_{}", "0".repeat(32))]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("no request"), "{}", nothing.err);
    assert_eq!(serve.stop(), Some(0), "SIGTERM ends serve with 0");
    assert_eq!(sim.stop(), Some(0), "SIGTERM ends the simulator with 0");
}

#[test]
fn the_demonstration_gives_every_caller_its_own_answer() {
    let done = nightbus(&["demo", "--calls", "40", "--batch-seconds", "0", "--json"]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&result["answered"], &result["wrong_answers"], &result["failed"]), (&40.into(), &0.into(), &0.into()));
    assert_eq!((&result["batches"], &result["priced"]), (&1.into(), &40.into()));
    let (live, paid) = (result["live_usd"].as_f64().unwrap(), result["paid_usd"].as_f64().unwrap());
    assert!(paid > 0.0 && (live / paid - 2.0).abs() < 1e-6, "half the price: {result}");
}
