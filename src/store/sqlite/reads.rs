//! What can be asked: each function runs on a reading connection, in a thread that may block.

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::store::keys::Keys;
use crate::store::seal::Kind;
use crate::store::sqlite::errors::unreadable;
use crate::store::sqlite::lanes::Lanes;
use crate::store::sqlite::rows::{
    AFTER_REQUEST_COLUMNS, REQUEST_COLUMNS, REQUEST_TABLES, bytes16, request_record, request_state_code,
};
use crate::store::{Account, ListFilter, RequestOptions, RequestRecord, StoreError, StoredResult};

/// One request.
pub(super) fn request(
    connection: &Connection,
    lanes: &Lanes,
    id: RequestId,
) -> rusqlite::Result<Option<RequestRecord>> {
    let sql = format!("SELECT {REQUEST_COLUMNS} FROM {REQUEST_TABLES} WHERE r.seq = ?1 AND r.id = ?2");
    connection
        .prepare_cached(&sql)?
        .query_row(params![id.sequence(), id.as_bytes()], |row| request_record(connection, lanes, row))
        .optional()
}

/// Many requests, in the given order, by one statement: a batch has tens of thousands of lines.
pub(super) fn records(
    connection: &Connection,
    lanes: &Lanes,
    ids: &[RequestId],
) -> rusqlite::Result<Vec<RequestRecord>> {
    let sql = format!("SELECT {REQUEST_COLUMNS} FROM {REQUEST_TABLES} WHERE r.seq = ?1 AND r.id = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let read = |row: &rusqlite::Row<'_>| request_record(connection, lanes, row);
        found.extend(statement.query_row(params![id.sequence(), id.as_bytes()], read).optional()?);
    }
    Ok(found)
}

/// The newest request with this idempotency key.
pub(super) fn find_idempotent(
    connection: &Connection,
    lanes: &Lanes,
    key: Fingerprint,
) -> rusqlite::Result<Option<RequestRecord>> {
    let sql = format!(
        "SELECT {REQUEST_COLUMNS} FROM {REQUEST_TABLES} WHERE r.idempotency = ?1 AND r.idempotency IS NOT NULL \
         ORDER BY r.seq DESC LIMIT 1"
    );
    connection.prepare_cached(&sql)?.query_row(params![key.0], |row| request_record(connection, lanes, row)).optional()
}

/// One request with its answer.
pub(super) fn result(
    connection: &Connection,
    lanes: &Lanes,
    keys: &Keys,
    id: RequestId,
) -> Result<Option<StoredResult>, StoreError> {
    let sql = format!("SELECT {REQUEST_COLUMNS}, a.body FROM {REQUEST_TABLES} WHERE r.seq = ?1 AND r.id = ?2");
    let found: Option<(RequestRecord, Option<Vec<u8>>)> = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement
                .query_row(params![id.sequence(), id.as_bytes()], |row| {
                    Ok((request_record(connection, lanes, row)?, row.get(AFTER_REQUEST_COLUMNS)?))
                })
                .optional()
        })
        .map_err(|error| unreadable(&error))?;
    let Some((record, envelope)) = found else { return Ok(None) };
    let body = envelope.map(|envelope| keys.sealer.open(Kind::Result, id.as_bytes(), &envelope)).transpose()?;
    Ok(Some(StoredResult { record, body: body.map(Bytes::from) }))
}

/// Bodies, in the given order; those that are not there are left out.
pub(super) fn bodies(
    connection: &Connection,
    keys: &Keys,
    ids: &[RequestId],
) -> Result<Vec<(RequestId, Bytes)>, StoreError> {
    let sql = "SELECT b.body FROM requests r JOIN bodies b ON b.seq = r.seq WHERE r.seq = ?1 AND r.id = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(|error| unreadable(&error))?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let mut rows = statement.query(params![id.sequence(), id.as_bytes()]).map_err(|error| unreadable(&error))?;
        let Some(row) = rows.next().map_err(|error| unreadable(&error))? else { continue };
        let envelope = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(|error| unreadable(&error))?;
        found.push((*id, keys.sealer.open(Kind::Body, id.as_bytes(), envelope)?.into()));
    }
    Ok(found)
}

/// Requests, newest first.
pub(super) fn list(
    connection: &Connection,
    lanes: &Lanes,
    filter: &ListFilter,
) -> rusqlite::Result<Vec<RequestRecord>> {
    let mut sql = format!("SELECT {REQUEST_COLUMNS} FROM {REQUEST_TABLES} WHERE r.seq < ?");
    let mut values = vec![Value::from(filter.after.map_or(i64::MAX, |id| id.sequence()))];
    if let Some(caller) = filter.caller {
        sql.push_str(" AND r.caller = ?");
        values.push(caller.0.to_vec().into());
    }
    if let Some(state) = filter.state {
        sql.push_str(" AND r.state = ?");
        values.push(request_state_code(state).into());
    }
    if let Some(tag) = &filter.tag {
        sql.push_str(" AND r.tag = ?");
        values.push(tag.clone().into());
    }
    sql.push_str(" ORDER BY r.seq DESC LIMIT ?");
    values.push(i64::try_from(filter.limit).unwrap_or(i64::MAX).into());
    connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| request_record(connection, lanes, row))?
        .collect()
}

/// Requests that have not ended or were not delivered, oldest first.
pub(super) fn unfinished(
    connection: &Connection,
    lanes: &Lanes,
    after: Option<RequestId>,
    limit: usize,
) -> rusqlite::Result<Vec<RequestRecord>> {
    let sql = format!(
        "SELECT {REQUEST_COLUMNS} FROM {REQUEST_TABLES} \
         WHERE r.seq > ?1 AND (r.finished_at IS NULL OR r.options & ?2 = 0) ORDER BY r.seq LIMIT ?3"
    );
    let from = after.map_or(i64::MIN, |id| id.sequence());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&sql)?
        .query_map(params![from, RequestOptions::DELIVERED, limit], |row| request_record(connection, lanes, row))?
        .collect()
}

/// The largest sequence number ever stored.
pub(super) fn last_sequence(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT max(coalesce((SELECT max(seq) FROM requests), 0), coalesce((SELECT max(seq) FROM batches), 0), \
         coalesce((SELECT max(request) FROM ledger), 0), \
         coalesce((SELECT value FROM meta WHERE key = 'last_sequence'), 0))",
        (),
        |row| row.get(0),
    )
}

/// Requests by state, in the order of the states' numbers.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<[i64; 5]> {
    let mut counts = [0; 5];
    let mut statement = connection.prepare("SELECT state, count(*) FROM requests GROUP BY state")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let state: i64 = row.get(0)?;
        let slot = usize::try_from(state).ok().and_then(|slot| counts.get_mut(slot));
        let count = slot.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, state))?;
        *count = row.get(1)?;
    }
    Ok(counts)
}

/// All kept credentials.
pub(super) fn accounts(connection: &Connection, keys: &Keys) -> Result<Vec<Account>, StoreError> {
    let stored: Vec<([u8; 16], String, Vec<u8>)> = connection
        .prepare_cached("SELECT fingerprint, provider, headers FROM accounts ORDER BY fingerprint, provider")
        .and_then(|mut statement| {
            statement.query_map((), |row| Ok((bytes16(row, 0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .map_err(|error| unreadable(&error))?;
    stored
        .into_iter()
        .map(|(fingerprint, provider, envelope)| {
            let headers = keys.sealer.open(Kind::Account, &fingerprint, &envelope)?;
            let headers = serde_json::from_slice(&headers)
                .map_err(|error| StoreError::Unreadable(format!("a stored credential: {error}")))?;
            Ok(Account { fingerprint: Fingerprint(fingerprint), provider, headers })
        })
        .collect()
}
