//! `simulate`: the strict stand-in for the provider, until it is asked to stop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::output::{self, Output, note};
use super::signals::until_stopped;
use super::table::{Cell, Side, Table};
use super::{UsageError, logs};
use crate::config::parse_duration;
use crate::sim::{self, Sim, SimOptions};
use crate::tasks::Tasks;

const GRACE: Duration = Duration::from_secs(2);

/// `nightbus simulate`
#[derive(Args, Clone, Debug)]
pub(super) struct SimulateArgs {
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:5052", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Seconds from the creation of a batch to its end
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS", value_parser = seconds)]
    batch_seconds: f64,
    /// How long a live call takes
    #[arg(long, default_value = "20ms", value_name = "DURATION", value_parser = duration)]
    live_latency: Duration,
    /// Share of lines and live calls that fail with 429 or 500
    #[arg(long, default_value_t = 0.0, value_name = "0..1", value_parser = share)]
    fail_rate: f64,
    /// A fault to inject: NAME, NAME:COUNT or NAME:always; `list` shows all (may be given again)
    #[arg(long = "fault", value_name = "NAME")]
    faults: Vec<String>,
    /// Decides everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Prompt tokens that may be enqueued for each key and model [default: no limit]
    #[arg(long, value_name = "TOKENS")]
    enqueued_token_limit: Option<u64>,
    /// Requests in one batch file [default: the provider's]
    #[arg(long, value_name = "N")]
    max_requests: Option<usize>,
    /// Bytes in one batch file [default: the provider's]
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
}

impl SimulateArgs {
    fn options(&self) -> SimOptions {
        SimOptions {
            listen: self.listen,
            batch_seconds: self.batch_seconds,
            live_latency: self.live_latency,
            fail_rate: self.fail_rate,
            faults: self.faults.clone(),
            seed: self.seed,
            enqueued_token_limit: self.enqueued_token_limit,
            max_requests: self.max_requests,
            max_bytes: self.max_bytes,
            ..SimOptions::default()
        }
    }
}

/// Runs until a signal. Its ready line is the first on standard output.
pub(super) async fn run(args: &SimulateArgs, out: Output) -> anyhow::Result<()> {
    if args.faults.iter().any(|fault| fault == "list") {
        return Ok(out.table(&fault_table())?);
    }
    logs("info")?;
    let stopped = until_stopped()?;
    let tasks = Tasks::new();
    let sim = sim::start(args.options(), tasks.clone()).await.map_err(|error| refused(error, args.listen))?;
    output::line(&format!("simulator listening on http://{}", sim.addr()))?;
    note(&format!("Point a proxy at it: nightbus serve --upstream {}", sim.base_url()));
    stopped.await;
    tasks.shutdown(GRACE).await;
    Ok(())
}

fn refused(error: io::Error, listen: SocketAddr) -> anyhow::Error {
    if error.kind() == io::ErrorKind::InvalidInput {
        return UsageError(error.to_string()).into();
    }
    anyhow::Error::new(error).context(format!("cannot listen on {listen}; take another address with --listen"))
}

fn fault_table() -> Table {
    let mut table = Table::new(&[("FAULT", Side::Left), ("WHAT HAPPENS", Side::Left)]);
    for (name, meaning) in Sim::fault_names() {
        table.row([Cell::new(name), Cell::new(meaning)]);
    }
    table
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration, such as 20ms or 2s".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_no_number| "write a number of seconds, such as 3 or 0.5".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("must be between 0 and 86400".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_no_number| "write a share, such as 0.1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be between 0 and 1".to_owned()) }
}
