//! The two passes of a run: every call is handed in, then every answer is fetched, both in the file's order with a bounded
//! number at once.
//!
//! Nothing between them has to be kept: a run that died hands its calls in again, under the same keys, and finds them.

use std::time::Duration;

use anyhow::{anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::MissedTickBehavior;

use super::again::Rows;
use super::desk::{Desk, HandedIn};
use super::input::{Input, Item, Row};
use super::journal::{Journal, Plan};
use crate::cli::human;
use crate::cli::progress::Progress;
use crate::domain::clock::{Clock as _, SystemClock};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One run, from wherever an earlier one left it.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) input: &'a Input,
    pub(super) plan: &'a Plan,
    pub(super) desk: &'a Desk,
    /// Calls on the way at once.
    pub(super) at_once: usize,
    /// Submit without waiting for more: the lane is this run's alone.
    pub(super) flush: bool,
}

impl Work<'_> {
    /// Hands in the first call that has no answer yet, alone: what is wrong with it is likely wrong with all.
    ///
    /// # Errors
    /// See [`Desk::hand_in`].
    pub(super) async fn first(&self, journal: &Journal) -> anyhow::Result<()> {
        if let Some(row) = self.open(journal)?.1 {
            self.hand_in(row).await?;
        }
        Ok(())
    }

    /// Both passes.
    ///
    /// # Errors
    /// What ends the run before its end; it may be run again.
    pub(super) async fn all(&self, journal: &mut Journal) -> anyhow::Result<()> {
        let (mut items, first) = self.open(journal)?;
        let rows = stream::iter(first.into_iter().map(Ok).chain(items.by_ref()));
        let handing_in = rows.map(|row| async { self.hand_in(row?).await }).buffered(self.at_once);
        let mut tickets = Vec::new();
        let done = journal.done();
        self.follow(
            handing_in,
            done,
            || "handed in".to_owned(),
            |ticket| {
                tickets.push(ticket);
                Ok(())
            },
        )
        .await?;
        self.is_same(&items)?;
        if self.flush {
            self.desk.flush().await?;
        }
        let (mut items, first) = self.open(journal)?;
        let rows = stream::iter(first.into_iter().map(Ok).chain(items.by_ref()).zip(tickets));
        let fetching = rows.map(|(row, ticket)| async { self.fetch(row?, ticket).await }).buffered(self.at_once);
        let state = || format!("answered, {}", eta(self.desk.expected(), SystemClock.now().unix_seconds()));
        self.follow(fetching, done, state, |(went_well, line)| Ok(journal.append(went_well, &line)?)).await?;
        self.is_same(&items)?;
        if journal.done() == self.plan.lines {
            Ok(())
        } else {
            bail!("the file has fewer lines than when it was begun")
        }
    }

    /// The lines without an answer: the first of them, and the rest.
    fn open(&self, journal: &Journal) -> anyhow::Result<(Rows, Option<Row>)> {
        let mut items = Rows::open(self.input, journal.wanted(self.plan)?)?;
        for _answered in 0..journal.done() {
            items.next().transpose()?;
        }
        let first = items.next().transpose()?;
        Ok((items, first))
    }

    fn is_same(&self, items: &Rows) -> anyhow::Result<()> {
        if items.digest() == self.plan.digest { Ok(()) } else { Err(changed()) }
    }

    async fn hand_in(&self, row: Row) -> anyhow::Result<HandedIn> {
        let item = sound(row)?;
        self.desk.hand_in(&item.body, &self.key_of(&item)).await
    }

    async fn fetch(&self, row: Row, ticket: HandedIn) -> anyhow::Result<(bool, Vec<u8>)> {
        let item = sound(row)?;
        let ended = match ticket {
            HandedIn::Accepted(id) => self.desk.fetch(id).await?,
            HandedIn::Refused(ended) => *ended,
        };
        Ok((ended.went_well(), ended.line(item.endpoint, &item.custom_id)))
    }

    /// The same file, the same line, the same key: whichever process asks.
    fn key_of(&self, item: &Item) -> String {
        let Plan { digest: file, endpoint, attempt, retry, .. } = self.plan;
        let retry = retry.as_ref().map(|word| format!(" {word}")).unwrap_or_default();
        let hash = digest(&SHA256, format!("{file} {endpoint} {attempt} {}{retry}", item.line).as_bytes());
        let hex = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}"));
        hex.fold("run-".to_owned(), |key, byte| key + &byte)
    }

    /// Takes what a stream yields, one by one, and shows how far it is.
    async fn follow<T>(
        &self,
        stream: impl Stream<Item = anyhow::Result<T>>,
        mut done: u64,
        state: impl Fn() -> String,
        mut take: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut stream = Box::pin(stream);
        let mut progress = Progress::of_lines(self.plan.lines, done);
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                next = stream.next() => match next {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(next)) => match take(next) {
                        Ok(()) => done += 1,
                        Err(error) => break Err(error),
                    },
                },
                _ = tick.tick() => progress.show(done, &state()),
            }
        };
        progress.finish();
        outcome
    }
}

/// What is said of the time that is left: what nightbus has learned of other batches, since answers come in heaps and a rate says
/// nothing.
fn eta(expected: Option<i64>, now: i64) -> String {
    match expected.map(|at| at.saturating_sub(now)) {
        None => "ETA not known yet".to_owned(),
        Some(left) if left <= 0 => "ETA any moment".to_owned(),
        Some(left) => format!("ETA {}", human::age(left)),
    }
}

/// All lines were sound when they were checked.
fn sound(row: Row) -> anyhow::Result<Item> {
    row.map_err(|_fault| changed())
}

fn changed() -> anyhow::Error {
    anyhow!(
        "the file was changed while it was being run: put it back as it was, and run the same command again to go on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_what_was_learned_and_never_made_up() {
        assert_eq!(eta(None, 1_000), "ETA not known yet");
        assert_eq!(eta(Some(1_000), 1_000), "ETA any moment");
        assert_eq!((eta(Some(1_090), 1_000).as_str(), eta(Some(8_300), 1_000).as_str()), ("ETA 1m", "ETA 2h"));
    }
}
