//! Deletes what is older than the retention, a bounded number of rows at a time.
//!
//! The file does not shrink: freed pages are used again by what comes next.

use rusqlite::params;

use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;
use crate::domain::request::RequestState;
use crate::store::sqlite::batches::parse_lines;
use crate::store::sqlite::callbacks;
use crate::store::sqlite::rows::{batch_state_code, request_state};
use crate::store::sqlite::writer::Session;

/// Deletes at most `limit` ended requests and what is left of their batches; see [`crate::store::Store::expire`].
pub(super) fn expire(session: &mut Session<'_>, before: Micros, limit: usize) -> rusqlite::Result<usize> {
    let old = old_requests(session, before, limit)?;
    let connection = session.connection;
    let mut newest = 0;
    for request in &old {
        connection.prepare_cached("DELETE FROM bodies WHERE seq = ?1")?.execute(params![request.sequence])?;
        connection.prepare_cached("DELETE FROM results WHERE num = ?1")?.execute(params![request.result])?;
        connection.prepare_cached("DELETE FROM requests WHERE seq = ?1")?.execute(params![request.sequence])?;
        session.count(Some(request.state), None);
        newest = newest.max(request.sequence);
    }
    for batch in old_batches(session, before)? {
        if is_empty(session, batch)? {
            connection.prepare_cached("DELETE FROM batch_lines WHERE seq = ?1")?.execute(params![batch])?;
            connection.prepare_cached("DELETE FROM batches WHERE seq = ?1")?.execute(params![batch])?;
            newest = newest.max(batch);
        }
    }
    callbacks::expire(session, before)?;
    if old.len() < limit {
        drop_lanes(session, before)?;
    }
    if newest > 0 {
        remember_sequence(session, newest)?;
    }
    Ok(old.len())
}

/// From so many lanes on whose deadlines are over, those are looked for in which nothing rides any more.
const OLD_LANES: i64 = 256;

/// Deletes lanes that nothing needs any more: each deadline class has its own, so that they would pile up. The one with the
/// largest number stays, since numbers are given out from there on and must never come to mean another lane.
fn drop_lanes(session: &mut Session<'_>, before: Micros) -> rusqlite::Result<()> {
    let (connection, class) = (session.connection, before.unix_seconds());
    let old: i64 = connection
        .prepare_cached("SELECT count(*) FROM lanes WHERE deadline_class != 0 AND abs(deadline_class) < ?1")?
        .query_row(params![class], |row| row.get(0))?;
    if old < OLD_LANES {
        return Ok(());
    }
    let dropped = connection
        .prepare_cached(
            "DELETE FROM lanes WHERE deadline_class != 0 AND abs(deadline_class) < ?1 \
             AND lane < (SELECT max(lane) FROM lanes) \
             AND lane NOT IN (SELECT lane FROM requests) AND lane NOT IN (SELECT lane FROM batches)",
        )?
        .execute(params![class])?;
    if dropped > 0 {
        session.forget_lanes();
    }
    Ok(())
}

struct OldRequest {
    sequence: i64,
    state: RequestState,
    result: Option<i64>,
}

fn old_requests(session: &Session<'_>, before: Micros, limit: usize) -> rusqlite::Result<Vec<OldRequest>> {
    session
        .connection
        .prepare_cached(
            "SELECT seq, state, result FROM requests WHERE finished_at < ?1 ORDER BY finished_at, seq LIMIT ?2",
        )?
        .query_map(params![before.0, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok(OldRequest { sequence: row.get(0)?, state: request_state(row, 1)?, result: row.get(2)? })
        })?
        .collect()
}

/// Ended batches that were created before `before`: of younger ones no line can have expired.
fn old_batches(session: &Session<'_>, before: Micros) -> rusqlite::Result<Vec<i64>> {
    session
        .connection
        .prepare_cached("SELECT seq FROM batches WHERE created_at < ?1 AND state >= ?2 ORDER BY seq")?
        .query_map(params![before.0, batch_state_code(BatchState::Completed)], |row| row.get(0))?
        .collect()
}

fn is_empty(session: &Session<'_>, batch: i64) -> rusqlite::Result<bool> {
    let lines = session
        .connection
        .prepare_cached("SELECT lines FROM batch_lines WHERE seq = ?1")?
        .query_row(params![batch], |row| parse_lines(row.get_ref(0)?.as_blob()?))?;
    let mut exists = session.connection.prepare_cached("SELECT 1 FROM requests WHERE seq = ?1")?;
    for line in lines {
        if exists.exists(params![line.sequence()])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Numbers must never be given out again, even when the rows that had them are gone.
pub(super) fn remember_sequence(session: &Session<'_>, sequence: i64) -> rusqlite::Result<()> {
    session
        .connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES ('last_sequence', ?1) \
             ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute(params![sequence])?;
    Ok(())
}
