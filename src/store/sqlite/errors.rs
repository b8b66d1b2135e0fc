//! What SQLite's errors mean to the store's callers.

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;

/// An error while writing: the disk's, unless the file itself is damaged.
pub(super) fn unwritable(error: &Error) -> StoreError {
    if is_damage(error) { StoreError::Unreadable(error.to_string()) } else { StoreError::Unwritable(describe(error)) }
}

/// An error while reading.
pub(super) fn unreadable(error: &Error) -> StoreError {
    StoreError::Unreadable(describe(error))
}

fn is_damage(error: &Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
        // Not SQLite's own: a value that cannot be what we stored.
        None => true,
    }
}

fn describe(error: &Error) -> String {
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        return "the disk is full".to_owned();
    }
    error.to_string()
}
