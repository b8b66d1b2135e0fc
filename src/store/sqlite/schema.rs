//! Opens the database file: settings, migrations, and the proof that the key fits.
//!
//! Invariants: the schema's number is `user_version`; a file that is not ours, newer, damaged, or sealed with another key is
//! refused before anything is written to it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::store::StoreError;
use crate::store::files;
use crate::store::keys::Keys;
use crate::store::seal::Kind;
use crate::store::sqlite::errors::{unreadable, unwritable};

/// Bytes in a page: large enough that a compressed body of a few kilobytes needs no overflow chain.
pub(super) const PAGE_BYTES: u64 = 8_192;

/// `NBUS`: marks the file as ours (`file(1)` shows it, too).
const APPLICATION_ID: i32 = 0x4e42_5553;
/// One after the other; a released one is never changed.
const MIGRATIONS: [&str; 9] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002_services.sql"),
    include_str!("migrations/0003_ledger.sql"),
    include_str!("migrations/0004_flights.sql"),
    include_str!("migrations/0005_callbacks.sql"),
    include_str!("migrations/0006_shared_prefix.sql"),
    include_str!("migrations/0007_ceilings.sql"),
    include_str!("migrations/0008_traces.sql"),
    include_str!("migrations/0009_background.sql"),
];
/// Statements that each connection keeps compiled.
const STATEMENTS: usize = 48;
/// How long a checkpoint waits for readers, and a reader for recovery.
const BUSY: Duration = Duration::from_secs(5);

const CHECK_KEY: &str = "key_check";
const CHECK_OWNER: [u8; 16] = [0; 16];
const CHECK_TEXT: &[u8] = b"this key opens this database";

/// Opens the connection that writes, and brings the file to the current schema.
pub(super) fn open_writer(path: &Path, keys: &Keys) -> Result<Connection, StoreError> {
    if !path.exists() {
        // SQLite gives the log and the shared memory the mode of this file.
        files::create_private(path)
            .and_then(|file| file.sync_all())
            .and_then(|()| files::sync_parent(path))
            .map_err(|error| StoreError::Unwritable(format!("cannot create {}: {error}", path.display())))?;
    }
    let named = |error: &rusqlite::Error| name_file(path, unreadable(error));
    let connection =
        Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE)).map_err(|e| named(&e))?;
    // A file that only may be read is opened all the same, and would fail with the first call.
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(|e| named(&e))? {
        return Err(StoreError::Unwritable(format!(
            "{} is read-only: let the user nightbus runs as write it (chown, chmod 600), or choose another data_dir",
            path.display()
        )));
    }
    let version = check_owner(path, &connection)?;
    connection
        .execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -3072;",
        )
        .map_err(|e| named(&e))?;
    settle(&connection).map_err(|e| named(&e))?;
    migrate(&connection, version, keys).map_err(|error| name_file(path, error))?;
    check_key(path, &connection, keys)?;
    Ok(connection)
}

/// Opens a connection that cannot write.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        connection.execute_batch("PRAGMA cache_size = -2048;")?;
        settle(&connection)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| unreadable(&error))
}

/// Opens the connection that copies the log into the database.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))?;
        connection.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -256;")?;
        settle(&connection)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| unreadable(&error))
}

fn flags(access: OpenFlags) -> OpenFlags {
    // Each connection is used by one thread at a time.
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
}

fn name_file(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Unreadable(text) => StoreError::Unreadable(format!(
            "{}: {text}; restore it from a backup, or move it away to start with an empty one",
            path.display()
        )),
        StoreError::Unwritable(text) => StoreError::Unwritable(format!("{}: {text}", path.display())),
        other @ (StoreError::Locked(_) | StoreError::Closed) => other,
    }
}

/// Whether the file is ours or empty, and which schema it has.
fn check_owner(path: &Path, connection: &Connection) -> Result<usize, StoreError> {
    let number = |sql| connection.query_row(sql, (), |row| row.get::<_, i64>(0));
    let read = || {
        Ok((
            number("PRAGMA application_id")?,
            number("PRAGMA user_version")?,
            number("SELECT count(*) FROM sqlite_schema")?,
        ))
    };
    let (application, version, objects) =
        read().map_err(|error: rusqlite::Error| name_file(path, unreadable(&error)))?;
    if application != i64::from(APPLICATION_ID) && (application, version, objects) != (0, 0, 0) {
        return Err(StoreError::Unreadable(format!(
            "{} belongs to another program: choose another data_dir",
            path.display()
        )));
    }
    usize::try_from(version).ok().filter(|version| *version <= MIGRATIONS.len()).ok_or_else(|| {
        StoreError::Unreadable(format!(
            "{} has schema {version}, but this nightbus knows only {}: start the newer nightbus that wrote it, or choose another data_dir",
            path.display(),
            MIGRATIONS.len()
        ))
    })
}

fn migrate(connection: &Connection, version: usize, keys: &Keys) -> Result<(), StoreError> {
    for (version, (number, sql)) in (1_i64..).zip(MIGRATIONS.iter().enumerate()).skip(version) {
        let sealed = keys.sealer.seal(Kind::Check, &CHECK_OWNER, CHECK_TEXT)?;
        let migrate_once = || {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute_batch(sql)?;
            if number == 0 {
                transaction.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", params![CHECK_KEY, sealed])?;
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            }
            transaction.pragma_update(None, "user_version", version)?;
            transaction.commit()
        };
        migrate_once().map_err(|error| unwritable(&error))?;
    }
    Ok(())
}

fn check_key(path: &Path, connection: &Connection, keys: &Keys) -> Result<(), StoreError> {
    let sealed: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", params![CHECK_KEY], |row| row.get(0))
        .optional()
        .map_err(|error| name_file(path, unreadable(&error)))?;
    let opened = keys.sealer.open(Kind::Check, &CHECK_OWNER, &sealed.unwrap_or_default());
    if opened.is_ok_and(|text| text == CHECK_TEXT) {
        return Ok(());
    }
    Err(StoreError::Unreadable(format!(
        "{} was sealed with another key: set NIGHTBUS_MASTER_KEY to the value it was created with, or, if it was created without one, unset it and put the original file `key` back",
        path.display()
    )))
}
