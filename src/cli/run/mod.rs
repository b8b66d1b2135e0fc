//! `nightbus run FILE -o OUT`: a file of calls through the proxy's machinery, whether one is running or not.
//!
//! Checks everything, names the price, hands in, collects. A run that was stopped in any way goes on with the same command;
//! `journal` says what it keeps, `desk` how nothing is bought twice.

mod again;
mod check;
mod csv;
mod desk;
mod estimate;
mod grounded;
mod input;
mod journal;
mod lines;
mod own;
mod place;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;

use self::again::{Wanted, Written};
use self::check::{Checked, Faults};
use self::desk::{Desk, NotTaken, Wishes};
use self::estimate::{Consent, Estimate};
use self::input::Input;
use self::journal::{Journal, Plan, Targets, plan_in, wanted_of_retry, with_suffix};
use self::own::Own;
use self::place::Place;
use self::work::Work;
use super::output::note;
use super::signals::until_stopped;
use super::{UsageError, human, logs};
use crate::config::{self, Config, Overrides, ProviderConfig, parse_duration};
use crate::domain::lane::Endpoint;

/// `nightbus run`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Stopped by ^C, a crash or a reboot, it goes on with the same command: nothing is bought twice.\n\
    Exit code: 0 all lines succeeded, 1 some did not or the run was stopped, 2 usage, or faults in the file."
)]
pub(super) struct RunArgs {
    /// The calls: the provider's batch lines, or one request body per line, or a CSV with --template
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Answers, in the order of the calls and in the shape of the provider's batch output (-: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Lines that failed [default: OUT.errors.jsonl, without OUT's own .jsonl]
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Where bodies go that do not name their endpoint
    #[arg(long, default_value = "chat/completions", value_name = "ENDPOINT", value_parser = endpoint)]
    endpoint: Endpoint,
    /// Request body with {{column}} where a column of the CSV belongs
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Only check the file and name the price
    #[arg(long)]
    dry_run: bool,
    /// Begin without a question, whatever it costs
    #[arg(short, long)]
    yes: bool,
    /// Begin without a question if the estimate is not above this, else not at all
    #[arg(long, value_name = "USD", value_parser = usd)]
    max_usd: Option<f64>,
    /// A name for the ledger
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// By when each answer must be there, such as 6h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<String>,
    /// What serves calls that batch cannot: flex, sync, both, or none [default: deferral.fallback]
    #[arg(long, value_name = "SERVICES")]
    fallback: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Calls on the way at once
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,
    /// Another number asks for new answers to the same file
    #[arg(long, default_value_t = 1, value_name = "N")]
    attempt: u32,
    /// Send only the lines that failed when this command ran before, and put their answers where they belong
    #[arg(long, conflicts_with = "force")]
    retry_failed: bool,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    /// Configuration file: prices, providers, the address of a running nightbus
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Base URL of the default provider, for a nightbus in this process
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

/// Runs the file to its end, or as far as it goes.
pub(super) async fn run(args: &RunArgs) -> anyhow::Result<()> {
    logs("error")?;
    let stopped = until_stopped()?;
    let overrides = Overrides { upstream: args.upstream.clone(), ..Overrides::default() };
    let config = config::load(args.config.as_deref(), config::environment(), &overrides)?;
    let input = Input::new(&args.file, args.endpoint, args.template.as_deref())?;
    let (targets, folder) = args.targets();
    let begun = plan_in(&folder)?;
    let wanted = args.wanted(begun.as_ref(), &targets, &folder)?;
    let checked =
        check::check(&input, config.limits.max_body_bytes, wanted)?.map_err(|faults| faulty(&args.file, &faults))?;
    if args.retry_failed && checked.lines == 0 {
        note("No line failed when this ran before: there is nothing to do.");
        return Ok(());
    }
    let provider = args.place.provider(&config, checked.endpoint)?;
    if args.dry_run || begun.is_none() {
        let estimate = Estimate::of(&checked, &config, provider);
        note(&estimate.describe(&checked));
        if args.dry_run {
            return Ok(());
        }
        may_write(&targets)?;
        estimate.agree(Consent { yes: args.yes, max_usd: args.max_usd })?;
    }
    let key = args.place.key(provider)?;
    let begun = begun.is_some();
    let server = if begun { None } else { args.server(&config, provider, &checked, key.as_deref()).await? };
    let journal = Journal::open(&folder)?;
    let plan = match journal.plan()? {
        Some(plan) => args.goes_on(plan, &checked, key.as_deref(), &folder)?,
        None if begun => bail!("another command has just ended what {} held: look at its output", folder.display()),
        None => {
            let plan = args.plan(&checked, server, key.as_deref());
            if args.retry_failed {
                Written::open(&targets)?.copy(&input, &journal.earlier())?;
            }
            journal.begin(&plan)?;
            plan
        }
    };
    if begun {
        let (done, lines) = (human::number(journal.done()), human::number(plan.lines));
        note(&format!("Going on: {done} of {lines} lines have their answer already."));
    }
    let journal = Box::pin(args.carry_out(&config, &input, &plan, key, journal, stopped)).await?;
    conclude(journal, &plan, &targets)
}

impl RunArgs {
    /// Which lines are to be sent.
    ///
    /// # Errors
    /// [`UsageError`]: a run that has not ended, or none that has.
    fn wanted(&self, begun: Option<&Plan>, targets: &Targets, folder: &Path) -> anyhow::Result<Wanted> {
        let message = match (begun.map(|plan| plan.retry.is_some()), self.retry_failed) {
            (None, false) | (Some(false), false) => return Ok(Wanted::All),
            (None, true) => return Ok(Wanted::FailedIn(Box::new(Written::open(targets)?))),
            (Some(true), true) => return wanted_of_retry(folder),
            (Some(false), true) => {
                "a run that has not ended: let it end first, by the same command without --retry-failed"
            }
            (Some(true), false) => "a run of --retry-failed that has not ended: repeat it with --retry-failed",
        };
        Err(UsageError(format!("{} holds {message}", folder.display())).into())
    }

    /// The running nightbus that a new run is handed to; none: one in this process, which could do it.
    async fn server(
        &self,
        config: &Config,
        provider: &ProviderConfig,
        checked: &Checked,
        key: Option<&str>,
    ) -> anyhow::Result<Option<String>> {
        let server = self.place.server(config, checked.endpoint, key).await?;
        if server.is_none() {
            own::is_possible(config, provider, checked.endpoint)?;
            self.place.needs_key(provider, key)?;
        }
        Ok(server)
    }

    /// With a nightbus in this process where the plan says so, which is stopped in any case.
    async fn carry_out(
        &self,
        config: &Config,
        input: &Input,
        plan: &Plan,
        key: Option<String>,
        journal: Journal,
        stopped: impl Future<Output = ()>,
    ) -> anyhow::Result<Journal> {
        let own = match &plan.server {
            Some(_) => None,
            None => Some(Own::start(config, &journal.data_dir()).await?),
        };
        let address = self.place.address(config, plan.server.clone().or_else(|| own.as_ref().map(Own::url)), key);
        let wishes = Wishes { tag: self.tag.clone(), deadline: self.deadline.clone(), fallback: self.fallback.clone() };
        let desk = Desk::new(address, plan.endpoint()?, wishes)?;
        let desk = if own.is_some() { desk } else { desk.telling_of_flights() };
        if let Some(server) = &plan.server
            && !desk.probe().await?
        {
            bail!(
                "this run was handed to {server}, where no nightbus answers now: start it again, then repeat the command"
            );
        }
        let work = Work { input, plan, desk: &desk, at_once: usize::from(self.concurrency), flush: own.is_some() };
        let telling = async {
            match &own {
                Some(own) => own.tell_of_flights().await,
                None => std::future::pending().await,
            }
        };
        let worked = tokio::select! {
            worked = Box::pin(go(&work, journal)) => worked,
            never = telling => never,
            () = stopped => Err(anyhow!("stopped. The same command goes on from here; nothing is bought twice.")),
        };
        if let Some(own) = own {
            own.stop().await;
        }
        worked
    }

    fn targets(&self) -> (Targets, PathBuf) {
        let output = (self.output != Path::new("-")).then(|| self.output.clone());
        let base = output.as_deref().unwrap_or(&self.file);
        let stem = match base.extension() {
            Some(extension) if extension == "jsonl" => base.with_extension(""),
            _ => base.to_owned(),
        };
        let errors = self.errors.clone().unwrap_or_else(|| with_suffix(&stem, ".errors.jsonl"));
        let folder = with_suffix(base, ".nightbus");
        (Targets { output, errors, replace: self.force || self.retry_failed }, folder)
    }

    fn plan(&self, checked: &Checked, server: Option<String>, key: Option<&str>) -> Plan {
        let plan = Plan::new(checked, self.place.provider.clone(), self.attempt, server, key);
        if self.retry_failed { plan.of_retry() } else { plan }
    }

    /// The plan of a run that goes on, if this is the same command.
    fn goes_on(&self, plan: Plan, checked: &Checked, key: Option<&str>, folder: &Path) -> Result<Plan, UsageError> {
        let server = self.place.server.clone().or_else(|| plan.server.clone());
        let asked = self.plan(checked, server, key);
        let no_longer = self.place.no_server && plan.server.is_some();
        let differs = plan.differs_from(&asked).or_else(|| no_longer.then_some("server"));
        match differs {
            None => Ok(plan),
            Some(what) => Err(UsageError(format!(
                "{} holds a run that was begun with another {what}: repeat it as it was begun, take another name for the output, or remove the folder (what is under way may then be bought again)",
                folder.display()
            ))),
        }
    }
}

/// Before anything is bought: whether there will be a place for the answers.
fn may_write(targets: &Targets) -> Result<(), UsageError> {
    let mut paths = targets.output.iter().chain([&targets.errors]);
    for path in paths.clone() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if parent.is_some_and(|parent| !parent.is_dir()) {
            return Err(UsageError(format!("the folder of {} is not there: make it first", path.display())));
        }
    }
    match paths.find(|path| path.exists()) {
        Some(path) if !targets.replace => Err(UsageError(format!(
            "{} is there already: take another name, or replace it with --force",
            path.display()
        ))),
        _ => Ok(()),
    }
}

async fn go(work: &Work<'_>, mut journal: Journal) -> anyhow::Result<Journal> {
    if let Err(error) = work.first(&journal).await {
        // Nothing is under way yet that a new beginning, with another key, could buy again.
        if error.is::<NotTaken>() && journal.done() == 0 {
            journal.take_back()?;
        }
        return Err(error);
    }
    work.all(&mut journal).await?;
    Ok(journal)
}

fn conclude(journal: Journal, plan: &Plan, targets: &Targets) -> anyhow::Result<()> {
    let failed = journal.failed();
    journal.finish(plan, targets)?;
    if failed > 0 {
        let again = if plan.retry.is_some() { " again" } else { "" };
        let next = if targets.output.is_some() {
            ". The same command with --retry-failed sends them, and no others, once more."
        } else {
            ""
        };
        let (failed, lines) = (human::number(failed), human::counted(plan.lines, "line"));
        bail!("{failed} of {lines} failed{again}: see {}{next}", targets.errors.display());
    }
    let place = targets.output.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    note(&format!("{} answered: {place}", human::counted(plan.lines, "line")));
    Ok(())
}

/// What is wrong, by line.
fn faulty(file: &Path, faults: &Faults) -> UsageError {
    let name = file.display();
    for fault in &faults.kept {
        note(&format!("{name}:{}: {}", fault.line, fault.what));
    }
    let more = faults.count - u64::try_from(faults.kept.len()).unwrap_or(u64::MAX).min(faults.count);
    if more > 0 {
        note(&format!("… and {} more", human::number(more)));
    }
    UsageError(format!("{name} has {}: nothing was sent", human::counted(faults.count, "fault")))
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let bare = text.trim_start_matches('/').trim_start_matches("v1/");
    format!("/v1/{bare}").parse()
}

fn usd(text: &str) -> Result<f64, String> {
    let amount: f64 =
        text.parse().map_err(|_no_number| "write an amount of US dollars, such as 5 or 0.5".to_owned())?;
    if amount.is_finite() && amount >= 0.0 { Ok(amount) } else { Err("must not be below zero".to_owned()) }
}

fn duration(text: &str) -> Result<String, String> {
    let valid = parse_duration(text).is_some_and(|duration| !duration.is_zero());
    if valid { Ok(text.to_owned()) } else { Err("write a duration, such as 90m or 6h".to_owned()) }
}
