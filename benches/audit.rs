//! How fast `audit` reads plain JSONL, beside `wc -l` and `jq` on the same file in the same run.
//!
//! `cargo bench --bench audit [-- MEGABYTES]` (default 512). The file, request and answer pairs of about 7 KB of
//! English-like text, is made in the working directory (`BENCH_DIR` for another) and removed. One thread reads; each figure
//! is the best of three, so that the file is in the page cache for all of them. Beside the rate by the clock there is the
//! one by CPU time, user and system, which says the same on a busy machine; it has no figure for less than a tenth of a
//! second. `jq` does the least that gives the same sum: prompt and answer tokens by model.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nightbus::audit::Auditor;
use tokio::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const GOAL: f64 = 300.0;
const WORDS: [&str; 24] = [
    "the", "night", "bus", "leaves", "when", "enough", "people", "wait", "and", "nobody", "who", "has", "a", "ticket",
    "is", "left", "behind", "although", "it", "arrives", "later", "than", "any", "taxi",
];
const JQ: &str = "reduce inputs as $l ({}; .[$l.request.model].i += $l.response.usage.prompt_tokens \
    | .[$l.request.model].o += $l.response.usage.completion_tokens)";

fn main() -> Outcome<()> {
    let megabytes = std::env::args().find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(512);
    let folder = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let path = folder.join(format!("bench-audit-{}.jsonl", std::process::id()));
    let done = compare(&path, megabytes);
    std::fs::remove_file(&path)?;
    done
}

fn compare(path: &Path, megabytes: u64) -> Outcome<()> {
    let (bytes, calls) = write_log(path, megabytes * 1_000_000)?;
    println!("{calls} calls, {:.0} MB", megabytes_of(bytes));
    let own = best(bytes, || {
        let mut auditor = Auditor::new();
        auditor.read("log", File::open(path)?)?;
        let found = auditor.finish().totals.calls;
        if found == calls { Ok(()) } else { Err(format!("{found} calls were found").into()) }
    })?;
    println!("nightbus audit  {own} (goal {GOAL:.0})");
    println!("wc -l           {}", best(bytes, || run(Command::new("wc").arg("-l").arg(path)))?);
    match best(bytes, || run(Command::new("jq").args(["-n", JQ]).arg(path))) {
        Ok(rate) => println!("jq              {rate}"),
        Err(error) => println!("jq              not measured: {error}"),
    }
    Ok(())
}

/// MB in a second.
struct Rate {
    clock: f64,
    /// Of this process and those that it has waited for; none: too little to tell.
    cpu: Option<f64>,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7.0} MB/s", self.clock)?;
        self.cpu.map_or(Ok(()), |cpu| write!(f, ", {cpu:>5.0} MB a second of CPU time"))
    }
}

/// The best rates of three.
fn best(bytes: u64, mut read: impl FnMut() -> Outcome<()>) -> Outcome<Rate> {
    let mut rate = Rate { clock: 0.0, cpu: None };
    for _round in 0..3 {
        let (started, used) = (Instant::now(), cpu_seconds());
        read()?;
        rate.clock = rate.clock.max(megabytes_of(bytes) / started.elapsed().as_secs_f64());
        let used = used.zip(cpu_seconds()).map(|(before, after)| after - before).filter(|used| *used >= 0.1);
        let cpu = used.map(|used| megabytes_of(bytes) / used);
        rate.cpu = [rate.cpu, cpu].into_iter().flatten().reduce(f64::max);
    }
    Ok(rate)
}

/// User and system time so far, of this process and of the children that have ended; none where there is no `/proc`.
fn cpu_seconds() -> Option<f64> {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_name, fields) = stat.rsplit_once(") ")?;
    let ticks: f64 = fields.split(' ').skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some(ticks / TICKS_A_SECOND)
}

fn run(command: &mut Command) -> Outcome<()> {
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

fn write_log(path: &Path, size: u64) -> Outcome<(u64, u64)> {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut text = |words: usize| {
        let picked = (0..words).map(|_| WORDS.get(dice.usize(..WORDS.len())).copied().unwrap_or_default());
        picked.collect::<Vec<_>>().join(" ")
    };
    let mut file = BufWriter::new(File::create(path)?);
    let (mut written, mut calls) = (0, 0);
    while written < size {
        let line = serde_json::json!({
            "timestamp": 1_793_584_800 + calls,
            "user_agent": "OpenAI/Python 2.3.0",
            "request": {
                "model": "gpt-5.4-mini",
                "messages": [{"role": "system", "content": text(60)}, {"role": "user", "content": text(900)}],
                "metadata": {"job": "nightly"},
            },
            "response": {
                "model": "gpt-5.4-mini-2026-03-17",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text(200)}}],
                "usage": {"prompt_tokens": 1_000, "completion_tokens": 220, "total_tokens": 1_220},
            },
        });
        let line = format!("{line}\n");
        file.write_all(line.as_bytes())?;
        written += u64::try_from(line.len())?;
        calls += 1;
    }
    file.flush()?;
    Ok((written, calls))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes_of(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
