//! How values of the domain lie in columns. The numbers here are on disk: they never change.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, Error, Row};

use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::Fingerprint;
use crate::domain::request::RequestState;
use crate::domain::trace::TraceContext;
use crate::store::rules::BatchProgress;
use crate::store::services::service_of;
use crate::store::sqlite::lanes::Lanes;
use crate::store::{BatchRecord, LiveCall, NewRequest, OutcomeSummary, ProviderBatch, RequestOptions, RequestRecord};

/// The columns that [`request_record`] reads, and where from.
pub(super) const REQUEST_COLUMNS: &str = "r.id, r.state, r.options, r.lane, r.caller, r.body_hash, r.idempotency, \
    r.body_len, r.created_at, r.deadline_at, r.tag, r.attempts, r.batch, r.submitted_at, r.finished_at, \
    a.status_code, a.service, a.provider_request_id, a.error_code, a.error_message, a.usage, a.cost_nanos, a.saved_nanos, \
    r.live, r.live_since, r.live_sent, r.client_key, r.template, r.most_output, r.live_response, r.trace";
/// The number of the column after [`REQUEST_COLUMNS`].
pub(super) const AFTER_REQUEST_COLUMNS: usize = 31;
/// The tables of [`REQUEST_COLUMNS`].
pub(super) const REQUEST_TABLES: &str = "requests r LEFT JOIN results a ON a.num = r.result";

/// The columns that [`batch_record`] reads.
pub(super) const BATCH_COLUMNS: &str = "id, lane, state, line_count, created_at, submitted_at, ended_at, \
    input_file_id, batch_id, status, completed, failed, output_file_id, error_file_id, error";

/// The number of a request's state.
pub(super) const fn request_state_code(state: RequestState) -> i64 {
    match state {
        RequestState::Queued => 0,
        RequestState::Submitted => 1,
        RequestState::Completed => 2,
        RequestState::Failed => 3,
        RequestState::Cancelled => 4,
    }
}

/// The number of a batch's state.
pub(super) const fn batch_state_code(state: BatchState) -> i64 {
    match state {
        BatchState::Prepared => 0,
        BatchState::Uploaded => 1,
        BatchState::Submitted => 2,
        BatchState::Completed => 3,
        BatchState::Failed => 4,
        BatchState::Expired => 5,
        BatchState::Cancelled => 6,
    }
}

/// A request's state.
pub(super) fn request_state(row: &Row<'_>, column: usize) -> rusqlite::Result<RequestState> {
    let code: i64 = row.get(column)?;
    RequestState::ALL
        .into_iter()
        .find(|state| request_state_code(*state) == code)
        .ok_or(Error::IntegralValueOutOfRange(column, code))
}

/// A batch's state.
fn batch_state(row: &Row<'_>, column: usize) -> rusqlite::Result<BatchState> {
    let code: i64 = row.get(column)?;
    BatchState::ALL
        .into_iter()
        .find(|state| batch_state_code(*state) == code)
        .ok_or(Error::IntegralValueOutOfRange(column, code))
}

/// 16 bytes.
pub(super) fn bytes16(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 16]> {
    row.get(column)
}

fn optional16(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<[u8; 16]>> {
    row.get(column)
}

fn micros(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Micros>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Micros))
}

/// A row of [`REQUEST_COLUMNS`].
pub(super) fn request_record(connection: &Connection, lanes: &Lanes, row: &Row<'_>) -> rusqlite::Result<RequestRecord> {
    let state = request_state(row, 1)?;
    Ok(RequestRecord {
        request: NewRequest {
            id: RequestId::from_bytes(bytes16(row, 0)?),
            options: RequestOptions(row.get(2)?),
            lane: lanes.get(connection, row.get(3)?)?,
            caller: Fingerprint(bytes16(row, 4)?),
            body_hash: Fingerprint(bytes16(row, 5)?),
            idempotency: optional16(row, 6)?.map(Fingerprint),
            body_len: row.get(7)?,
            created_at: Micros(row.get(8)?),
            deadline_at: micros(row, 9)?,
            tag: row.get(10)?,
            key: row.get(26)?,
            template: optional16(row, 27)?.map(Fingerprint),
            most_output: row.get(28)?,
            trace: row.get::<_, Option<[u8; TraceContext::LEN]>>(30)?.and_then(TraceContext::from_bytes),
        },
        state,
        attempts: row.get(11)?,
        batch_id: optional16(row, 12)?.map(BatchId::from_bytes),
        submitted_at: micros(row, 13)?,
        finished_at: micros(row, 14)?,
        live: live_call(row)?,
        response: row.get(29)?,
        outcome: if state.is_terminal() { Some(outcome(row)?) } else { None },
    })
}

fn live_call(row: &Row<'_>) -> rusqlite::Result<Option<LiveCall>> {
    let (code, since): (Option<i64>, Option<i64>) = (row.get(23)?, row.get(24)?);
    let Some((code, since)) = code.zip(since) else { return Ok(None) };
    let service = service_of(code).ok_or(Error::IntegralValueOutOfRange(23, code))?;
    Ok(Some(LiveCall { service, since: Micros(since), sent_at: micros(row, 25)? }))
}

fn outcome(row: &Row<'_>) -> rusqlite::Result<OutcomeSummary> {
    let code: Option<String> = row.get(18)?;
    let message: Option<String> = row.get(19)?;
    Ok(OutcomeSummary {
        status_code: row.get(15)?,
        service: row.get(16)?,
        provider_request_id: row.get(17)?,
        error: code.zip(message),
        usage_json: row.get(20)?,
        cost_nanos: row.get(21)?,
        saved_nanos: row.get(22)?,
    })
}

/// A row of [`BATCH_COLUMNS`].
pub(super) fn batch_record(connection: &Connection, lanes: &Lanes, row: &Row<'_>) -> rusqlite::Result<BatchRecord> {
    Ok(BatchRecord {
        id: BatchId::from_bytes(bytes16(row, 0)?),
        lane: lanes.get(connection, row.get(1)?)?,
        state: batch_state(row, 2)?,
        line_count: row.get(3)?,
        created_at: Micros(row.get(4)?),
        submitted_at: micros(row, 5)?,
        ended_at: micros(row, 6)?,
        provider: provider(row)?,
    })
}

/// The changing part of a row of [`BATCH_COLUMNS`].
pub(super) fn batch_progress(row: &Row<'_>) -> rusqlite::Result<BatchProgress> {
    Ok(BatchProgress {
        state: batch_state(row, 2)?,
        submitted_at: micros(row, 5)?,
        ended_at: micros(row, 6)?,
        provider: provider(row)?,
    })
}

fn provider(row: &Row<'_>) -> rusqlite::Result<ProviderBatch> {
    Ok(ProviderBatch {
        input_file_id: row.get(7)?,
        batch_id: row.get(8)?,
        status: row.get(9)?,
        completed: row.get(10)?,
        failed: row.get(11)?,
        output_file_id: row.get(12)?,
        error_file_id: row.get(13)?,
        error: row.get(14)?,
    })
}

/// A column that holds something else than it should.
pub(super) fn damaged(column: usize, what: String) -> Error {
    Error::FromSqlConversionFailure(column, Type::Blob, Box::new(FromSqlError::other(StoredValue(what))))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct StoredValue(String);
