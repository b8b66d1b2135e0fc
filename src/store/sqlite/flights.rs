//! Test flights in the database: one row for each template.

use rusqlite::{Connection, params};

use crate::domain::clock::Micros;
use crate::domain::ids::{FlightId, RequestId};
use crate::domain::lane::Fingerprint;
use crate::store::flights::{FlightRecord, FlightState};
use crate::store::sqlite::rows::{bytes16, damaged};
use crate::store::sqlite::writer::Session;

/// Keeps a flight in place of its template's last one; see [`crate::store::Store::keep_flight`].
pub(super) fn keep(session: &Session<'_>, flight: &FlightRecord, forget: Micros) -> rusqlite::Result<()> {
    session.connection.prepare_cached("DELETE FROM flights WHERE decided_at < ?1")?.execute(params![forget.0])?;
    let pilots: Vec<u8> = flight.pilots.iter().flat_map(|id| *id.as_bytes()).collect();
    let reasons = serde_json::Value::from(flight.reasons.clone()).to_string();
    session
        .connection
        .prepare_cached(
            "INSERT OR REPLACE INTO flights (template, id, state, provider, account, endpoint, model, tag, created_at, \
             landed_at, decided_at, pilots, reasons, shared_prefix) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            flight.template.0,
            flight.id.as_bytes(),
            flight.state.code(),
            flight.provider,
            flight.account.0,
            flight.endpoint.as_str(),
            flight.model,
            flight.tag,
            flight.created_at.0,
            flight.landed_at.map(|at| at.0),
            flight.decided_at.map(|at| at.0),
            pilots,
            reasons,
            flight.shared_prefix,
        ])?;
    Ok(())
}

/// All of them.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<FlightRecord>> {
    connection
        .prepare_cached(
            "SELECT template, id, state, provider, account, endpoint, model, tag, created_at, landed_at, decided_at, \
             pilots, reasons, shared_prefix FROM flights ORDER BY template",
        )?
        .query_map((), |row| {
            let code: i64 = row.get(2)?;
            let state = FlightState::ALL.into_iter().find(|state| state.code() == code);
            let (endpoint, pilots, reasons): (String, Vec<u8>, String) = (row.get(5)?, row.get(11)?, row.get(12)?);
            let (pilots, rest) = pilots.as_chunks::<16>();
            if !rest.is_empty() {
                return Err(damaged(11, "a list of pilots ends within an id".to_owned()));
            }
            Ok(FlightRecord {
                template: Fingerprint(bytes16(row, 0)?),
                id: FlightId::from_bytes(bytes16(row, 1)?),
                state: state.ok_or(rusqlite::Error::IntegralValueOutOfRange(2, code))?,
                provider: row.get(3)?,
                account: Fingerprint(bytes16(row, 4)?),
                endpoint: endpoint.parse().map_err(|error| damaged(5, error))?,
                model: row.get(6)?,
                tag: row.get(7)?,
                created_at: Micros(row.get(8)?),
                landed_at: row.get::<_, Option<i64>>(9)?.map(Micros),
                decided_at: row.get::<_, Option<i64>>(10)?.map(Micros),
                pilots: pilots.iter().copied().map(RequestId::from_bytes).collect(),
                reasons: serde_json::from_str(&reasons).map_err(|error| damaged(12, error.to_string()))?,
                shared_prefix: row.get(13)?,
            })
        })?
        .collect()
}
