//! `audit`: what logs say could have been deferred, as tables, JSON, or a page to show around.
//!
//! Opens the files (and standard input as `-`), shows how far it is, and prints what [`crate::audit`] found.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::human;
use super::output::{self, Output, note};
use super::progress::Progress;
use super::table::{Cell, Side, Table};
use crate::audit::{self, Auditor, Report};

/// How many rows of models and groups a table shows.
const ROWS: usize = 20;

/// `nightbus audit`
#[derive(Args, Clone, Debug)]
pub(super) struct AuditArgs {
    /// Logs: JSON or JSONL of calls, LiteLLM, Langfuse, Helicone, OpenRouter exports, access logs; also as .gz or .zst; - for standard input
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page with charts that needs nothing else
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
}

/// Reads all files and prints what they say.
pub(super) fn run(args: &AuditArgs, out: Output) -> anyhow::Result<()> {
    let report = read_all(&args.files)?;
    if let Some(path) = &args.html {
        std::fs::write(path, audit::page(&report)).with_context(|| format!("cannot write {}", path.display()))?;
        note(&format!("The page is {}.", path.display()));
    }
    if args.json {
        output::json(&serde_json::to_value(&report)?)?;
    } else {
        print(&report, out)?;
    }
    if report.totals.calls == 0 {
        anyhow::bail!("no model call was found in these files (docs/audit.md lists the formats)");
    }
    Ok(())
}

/// All files are opened before the first is read: a wrong name costs no time.
fn read_all(paths: &[PathBuf]) -> anyhow::Result<Report> {
    let mut opened = Vec::with_capacity(paths.len());
    let mut total = 0;
    for path in paths {
        let name = path.display().to_string();
        if path.as_os_str() == "-" {
            opened.push((name, None));
            continue;
        }
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        let about = file.metadata().with_context(|| format!("cannot read {name}"))?;
        anyhow::ensure!(!about.is_dir(), "{name} is a directory: name the files in it");
        total += about.len();
        opened.push((name, Some(file)));
    }
    let mut progress = Progress::of_bytes(total);
    let mut done = 0;
    let mut auditor = Auditor::new();
    for (name, file) in opened {
        let mut shown = |read: usize| {
            done += u64::try_from(read).unwrap_or(0);
            progress.show(done, Path::new(&name).file_name().and_then(|name| name.to_str()).unwrap_or("-"));
        };
        match file {
            Some(file) => auditor.read(&name, Watched { inner: file, read: &mut shown }),
            None => auditor.read(&name, Watched { inner: io::stdin().lock(), read: &mut shown }),
        }
        .with_context(|| format!("cannot read {name}"))?;
    }
    progress.finish();
    Ok(auditor.finish())
}

/// A reader that tells how much was read.
struct Watched<'a, R> {
    inner: R,
    read: &'a mut dyn FnMut(usize),
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.read)(read);
        Ok(read)
    }
}

fn print(report: &Report, out: Output) -> anyhow::Result<()> {
    out.pairs(&summary(report))?;
    output::line("")?;
    out.table(&models(report))?;
    output::line("")?;
    out.table(&groups(report))?;
    if report.groups.len() > ROWS {
        note(&format!("{} more groups: --json or --html has all.", report.groups.len() - ROWS));
    }
    if !report.problems.is_empty() {
        output::line("")?;
        out.table(&problems(report))?;
    }
    Ok(output::line(
        "\nWhether a group could wait is judged by signs, which docs/audit.md and --json list. Times are UTC.",
    )?)
}

fn summary(report: &Report) -> Vec<(String, String)> {
    let (totals, savings) = (&report.totals, &report.savings);
    let read = format!(
        "{} of {}: {}, {} failed, {} not read",
        human::counted(totals.records, "record"),
        human::counted(u64::try_from(report.files.len()).unwrap_or(u64::MAX), "file"),
        human::counted(totals.calls, "call"),
        human::number(totals.failed),
        human::counted(totals.unread, "record")
    );
    let period = report.period.map_or_else(
        || "unknown: no record has a time".to_owned(),
        |period| {
            format!("{} to {}, counted as {:.1} days", human::time(period.first), human::time(period.last), period.days)
        },
    );
    let tokens = format!(
        "{} in ({} cached), {} out",
        human::number(totals.input_tokens),
        human::number(totals.cached_tokens),
        human::number(totals.output_tokens)
    );
    let spend = match totals.spend_usd {
        Some(usd) => {
            format!("{} for {} with a known price", human::dollars(usd), human::counted(totals.priced, "call"))
        }
        None => "unknown: no call has a known price".to_owned(),
    };
    let share = savings.could_wait_share.map_or_else(
        || "unknown".to_owned(),
        |share| {
            let (could, perhaps) = (human::dollars(savings.could_wait_usd), human::dollars(savings.perhaps_usd));
            format!("{:.0} % of the live spend: {could}; perhaps another {perhaps}", share * 100.0)
        },
    );
    let saved = match (savings.per_day_usd, savings.per_month_usd, savings.per_year_usd) {
        (Some(day), Some(month), Some(year)) => {
            format!("{} a day, {} a month, {} a year", human::dollars(day), human::dollars(month), human::dollars(year))
        }
        _ => format!("{} in these logs", human::dollars(savings.saved_usd)),
    };
    let rows = [
        ("Read", read),
        ("Period", period),
        ("Tokens", tokens),
        ("Spend", spend),
        ("Could wait", share),
        ("Would save", saved),
        ("Prices", format!("charged where logged, else the list of {}", report.prices_as_of)),
    ];
    rows.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn money(amount: Option<f64>) -> Cell {
    Cell::new(amount.map_or_else(|| "-".to_owned(), human::dollars))
}

fn models(report: &Report) -> Table {
    let mut table = Table::new(&[
        ("MODEL", Side::Left),
        ("CALLS", Side::Right),
        ("PRICED", Side::Right),
        ("SPEND", Side::Right),
        ("ALL IN BATCHES SAVES", Side::Right),
    ]);
    for model in report.models.iter().take(ROWS) {
        table.row([
            Cell::new(model.model.as_deref().unwrap_or("-")),
            Cell::new(human::number(model.calls)),
            Cell::new(human::number(model.priced)),
            money(model.spend_usd),
            money(model.batch_would_save_usd),
        ]);
    }
    table
}

fn groups(report: &Report) -> Table {
    let mut table = Table::new(&[
        ("GROUP", Side::Left),
        ("MODEL", Side::Left),
        ("CALLS", Side::Right),
        ("PER DAY", Side::Right),
        ("COULD WAIT", Side::Left),
        ("SAVES", Side::Right),
        ("VERDICT", Side::Left),
    ]);
    for group in report.groups.iter().take(ROWS) {
        let label = match group.kind {
            Some(kind) => format!("{kind} {}", group.label),
            None if group.label.is_empty() => "(unnamed)".to_owned(),
            None => group.label.clone(),
        };
        table.row([
            Cell::new(label),
            Cell::new(group.model.as_deref().unwrap_or("-")),
            Cell::new(human::number(group.calls)),
            money(group.spend_usd_per_day),
            Cell::new(group.could_wait.as_str()),
            money(group.would_save_usd),
            Cell::new(group.verdict),
        ]);
    }
    table
}

fn problems(report: &Report) -> Table {
    let mut table = Table::new(&[
        ("NOTED", Side::Left),
        ("COUNT", Side::Right),
        ("MEANING", Side::Left),
        ("FIRST SEEN AT", Side::Left),
    ]);
    for problem in &report.problems {
        table.row([
            Cell::new(problem.kind),
            Cell::new(human::number(problem.count)),
            Cell::new(problem.meaning),
            Cell::new(problem.samples.join(", ")),
        ]);
    }
    table
}
