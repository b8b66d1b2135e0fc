//! `nightbus run` from outside: a file of calls, with a running proxy and without, to its end or killed on the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{Done, Running, command, done};

/// Far above what anything here takes.
const TRIES: u32 = 1_200;
const PAUSE: Duration = Duration::from_millis(50);

/// A simulator, a folder, and a configuration that knows no running proxy.
pub(crate) struct Stage {
    pub(crate) sim: Running,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(batch_seconds: &str) -> Self {
        Self::with(&["--batch-seconds", batch_seconds])
    }

    /// With these options of the simulator.
    pub(crate) fn with(options: &[&str]) -> Self {
        let arguments = [&["simulate", "--listen", "127.0.0.1:0"], options].concat();
        let stage =
            Self { sim: Running::start(&arguments, "simulator listening on "), folder: tempfile::tempdir().unwrap() };
        // Nobody listens on the discard port.
        stage.write(
            "proxy.toml",
            &format!(
                "listen = \"127.0.0.1:9\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n\
                 [providers.openai]\nbase_url = \"{url}/v1\"\n[providers.anthropic]\nbase_url = \"{url}/v1\"\n\
                 [batching]\nidle = \"100ms\"\npoll = \"100ms\"\n",
                stage.path("served"),
                url = stage.sim.url,
            ),
        );
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(&[&["run"], arguments, &["--config", "proxy.toml"]].concat());
        command.current_dir(self.folder.path()).env("OPENAI_API_KEY", "sk-run").env("ANTHROPIC_API_KEY", "sk-ant-run");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        done(&mut self.command(arguments))
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Killed {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        Killed(self.command(arguments).stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(crate) fn sim(&self, route: &str) -> Value {
        self.sim.told(route)
    }

    /// Executions of each call's marker.
    pub(crate) fn executions(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.sim("executions")).unwrap()
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..TRIES {
            if holds() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{what} did not happen; {}", fs::read_to_string(self.path("log")).unwrap_or_default());
    }

    /// A nightbus that goes on while runs come and go.
    pub(crate) fn serve(&self) -> Running {
        let config = self.path("proxy.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        Running::start(&arguments, "nightbus listening on ")
    }
}

/// Dies with the test.
pub(crate) struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // `kill -9`.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn body(number: usize) -> Value {
    json!({"model": "gpt-6-luna", "max_tokens": 50, "messages": [{"role": "user", "content": format!("say probe-{number:04}")}]})
}

pub(crate) fn batch_file(lines: usize) -> String {
    let line = |number| json!({"custom_id": format!("c{number}"), "method": "POST", "url": "/v1/chat/completions", "body": body(number)});
    (0..lines).map(|number| format!("{}\n", line(number))).collect()
}

/// Every call is there once, in order, with its own answer, and was executed once.
pub(crate) fn assert_whole(stage: &Stage, output: &str, lines: usize) {
    let answers = stage.read(output);
    assert_eq!(answers.len(), lines);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["custom_id"], format!("c{number}"));
        assert_eq!((&answer["response"]["status_code"], &answer["error"]), (&json!(200), &Value::Null));
        assert!(answer["id"].as_str().unwrap().starts_with("req_"));
        let content = answer["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(content.contains(&format!("probe-{number:04}")), "line {number}: {content}");
    }
    let executions = stage.executions();
    assert_eq!(executions.len(), lines);
    assert!(executions.values().all(|times| *times == 1), "{executions:?}");
}

#[test]
fn three_hundred_lines_without_a_server() {
    let stage = Stage::new("0.2");
    stage.write("in.jsonl", &batch_file(300));
    let priced = stage.run(&["in.jsonl", "-o", "out.jsonl", "--dry-run"]);
    assert_eq!(priced.code, 0, "{}", priced.err);
    assert!(priced.err.contains("300 calls") && priced.err.contains("15,000 output tokens"), "{}", priced.err);
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert_whole(&stage, "out.jsonl", 300);
    for left in ["out.jsonl.nightbus", "out.jsonl.nightbus.done", "out.errors.jsonl", "out.jsonl.new"] {
        assert!(!stage.path(left).exists(), "{left}");
    }
    let again = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert!(again.code == 2 && again.err.contains("--force"), "{}", again.err);
    assert_whole(&stage, "out.jsonl", 300);
}

#[test]
fn faults_are_all_named_and_nothing_is_sent() {
    let stage = Stage::new("0.2");
    let good = batch_file(2);
    stage.write("in.jsonl", &format!("{good}{{}}\nnonsense\n{good}"));
    let bad = stage.run(&["in.jsonl", "-o", "out.jsonl", "--yes"]);
    assert_eq!(bad.code, 2);
    for part in
        ["in.jsonl:3: custom_id", "in.jsonl:4: not a JSON object", "in.jsonl:5: ", "in.jsonl:6: ", "line 2", "4 faults"]
    {
        assert!(bad.err.contains(part), "{part} in {}", bad.err);
    }
    let counters = stage.sim("counters");
    assert_eq!((&counters["files"], &counters["lines_executed"]), (&json!(0), &json!(0)));
    assert!(!stage.path("out.jsonl").exists() && !stage.path("out.jsonl.nightbus").exists());
}

#[test]
fn a_failed_line_goes_to_the_second_file_and_into_the_exit_code() {
    let stage = Stage::new("0.2");
    let refused = json!({"model": "gpt-6-luna", "messages": []});
    stage.write("bodies.jsonl", &format!("{}\n{refused}\n\n{}\n", body(0), body(1)));
    let ran = stage.run(&["bodies.jsonl", "-o", "out.jsonl", "--max-usd", "1"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("1 of 3 lines failed: see out.errors.jsonl"), "{}", ran.err);
    let ids = |name: &str| stage.read(name).iter().map(|line| line["custom_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids("out.jsonl"), ["line-1", "line-4"]);
    assert_eq!(ids("out.errors.jsonl"), ["line-2"]);
    assert_eq!(stage.read("out.errors.jsonl")[0]["response"]["status_code"], 400);
}

#[test]
fn a_csv_fills_a_template_and_standard_output_takes_the_answers() {
    let stage = Stage::new("0.2");
    stage.write("in.csv", "custom_id,text\nfirst,\"say \"\"probe-0000\"\",\nplease\"\nsecond,probe-0001\n");
    let mut form = body(0);
    form["messages"][0]["content"] = "Repeat: {{text}}".into();
    stage.write("form.json", &form.to_string());
    let ran = stage.run(&["in.csv", "--template", "form.json", "-o", "-"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["custom_id"], &lines[1]["custom_id"]), (2, &json!("first"), &json!("second")));
    assert!(lines[0].to_string().contains("probe-0000") && lines[1].to_string().contains("probe-0001"));
}

#[test]
fn killed_three_times_every_line_is_bought_once() {
    let stage = Stage::new("2");
    stage.write("in.jsonl", &batch_file(300));
    let arguments = ["in.jsonl", "-o", "out.jsonl", "--concurrency", "4"];
    let killed = stage.start(&arguments);
    stage.until("a first call", || stage.path("out.jsonl.nightbus/data").exists());
    drop(killed);
    let killed = stage.start(&arguments);
    stage.until("a batch", || stage.sim("counters")["batches"].as_u64().unwrap() > 0);
    drop(killed);
    let killed = stage.start(&arguments);
    let answered = || fs::metadata(stage.path("out.jsonl.nightbus/answers")).is_ok_and(|file| file.len() > 0);
    stage.until("an answer", answered);
    drop(killed);
    let other = stage.run(&["in.jsonl", "-o", "out.jsonl", "--attempt", "2"]);
    assert!(other.code == 2 && other.err.contains("another attempt"), "{}", other.err);
    let ran = stage.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("Going on: "), "{}", ran.err);
    assert_whole(&stage, "out.jsonl", 300);
}

#[test]
fn a_running_server_keeps_the_calls_while_the_run_is_dead() {
    let stage = Stage::new("1");
    stage.write("in.jsonl", &batch_file(40));
    let nobody = stage.run(&["in.jsonl", "-o", "out.jsonl", "--server", "http://127.0.0.1:9"]);
    assert!(nobody.code == 1 && nobody.err.contains("nightbus serve"), "{}", nobody.err);
    assert!(!stage.path("out.jsonl.nightbus/plan.json").exists(), "nothing was begun");
    let server = stage.serve();
    let url = server.url.clone();
    let killed = stage.start(&["in.jsonl", "-o", "out.jsonl", "--server", &url]);
    stage.until("a batch", || stage.sim("counters")["batches"].as_u64().unwrap() > 0);
    drop(killed);
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!stage.path("out.jsonl.nightbus").exists());
    assert_whole(&stage, "out.jsonl", 40);
    // The same file, another name: what the server still has is not bought again.
    let copy = stage.run(&["in.jsonl", "-o", "copy.jsonl", "--server", &url]);
    assert_eq!(copy.code, 0, "{}", copy.err);
    assert_whole(&stage, "copy.jsonl", 40);
    let killed = stage.start(&["in.jsonl", "-o", "more.jsonl", "--server", &url, "--attempt", "2"]);
    stage.until("a plan", || stage.path("more.jsonl.nightbus/plan.json").exists());
    drop(killed);
    assert_eq!(server.stop(), Some(0));
    let gone = stage.run(&["in.jsonl", "-o", "more.jsonl", "--attempt", "2"]);
    assert!(gone.code == 1 && gone.err.contains("start it again"), "{}", gone.err);
}

#[test]
fn a_server_that_does_not_defer_ends_the_run_at_its_first_line() {
    let stage = Stage::new("0.2");
    stage.write("in.jsonl", &batch_file(20));
    let config = fs::read_to_string(stage.path("proxy.toml")).unwrap();
    stage.write("off.toml", &format!("{config}[deferral]\nmode = \"off\"\n"));
    let file = stage.path("off.toml");
    let arguments = ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let server = Running::start(&arguments, "nightbus listening on ");
    let ran = stage.run(&["in.jsonl", "-o", "out.jsonl", "--server", &server.url]);
    assert!(ran.code == 1 && ran.err.contains("does not defer"), "{}", ran.err);
    assert!(stage.sim("counters")["live_calls"].as_u64().unwrap() <= 1, "one call at the most");
}

#[test]
fn a_wrong_beginning_does_not_bind() {
    let stage = Stage::new("0.2");
    stage.write("in.jsonl", &batch_file(2));
    let without = done(stage.command(&["in.jsonl", "-o", "out.jsonl"]).env_remove("OPENAI_API_KEY"));
    assert!(without.code == 2 && without.err.contains("OPENAI_API_KEY"), "{}", without.err);
    let unknown = batch_file(2).replace("gpt-6-luna", "of-tomorrow");
    stage.write("unknown.jsonl", &unknown);
    let asked = stage.run(&["unknown.jsonl", "-o", "other.jsonl"]);
    assert!(asked.code == 2 && asked.err.contains("--yes"), "an unknown price is agreed to first: {}", asked.err);
    let capped = stage.run(&["unknown.jsonl", "-o", "other.jsonl", "--max-usd", "5"]);
    assert!(capped.code == 1 && capped.err.contains("--max-usd"), "{}", capped.err);
    assert_eq!(stage.run(&["in.jsonl", "-o", "out.jsonl"]).code, 0);
    assert_whole(&stage, "out.jsonl", 2);
}

#[test]
fn a_grounded_test_flight_is_told_with_the_commands_that_decide() {
    let stage = Stage::new("0.2");
    grounded(&stage, &[], "");
}

#[test]
fn a_grounded_test_flight_of_a_running_server_is_told_too() {
    let stage = Stage::new("0.2");
    let config = stage.path("proxy.toml");
    // The rest of what `grounded` does to the configuration is the server's.
    let admin = free_address();
    let with_admin = fs::read_to_string(&config)
        .unwrap()
        .replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{admin}\""));
    stage.write("proxy.toml", &with_admin);
    let served = fs::read_to_string(&config).unwrap().replace("idle = \"100ms\"", "idle = \"3s\"");
    stage.write("server.toml", &format!("{served}[flight]\nmin_requests = 100\n"));
    let file = stage.path("server.toml");
    let arguments = ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let server = Running::start(&arguments, "nightbus listening on ");
    grounded(&stage, &["--server", &server.url], &format!("http://{admin}"));
}

fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Runs a bad file until the flight is told of, and rejects it as it was said.
fn grounded(stage: &Stage, options: &[&str], admin: &str) {
    // The simulator's word for answers that are cut off.
    let bad = batch_file(120).replace("say probe", "sim-length probe");
    stage.write("in.jsonl", &bad);
    // Time for all to be there before the first batch.
    let config = fs::read_to_string(stage.path("proxy.toml")).unwrap().replace("idle = \"100ms\"", "idle = \"3s\"");
    stage.write("proxy.toml", &format!("{config}[flight]\nmin_requests = 100\n"));
    let mut run = stage.start(&[&["in.jsonl", "-o", "out.jsonl"], options].concat());
    let log = || fs::read_to_string(stage.path("log")).unwrap_or_default();
    stage.until("a word about the flight", || log().contains("nightbus flights reject "));
    let said = log();
    assert!(said.contains("cut off at the limit of tokens"), "{said}");
    let reject = said.lines().find_map(|line| line.trim().strip_prefix("nightbus flights reject ")).unwrap();
    let words: Vec<&str> = reject.split(' ').collect();
    let admin = if admin.is_empty() { vec![] } else { vec!["--admin", admin] };
    let rejected = crate::command::nightbus(&[&["flights", "reject"], &words[..], &admin[..]].concat());
    assert_eq!(rejected.code, 0, "{}", rejected.err);
    assert_eq!(run.0.wait().unwrap().code(), Some(1), "{}", log());
    let errors = stage.read("out.errors.jsonl");
    assert_eq!((errors.len(), &errors[0]["error"]["code"]), (115, &json!("flight_grounded")));
    assert_eq!(stage.sim("counters")["batches"], 0, "nothing but the flight was bought");
}
