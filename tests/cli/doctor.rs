//! `nightbus doctor` from outside.

use serde_json::Value;

use crate::command::{Done, Running, command, done};

fn doctor(url: &str, folder: &std::path::Path, key: Option<&str>, more: &[&str]) -> Done {
    let upstream = format!("{url}/v1");
    let data = folder.join("data");
    let mut arguments = vec!["doctor", "--upstream", &upstream, "--data-dir", data.to_str().unwrap()];
    arguments.extend(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    arguments.extend(more);
    let mut command = command(&arguments);
    command.env_remove("OPENAI_API_KEY").envs(key.map(|key| ("OPENAI_API_KEY", key)));
    done(&mut command)
}

fn result(done: &Done, check: &str) -> String {
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{}{}", done.out, done.err));
    let found = report["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {report}"))["result"].as_str().unwrap().to_owned()
}

#[test]
fn a_sound_setup_is_ok_and_the_key_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Running::start(&["simulate", "--listen", "127.0.0.1:0"], "simulator listening on ");
    let sound = doctor(&sim.url, folder.path(), Some("sk-very-secret"), &["--json"]);
    assert_eq!(sound.code, 0, "{}{}", sound.out, sound.err);
    for check in ["configuration", "upstream", "key", "batches", "port"] {
        assert_eq!(result(&sound, check), "ok", "{check} in {}", sound.out);
    }
    let people = doctor(&sim.url, folder.path(), Some("sk-very-secret"), &[]);
    assert!(people.out.contains("ok    batches"), "{}", people.out);
    assert!(!(people.out + &people.err + &sound.out).contains("very-secret"));
    assert!(!folder.path().join("data").exists(), "it leaves nothing");
    let without = doctor(&sim.url, folder.path(), None, &["--json"]);
    assert_eq!((without.code, result(&without, "key").as_str()), (0, "warn"));
}

#[test]
fn nobody_upstream_is_a_failure_that_says_what_to_try() {
    let folder = tempfile::tempdir().unwrap();
    let alone = doctor("http://127.0.0.1:9", folder.path(), Some("sk-x"), &[]);
    assert_eq!(alone.code, 1, "{}", alone.out);
    assert!(alone.out.contains("base_url") && alone.err.contains("1 of "), "{}{}", alone.out, alone.err);
    let unknown = doctor("http://127.0.0.1:9", folder.path(), None, &["--provider", "nobody"]);
    assert!(unknown.code == 2 && unknown.err.contains("openai"), "{}", unknown.err);
}

#[test]
fn one_batch_proves_a_provider_and_is_asked_for_first() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["simulate", "--listen", "127.0.0.1:0", "--batch-seconds", "0.2"];
    let sim = Running::start(&arguments, "simulator listening on ");
    let key = Some("sk-very-secret");
    let unasked = doctor(&sim.url, folder.path(), key, &["--batch", "gpt-6-luna"]);
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{}{}", unasked.out, unasked.err);
    let proved = doctor(&sim.url, folder.path(), key, &["--batch", "gpt-6-luna", "--yes", "--json"]);
    assert_eq!((proved.code, result(&proved, "one batch").as_str()), (0, "ok"), "{}{}", proved.out, proved.err);
    assert!(proved.err.contains("for about $") && !(proved.out + &proved.err).contains("very-secret"));
    let refused = doctor(&sim.url, folder.path(), key, &["--batch", "gpt-6-no-batch", "--yes"]);
    assert!(refused.code == 1 && refused.out.contains("fail  one batch"), "{}{}", refused.out, refused.err);
}

#[test]
fn a_batch_that_takes_too_long_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["simulate", "--listen", "127.0.0.1:0", "--batch-seconds", "600"];
    let sim = Running::start(&arguments, "simulator listening on ");
    let late = doctor(&sim.url, folder.path(), Some("sk-x"), &["--batch", "gpt-6-luna", "--yes", "--wait", "1"]);
    assert!(late.code == 1 && late.out.contains("is cancelled"), "{}{}", late.out, late.err);
    assert!(!late.err.contains("stays at the provider"), "{}", late.err);
    let status = sim.told("batches")["data"][0]["status"].as_str().unwrap().to_owned();
    assert!(status.starts_with("cancell"), "{status}");
    assert_eq!(sim.told("counters")["files_stored"], 0);
}
