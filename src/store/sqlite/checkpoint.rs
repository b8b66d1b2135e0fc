//! Copies the log into the database off the commit path, in its own thread with its own connection.
//!
//! `PASSIVE` copies without disturbing anybody. Under constant load it never reaches the end of the log, so the writer ends
//! the log itself above a cap (see [`super::writer`]).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::store::StoreError;
use crate::store::observer::SharedObserver;
use crate::store::sqlite::schema::{self, PAGE_BYTES};

/// Copies begin when so much of the log is not in the database yet.
const COPY_BYTES: u64 = 8 << 20;

/// The writer's handle to the thread.
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    copied: Arc<AtomicU64>,
    /// Pages in the log as last told.
    pages: u64,
}

impl Checkpointer {
    /// Starts the thread for the database at `path`.
    pub(super) fn start(path: &Path, observer: SharedObserver) -> Result<Self, StoreError> {
        let connection = schema::open_checkpointer(path)?;
        let copied = Arc::new(AtomicU64::new(0));
        // One waiting wake-up is enough: it will see all that came meanwhile.
        let (wake, woken) = sync_channel(1);
        let progress = Arc::clone(&copied);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                crate::threads::step_back(crate::threads::StepsBack::Background);
                run(&connection, &woken, &progress, &observer);
            })
            .map_err(|error| StoreError::Unwritable(format!("no thread for the store: {error}")))?;
        Ok(Self { wake, thread, copied, pages: 0 })
    }

    /// Tells how many pages the log has after a commit.
    pub(super) fn log_has(&mut self, pages: u64) {
        if pages < self.pages || pages < self.copied.load(Ordering::Relaxed) {
            self.copied.store(0, Ordering::Relaxed);
        }
        self.pages = pages;
        if pages.saturating_sub(self.copied.load(Ordering::Relaxed)).saturating_mul(PAGE_BYTES) >= COPY_BYTES {
            self.wake();
        }
    }

    /// The writer ended the log: what follows begins at its start.
    pub(super) fn log_restarted(&mut self) {
        self.pages = 0;
        self.copied.store(0, Ordering::Relaxed);
    }

    /// Copies whatever is there.
    pub(super) fn flush(&self) {
        if self.pages > self.copied.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("the checkpoint thread panicked");
        }
    }

    fn wake(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::error!("the checkpoint thread is gone"),
        }
    }
}

fn run(connection: &Connection, woken: &Receiver<()>, copied: &AtomicU64, observer: &SharedObserver) {
    while woken.recv().is_ok() {
        let passed = connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        match passed {
            Ok((pages, done)) => {
                copied.store(u64::try_from(done).unwrap_or(0), Ordering::Relaxed);
                observer.checkpoint(u64::try_from(pages).unwrap_or(0).saturating_mul(PAGE_BYTES));
            }
            Err(error) => tracing::warn!(%error, "the log could not be copied into the database; it is tried again"),
        }
    }
}
