//! The table of speed and memory: `scripts/bench` builds what is measured and runs this program.
//!
//! `speed [--only ROW] [--json] [--quick] [--most N] --nightbus PATH [--nginx PATH] [--scratch DIR]`
//!
//! `--most` tries the rows of held calls out with fewer of them: a figure that carries a smaller count in its name.
//!
//! Servers under test are pinned to one core; this program, with generator, origin and provider in it, is pinned to
//! the other. Peers take turns within one run, and a ratio is the median of the rounds' ratios.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod bare_peer;
mod batch;
mod bodies;
mod handout;
mod held;
mod http;
mod http2;
mod intake;
mod live;
mod load;
mod log_peer;
mod origin;
mod outcome;
mod process;
mod provider;
mod row;
mod spread;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use outcome::Outcome;
use process::Tools;
use row::Row;

/// What is measured, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    tools: Tools,
    /// Turns of each peer.
    rounds: usize,
    /// One turn.
    round: Duration,
    /// For CPU at rest: a whole number of `hold.heartbeat` (15 s), else a connection's share of signs of life is chance.
    watch: Duration,
    /// For growth of memory.
    many_calls: usize,
    /// Of held calls, instead of as many as a row wants.
    most: usize,
    only: Option<String>,
    json: bool,
}

impl Plan {
    /// How many calls to hold, of the number that a row wants.
    pub(crate) fn at_most(&self, wanted: usize) -> usize {
        self.most.min(wanted)
    }
}

const ROWS: [&str; 14] = [
    "passthrough",
    "added",
    "stream",
    "memory",
    "held",
    "http2",
    "spread",
    "connections",
    "intake",
    "slow-sync",
    "answers",
    "handout",
    "harvest",
    "batches",
];

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [name, log, delay] = arguments.as_slice()
        && name == "log-peer"
    {
        log_peer::run(log.as_ref(), Duration::from_millis(delay.parse()?))?;
    }
    if let [name, bytes] = arguments.as_slice()
        && name == "bare-peer"
    {
        bare_peer::run(bytes.parse()?)?;
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    if let [name, address, count] = arguments.as_slice()
        && name == "callers"
    {
        spread::run(address.parse()?, count.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan(&arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(run(&plan))?;
    if plan.json {
        println!("{:#}", row::json(&rows));
    } else {
        println!("{}", row::markdown(&rows));
    }
    Ok(if rows.iter().all(Row::passes) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(arguments: &[String]) -> Outcome<Plan> {
    let mut plan = Plan {
        tools: Tools { nightbus: PathBuf::new(), nginx: "nginx".into(), scratch: "target/bench".into() },
        rounds: 5,
        round: Duration::from_secs(4),
        watch: Duration::from_secs(30),
        many_calls: 1_000_000,
        most: usize::MAX,
        only: None,
        json: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--only" => plan.only = Some(value()?),
            "--json" => plan.json = true,
            "--quick" => {
                plan.rounds = 2;
                plan.round = Duration::from_secs(2);
                plan.watch = Duration::from_secs(15);
                plan.many_calls = 300_000;
            }
            "--most" => plan.most = value()?.parse()?,
            "--nightbus" => plan.tools.nightbus = value()?.into(),
            "--nginx" => plan.tools.nginx = value()?.into(),
            "--scratch" => plan.tools.scratch = value()?.into(),
            _ => return Err(format!("{argument}: not known; see benches/speed/main.rs").into()),
        }
    }
    if let Some(only) = &plan.only
        && !ROWS.contains(&only.as_str())
    {
        return Err(format!("--only {only}: the rows are {}", ROWS.join(" ")).into());
    }
    std::fs::create_dir_all(&plan.tools.scratch)?;
    plan.tools.scratch = plan.tools.scratch.canonicalize()?;
    if !plan.tools.nightbus.exists() {
        return Err("--nightbus PATH of the release binary is needed: scripts/bench builds and names it".into());
    }
    Ok(plan)
}

async fn run(plan: &Plan) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for group in ROWS {
        if plan.only.as_ref().is_some_and(|only| only != group) {
            continue;
        }
        eprintln!("{group} …");
        let measured = match group {
            "passthrough" => live::throughput(plan).await,
            "added" => live::added(plan),
            "stream" => live::stream(plan),
            "memory" => live::memory(plan).await,
            "held" => held::memory(plan).await,
            "http2" => http2::streams(plan).await,
            "spread" => spread::spread(plan).await,
            "connections" => held::connections(plan).await,
            "intake" => intake::throughput(plan).await,
            "slow-sync" => intake::slow_sync(plan).await,
            "answers" => batch::answers(plan).await,
            "handout" => handout::handout(plan).await,
            "harvest" => batch::harvest(plan).await,
            _ => batch::count(plan).await,
        };
        let measured = measured.unwrap_or_else(|error| vec![Row::failed(group, &error)]);
        eprintln!("{}", row::markdown(&measured));
        rows.extend(measured);
    }
    Ok(rows)
}
