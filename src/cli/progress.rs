//! How far a long command is: a bar on a terminal, a line every few seconds elsewhere. On standard error, so that
//! standard output stays data.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::output::{can_redraw, note};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(2);

/// Progress towards a known end.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    bar: Option<ProgressBar>,
    told_at: Instant,
    started: Instant,
}

impl Progress {
    /// At zero of `total`.
    pub(super) fn new(total: u64) -> Self {
        let style = ProgressStyle::with_template("{spinner:.cyan} {bar:32.cyan/dim} {pos}/{len}  {elapsed}  {msg}");
        let bar = can_redraw().then(|| {
            let bar = ProgressBar::new(total);
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("━━╌"));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        Self { total, bar, told_at: now, started: now }
    }

    /// Now at `done`; `state` in a few words.
    pub(super) fn show(&mut self, done: u64, state: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(state.to_owned());
        } else if self.told_at.elapsed() >= EVERY {
            self.told_at = Instant::now();
            note(&format!("{:>4} s  {done} of {} answered  {state}", self.started.elapsed().as_secs(), self.total));
        }
    }

    /// At the end; the bar disappears.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
