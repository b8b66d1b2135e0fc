//! The terminal that `top` draws on: another screen than the shell's, keys one by one and unseen. Given back as it was
//! when [`Screen`] is dropped, however `top` ends short of `kill -9`.

use std::io::{self, IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::cli::output;

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// In the place of a key that does something: none does it.
#[cfg(target_os = "linux")]
const NO_KEY: u8 = 0;
#[cfg(not(target_os = "linux"))]
const NO_KEY: u8 = 0xff;
/// Reading waits for a key for so long, in tenths of a second.
const PATIENCE: u8 = 1;

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// q, Q.
    Quit,
    /// Anything else.
    Other,
}

/// A terminal that has been taken.
#[derive(Debug)]
pub(super) struct Screen {
    input: io::Stdin,
    before: Termios,
}

/// Whether there is one to draw on and to read keys from.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal() && output::is_terminal() && output::can_move()
}

/// Columns and rows, as they are now.
pub(super) fn size() -> (usize, usize) {
    terminal_size::terminal_size()
        .map(|(columns, rows)| (usize::from(columns.0), usize::from(rows.0)))
        // Some know no size of their own and say 0.
        .filter(|(columns, rows)| *columns > 0 && *rows > 0)
        .unwrap_or((80, 24))
}

/// Puts `lines` over what was there; for as long as a [`Screen`] lives.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn draw(lines: &[String]) -> io::Result<()> {
    // Each line to its end, and what is below: nothing of the last picture stays, and nothing flickers.
    output::text(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\n")))
}

impl Screen {
    /// Takes it.
    ///
    /// # Errors
    /// It cannot be set.
    pub(super) fn open() -> io::Result<Self> {
        let input = io::stdin();
        let before = tcgetattr(&input)?;
        let mut keys = before.clone();
        // ^C stays a signal.
        keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // ^Z would leave the shell on this screen and without an echo.
        keys.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
        keys.special_codes[SpecialCodeIndex::VMIN] = 0;
        keys.special_codes[SpecialCodeIndex::VTIME] = PATIENCE;
        tcsetattr(&input, OptionalActions::Now, &keys)?;
        let screen = Self { input, before };
        output::text(ENTER)?;
        Ok(screen)
    }

    /// Waits a moment for a key.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub(super) fn key(&self) -> io::Result<Option<Key>> {
        let mut keys = [0; 16];
        let read = match self.input.lock().read(&mut keys) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            read => read?,
        };
        let typed = keys.get(..read).unwrap_or_default();
        Ok(match typed {
            [] => None,
            typed if typed.iter().any(|key| matches!(key, b'q' | b'Q')) => Some(Key::Quit),
            _ => Some(Key::Other),
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(output::text(LEAVE));
        // A terminal that is gone needs nothing back.
        match tcsetattr(&self.input, OptionalActions::Now, &self.before) {
            Ok(()) | Err(_) => {}
        }
    }
}
