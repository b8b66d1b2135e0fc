//! `nightbus audit`: raw logs in, a report out, before anything is changed.
//!
//! Bytes come from any reader ([`Auditor::read`]); nothing here opens a file, prints, or asks the network. The way of a
//! line: `input` unpacks and decodes, `split` finds where one record ends, `shape` and `formats` turn it into a
//! `Call`, `tally` adds it up, `verdict` judges groups, `report` is the result, `html` draws it.
//!
//! What cannot be read is counted with its reason and never ends the run; what a log does not say stays unknown and is
//! never filled in. Memory is bounded by limits on records, groups and hours, not by the size of the files. Used by
//! `cli` alone.

mod call;
mod chart;
mod formats;
mod html;
mod input;
mod lenient;
mod report;
mod shape;
mod split;
mod tally;
mod verdict;

pub use html::page;
pub use report::{Bucket, FileReport, GroupReport, ModelReport, Period, ProblemReport, Report, Savings, Totals};

use std::io::{self, Read};

use call::{Problem, Reading};
use formats::csv;
use split::{Item, Kind, Splitter};
use tally::Tally;

/// Reads logs, file after file, and reports on all of them.
#[derive(Debug, Default)]
pub struct Auditor {
    tally: Tally,
}

impl Auditor {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one file to its end; `name` is how the report calls it. A file that breaks off or is damaged is counted up
    /// to there.
    ///
    /// # Errors
    /// None of the content; only what the reader says when not a byte could be read.
    pub fn read<R: Read>(&mut self, name: &str, reader: R) -> io::Result<()> {
        self.tally.begin_file(name);
        let input = match input::open(reader)? {
            input::Opened::Text(input) => input,
            input::Opened::Unreadable(problem) => {
                self.tally.problem(problem, 0);
                return Ok(());
            }
        };
        let mut splitter = Splitter::new(input);
        let mut header = csv::Header::default();
        loop {
            match splitter.next() {
                Ok(Some(item)) => self.item(&item, &mut header),
                Ok(None) => break,
                Err(_broken) => {
                    self.tally.problem(Problem::BrokenFile, 0);
                    break;
                }
            }
        }
        Ok(())
    }

    /// What all files say together.
    pub fn finish(self) -> Report {
        report::build(self.tally)
    }

    fn item(&mut self, item: &Item<'_>, header: &mut csv::Header) {
        self.tally.saw_record();
        let bytes = match item.kind {
            Kind::TooLong => return self.tally.problem(Problem::TooLong, item.line),
            Kind::Record(bytes) => bytes.trim_ascii(),
            Kind::Row(bytes) => return self.reading(csv::read(bytes, header), item.line),
        };
        self.reading(formats::read(bytes), item.line);
    }

    fn reading(&mut self, reading: Reading, line: u64) {
        match reading {
            Reading::Call(call) => self.tally.add(&call, line),
            Reading::Skip(problem) => self.tally.problem(problem, line),
            Reading::Many(readings) => readings.into_iter().for_each(|reading| self.reading(reading, line)),
            Reading::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
