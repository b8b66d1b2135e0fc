//! The one thread that writes: group commit.
//!
//! It takes everything that is in line, applies it in one transaction, and answers the callers after the commit. So the
//! disk's sync is shared by all who came while the last one ran, and a lone caller pays exactly one.
//! When a group fails, each of its operations is tried alone: one that cannot be written does not fail the others.
//!
//! Invariant: no caller is told `Ok` before `COMMIT` returned under `synchronous = FULL`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::domain::lane::LaneKey;
use crate::domain::request::RequestState;
use crate::store::StoreError;
use crate::store::observer::SharedObserver;
use crate::store::sqlite::checkpoint::Checkpointer;
use crate::store::sqlite::errors::unwritable;
use crate::store::sqlite::lanes::Interned;
use crate::store::sqlite::queue::{Group, Next, Operation, Queue};
use crate::store::sqlite::rows::request_state_code;
use crate::store::sqlite::schema::PAGE_BYTES;

/// After so long without work the caches are given back.
const IDLE: Duration = Duration::from_secs(5);
/// Above this the writer empties the log itself: the background copy alone never ends it under constant load.
pub(super) const LOG_CAP_BYTES: u64 = 64 << 20;
/// When a reader is in the way, it is tried again after so many more bytes.
const LOG_RETRY_BYTES: u64 = 8 << 20;
/// So long the writer waits for that reader: callers wait with it.
const READER_PATIENCE: Duration = Duration::from_millis(20);
/// At close there is more time.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Requests by state, kept up to date with each commit.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicI64; 5]);

impl Counts {
    /// Adds to the count of each state.
    pub(super) fn add(&self, delta: &[i64; 5]) {
        for (count, delta) in self.0.iter().zip(delta) {
            if *delta != 0 {
                count.fetch_add(*delta, Ordering::Relaxed);
            }
        }
    }

    /// In the order of [`RequestState::ALL`].
    pub(super) fn get(&self) -> [u64; 5] {
        self.0.each_ref().map(|count| u64::try_from(count.load(Ordering::Relaxed)).unwrap_or(0))
    }
}

/// What an operation works with: one transaction.
pub(super) struct Session<'a> {
    /// The writing connection, inside a transaction.
    pub(super) connection: &'a Connection,
    interned: &'a mut Interned,
    last_result: &'a mut Option<i64>,
    delta: [i64; 5],
}

impl Session<'_> {
    /// The number of a lane.
    pub(super) fn lane_number(&mut self, lane: &Arc<LaneKey>) -> rusqlite::Result<i64> {
        self.interned.number(self.connection, lane)
    }

    /// Some lanes are gone: their numbers must not be used any more.
    pub(super) fn forget_lanes(&mut self) {
        self.interned.forget();
    }

    /// The next free number of a result.
    pub(super) fn next_result(&mut self) -> rusqlite::Result<i64> {
        let last = match *self.last_result {
            Some(last) => last,
            None => self.connection.query_row("SELECT coalesce(max(num), 0) FROM results", (), |row| row.get(0))?,
        };
        *self.last_result = Some(last.saturating_add(1));
        Ok(last.saturating_add(1))
    }

    /// Counts a request's way from one state to another; none: from or into nothing.
    pub(super) fn count(&mut self, from: Option<RequestState>, to: Option<RequestState>) {
        for (state, delta) in [(from, -1), (to, 1)] {
            let slot = state.and_then(|state| usize::try_from(request_state_code(state)).ok());
            if let Some(count) = slot.and_then(|slot| self.delta.get_mut(slot)) {
                *count += delta;
            }
        }
    }
}

/// The writer's own state, moved into its thread.
pub(super) struct Writer {
    /// The only connection that writes.
    pub(super) connection: Connection,
    /// Where operations come from.
    pub(super) queue: Arc<Queue>,
    /// Shared with the store's front.
    pub(super) counts: Arc<Counts>,
    /// Hears of commits.
    pub(super) observer: SharedObserver,
    /// Copies the log in the background.
    pub(super) checkpointer: Checkpointer,
    /// Pages in the log after the last commit.
    pub(super) log_pages: Arc<AtomicU64>,
    /// For tests: sleeps so long after each commit, as a slower disk would.
    pub(super) sync_delay: Option<Duration>,
    /// Numbers of lanes.
    pub(super) interned: Interned,
    /// The last number of a result, once known.
    pub(super) last_result: Option<i64>,
    /// The log is emptied above so many bytes.
    pub(super) log_limit: u64,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(&mut self) {
        if let Err(error) = self.connection.busy_timeout(READER_PATIENCE) {
            tracing::warn!(%error, "the writer's patience with readers cannot be set");
        }
        let mut rested = true;
        loop {
            match self.queue.next((!rested).then_some(IDLE)) {
                Next::Group(group) => {
                    self.commit(group);
                    self.tend_log();
                    rested = false;
                }
                Next::Idle => {
                    self.rest();
                    rested = true;
                }
                Next::End => return,
            }
        }
    }

    /// Empties the log into the database and closes the connections.
    pub(super) fn close(self) {
        self.checkpointer.stop();
        let emptied = self
            .connection
            .busy_timeout(CLOSE_PATIENCE)
            .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_row| Ok(())));
        if let Err(error) = emptied {
            tracing::warn!(%error, "the log was not emptied at close: it is read at the next start");
        }
        if let Err((_connection, error)) = self.connection.close() {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }

    fn commit(&mut self, mut group: Group) {
        match self.transact(&mut group.operations, group.rows) {
            Ok(()) => settle(group.operations, &Ok(())),
            Err(error) if group.operations.len() == 1 => settle(group.operations, &Err(error)),
            Err(error) => {
                tracing::warn!(%error, operations = group.operations.len(), "a group was rolled back; trying each alone");
                for operation in group.operations {
                    let rows = operation.weight().0;
                    let mut alone = vec![operation];
                    let committed = self.transact(&mut alone, rows);
                    settle(alone, &committed);
                }
            }
        }
    }

    fn transact(&mut self, operations: &mut [Box<dyn Operation>], rows: usize) -> Result<(), StoreError> {
        let started = Instant::now();
        let mut session = Session {
            connection: &self.connection,
            interned: &mut self.interned,
            last_result: &mut self.last_result,
            delta: [0; 5],
        };
        match apply(&mut session, operations) {
            Ok(()) => {
                self.counts.add(&session.delta);
                if let Some(delay) = self.sync_delay {
                    std::thread::sleep(delay);
                }
                self.observer.commit(rows, started.elapsed().as_secs_f64());
                Ok(())
            }
            Err(error) => {
                self.interned.forget();
                self.last_result = None;
                // Some errors have rolled back already.
                if !self.connection.is_autocommit()
                    && let Err(error) = self.connection.execute_batch("ROLLBACK")
                {
                    tracing::error!(%error, "a transaction could not be rolled back");
                }
                Err(unwritable(&error))
            }
        }
    }

    /// Has the log copied when it has grown, and ends it when it is too long.
    fn tend_log(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        self.checkpointer.log_has(pages);
        let bytes = pages.saturating_mul(PAGE_BYTES);
        if bytes <= self.log_limit {
            return;
        }
        self.log_limit = LOG_CAP_BYTES;
        let restarted = self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", (), |row| row.get::<_, i64>(0));
        match restarted {
            Ok(0) => {
                self.observer.checkpoint(bytes);
                self.log_pages.store(0, Ordering::Relaxed);
                self.checkpointer.log_restarted();
            }
            Ok(_busy) => self.log_limit = bytes.saturating_add(LOG_RETRY_BYTES),
            Err(error) => tracing::warn!(%error, "the log cannot be copied into the database"),
        }
    }

    fn rest(&mut self) {
        self.checkpointer.flush();
        if let Err(error) = self.connection.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "memory was not given back");
        }
    }
}

fn apply(session: &mut Session<'_>, operations: &mut [Box<dyn Operation>]) -> rusqlite::Result<()> {
    session.connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    for operation in operations {
        operation.apply(session)?;
    }
    session.connection.prepare_cached("COMMIT")?.execute(())?;
    Ok(())
}

fn settle(operations: Vec<Box<dyn Operation>>, committed: &Result<(), StoreError>) {
    for operation in operations {
        operation.settle(committed.clone());
    }
}
