//! What the store tells of its own work, so that telemetry can count without the store knowing any metrics.
//!
//! Called from the store's own threads, a few thousand times a second at most: implementations must return at once.

use std::fmt;
use std::sync::Arc;

/// Hears of commits and checkpoints.
pub trait CommitObserver: Send + Sync + fmt::Debug {
    /// A transaction that held `rows` rows is durable; it took `seconds` from its first row to the end of the sync.
    fn commit(&self, rows: usize, seconds: f64) {
        let _unused = (rows, seconds);
    }

    /// The write-ahead log was copied into the database when it held `wal_bytes` bytes.
    fn checkpoint(&self, wal_bytes: u64) {
        let _unused = wal_bytes;
    }
}

/// An observer that is shared by the store's threads.
pub type SharedObserver = Arc<dyn CommitObserver>;

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl CommitObserver for NoObserver {}

/// The observer for those who do not care.
pub fn no_observer() -> SharedObserver {
    Arc::new(NoObserver)
}
