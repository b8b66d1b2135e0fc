//! The one place that writes to the terminal: data to standard output, everything said beside it to standard error.
//!
//! Colours and widths depend on what standard output is: a terminal gets colours (unless `NO_COLOR` is set, or it is dumb) and tables
//! that fit; a pipe gets plain and whole lines. Called by every command.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use super::table::Table;

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    colours: bool,
    width: Option<usize>,
}

impl Output {
    /// For this process's standard output.
    pub(super) fn detect() -> Self {
        let terminal = is_terminal();
        let width = terminal
            .then(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
            .flatten()
            .filter(|width| *width > 0);
        Self { colours: terminal && may_colour(), width }
    }

    /// Whether text may have colours.
    pub(super) const fn colours(self) -> bool {
        self.colours
    }

    /// A table that fits the terminal.
    pub(super) fn table(self, table: &Table) -> io::Result<()> {
        text(&table.render(self.width, self.colours))
    }

    /// Two columns, names and values, without a header.
    pub(super) fn pairs(self, pairs: &[(String, String)]) -> io::Result<()> {
        text(&super::table::pairs(pairs, self.colours))
    }
}

/// One line.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn line(line: &str) -> io::Result<()> {
    text(&format!("{line}\n"))
}

/// The API's JSON, indented.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn json(value: &Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}

/// Text as it is, on standard output.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn text(text: &str) -> io::Result<()> {
    bytes(text.as_bytes())
}

/// Text that is not looked at, as it is.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Something that is not data, on standard error. When even that cannot be written there is nothing left to do.
pub(super) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// A mistake or a failure, on standard error.
pub(super) fn error(text: &str) {
    let mut err = io::stderr().lock();
    let coloured = err.is_terminal() && may_colour();
    let label = if coloured { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    drop(writeln!(err, "{label} {text}"));
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether progress may be drawn over itself.
pub(super) fn can_redraw() -> bool {
    io::stderr().is_terminal() && can_move()
}

/// Whether the terminal, if there is one, understands more than lines: one that calls itself dumb, or nothing at all, does not.
pub(super) fn can_move() -> bool {
    std::env::var("TERM").is_ok_and(|name| !matches!(name.as_str(), "" | "dumb"))
}

/// Whether a terminal may get colours.
fn may_colour() -> bool {
    can_move() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
