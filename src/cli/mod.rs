//! The command line: what can be asked for, and how a command ends (0 done, 1 failed, 2 usage or configuration).
//!
//! One file per command; `output` and `progress` alone write to the terminal. Called by `main`.

mod actions;
mod admin_client;
mod audit;
mod configure;
mod demo;
mod doctor;
mod flights;
mod http;
mod human;
mod listing;
mod manual;
mod output;
mod progress;
mod roi;
mod run;
mod savings;
mod serve;
mod signals;
mod simulate;
mod table;
mod top;

pub use configure::ServeArgs;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::ConfigErrors;
use output::Output;

/// What was asked for makes no sense; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

#[derive(Debug, Parser)]
#[command(
    name = "nightbus",
    version,
    about = "Send LLM calls that may wait through the provider's Batch API, at half the price",
    after_help = "Start with `nightbus demo`: it needs no key and no network.",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Serve(ServeArgs),
    /// See it work: simulator, proxy and a few hundred calls, without key or network
    Demo(demo::DemoArgs),
    /// Run a strict stand-in for the provider, for tests
    Simulate(simulate::SimulateArgs),
    /// Run a file of calls through batches, and write the answers beside each other
    Run(Box<run::RunArgs>),
    /// See what the running proxy does
    Status(listing::StatusArgs),
    /// List deferred requests, or show one
    Requests(listing::RequestsArgs),
    /// List batches, or show one
    Batches(listing::BatchesArgs),
    /// List test flights, or decide over one that is grounded
    Flights(flights::FlightsArgs),
    /// See what was paid, saved and wasted
    Savings(savings::SavingsArgs),
    /// Submit everything that is queued now
    Flush(actions::FlushArgs),
    /// Withdraw a queued request, or cancel a batch at the provider
    Cancel(actions::CancelArgs),
    /// Have the running proxy read its configuration again
    Reload(actions::ReloadArgs),
    /// Learn from raw logs how much could have been deferred, and what that saves
    Audit(audit::AuditArgs),
    /// What deferring a workload saves, and when it has paid for itself
    Roi(roi::RoiArgs),
    /// Check the configuration and show what is in force
    CheckConfig(configure::CheckArgs),
    /// Find out what would keep nightbus from working here
    Doctor(doctor::DoctorArgs),
    /// Watch the running proxy; q quits
    Top(top::TopArgs),
    /// Exit with 0 if the running proxy answers (for containers)
    Healthcheck(actions::HealthArgs),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual pages
    Man(manual::ManArgs),
}

/// Runs what the arguments ask for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked_or_wrong) => {
            drop(asked_or_wrong.print());
            return ExitCode::from(u8::try_from(asked_or_wrong.exit_code()).unwrap_or(2));
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ending(&error),
    }
}

/// Says what went wrong; a reader that closed the pipe has got what it wanted.
fn ending(error: &anyhow::Error) -> ExitCode {
    let is_closed_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    output::error(&format!("{error:#}"));
    let is_usage = error.is::<UsageError>() || error.is::<ConfigErrors>();
    if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
}

fn run(command: Command) -> anyhow::Result<()> {
    let out = Output::detect();
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "nightbus", &mut script);
            Ok(output::text(&String::from_utf8_lossy(&script))?)
        }
        Command::Man(args) => manual::write(&args, Cli::command()),
        Command::Audit(args) => audit::run(&args, out),
        Command::Roi(args) => roi::run(&args, out),
        Command::CheckConfig(args) => configure::check(&args, out),
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => work(demo::run(&args, out)),
        Command::Run(args) => work(run::run(&args)),
        Command::Simulate(args) => work(simulate::run(&args, out)),
        Command::Doctor(args) => talk(doctor::run(&args)),
        Command::Status(args) => talk(listing::status(&args, out)),
        Command::Requests(args) => talk(listing::requests(&args, out)),
        Command::Batches(args) => talk(listing::batches(&args, out)),
        Command::Flights(args) => talk(flights::flights(&args, out)),
        Command::Savings(args) => talk(savings::savings(&args, out)),
        Command::Top(args) => talk(top::top(&args, out)),
        Command::Flush(args) => talk(actions::flush(&args)),
        Command::Cancel(args) => talk(actions::cancel(&args)),
        Command::Reload(args) => talk(actions::reload(&args)),
        Command::Healthcheck(args) => talk(actions::healthcheck(&args)),
    }
}

/// Commands that ask a running nightbus need one thread.
fn talk(asking: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asking)
}

/// Commands that serve take all processors.
fn work(serving: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serving)
}

/// Starts logging for a command without a configuration; `RUST_LOG` may say otherwise.
fn logs(level: &str) -> anyhow::Result<()> {
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    Ok(crate::telemetry::logging::init(false, asked.as_deref().unwrap_or(level))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
