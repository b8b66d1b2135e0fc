//! The ledger in SQLite: rows in the transaction of their answers, and their sums by hour and group beside them.
//!
//! Sums are added up per operation in memory and written once per hour and group, so that a harvest of thousands of
//! lines touches a handful of rows here.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::domain::pricing::Price;
use crate::domain::usage::Usage;
use crate::store::ledger::{
    Dimension, Group, LedgerReport, LedgerRow, LedgerSums, ObservedSums, PassedCalls, first_hour,
};
use crate::store::sqlite::expire::remember_sequence;
use crate::store::sqlite::rows::bytes16;
use crate::store::sqlite::writer::Session;

/// Rows of one operation: entered one by one, summed up at the end.
#[derive(Default)]
pub(super) struct Entries {
    groups: BTreeMap<Group, i64>,
    sums: BTreeMap<(i64, i64), LedgerSums>,
}

impl Entries {
    /// Enters a row unless its key is there.
    pub(super) fn enter(&mut self, session: &Session<'_>, row: &LedgerRow) -> rusqlite::Result<()> {
        let group = self.group_number(session.connection, &row.group)?;
        let usage = row.usage;
        let count = |part: fn(&Usage) -> u64| usage.as_ref().map(|usage| signed(part(usage)));
        let entered = session
            .connection
            .prepare_cached(
                "INSERT INTO ledger (request, place, at, grp, input, cached, cache_written, output, reasoning, paid, live, \
                 wasted, observed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0) \
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                row.request,
                row.place,
                row.at.0,
                group,
                count(|usage| usage.input),
                count(|usage| usage.cached),
                count(|usage| usage.cache_written),
                count(|usage| usage.output),
                count(|usage| usage.reasoning),
                row.price.map(|price| price.paid_nanos),
                row.price.map(|price| price.live_nanos),
                row.wasted,
            ])?;
        if entered == 1 {
            *self.sums.entry((row.hour(), group)).or_default() += LedgerSums::of(row);
        }
        Ok(())
    }

    /// Adds what was entered to the stored sums.
    pub(super) fn sum_up(self, session: &Session<'_>) -> rusqlite::Result<()> {
        for ((hour, group), sums) in self.sums {
            let sql = format!("SELECT {SUM_COLUMNS} FROM ledger_hours h WHERE h.hour = ?1 AND h.grp = ?2");
            let stored = session
                .connection
                .prepare_cached(&sql)?
                .query_row(params![hour, group], |row| read_sums(row, 0))
                .optional()?;
            let mut total = stored.unwrap_or_default();
            total += sums;
            write_sums(session, hour, group, &total)?;
        }
        Ok(())
    }

    fn group_number(&mut self, connection: &Connection, group: &Group) -> rusqlite::Result<i64> {
        if let Some(number) = self.groups.get(group) {
            return Ok(*number);
        }
        // Changing nothing is still an update, and an update returns the row.
        let number = connection
            .prepare_cached(
                "INSERT INTO ledger_groups (provider, account, model, service, tag, client_key, agent) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET provider = provider RETURNING grp",
            )?
            .query_row(
                params![
                    &*group.provider,
                    group.account.0,
                    &*group.model,
                    group.service,
                    group.tag.as_deref().unwrap_or_default(),
                    group.key.as_deref().unwrap_or_default(),
                    group.agent.as_deref().unwrap_or_default(),
                ],
                |row| row.get(0),
            )?;
        self.groups.insert(group.clone(), number);
        Ok(number)
    }
}

/// Enters calls that passed through.
pub(super) fn record_calls(session: &Session<'_>, calls: &[PassedCalls]) -> rusqlite::Result<()> {
    let mut entries = Entries::default();
    for PassedCalls { hour, group, sums } in calls {
        let group = entries.group_number(session.connection, group)?;
        *entries.sums.entry((*hour, group)).or_default() += *sums;
    }
    entries.sum_up(session)
}

const SUM_COLUMNS: &str = "h.requests, h.wasted_requests, h.unpriced, h.unmetered, h.input, h.cached, h.cache_written, \
    h.output, h.reasoning, h.paid, h.live, h.wasted, h.observed, h.observed_unpriced, h.observed_live, \
    h.observed_batch, h.observed_not_cheaper";

/// How many [`SUM_COLUMNS`] are.
const AFTER_SUMS: usize = 17;

fn write_sums(session: &Session<'_>, hour: i64, group: i64, sums: &LedgerSums) -> rusqlite::Result<()> {
    session
        .connection
        .prepare_cached(
            "INSERT OR REPLACE INTO ledger_hours (hour, grp, requests, wasted_requests, unpriced, unmetered, input, cached, \
             cache_written, output, reasoning, paid, live, wasted, observed, observed_unpriced, observed_live, \
             observed_batch, observed_not_cheaper) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?
        .execute(params![
            hour,
            group,
            signed(sums.requests),
            signed(sums.wasted_requests),
            signed(sums.unpriced),
            signed(sums.unmetered),
            signed(sums.usage.input),
            signed(sums.usage.cached),
            signed(sums.usage.cache_written),
            signed(sums.usage.output),
            signed(sums.usage.reasoning),
            sums.paid_nanos,
            sums.live_nanos,
            sums.wasted_nanos,
            signed(sums.observed.requests),
            signed(sums.observed.unpriced),
            sums.observed.live_nanos,
            sums.observed.batch_nanos,
            signed(sums.observed.not_cheaper),
        ])?;
    Ok(())
}

fn read_sums(row: &Row<'_>, first: usize) -> rusqlite::Result<LedgerSums> {
    let amount = |column: usize| row.get::<_, i64>(first + column);
    let count = |column: usize| amount(column).map(unsigned);
    Ok(LedgerSums {
        requests: count(0)?,
        wasted_requests: count(1)?,
        unpriced: count(2)?,
        unmetered: count(3)?,
        usage: Usage {
            input: count(4)?,
            cached: count(5)?,
            cache_written: count(6)?,
            cache_written_1h: 0,
            output: count(7)?,
            reasoning: count(8)?,
        },
        paid_nanos: amount(9)?,
        live_nanos: amount(10)?,
        wasted_nanos: amount(11)?,
        observed: ObservedSums {
            requests: count(12)?,
            unpriced: count(13)?,
            live_nanos: amount(14)?,
            batch_nanos: amount(15)?,
            not_cheaper: count(16)?,
        },
    })
}

const GROUP_COLUMNS: &str = "g.provider, g.account, g.model, g.service, g.tag, g.client_key, g.agent";

fn read_group(row: &Row<'_>, first: usize) -> rusqlite::Result<Group> {
    let text = |column: usize| row.get::<_, String>(first + column);
    let mark = |column: usize| text(column).map(|text| Some(text).filter(|text| !text.is_empty()));
    Ok(Group {
        provider: text(0)?.into(),
        account: Fingerprint(bytes16(row, first + 1)?),
        model: text(2)?.into(),
        service: text(3)?,
        tag: mark(4)?,
        key: mark(5)?,
        agent: mark(6)?,
    })
}

/// The sums since an hour; see [`crate::store::Store::ledger`].
pub(super) fn report(connection: &Connection, since: Micros, by: Option<Dimension>) -> rusqlite::Result<LedgerReport> {
    let mut report = LedgerReport::default();
    let sql = format!(
        "SELECT {SUM_COLUMNS}, h.hour, {GROUP_COLUMNS} FROM ledger_hours h JOIN ledger_groups g ON g.grp = h.grp \
         WHERE h.hour >= ?1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![first_hour(since)])?;
    while let Some(row) = rows.next()? {
        let group = read_group(row, AFTER_SUMS + 1)?;
        report.add(by, row.get(AFTER_SUMS)?, &group, read_sums(row, 0)?);
    }
    Ok(report)
}

/// The rows of requests, in their order and then in that of the places.
pub(super) fn rows_of(connection: &Connection, ids: &[RequestId]) -> rusqlite::Result<Vec<LedgerRow>> {
    let sql = format!(
        "SELECT l.request, l.place, l.at, l.input, l.cached, l.cache_written, l.output, l.reasoning, l.paid, l.live, \
         l.wasted, {GROUP_COLUMNS} FROM ledger l JOIN ledger_groups g ON g.grp = l.grp \
         WHERE l.request = ?1 ORDER BY l.place"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = Vec::new();
    for id in ids {
        for row in statement.query_map(params![id.sequence()], read_row)? {
            rows.push(row?);
        }
    }
    Ok(rows)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<LedgerRow> {
    let known = |column: usize| row.get::<_, Option<i64>>(column);
    let input = known(3)?;
    let rest = |column: usize| known(column).map(|count| unsigned(count.unwrap_or(0)));
    let usage = match input {
        Some(input) => Some(Usage {
            input: unsigned(input),
            cached: rest(4)?,
            cache_written: rest(5)?,
            cache_written_1h: 0,
            output: rest(6)?,
            reasoning: rest(7)?,
        }),
        None => None,
    };
    Ok(LedgerRow {
        request: row.get(0)?,
        place: row.get(1)?,
        at: Micros(row.get(2)?),
        group: read_group(row, 11)?,
        usage,
        price: known(8)?.zip(known(9)?).map(|(paid_nanos, live_nanos)| Price { paid_nanos, live_nanos }),
        wasted: row.get(10)?,
    })
}

/// Drops old rows of requests that are gone; see [`crate::store::Store::expire_ledger`].
pub(super) fn expire(session: &Session<'_>, sequence: i64, limit: usize) -> rusqlite::Result<usize> {
    let old: Vec<(i64, i64)> = session
        .connection
        .prepare_cached(
            "SELECT request, place FROM ledger WHERE request < ?1 \
             AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.seq = ledger.request) ORDER BY request, place LIMIT ?2",
        )?
        .query_map(params![sequence, i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut delete = session.connection.prepare_cached("DELETE FROM ledger WHERE request = ?1 AND place = ?2")?;
    for (request, place) in &old {
        delete.execute(params![request, place])?;
    }
    if let Some((newest, _)) = old.last() {
        remember_sequence(session, *newest)?;
    }
    Ok(old.len())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
