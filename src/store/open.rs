//! Opens the store that the configuration asks for. Called once, by `app`, and by tests.

use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;

use crate::config::StoreKind;
use crate::store::memory::MemoryStore;
use crate::store::observer::SharedObserver;
use crate::store::sqlite::SqliteStore;
use crate::store::{SharedStore, StoreError};

/// Opens the store of `kind` in `data_dir`, which is made when it is not there.
///
/// `master_key` is the value of `NIGHTBUS_MASTER_KEY`; without it the key is the file `key` in `data_dir`, made at first use.
/// The memory store touches neither. Blocks while it reads and repairs: call it before serving.
///
/// # Errors
/// [`StoreError::Locked`] when another process has the directory; [`StoreError::Unreadable`] for a wrong key, a damaged
/// database or one of a newer version; [`StoreError::Unwritable`] when files cannot be made.
pub fn open(
    kind: StoreKind,
    data_dir: &Path,
    master_key: Option<&SecretString>,
    observer: SharedObserver,
) -> Result<SharedStore, StoreError> {
    match kind {
        StoreKind::Memory => Ok(Arc::new(MemoryStore::new(master_key)?)),
        StoreKind::Sqlite => Ok(Arc::new(SqliteStore::open(data_dir, master_key, observer)?)),
    }
}

/// An empty store in memory.
///
/// # Errors
/// Only where the system gives no random numbers.
pub fn in_memory() -> Result<SharedStore, StoreError> {
    Ok(Arc::new(MemoryStore::new(None)?))
}
