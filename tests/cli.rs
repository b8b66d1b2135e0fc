//! The binary as people call it: exit codes, what goes to which stream, and the commands against a running proxy.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

#[path = "cli/anthropic.rs"]
mod anthropic;
#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/command.rs"]
mod command;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/retry.rs"]
mod retry;
#[path = "cli/roi.rs"]
mod roi;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/snapshots.rs"]
mod snapshots;
#[path = "cli/stand_in.rs"]
mod stand_in;
#[path = "cli/terminal.rs"]
mod terminal;

use std::time::Duration;

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
        &["savings", "--by", "colour"],
        &["savings", "--csv", "--json"],
        &["cancel", "something"],
        &["status", "--admin", "ftp://127.0.0.1:1"],
        &["status", "--admin-ca", "Cargo.toml"],
        &["simulate", "--fail-rate", "2"],
        &["simulate", "--batch-seconds", "soon"],
        &["simulate", "--listen", "127.0.0.1:0", "--fault", "nonsense"],
        &["demo", "--calls", "0"],
        &["flights", "approve"],
        &["run", "Cargo.toml"],
        &["run", "Cargo.toml", "-o", "-", "--endpoint", "files"],
        &["run", "Cargo.toml", "-o", "-", "--max-usd", "-1"],
        &["run", "Cargo.toml", "-o", "-", "--server", "http://127.0.0.1:9", "--no-server"],
        &["completions", "tcsh"],
        &["man"],
        &["top"],
    ] {
        let done = nightbus(arguments);
        assert_eq!(done.code, 2, "{arguments:?}: {}", done.err);
        assert!(done.out.is_empty() && !done.err.is_empty(), "{arguments:?}: {}", done.out);
    }
}

#[test]
fn the_help_names_every_command() {
    let help = nightbus(&["--help"]);
    assert_eq!(help.code, 0);
    for command in [
        "serve",
        "demo",
        "simulate",
        "run",
        "status",
        "requests",
        "batches",
        "flights",
        "savings",
        "flush",
        "cancel",
        "reload",
        "audit",
        "roi",
        "doctor",
        "check-config",
        "top",
        "man",
    ] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command} in {}", help.out);
    }
}

#[test]
fn nobody_there_is_exit_code_1_and_says_what_to_try() {
    for arguments in
        [&["status"][..], &["requests"], &["batches"], &["flights"], &["flush"], &["reload"], &["healthcheck"]]
    {
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
    let prices = directory.path().join("prices.json");
    let list = |models: &str| {
        std::fs::write(&prices, format!(
            "{{\"schema\":1,\"as_of\":\"2026-12-24\",\"currency\":\"USD\",\"unit\":\"per 1,000,000 tokens\",\"models\":[{models}]}}"
        ))
        .unwrap();
    };
    list("{\"provider\":\"openai\",\"model\":\"ours\",\"input\":1,\"output\":2}");
    std::fs::write(&file, format!("prices = {:?}\n", prices.to_str().unwrap())).unwrap();
    let priced = nightbus(&["check-config", "--config", path]);
    assert!(priced.out.contains("Prices: 235 models, as of 2026-12-24."), "{}{}", priced.out, priced.err);
    let json: Value = serde_json::from_str(&nightbus(&["check-config", "--config", path, "--json"]).out).unwrap();
    assert_eq!(json["prices_as_of"], "2026-12-24");
    list("{\"provider\":\"openai\",\"model\":\"ours\",\"input\":-1,\"output\":2}");
    for command in ["check-config", "serve"] {
        let bad = nightbus(&[command, "--config", path]);
        assert_eq!(bad.code, 2, "{}", bad.err);
        assert!(bad.err.contains("proxy.toml:1: prices: ") && bad.err.contains("\"ours\""), "{}", bad.err);
    }
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
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    assert_eq!(nightbus(&["man", pages.to_str().unwrap()]).code, 0);
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("nightbus.1").contains(".TH nightbus 1") && page("nightbus-run.1").contains("max\\-usd"));
    assert!(page("nightbus-savings.1").contains("what was paid"));
}

#[test]
fn the_commands_speak_tls_to_an_admin_listener_that_has_a_certificate_and_renews_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(at("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(at("key.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    renew();
    let tls = format!("[admin.tls]\ncert = {:?}\nkey = {:?}\n", at("cert.pem"), at("key.pem"));
    let top = format!("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n", at("data"));
    std::fs::write(at("proxy.toml"), top + &tls).unwrap();
    let serve = Running::start(&["serve", "--config", &at("proxy.toml")], "admin listening on ");
    assert!(serve.url.starts_with("https://"), "{}", serve.url);
    let ask = |more: &[&str]| nightbus(&[&["healthcheck", "--admin", &serve.url], more].concat());
    let trusting = ask(&["--admin-ca", &at("cert.pem")]);
    assert_eq!(trusting.code, 0, "{}", trusting.err);
    let strange = ask(&[]);
    assert!(strange.code == 1 && strange.err.contains("UnknownIssuer"), "{}", strange.err);
    let plain = nightbus(&["healthcheck", "--admin", &serve.url.replace("https", "http")]);
    assert_eq!(plain.code, 1, "{}", plain.err);
    std::fs::copy(at("cert.pem"), at("old.pem")).unwrap();
    renew();
    // Looked for with pauses, for at most two minutes: the files are looked at every few seconds.
    let taken = (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(300));
        ask(&["--admin-ca", &at("cert.pem")]).code == 0
    });
    assert!(taken, "the renewed certificate was not taken");
    assert_eq!(ask(&["--admin-ca", &at("old.pem")]).code, 1);
    assert_eq!(serve.stop(), Some(0));
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
    let listen = status["listen"].as_str().unwrap();
    assert!(listen.starts_with("127.0.0.1:") && !listen.ends_with(":0"), "the port that was given: {listen}");
    assert!(ask(&["status"]).out.contains("queue"), "for people");
    for listing in ["requests", "batches"] {
        let list: Value = serde_json::from_str(&ask(&[listing, "--json"]).out).unwrap();
        assert_eq!(list["object"], "list");
        let empty = ask(&[listing]);
        assert_eq!((empty.code, empty.out.as_str()), (0, ""), "{}", empty.err);
    }
    assert_eq!(ask(&["flush"]).out, "Nothing was queued.\n");
    assert_eq!(ask(&["reload"]).out, "Nothing has changed.\n");
    let savings: Value = serde_json::from_str(&ask(&["savings", "--since", "7d", "--json"]).out).unwrap();
    assert_eq!((&savings["object"], &savings["totals"]["requests"]), (&"nightbus.savings".into(), &0.into()));
    assert!(ask(&["savings"]).out.contains("prices as of"), "for people");
    assert!(ask(&["savings", "--by", "model"]).out.starts_with("MODEL"), "a table");
    assert!(ask(&["savings", "--by", "day", "--csv"]).out.starts_with("day,requests,paid_usd"), "for programs");
    assert!(ask(&["savings", "--observed"]).err.contains("deferral.mode"), "how to observe");
    assert_eq!(ask(&["savings", "--since", "yesterday"]).code, 1);
    let nothing = ask(&["cancel", &format!("req_{}", "0".repeat(32))]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("no request"), "{}", nothing.err);
    assert_eq!(serve.stop(), Some(0), "SIGTERM ends serve with 0");
    assert_eq!(sim.stop(), Some(0), "SIGTERM ends the simulator with 0");
}

#[test]
fn an_idle_proxy_stops_at_once_and_not_at_the_end_of_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let file = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[shutdown]\ngrace = \"10h\"\n";
    std::fs::write(at("proxy.toml"), file).unwrap();
    let serve =
        Running::start(&["serve", "--config", &at("proxy.toml"), "--data-dir", &at("data")], "admin listening on ");
    assert_eq!(nightbus(&["reload", "--admin", &serve.url]).code, 0);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_demonstration_of_many_calls_begins_with_a_test_flight() {
    let done = nightbus(&["demo", "--calls", "150", "--batch-seconds", "0", "--json"]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    let result: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&result["answered"], &result["test_flight"]), (&150.into(), &5.into()), "{result}");
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
