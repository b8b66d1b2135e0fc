//! Lanes are stored once and named by a number, because a million requests have a handful of lanes.
//!
//! The cache from number to lane is shared by all connections: a number never changes its meaning once committed, not after
//! its lane was dropped either (`expire`), and the writer puts no number here before its commit.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rusqlite::{Connection, params};

use crate::domain::lane::{Fingerprint, LaneKey};
use crate::store::sqlite::rows::{bytes16, damaged};

/// Deadline classes make new lanes all the time: above this the caches start again.
const MAX_CACHED: usize = 4_096;

/// Lanes by number.
#[derive(Debug, Default)]
pub(super) struct Lanes(RwLock<HashMap<i64, Arc<LaneKey>>>);

impl Lanes {
    /// The lane of a committed row.
    pub(super) fn get(&self, connection: &Connection, number: i64) -> rusqlite::Result<Arc<LaneKey>> {
        if let Some(lane) = self.0.read().get(&number) {
            return Ok(Arc::clone(lane));
        }
        let lane = Arc::new(load(connection, number)?);
        let mut cached = self.0.write();
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(number, Arc::clone(&lane));
        Ok(lane)
    }
}

fn load(connection: &Connection, number: i64) -> rusqlite::Result<LaneKey> {
    let sql = "SELECT provider, account, endpoint, model, deadline_class FROM lanes WHERE lane = ?1";
    connection.prepare_cached(sql)?.query_row(params![number], |row| {
        let endpoint: String = row.get(2)?;
        Ok(LaneKey {
            provider: row.get::<_, String>(0)?.into(),
            account: Fingerprint(bytes16(row, 1)?),
            endpoint: endpoint.parse().map_err(|text| damaged(2, text))?,
            model: row.get::<_, String>(3)?.into(),
            deadline_class: row.get(4)?,
        })
    })
}

/// Numbers by lane: the writer's own.
#[derive(Debug, Default)]
pub(super) struct Interned(HashMap<Arc<LaneKey>, i64>);

impl Interned {
    /// The number of `lane`, given out now when it has none.
    pub(super) fn number(&mut self, connection: &Connection, lane: &Arc<LaneKey>) -> rusqlite::Result<i64> {
        if let Some(number) = self.0.get(lane) {
            return Ok(*number);
        }
        // Changing nothing is still an update, and an update returns the row.
        let sql = "INSERT INTO lanes (provider, account, endpoint, model, deadline_class) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT DO UPDATE SET provider = provider RETURNING lane";
        let number = connection.prepare_cached(sql)?.query_row(
            params![&*lane.provider, lane.account.0, lane.endpoint.as_str(), &*lane.model, lane.deadline_class],
            |row| row.get(0),
        )?;
        if self.0.len() >= MAX_CACHED {
            self.0.clear();
        }
        self.0.insert(Arc::clone(lane), number);
        Ok(number)
    }

    /// Forgets all, because some may have been given out in a transaction that was rolled back.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
