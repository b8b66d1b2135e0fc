//! The durable store: one SQLite file in the data directory.
//!
//! Invariants:
//! - One thread writes ([`writer`]); callers compress and seal in their own task, put the operation in line, and are answered
//!   after the commit. A caller that gives up does not take its change back.
//! - Reads run on their own connections in blocking threads ([`pool`]) and see what was committed.
//! - Dropping the store without closing it loses nothing that was acknowledged: the log is read at the next start.
//!
//! Built by [`super::open`]; used through the [`Store`] trait only.

mod batches;
mod callbacks;
mod changes;
mod checkpoint;
mod crowd;
mod errors;
mod expire;
mod flights;
mod lanes;
mod ledger;
mod pool;
mod queue;
mod reads;
mod rows;
mod schema;
mod services;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::domain::lane::Fingerprint;
use crate::store::StoreError;
use crate::store::files::DataDir;
use crate::store::keys::{self, Keys};
use crate::store::observer::SharedObserver;
use crate::store::sqlite::checkpoint::Checkpointer;
use crate::store::sqlite::crowd::Crowd;
use crate::store::sqlite::errors::unreadable;
use crate::store::sqlite::lanes::{Interned, Lanes};
use crate::store::sqlite::pool::Readers;
use crate::store::sqlite::queue::{Call, Queue};
use crate::store::sqlite::writer::{Counts, LOG_CAP_BYTES, Session, Writer};

/// The name of the database in the data directory.
const DATABASE: &str = "nightbus.db";
const KEY_FILE: &str = "key";
/// For tests: each sync takes so many milliseconds longer.
const SYNC_DELAY: &str = "NIGHTBUS_TEST_SYNC_DELAY_MS";
/// Content above this is compressed and sealed in a blocking thread.
const SEAL_INLINE_BYTES: usize = 64 << 10;

/// The store in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    path: PathBuf,
    keys: Arc<Keys>,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    lanes: Arc<Lanes>,
    counts: Arc<Counts>,
    /// What was saved, so that saving it again costs nothing: a fingerprint of each credential's headers.
    saved_accounts: Mutex<HashMap<(Fingerprint, String), Fingerprint>>,
    /// Who is being accepted now.
    accepting: Crowd,
    ended: watch::Receiver<bool>,
}

impl SqliteStore {
    /// Opens the database in `data_dir`; see [`super::open`].
    pub(crate) fn open(
        data_dir: &Path,
        master_key: Option<&SecretString>,
        observer: SharedObserver,
    ) -> Result<Self, StoreError> {
        let dir = DataDir::lock(data_dir)?;
        let path = dir.file(DATABASE);
        let has_data = std::fs::metadata(&path).is_ok_and(|file| file.len() > 0);
        let root = match master_key {
            Some(master) => keys::root_of_master_key(master)?,
            None => keys::root_of_file(&dir.file(KEY_FILE), has_data)?,
        };
        let keys = Arc::new(Keys::derive(&root)?);
        let mut connection = schema::open_writer(&path, &keys)?;
        let counts = Arc::new(Counts::default());
        counts.add(&reads::counts(&connection).map_err(|error| unreadable(&error))?);
        let log_pages = watch_log(&mut connection)?;
        let queue = Arc::new(Queue::default());
        let writer = Writer {
            connection,
            queue: Arc::clone(&queue),
            counts: Arc::clone(&counts),
            checkpointer: Checkpointer::start(&path, Arc::clone(&observer))?,
            observer,
            log_pages,
            sync_delay: sync_delay(),
            interned: Interned::default(),
            last_result: None,
            log_limit: LOG_CAP_BYTES,
        };
        let ended = start(writer, dir)?;
        Ok(Self {
            readers: Arc::new(Readers::new(path.clone())),
            path,
            keys,
            queue,
            lanes: Arc::default(),
            counts,
            saved_accounts: Mutex::default(),
            accepting: Crowd::default(),
            ended,
        })
    }

    /// Has the writer make a change, and waits for its commit.
    async fn change<T: Send + 'static>(
        &self,
        rows: usize,
        bytes: usize,
        change: impl FnMut(&mut Session<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (call, answer) = Call::new(rows, bytes, change);
        self.queue.push(Box::new(call))?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Reads something that needs neither key nor lanes.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(move |connection| read(connection).map_err(|error| unreadable(&error))).await
    }

    /// Runs `action` with the keys here, or in a blocking thread when it works on many bytes.
    async fn sealing<T: Send + 'static>(
        &self,
        bytes: usize,
        action: impl FnOnce(&Keys) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if bytes <= SEAL_INLINE_BYTES {
            return action(&self.keys);
        }
        let keys = Arc::clone(&self.keys);
        let sealed = tokio::task::spawn_blocking(move || action(&keys));
        sealed.await.unwrap_or_else(|error| Err(StoreError::Unwritable(format!("sealing did not end: {error}"))))
    }

    /// Bytes of the database and its log.
    fn bytes_on_disk(&self) -> u64 {
        let log = self.path.with_extension("db-wal");
        [&self.path, &log].into_iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer's thread does what is in line, closes the file and ends.
        self.queue.close();
    }
}

/// Keeps count of the pages in the log.
fn watch_log(connection: &mut Connection) -> Result<Arc<AtomicU64>, StoreError> {
    let log_pages = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&log_pages);
    connection
        .wal_hook(Some(move |_log: &mut rusqlite::hooks::Wal, pages| {
            counted.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(|error| unreadable(&error))?;
    Ok(log_pages)
}

/// Starts the writer's thread, which holds the data directory until its end.
fn start(mut writer: Writer, dir: DataDir) -> Result<watch::Receiver<bool>, StoreError> {
    /// Whatever ends the thread, nobody waits for it in vain.
    struct Guard(Arc<Queue>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.abandon();
        }
    }
    let (end, ended) = watch::channel(false);
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || {
            crate::threads::step_back(crate::threads::StepsBack::Writer);
            let guard = Guard(Arc::clone(&writer.queue));
            writer.run();
            drop(guard);
            writer.close();
            drop(dir);
            end.send_replace(true);
        })
        .map_err(|error| StoreError::Unwritable(format!("no thread for the store: {error}")))?;
    Ok(ended)
}

fn sync_delay() -> Option<Duration> {
    let delay = std::env::var(SYNC_DELAY).ok()?.parse().ok().map(Duration::from_millis)?;
    tracing::warn!(?delay, "{SYNC_DELAY} is set: every commit is slowed down");
    Some(delay)
}
