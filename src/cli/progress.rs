//! How far a long command is: a bar on a terminal, a line every few seconds elsewhere. On standard error, so that
//! standard output stays data.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::human;
use super::output::{can_redraw, note};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(2);

/// Progress towards a known end.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    unit: Unit,
    bar: Option<ProgressBar>,
    told_at: Instant,
    started: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Calls,
    Lines,
    Bytes,
}

impl Progress {
    /// At zero of `total` calls.
    pub(super) fn new(total: u64) -> Self {
        Self::start(total, Unit::Calls, "{spinner:.cyan} {bar:32.cyan/dim} {pos}/{len}  {elapsed}  {msg}")
    }

    /// At zero of `total` bytes of input.
    pub(super) fn of_bytes(total: u64) -> Self {
        let template = "{spinner:.cyan} {bar:32.cyan/dim} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}  {msg}";
        Self::start(total, Unit::Bytes, template)
    }

    /// For the lines of a file, of which `done` are done; what is done with them, and how long it will take, is said by `show`.
    pub(super) fn of_lines(total: u64, done: u64) -> Self {
        let progress =
            Self::start(total, Unit::Lines, "{spinner:.cyan} {bar:16.cyan/dim} {pos}/{len} {msg}  {elapsed}");
        if let Some(bar) = &progress.bar {
            bar.set_position(done);
        }
        progress
    }

    fn start(total: u64, unit: Unit, template: &str) -> Self {
        let style = ProgressStyle::with_template(template);
        let bar = can_redraw().then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("━━╌"));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Self { total, unit, bar, told_at: now, started: now }
    }

    /// Now at `done`; `state` in a few words.
    pub(super) fn show(&mut self, done: u64, state: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if bar.message() != state {
                bar.set_message(state.to_owned());
            }
        } else if self.told_at.elapsed() >= EVERY {
            self.told_at = Instant::now();
            let progress = match self.unit {
                Unit::Calls => format!("{done} of {} answered", self.total),
                Unit::Lines => format!("{done} of {} lines", self.total),
                Unit::Bytes => format!("{} of {} read", human::bytes(done), human::bytes(self.total)),
            };
            note(&format!("{:>4} s  {progress}  {state}", self.started.elapsed().as_secs()));
        }
    }

    /// At the end; the bar disappears.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
