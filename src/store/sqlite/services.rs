//! Live calls of requests, how long batches take and how much of them a provider takes: what the choice between services
//! needs on disk.

use rusqlite::{Connection, params};

use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::domain::request::RequestEvent;
use crate::store::services::service_code;
use crate::store::sqlite::changes::standing;
use crate::store::sqlite::rows::{bytes16, damaged, request_state_code};
use crate::store::sqlite::writer::Session;
use crate::store::{LearnedCeiling, LearnedDurations, Limited, LiveCall};

/// Marks requests that have not ended; see [`crate::store::Store::mark_live`].
pub(super) fn mark_live(
    session: &mut Session<'_>,
    ids: &[RequestId],
    call: &LiveCall,
) -> rusqlite::Result<Vec<RequestId>> {
    let mut marked = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(standing) = standing(session, *id)?.filter(|standing| !standing.state.is_terminal()) else { continue };
        let next = standing.state.next(RequestEvent::Submit).ok();
        session
            .connection
            .prepare_cached(
                "UPDATE requests SET state = coalesce(?2, state), submitted_at = iif(?2 IS NULL, submitted_at, ?4), \
                 live = ?3, live_since = coalesce(live_since, ?4), live_sent = ?5, live_response = NULL \
                 WHERE seq = ?1",
            )?
            .execute(params![
                id.sequence(),
                next.map(request_state_code),
                service_code(call.service),
                call.since.0,
                call.sent_at.map(|at| at.0),
            ])?;
        if next.is_some() {
            session.count(Some(standing.state), next);
        }
        marked.push(*id);
    }
    Ok(marked)
}

/// Keeps the id of a background response; see [`crate::store::Store::keep_response`].
pub(super) fn keep_response(session: &mut Session<'_>, id: RequestId, response: &str) -> rusqlite::Result<bool> {
    if standing(session, id)?.is_none_or(|standing| standing.state.is_terminal()) {
        return Ok(false);
    }
    let kept = session
        .connection
        .prepare_cached("UPDATE requests SET live_response = ?2 WHERE seq = ?1 AND live_sent IS NOT NULL")?
        .execute(params![id.sequence(), response])?;
    Ok(kept == 1)
}

/// Keeps durations, in place of older ones.
pub(super) fn keep_durations(session: &Session<'_>, learned: &LearnedDurations) -> rusqlite::Result<()> {
    let recent: Vec<u8> = learned.recent_ms.iter().flat_map(|duration| duration.to_le_bytes()).collect();
    session
        .connection
        .prepare_cached(
            "INSERT INTO durations (provider, account, model, size_class, at, recent) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT DO UPDATE SET at = excluded.at, recent = excluded.recent",
        )?
        .execute(params![
            learned.provider,
            learned.account.0,
            learned.model,
            learned.size_class,
            learned.at.0,
            recent
        ])?;
    Ok(())
}

/// All kept durations.
pub(super) fn durations(connection: &Connection) -> rusqlite::Result<Vec<LearnedDurations>> {
    connection
        .prepare_cached(
            "SELECT provider, account, model, size_class, at, recent FROM durations \
             ORDER BY provider, account, model, size_class",
        )?
        .query_map((), |row| {
            let recent: Vec<u8> = row.get(5)?;
            let (durations, rest) = recent.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(damaged(5, format!("{} bytes are no list of durations", recent.len())));
            }
            Ok(LearnedDurations {
                provider: row.get(0)?,
                account: Fingerprint(bytes16(row, 1)?),
                model: row.get(2)?,
                size_class: row.get(3)?,
                at: Micros(row.get(4)?),
                recent_ms: durations.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
            })
        })?
        .collect()
}

/// Numbers on disk: they never change.
const TOKENS: i64 = 0;
const FILE_BYTES: i64 = 1;

/// Keeps a ceiling, in place of an older one, and drops those that were learned before `forget`.
pub(super) fn keep_ceiling(session: &Session<'_>, learned: &LearnedCeiling, forget: Micros) -> rusqlite::Result<()> {
    let (kind, model) = match &learned.limited {
        Limited::Tokens(model) => (TOKENS, model.as_str()),
        Limited::FileBytes => (FILE_BYTES, ""),
    };
    // More than an integer of SQLite holds is no limit, and stays none when it is capped.
    let stored = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    session.connection.prepare_cached("DELETE FROM ceilings WHERE at < ?1")?.execute(params![forget.0])?;
    session
        .connection
        .prepare_cached(
            "INSERT INTO ceilings (provider, account, kind, model, most, told, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
             ON CONFLICT DO UPDATE SET most = excluded.most, told = excluded.told, at = excluded.at",
        )?
        .execute(params![
            learned.provider,
            learned.account.0,
            kind,
            model,
            stored(learned.most),
            learned.told.map(stored),
            learned.at.0
        ])?;
    Ok(())
}

/// All kept ceilings.
pub(super) fn ceilings(connection: &Connection) -> rusqlite::Result<Vec<LearnedCeiling>> {
    connection
        .prepare_cached(
            "SELECT provider, account, kind, model, most, told, at FROM ceilings ORDER BY provider, account, kind, model",
        )?
        .query_map((), |row| {
            let limited = match row.get::<_, i64>(2)? {
                TOKENS => Limited::Tokens(row.get(3)?),
                FILE_BYTES => Limited::FileBytes,
                other => return Err(damaged(2, format!("{other} is nothing that is limited"))),
            };
            Ok(LearnedCeiling {
                provider: row.get(0)?,
                account: Fingerprint(bytes16(row, 1)?),
                limited,
                most: row.get::<_, i64>(4)?.unsigned_abs(),
                told: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
                at: Micros(row.get(6)?),
            })
        })?
        .collect()
}
