//! Callbacks: asked for before a request is accepted, due from the transaction that ends it.

use rusqlite::{Connection, Row, params};

use crate::domain::clock::Micros;
use crate::domain::ids::{CallbackId, RequestId};
use crate::store::keys::Keys;
use crate::store::seal::Kind;
use crate::store::sqlite::changes::standing;
use crate::store::sqlite::errors::unreadable;
use crate::store::sqlite::rows::{bytes16, damaged};
use crate::store::sqlite::writer::Session;
use crate::store::{Callback, CallbackState, CallbackUpdate, NewCallback, StoreError};

const COLUMNS: &str = "id, request_id, state, created_at, since, due_at, attempts, url";

/// Adds one, unless it is there; `url` is an envelope.
pub(super) fn add(session: &Session<'_>, new: &NewCallback, url: &[u8]) -> rusqlite::Result<()> {
    let ended = standing(session, new.request)?.is_some_and(|standing| standing.state.is_terminal());
    let state = if ended { CallbackState::Pending } else { CallbackState::Waiting };
    session
        .connection
        .prepare_cached(
            "INSERT INTO callbacks (request, id, request_id, url, state, created_at, since, due_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            new.request.sequence(),
            new.id.as_bytes(),
            new.request.as_bytes(),
            url,
            state as i64,
            new.at.0,
            ended.then_some(new.at.0),
        ])?;
    Ok(())
}

/// Its request has ended: they are due.
pub(super) fn ended(session: &Session<'_>, request: RequestId, at: Micros) -> rusqlite::Result<()> {
    session
        .connection
        .prepare_cached("UPDATE callbacks SET state = ?2, since = ?3, due_at = ?3 WHERE request = ?1 AND state = ?4")?
        .execute(params![request.sequence(), CallbackState::Pending as i64, at.0, CallbackState::Waiting as i64])?;
    Ok(())
}

/// What an attempt came to.
pub(super) fn record(session: &Session<'_>, update: &CallbackUpdate) -> rusqlite::Result<bool> {
    let attempt = serde_json::to_string(&update.attempt)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let changed = session
        .connection
        .prepare_cached(
            "UPDATE callbacks SET state = ?2, due_at = ?3, attempts = attempts || ?4 || char(10) WHERE id = ?1",
        )?
        .execute(params![update.id.as_bytes(), update.state as i64, update.due_at.map(|at| at.0), attempt])?;
    Ok(changed == 1)
}

/// Once more; see [`crate::store::Store::redeliver_callback`].
pub(super) fn redeliver(session: &Session<'_>, id: CallbackId, at: Micros) -> rusqlite::Result<Option<bool>> {
    let changed = session
        .connection
        .prepare_cached("UPDATE callbacks SET state = ?2, since = ?3, due_at = ?3 WHERE id = ?1 AND state <> ?4")?
        .execute(params![id.as_bytes(), CallbackState::Pending as i64, at.0, CallbackState::Waiting as i64])?;
    if changed == 1 {
        return Ok(Some(true));
    }
    let mut exists = session.connection.prepare_cached("SELECT 1 FROM callbacks WHERE id = ?1")?;
    Ok(exists.exists(params![id.as_bytes()])?.then_some(false))
}

/// Those of requests that are gone, or never came.
pub(super) fn expire(session: &Session<'_>, before: Micros) -> rusqlite::Result<()> {
    session
        .connection
        .prepare_cached(
            "DELETE FROM callbacks WHERE created_at < ?1 \
             AND NOT EXISTS (SELECT 1 FROM requests WHERE seq = callbacks.request)",
        )?
        .execute(params![before.0])?;
    Ok(())
}

/// Those to be delivered, the earliest first.
pub(super) fn due(connection: &Connection, keys: &Keys, limit: usize) -> Result<Vec<Callback>, StoreError> {
    let read = || {
        connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM callbacks WHERE due_at IS NOT NULL ORDER BY due_at, id LIMIT ?1"
            ))?
            .query_map(params![i64::try_from(limit).unwrap_or(i64::MAX)], sealed)?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    opened(keys, read())
}

/// Newest requests first; see [`crate::store::Store::callbacks`].
pub(super) fn list(
    connection: &Connection,
    keys: &Keys,
    state: Option<CallbackState>,
    after: Option<CallbackId>,
    limit: usize,
) -> Result<Vec<Callback>, StoreError> {
    let read = || {
        connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM callbacks WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR (request, id) < \
                 (coalesce((SELECT request FROM callbacks WHERE id = ?2), 1 << 62), ?2)) \
                 ORDER BY request DESC, id DESC LIMIT ?3"
            ))?
            .query_map(
                params![
                    state.map(|state| state as i64),
                    after.as_ref().map(CallbackId::as_bytes),
                    i64::try_from(limit).unwrap_or(i64::MAX)
                ],
                sealed,
            )?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    opened(keys, read())
}

/// A row: the URL is an envelope still.
fn sealed(row: &Row<'_>) -> rusqlite::Result<(Callback, Vec<u8>)> {
    let number: i64 = row.get(2)?;
    let state = CallbackState::ALL.into_iter().find(|state| *state as i64 == number);
    let attempts: String = row.get(6)?;
    let attempts = attempts.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
    let callback = Callback {
        id: CallbackId::from_bytes(bytes16(row, 0)?),
        request: RequestId::from_bytes(bytes16(row, 1)?),
        url: String::new(),
        state: state.ok_or_else(|| damaged(2, format!("{number} is no state of a callback")))?,
        created_at: Micros(row.get(3)?),
        since: row.get::<_, Option<i64>>(4)?.map(Micros),
        due_at: row.get::<_, Option<i64>>(5)?.map(Micros),
        attempts: attempts.map_err(|error| damaged(6, error.to_string()))?,
    };
    Ok((callback, row.get(7)?))
}

fn opened(keys: &Keys, rows: rusqlite::Result<Vec<(Callback, Vec<u8>)>>) -> Result<Vec<Callback>, StoreError> {
    let open = |(callback, envelope): (Callback, Vec<u8>)| {
        let url = keys.sealer.open(Kind::Callback, callback.id.as_bytes(), &envelope)?;
        let url = String::from_utf8_lossy(&url).into_owned();
        Ok(Callback { url, ..callback })
    };
    rows.map_err(|error| unreadable(&error))?.into_iter().map(open).collect()
}
