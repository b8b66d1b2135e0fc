//! Files (providers.md, section 1.2): what was uploaded, and what batches wrote.
//!
//! Bytes are held once and shared; nothing is copied when a file is read or downloaded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::body::Body;
use crate::sim::reply::{self, Failure, Outcome};
use crate::sim::server::Query;
use crate::sim::state::{Account, State};

/// Seconds that a file of purpose `batch` lives unless the upload said otherwise: 30 days.
pub(super) const DEFAULT_LIFETIME: i64 = 30 * 86_400;
/// Seconds that `expires_after` may ask for.
pub(super) const LIFETIMES: std::ops::RangeInclusive<i64> = 3_600..=2_592_000;

/// One file. Immutable.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) id: String,
    pub(super) account: Account,
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) created_at: i64,
    pub(super) expires_at: Option<i64>,
    /// The content, in pieces; an upload is one piece.
    pub(super) pieces: Vec<Bytes>,
    /// When it was uploaded; none: a batch wrote it.
    pub(super) uploaded: Option<Instant>,
    /// A batch is still writing it.
    pub(super) incomplete: bool,
}

impl StoredFile {
    /// Size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether a batch can be made of it: some providers look at files first, for a tenth of a batch's time.
    pub(super) fn is_settled(&self, state: &State) -> bool {
        let look = Duration::try_from_secs_f64(state.settings().batch_seconds / 10.0).unwrap_or_default();
        !self.account.dialect.rules().settles_files || self.uploaded.is_none_or(|at| at.elapsed() >= look)
    }

    fn json(&self, state: &State) -> Value {
        let status = if self.is_settled(state) { "processed" } else { "pending" };
        json!({
            "id": self.id, "object": "file", "bytes": self.len(), "created_at": self.created_at,
            "expires_at": self.expires_at, "filename": self.filename, "purpose": self.purpose,
            "status": status, "status_details": null,
        })
    }
}

/// All files.
#[derive(Debug, Default)]
pub(super) struct Files(RwLock<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    /// In order of creation.
    in_order: BTreeMap<u64, Arc<StoredFile>>,
    by_id: HashMap<String, u64>,
}

impl Files {
    /// Adds a file.
    pub(super) fn insert(&self, state: &State, file: StoredFile) -> Arc<StoredFile> {
        let file = Arc::new(file);
        let mut shelf = self.0.write();
        let number = state.ids.number();
        shelf.by_id.insert(file.id.clone(), number);
        shelf.in_order.insert(number, Arc::clone(&file));
        file
    }

    /// Whether one more input file of `account` may be there, with or without an expiry.
    pub(super) fn has_room(&self, account: &Account, expires: bool) -> bool {
        let Some((without, with)) = account.dialect.rules().most_files else { return true };
        let shelf = self.0.read();
        let own = shelf.in_order.values().filter(|file| file.account == *account && file.uploaded.is_some());
        own.filter(|file| expires || file.expires_at.is_none()).count() < if expires { with } else { without }
    }

    /// Puts `file` in the place of the one with its id.
    pub(super) fn replace(&self, file: StoredFile) {
        let mut shelf = self.0.write();
        if let Some(number) = shelf.by_id.get(&file.id).copied() {
            shelf.in_order.insert(number, Arc::new(file));
        }
    }

    /// The file `id`, if it belongs to `account` and has not expired.
    pub(super) fn get(&self, state: &State, account: &Account, id: &str) -> Option<Arc<StoredFile>> {
        let shelf = self.0.read();
        let file = shelf.in_order.get(shelf.by_id.get(id)?)?;
        is_visible(file, account, state.clock.unix_now()).then(|| Arc::clone(file))
    }

    /// How many files there are, and how many bytes they hold. Results that are no files to their owner are none.
    pub(super) fn totals(&self) -> (usize, u64) {
        let shelf = self.0.read();
        let own = |file: &&Arc<StoredFile>| file.uploaded.is_some() || file.account.dialect.rules().result_files;
        let files = || shelf.in_order.values().filter(own);
        (files().count(), files().map(|file| file.len()).sum())
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.0.write() = Shelf::default();
    }

    fn remove(&self, id: &str) {
        let mut shelf = self.0.write();
        if let Some(number) = shelf.by_id.remove(id) {
            shelf.in_order.remove(&number);
        }
    }

    fn newest_first(&self, account: &Account, now: i64) -> Vec<Arc<StoredFile>> {
        let shelf = self.0.read();
        shelf.in_order.values().rev().filter(|file| is_visible(file, account, now)).map(Arc::clone).collect()
    }
}

/// The File object as JSON.
pub(super) fn object(state: &State, file: &StoredFile) -> Response<Body> {
    reply::ok(&file.json(state))
}

/// `GET /files`.
pub(super) fn list(state: &State, account: &Account, query: &Query) -> Outcome {
    let limit = query.number("limit", 1..=10_000, 10_000)?;
    let mut files = state.files.newest_first(account, state.clock.unix_now());
    match query.get("order") {
        None | Some("desc") => {}
        Some("asc") => files.reverse(),
        Some(_) => return Err(reply::bad_request("invalid_value", "order", "order must be 'asc' or 'desc'.")),
    }
    if let Some(purpose) = query.get("purpose") {
        files.retain(|file| file.purpose == purpose);
    }
    if let Some(after) = query.get("after") {
        let Some(at) = files.iter().position(|file| file.id == after) else {
            return Err(no_such_file(after));
        };
        files.drain(..=at);
    }
    let has_more = files.len() > limit;
    files.truncate(limit);
    Ok(reply::ok(&json!({
        "object": "list",
        "data": files.iter().map(|file| file.json(state)).collect::<Vec<_>>(),
        "first_id": files.first().map(|file| &file.id),
        "last_id": files.last().map(|file| &file.id),
        "has_more": has_more,
    })))
}

/// `GET /files/{id}`.
pub(super) fn get(state: &State, account: &Account, id: &str) -> Outcome {
    Ok(object(state, &*find(state, account, id)?))
}

/// `DELETE /files/{id}`.
pub(super) fn delete(state: &State, account: &Account, id: &str) -> Outcome {
    let file = find(state, account, id)?;
    state.files.remove(&file.id);
    state.counters.file_deleted();
    Ok(reply::ok(&json!({"id": file.id, "object": "file", "deleted": true})))
}

/// The file `id` of `account`.
///
/// # Errors
/// 404, also for a file of somebody else.
pub(super) fn find(state: &State, account: &Account, id: &str) -> Result<Arc<StoredFile>, Failure> {
    state.files.get(state, account, id).ok_or_else(|| no_such_file(id))
}

fn is_visible(file: &StoredFile, account: &Account, now: i64) -> bool {
    file.account == *account && file.expires_at.is_none_or(|at| at > now)
}

fn no_such_file(id: &str) -> Failure {
    reply::not_found(Some("id"), format!("No such File object: {id}"))
}
