//! Changes of requests and credentials, as the writer applies them.
//!
//! Each may run a second time after a roll-back, so none takes anything out of its input. The writer is alone, so reading
//! a state and then changing it cannot be overtaken; the domain's state machine stays the only place that decides.

use rusqlite::{OptionalExtension as _, params};

use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::request::{RequestEvent, RequestState};
use crate::domain::trace::TraceContext;
use crate::store::ledger::{Asker, Charge, LedgerRow};
use crate::store::rules;
use crate::store::sqlite::callbacks;
use crate::store::sqlite::ledger::Entries;
use crate::store::sqlite::rows::{bytes16, request_state, request_state_code};
use crate::store::sqlite::writer::Session;
use crate::store::{Account, NewRequest, OutcomeSummary, StoreError};

/// Makes a new request and its body.
pub(super) fn accept(
    session: &mut Session<'_>,
    request: &NewRequest,
    body: &[u8],
) -> rusqlite::Result<Result<(), StoreError>> {
    let lane = session.lane_number(&request.lane)?;
    let sequence = request.id.sequence();
    let inserted = session
        .connection
        .prepare_cached(
            "INSERT INTO requests (seq, id, state, options, lane, caller, body_hash, idempotency, body_len, created_at, deadline_at, tag, client_key, template, most_output, trace) \
             VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            sequence,
            request.id.as_bytes(),
            request.options.0,
            lane,
            request.caller.0,
            request.body_hash.0,
            request.idempotency.as_ref().map(|key| key.0),
            request.body_len,
            request.created_at.0,
            request.deadline_at.map(|at| at.0),
            request.tag,
            request.key,
            request.template.as_ref().map(|template| template.0),
            request.most_output,
            request.trace.map(TraceContext::to_bytes),
        ])?;
    if inserted == 0 {
        return Ok(Err(rules::taken(&request.id)));
    }
    session
        .connection
        .prepare_cached("INSERT INTO bodies (seq, body) VALUES (?1, ?2)")?
        .execute(params![sequence, body])?;
    session.count(None, Some(RequestState::Queued));
    Ok(Ok(()))
}

/// The end of a request, its answer sealed.
#[derive(Debug)]
pub(super) struct SealedFinish {
    /// Which.
    pub(super) id: RequestId,
    /// How.
    pub(super) state: RequestState,
    /// When.
    pub(super) at: Micros,
    /// The summary.
    pub(super) summary: OutcomeSummary,
    /// The answer's envelope.
    pub(super) body: Option<Vec<u8>>,
    /// What the execution is charged with.
    pub(super) charge: Option<Charge>,
}

/// Ends requests that have not ended.
pub(super) fn finish(session: &mut Session<'_>, finished: &[SealedFinish]) -> rusqlite::Result<Vec<bool>> {
    let mut entries = Entries::default();
    let mut ended = Vec::with_capacity(finished.len());
    for finish in finished {
        let (ends, asker) = finish_one(session, finish)?;
        ended.push(ends);
        if let Some(charge) = &finish.charge {
            let stands = ends && finish.state == RequestState::Completed;
            entries.enter(session, &LedgerRow::of_charge(finish.id, finish.at, charge, asker, !stands))?;
        }
    }
    entries.sum_up(session)?;
    Ok(ended)
}

/// Whether it ended now, and who asked; nobody is known when the request is gone.
fn finish_one(session: &mut Session<'_>, finish: &SealedFinish) -> rusqlite::Result<(bool, Asker)> {
    let Some(Standing { state, asker, .. }) = standing(session, finish.id)? else {
        return Ok((false, Asker::default()));
    };
    if !rules::may_end(state, finish.state) {
        return Ok((false, asker));
    }
    let number = session.next_result()?;
    let summary = &finish.summary;
    let (error_code, error_message) = summary.error.as_ref().map(|(code, message)| (code, message)).unzip();
    session
        .connection
        .prepare_cached(
            "INSERT INTO results (num, status_code, service, provider_request_id, error_code, error_message, usage, cost_nanos, saved_nanos, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            number,
            summary.status_code,
            summary.service,
            summary.provider_request_id,
            error_code,
            error_message,
            summary.usage_json,
            summary.cost_nanos,
            summary.saved_nanos,
            finish.body,
        ])?;
    session
        .connection
        .prepare_cached("UPDATE requests SET state = ?2, finished_at = ?3, result = ?4 WHERE seq = ?1")?
        .execute(params![finish.id.sequence(), request_state_code(finish.state), finish.at.0, number])?;
    session.count(Some(state), Some(finish.state));
    callbacks::ended(session, finish.id, finish.at)?;
    Ok((true, asker))
}

/// Puts submitted requests of `batch` back into the queue.
pub(super) fn requeue(
    session: &mut Session<'_>,
    batch: BatchId,
    ids: &[RequestId],
    counts: bool,
) -> rusqlite::Result<Vec<RequestId>> {
    let mut requeued = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(Standing { state, .. }) = standing(session, *id)?.filter(|standing| standing.rides_in == Some(batch))
        else {
            continue;
        };
        let Ok(next) = state.next(RequestEvent::Requeue) else { continue };
        session
            .connection
            .prepare_cached("UPDATE requests SET state = ?2, attempts = max(attempts - ?3, 0) WHERE seq = ?1")?
            .execute(params![id.sequence(), request_state_code(next), i64::from(!counts)])?;
        session.count(Some(state), Some(next));
        requeued.push(*id);
    }
    Ok(requeued)
}

/// Sets bits of options; rows that have them are not touched.
pub(super) fn set_options(session: &Session<'_>, ids: &[RequestId], bits: i64) -> rusqlite::Result<()> {
    let mut statement = session.connection.prepare_cached(
        "UPDATE requests SET options = options | ?3 WHERE seq = ?1 AND id = ?2 AND options & ?3 <> ?3",
    )?;
    for id in ids {
        statement.execute(params![id.sequence(), id.as_bytes(), bits])?;
    }
    Ok(())
}

/// Keeps a credential; `headers` is an envelope.
pub(super) fn save_account(session: &Session<'_>, account: &Account, headers: &[u8]) -> rusqlite::Result<()> {
    session
        .connection
        .prepare_cached(
            "INSERT INTO accounts (fingerprint, provider, headers) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET headers = excluded.headers",
        )?
        .execute(params![account.fingerprint.0, account.provider, headers])?;
    Ok(())
}

/// A write that changes nothing that matters, to see whether writing works.
pub(super) fn check(session: &Session<'_>) -> rusqlite::Result<()> {
    session
        .connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES ('write_check', 1) ON CONFLICT DO UPDATE SET value = value + 1",
        )?
        .execute(())?;
    Ok(())
}

/// Where a request stands.
pub(super) struct Standing {
    /// Its state.
    pub(super) state: RequestState,
    /// The batch that may queue it again; none: a live call is to answer it, or it was in no batch.
    rides_in: Option<BatchId>,
    asker: Asker,
}

/// Where a request stands; none: there is no such request.
pub(super) fn standing(session: &Session<'_>, id: RequestId) -> rusqlite::Result<Option<Standing>> {
    session
        .connection
        .prepare_cached(
            "SELECT id, state, iif(live IS NULL, batch, NULL), tag, client_key FROM requests WHERE seq = ?1",
        )?
        .query_row(params![id.sequence()], |row| {
            let batch: Option<[u8; 16]> = row.get(2)?;
            let asker = Asker { tag: row.get(3)?, key: row.get(4)? };
            let standing = Standing { state: request_state(row, 1)?, rides_in: batch.map(BatchId::from_bytes), asker };
            Ok((bytes16(row, 0)?, standing))
        })
        .optional()
        .map(|found| found.filter(|(stored, _)| stored == id.as_bytes()).map(|(_, standing)| standing))
}
