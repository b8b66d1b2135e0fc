//! Batches: the intent with all its lines in one transaction, their progress, and their end.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::domain::batch::BatchState;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::request::RequestState;
use crate::store::rules;
use crate::store::sqlite::lanes::Lanes;
use crate::store::sqlite::rows::{
    BATCH_COLUMNS, batch_progress, batch_record, batch_state_code, damaged, request_state_code,
};
use crate::store::sqlite::writer::Session;
use crate::store::{BatchRecord, BatchUpdate, NewBatch, StoreError};

const ID_LEN: usize = 16;

/// Writes the intent of a batch; see [`crate::store::Store::create_batch`].
pub(super) fn create(
    session: &mut Session<'_>,
    batch: &NewBatch,
) -> rusqlite::Result<Result<Vec<RequestId>, StoreError>> {
    let sequence = batch.id.sequence();
    let taken = session.connection.prepare_cached("SELECT 1 FROM batches WHERE seq = ?1")?.exists(params![sequence])?;
    if taken {
        return Ok(Err(rules::taken(&batch.id)));
    }
    let lines = submit(session, batch)?;
    if lines.is_empty() {
        return Ok(Ok(lines));
    }
    let lane = session.lane_number(&batch.lane)?;
    session
        .connection
        .prepare_cached(
            "INSERT INTO batches (seq, id, lane, state, line_count, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            sequence,
            batch.id.as_bytes(),
            lane,
            batch_state_code(BatchState::Prepared),
            i64::try_from(lines.len()).unwrap_or(i64::MAX),
            batch.created_at.0
        ])?;
    let ids: Vec<u8> = lines.iter().flat_map(RequestId::as_bytes).copied().collect();
    session
        .connection
        .prepare_cached("INSERT INTO batch_lines (seq, lines) VALUES (?1, ?2)")?
        .execute(params![sequence, ids])?;
    Ok(Ok(lines))
}

/// Marks the queued among the batch's lines as submitted. One statement each, because a batch has up to 100,000.
fn submit(session: &mut Session<'_>, batch: &NewBatch) -> rusqlite::Result<Vec<RequestId>> {
    const { assert!(RequestState::Queued.next(crate::domain::request::RequestEvent::Submit).is_ok()) };
    let mut lines = Vec::with_capacity(batch.lines.len());
    let mut statement = session.connection.prepare_cached(
        "UPDATE requests SET state = ?3, batch = ?4, submitted_at = ?5, attempts = attempts + 1 \
         WHERE seq = ?1 AND id = ?2 AND state = ?6",
    )?;
    for id in &batch.lines {
        let changed = statement.execute(params![
            id.sequence(),
            id.as_bytes(),
            request_state_code(RequestState::Submitted),
            batch.id.as_bytes(),
            batch.created_at.0,
            request_state_code(RequestState::Queued),
        ])?;
        if changed == 1 {
            session.count(Some(RequestState::Queued), Some(RequestState::Submitted));
            lines.push(*id);
        }
    }
    Ok(lines)
}

/// Applies a change; `false` when it is illegal or the batch unknown.
pub(super) fn update(session: &Session<'_>, update: &BatchUpdate) -> rusqlite::Result<bool> {
    let sequence = update.id.sequence();
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batches WHERE seq = ?1 AND id = ?2");
    let found = session
        .connection
        .prepare_cached(&sql)?
        .query_row(params![sequence, update.id.as_bytes()], batch_progress)
        .optional()?;
    let Some(mut progress) = found else { return Ok(false) };
    if !progress.apply(update) {
        return Ok(false);
    }
    let provider = &progress.provider;
    session
        .connection
        .prepare_cached(
            "UPDATE batches SET state = ?2, submitted_at = ?3, ended_at = ?4, input_file_id = ?5, batch_id = ?6, status = ?7, \
             completed = ?8, failed = ?9, output_file_id = ?10, error_file_id = ?11, error = ?12 WHERE seq = ?1",
        )?
        .execute(params![
            sequence,
            batch_state_code(progress.state),
            progress.submitted_at.map(|at| at.0),
            progress.ended_at.map(|at| at.0),
            provider.input_file_id,
            provider.batch_id,
            provider.status,
            provider.completed,
            provider.failed,
            provider.output_file_id,
            provider.error_file_id,
            provider.error,
        ])?;
    if let Some(lines) = &update.lines {
        replace_lines(session.connection, sequence, lines)?;
    }
    Ok(true)
}

fn replace_lines(connection: &Connection, sequence: i64, lines: &[RequestId]) -> rusqlite::Result<()> {
    let ids: Vec<u8> = lines.iter().flat_map(RequestId::as_bytes).copied().collect();
    connection.prepare_cached("UPDATE batch_lines SET lines = ?2 WHERE seq = ?1")?.execute(params![sequence, ids])?;
    connection
        .prepare_cached("UPDATE batches SET line_count = ?2 WHERE seq = ?1")?
        .execute(params![sequence, i64::try_from(lines.len()).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// One batch.
pub(super) fn get(connection: &Connection, lanes: &Lanes, id: BatchId) -> rusqlite::Result<Option<BatchRecord>> {
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batches WHERE seq = ?1 AND id = ?2");
    connection
        .prepare_cached(&sql)?
        .query_row(params![id.sequence(), id.as_bytes()], |row| batch_record(connection, lanes, row))
        .optional()
}

/// Batches, newest first.
pub(super) fn list(
    connection: &Connection,
    lanes: &Lanes,
    open: bool,
    after: Option<BatchId>,
    limit: usize,
) -> rusqlite::Result<Vec<BatchRecord>> {
    let open = if open { "AND ended_at IS NULL" } else { "" };
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batches WHERE seq < ?1 {open} ORDER BY seq DESC LIMIT ?2");
    let before = after.map_or(i64::MAX, |id| id.sequence());
    connection
        .prepare_cached(&sql)?
        .query_map(params![before, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            batch_record(connection, lanes, row)
        })?
        .collect()
}

/// The lines of a batch, in file order.
pub(super) fn lines(connection: &Connection, id: BatchId) -> rusqlite::Result<Vec<RequestId>> {
    let sql = "SELECT l.lines FROM batches b JOIN batch_lines l ON l.seq = b.seq WHERE b.seq = ?1 AND b.id = ?2";
    connection
        .prepare_cached(sql)?
        .query_row(params![id.sequence(), id.as_bytes()], |row| parse_lines(row.get_ref(0)?.as_blob()?))
        .optional()
        .map(Option::unwrap_or_default)
}

/// The ids in a stored blob.
pub(super) fn parse_lines(blob: &[u8]) -> rusqlite::Result<Vec<RequestId>> {
    let (ids, rest) = blob.as_chunks::<ID_LEN>();
    if !rest.is_empty() {
        return Err(damaged(0, format!("{} bytes are no list of ids", blob.len())));
    }
    Ok(ids.iter().copied().map(RequestId::from_bytes).collect())
}
