//! `demo`: the simulator and the real proxy on free ports, a few hundred real HTTP calls, and what was saved.
//!
//! No key, no network, nothing left behind: the data directory is temporary. It fails when a call fails or gets another
//! caller's answer.

mod job;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::time::MissedTickBehavior;

use super::output::{self, Output, note};
use super::progress::Progress;
use super::signals::until_stopped;
use super::{human, logs};
use crate::app::{self, App};
use crate::config::{self, Config, Overrides};
use crate::sim::{self, Sim, SimOptions};
use crate::tasks::Tasks;
use job::JobReport;

const GRACE: Duration = Duration::from_secs(2);
/// Files that the process needs besides those of the calls.
const SPARE_FILES: u64 = 256;

/// `nightbus demo`
#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {
    /// How many calls the job has
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=99_999))]
    calls: u64,
    /// How long the simulated provider takes for a batch
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3_600))]
    batch_seconds: u64,
    /// Leave it running, and show what to paste
    #[arg(long)]
    keep: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The running pair.
struct Stage {
    app: App,
    sim: Sim,
    sim_tasks: Tasks,
    data_dir: PathBuf,
}

/// Sets the stage, runs the job, clears the stage, whatever happened.
pub(super) async fn run(args: &DemoArgs, out: Output) -> anyhow::Result<()> {
    logs("error")?;
    let at_once = connections(args.calls);
    let stopped = until_stopped().context("cannot receive signals")?;
    let stage = Stage::set(args).await?;
    let outcome = tokio::select! {
        outcome = Box::pin(perform(args, at_once, &stage, out)) => outcome,
        () = stopped => Ok(()),
    };
    stage.clear().await;
    outcome
}

impl Stage {
    async fn set(args: &DemoArgs) -> anyhow::Result<Self> {
        let sim_tasks = Tasks::new();
        let seconds = u32::try_from(args.batch_seconds).unwrap_or(u32::MAX);
        let options = SimOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            batch_seconds: f64::from(seconds),
            ..SimOptions::default()
        };
        let sim = sim::start(options, sim_tasks.clone()).await.context("the simulator cannot start")?;
        let data_dir = std::env::temp_dir().join(format!("nightbus-demo-{:016x}", fastrand::u64(..)));
        let config = configuration(&sim, &data_dir)?;
        let app = app::start(config, Tasks::new()).await.context("the proxy cannot start")?;
        Ok(Self { app, sim, sim_tasks, data_dir })
    }

    async fn clear(self) {
        self.app.shutdown().await;
        self.sim_tasks.shutdown(GRACE).await;
        if let Err(error) = tokio::fs::remove_dir_all(&self.data_dir).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            note(&format!("{} is left behind: {error}", self.data_dir.display()));
        }
    }

    /// Batches that the proxy has made so far.
    async fn batches(&self) -> u64 {
        let all = self.app.engine().store().batches(false, None, 10_000).await.unwrap_or_default();
        u64::try_from(all.len()).unwrap_or(u64::MAX)
    }

    fn describe(&self) -> String {
        let view = self.app.engine().view();
        let open: u64 = view.lanes.iter().map(|lane| lane.open_batches).sum();
        match (view.queued_requests, open) {
            (0, 0) => String::new(),
            (queued, 0) => format!("{} queued", human::number(queued)),
            (0, open) => format!("{} in flight", plural(open)),
            (queued, open) => format!("{} queued, {} in flight", human::number(queued), plural(open)),
        }
    }
}

fn plural(batches: u64) -> String {
    if batches == 1 { "1 batch".to_owned() } else { format!("{} batches", human::number(batches)) }
}

/// Everything at its default but the places, and a lane that does not wait long for more.
fn configuration(sim: &Sim, data_dir: &std::path::Path) -> anyhow::Result<Config> {
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".to_owned()),
        admin_listen: Some("127.0.0.1:0".to_owned()),
        upstream: Some(sim.base_url()),
        data_dir: Some(data_dir.display().to_string()),
        store: None,
    };
    let mut config = config::parse(None, [], &overrides)?;
    config.batching.idle = Duration::from_millis(700);
    config.batching.poll = Duration::from_secs(1);
    config.shutdown.grace = GRACE;
    Ok(config)
}

/// Both ends of every call are files of this process.
fn connections(calls: u64) -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    let room = files.saturating_sub(SPARE_FILES) / 2;
    usize::try_from(calls.min(room).max(1)).unwrap_or(1)
}

async fn perform(args: &DemoArgs, at_once: usize, stage: &Stage, out: Output) -> anyhow::Result<()> {
    let main = stage.app.main_addr();
    note(&format!(
        "Labelling {} reviews through http://{main}; the provider is simulated at http://{}.",
        human::number(args.calls),
        stage.sim.addr()
    ));
    let report = label(args, at_once, stage).await?;
    let batches = stage.batches().await;
    if args.json {
        output::json(&report::json(&report, args.calls, batches))?;
    } else {
        out.pairs(&report::table(&report, args.calls, batches))?;
    }
    if let Some(failure) = &report.first_failure {
        note(&format!("The first failure: {failure}"));
    }
    if report.answered != args.calls {
        bail!("{} of {} calls did not get their own answer", args.calls - report.answered, args.calls);
    }
    if args.keep {
        let hints = report::hints(main, stage.app.admin_addr());
        if args.json {
            note(&hints);
        } else {
            output::line("")?;
            output::line(&hints)?;
        }
        until_stopped()?.await;
    }
    Ok(())
}

async fn label(args: &DemoArgs, at_once: usize, stage: &Stage) -> anyhow::Result<JobReport> {
    let patience = Duration::from_secs(args.batch_seconds.saturating_mul(20).saturating_add(120));
    let mut progress = Progress::new(args.calls);
    let ended = std::cell::Cell::new(0);
    let mut job = Box::pin(job::run(stage.app.main_addr(), args.calls, at_once, patience, |report| {
        ended.set(report.ended());
    }));
    let mut tick = tokio::time::interval(Duration::from_millis(150));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        tokio::select! {
            outcome = &mut job => break outcome,
            _ = tick.tick() => progress.show(ended.get(), &stage.describe()),
        }
    };
    progress.finish();
    outcome
}
