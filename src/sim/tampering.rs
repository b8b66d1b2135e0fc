//! What is done to one batch's result files: the faults that were armed when they were written.

use std::collections::HashMap;

use crate::sim::faults::{Fault, Faults};
use crate::sim::results::Layout;

/// Bytes of the fault `long-line`.
pub(super) const LONG_LINE: usize = 20_000_000;

/// Faults that befall one line each.
const OF_LINES: [Fault; 9] = [
    Fault::MissingLine,
    Fault::NullResponse,
    Fault::RequestTimeout,
    Fault::Line429,
    Fault::Line500,
    Fault::DuplicateLine,
    Fault::DuplicateDiffers,
    Fault::InvalidUtf8,
    Fault::LongLine,
];

/// The plan for one batch.
#[derive(Debug, Default)]
pub(super) struct Tampering {
    lines: HashMap<usize, Fault>,
    pub(super) layout: Layout,
    pub(super) unknown_id: bool,
    pub(super) half_last_line: bool,
    pub(super) empty_error_file: bool,
}

impl Tampering {
    /// Takes the armed faults for a batch of which `ran` lines run. Each line has one fault at most; faults for
    /// which there is no line stay armed.
    pub(super) fn draw(faults: &Faults, rng: &mut fastrand::Rng, ran: usize) -> Self {
        let mut lines = HashMap::new();
        for fault in OF_LINES {
            if lines.len() == ran || !faults.take(fault) {
                continue;
            }
            let mut at = rng.usize(..ran);
            while lines.contains_key(&at) {
                at = (at + 1) % ran;
            }
            lines.insert(at, fault);
        }
        let take = |fault| ran > 0 && faults.take(fault);
        Self {
            lines,
            layout: Layout { crlf: take(Fault::Crlf), blank_lines: take(Fault::BlankLines) },
            unknown_id: take(Fault::UnknownId),
            half_last_line: take(Fault::HalfLastLine),
            empty_error_file: take(Fault::EmptyErrorFile),
        }
    }

    /// What befalls the line that runs as number `at`.
    pub(super) fn of_line(&self, at: usize) -> Option<Fault> {
        self.lines.get(&at).copied()
    }
}
