//! Reading connections: a few, opened when needed, each used by one blocking thread at a time.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::store::StoreError;
use crate::store::sqlite::schema;

/// More would only wait for each other: reads are short, and the machine is small.
const CONNECTIONS: usize = 4;

/// The reading connections.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// A pool for the database at `path`. Opens nothing yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// Runs `action` on a connection, in a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        action: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().pop();
            let connection = idle.map_or_else(|| schema::open_reader(&readers.path), Ok)?;
            let answer = action(&connection);
            readers.idle.lock().push(connection);
            drop(permit);
            answer
        });
        read.await.unwrap_or_else(|error| Err(StoreError::Unreadable(format!("a read did not end: {error}"))))
    }

    /// Lets running reads end, then refuses new ones and closes the connections.
    pub(super) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let running = self.permits.acquire_many(all).await;
        self.permits.close();
        drop(running);
        self.idle.lock().clear();
    }
}
