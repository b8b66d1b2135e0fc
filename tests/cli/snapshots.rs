//! What people see: the help of every command, and the output of those that ask a running proxy, against files in
//! tests/cli/snapshots. `NIGHTBUS_TEST_BLESS=1` writes the files; look at the difference before it is committed.
//!
//! The proxy is a stand-in with fixed answers, so that the same things are listed in every run.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nightbus::domain::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::command::{command, done, nightbus};

const COMMANDS_WITHOUT_OUTPUT: &[&str] = &["help"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots")
}

/// Holds `text` against the file, or writes it.
fn check(name: &str, text: &str, wrong: &mut Vec<String>) {
    let path = folder().join(name);
    if std::env::var_os("NIGHTBUS_TEST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept != text {
        wrong.push(format!("{name} is:\n{kept}\nbut was printed as:\n{text}"));
    }
}

/// Names of the files that are kept.
fn kept(part: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder().join(part)).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}\nNIGHTBUS_TEST_BLESS=1 takes the new text over.", wrong.join("\n"));
}

#[test]
fn the_help_of_every_command() {
    let top = nightbus(&["--help"]).out;
    let listed = top.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !COMMANDS_WITHOUT_OUTPUT.contains(name))
        .collect();
    assert!(commands.len() > 15, "{top}");
    let mut wrong = Vec::new();
    check("help/nightbus.txt", &top, &mut wrong);
    for name in &commands {
        let help = nightbus(&[name, "--help"]);
        assert_eq!(help.code, 0, "{name}: {}", help.err);
        let too_wide = help.out.lines().find(|line| line.width() > 100);
        assert_eq!(too_wide, None, "{name}");
        check(&format!("help/{name}.txt"), &help.out, &mut wrong);
    }
    assert_none(&wrong);
    let expected: BTreeSet<String> = commands.iter().chain(&["nightbus"]).map(|name| format!("{name}.txt")).collect();
    assert_eq!(kept("help"), expected, "one file for each command");
}

/// An admin listener with fixed answers, on a thread that ends with the process.
fn admin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (status, body) = answer(method, path);
            let body = body.to_string();
            let length = body.len();
            let written = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            drop(written);
        }
    });
    url
}

fn answer(method: &str, path: &str) -> (u16, Value) {
    let now = SystemClock.now().unix_seconds();
    // In the middle of what is shown, so that a slow machine shows the same.
    let (minutes, hours, days) = (now - 630, now - 2 * 3_600 - 1_800, now - 3 * 86_400 - 43_200);
    let list = |data: Value, next: Option<&str>| json!({"object": "list", "data": data, "has_more": next.is_some(), "next": next});
    let requests = json!([
        {"id": "req_01a208029b42700085bca67e4ade0ad8", "state": "queued", "model": "gpt-5.4-mini", "tag": "nightly-eval", "created_at": minutes},
        {"id": "req_01a208029b42700085bca67e4ade0ad7", "state": "completed", "status_code": 200, "model": "gpt-5.4-mini-2026-03-17-with-a-long-name",
         "created_at": hours, "service": "batch", "saved_usd": 0.00042, "batch_id": "bat_01a208029b42700085bca67e4ade0ad1"},
        {"id": "req_01a208029b42700085bca67e4ade0ad6", "state": "failed", "status_code": 502, "model": "モデル", "created_at": days, "service": "none",
         "batch_id": "bat_01a208029b42700085bca67e4ade0ad1"},
    ]);
    let batches = json!([
        {"id": "bat_01a208029b42700085bca67e4ade0ad2", "state": "submitted", "model": "gpt-5.4-mini", "created_at": minutes,
         "counts": {"total": 50_000, "completed": 31_000, "failed": 12}, "provider_batch_id": "batch_68f0a1b2c3d4", "provider_status": "in_progress"},
        {"id": "bat_01a208029b42700085bca67e4ade0ad1", "state": "failed", "model": "gpt-5.4-mini", "created_at": hours,
         "counts": {"total": 3, "completed": 0, "failed": 3}, "error": "token_limit_exceeded: Enqueued token limit reached\u{1b}[2J"},
    ]);
    let amounts = json!({"requests": 1_234, "paid_usd": 1.5, "live_usd": 3.0, "saved_usd": 1.5, "wasted_usd": 0.0, "priced_requests": 1_200});
    match (method, path.split('?').next().unwrap_or_default()) {
        ("GET", "/api/status") => (
            200,
            json!({
                "object": "nightbus.status", "version": "0.0.0", "uptime_seconds": 7_300, "stopping": false,
                "queue": {"requests": 1_041, "bytes": 20_480_000, "oldest_age_seconds": 4}, "held_connections": 312,
                "requests": {"queued": 1_041, "submitted": 50_003, "completed": 12, "failed": 0},
                "batches": {"submitted": 1, "failed": 1}, "services": {"batch": 10, "sync": 2}, "today": amounts,
                "lanes": [
                    {"model": "gpt-5.4-mini", "endpoint": "chat/completions", "provider": "openai", "credential": "5d41402a", "queued_requests": 1_041,
                     "queued_bytes": 20_480_000, "oldest_age_seconds": 4, "open_batches": 1, "held_back": "in_flight_tokens"},
                    {"model": "claude-haiku-5-5", "endpoint": "messages", "provider": "anthropic", "credential": "7d793037", "queued_requests": 0,
                     "queued_bytes": 0, "oldest_age_seconds": null, "open_batches": 0, "held_back": null},
                ],
            }),
        ),
        ("GET", "/api/requests") if path.contains("tag=nobody") => (200, list(json!([]), None)),
        ("GET", "/api/requests") => (200, list(requests, Some("req_01a208029b42700085bca67e4ade0ad6"))),
        ("GET", "/api/batches") => (200, list(batches, None)),
        ("GET", "/api/flights") => (
            200,
            list(
                json!([
                    {"id": "flt_01a208029b42700085bca67e4ade0ad4", "state": "grounded", "model": "gpt-5.4-mini", "tag": "nightly-eval", "waiting_requests": 4_995,
                     "created_at": minutes, "reasons": ["3 of 5 answers do not fit their schema", "2 of 5 are cut off"]},
                ]),
                None,
            ),
        ),
        ("GET", "/api/savings") => {
            let group = |key: Value| {
                let mut group = amounts.clone();
                group["key"] = key;
                group
            };
            (
                200,
                json!({"object": "nightbus.savings", "totals": amounts, "prices_as_of": "2026-11-01",
                "groups": [group("gpt-5.4-mini".into()), group(Value::Null)]}),
            )
        }
        ("POST", "/api/flush") => (
            200,
            json!({"object": "nightbus.flush", "requests": 3, "lanes": 1, "message": "3 requests of 1 lane are submitted."}),
        ),
        ("DELETE", _) => (
            409,
            json!({"error": {"message": "It is in a batch. `nightbus cancel bat_…` cancels the whole batch.", "code": "already_submitted"}}),
        ),
        ("GET", "/healthz") => (200, json!({"status": "ok"})),
        _ => (401, json!({"error": {"message": "no", "code": "unauthorized"}})),
    }
}

const ASKED: [(&str, &[&str]); 13] = [
    ("status", &["status"]),
    ("requests", &["requests"]),
    ("requests-none", &["requests", "--tag", "nobody"]),
    ("requests-unauthorized", &["requests", "req_01a208029b42700085bca67e4ade0ad8"]),
    ("batches", &["batches"]),
    ("flights", &["flights"]),
    ("savings", &["savings"]),
    ("savings-by-model", &["savings", "--by", "model"]),
    ("savings-csv", &["savings", "--by", "model", "--csv"]),
    ("flush", &["flush"]),
    ("cancel-submitted", &["cancel", "req_01a208029b42700085bca67e4ade0ad7"]),
    ("cancel-nothing", &["cancel", "something"]),
    ("top-in-a-pipe", &["top"]),
];

#[test]
fn the_output_of_every_command_that_asks() {
    let admin = admin();
    let mut wrong = Vec::new();
    for (name, arguments) in ASKED {
        let said = nightbus(&[arguments, &["--admin", &admin]].concat());
        let text =
            format!("exit code {}\n--- standard output\n{}--- standard error\n{}", said.code, said.out, said.err);
        assert!(!text.contains('\x1b'), "{name}: nothing steers the terminal, and a pipe has no colours");
        check(&format!("output/{name}.txt"), &text, &mut wrong);
    }
    assert_none(&wrong);
    let expected: BTreeSet<String> = ASKED.iter().map(|(name, _)| format!("{name}.txt")).collect();
    assert_eq!(kept("output"), expected);
}

/// Runs a command on a terminal of its own, by util-linux's `script`; `typed` are its keys.
fn on_terminal(columns: u32, arguments: &[&str], typed: &str, no_color: bool) -> (i32, String) {
    let inner = command(arguments);
    let words: Vec<&str> = arguments.to_vec();
    let line = format!("stty cols {columns} rows 24 && exec {} {}", env!("CARGO_BIN_EXE_nightbus"), words.join(" "));
    let mut outer = std::process::Command::new("script");
    outer.args(["-qec", &line, "/dev/null"]).current_dir(inner.get_current_dir().unwrap());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("COLUMNS");
    if no_color {
        outer.env("NO_COLOR", "1");
    }
    let mut child = outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(typed.as_bytes()).unwrap();
    // Its end would be a ^D: it is kept until the command has ended.
    let output = child.wait_with_output().unwrap();
    drop(keys);
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).unwrap())
}

/// Without colours.
fn bare(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(
            part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == '?').get(1..).unwrap_or_default(),
        );
    }
    plain.replace('\r', "")
}

#[test]
#[cfg(target_os = "linux")]
fn tables_fit_a_terminal_of_eighty_columns_and_have_colours_unless_told_otherwise() {
    let admin = admin();
    for arguments in [&["status"][..], &["requests"], &["batches"], &["flights"], &["savings", "--by", "model"]] {
        let arguments = [arguments, &["--admin", &admin]].concat();
        let (code, shown) = on_terminal(80, &arguments, "", false);
        assert_eq!(code, 0, "{arguments:?}: {shown}");
        let plain = bare(&shown);
        let too_wide: Vec<&str> =
            plain.lines().filter(|line| line.width() > 80 && !line.starts_with("There are more")).collect();
        assert!(too_wide.is_empty(), "{arguments:?}: {too_wide:#?}");
        assert!(shown.contains("\x1b["), "{arguments:?}: colours on a terminal: {shown}");
        let (_, quiet) = on_terminal(80, &arguments, "", true);
        assert!(!quiet.contains('\x1b') && !quiet.is_empty(), "{arguments:?}: NO_COLOR: {quiet:?}");
    }
    let (_, shown) = on_terminal(80, &["requests", "--admin", &admin], "", true);
    assert!(shown.contains("req_01a208029b42700085bca67e4ade0ad8"), "ids stay whole: {shown}");
}

#[test]
#[cfg(target_os = "linux")]
fn top_draws_until_q_and_gives_the_terminal_back() {
    let (code, shown) = on_terminal(130, &["top", "--admin", &admin()], "xq", false);
    assert_eq!(code, 0, "{shown}");
    let (entered, left) = (shown.find("\x1b[?1049h").unwrap(), shown.rfind("\x1b[?1049l").unwrap());
    let screen = bare(shown.get(entered..left).unwrap());
    for part in ["Held         312 connections", "In batches   50,003", "31,012/50,000", "in_flight_tokens", "q quits"]
    {
        assert!(screen.contains(part), "{part} in {screen}");
    }
    assert!(shown.len() - left < 20, "nothing is drawn afterwards: {shown:?}");
    let nobody = done(&mut command(&["top", "--admin", "http://127.0.0.1:9"]));
    assert!(nobody.code == 2 && nobody.err.contains("nightbus status"), "{}", nobody.err);
}
