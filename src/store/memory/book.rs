//! The ledger of the store in memory: rows by key, and their sums by hour and group.

use std::collections::BTreeMap;

use crate::domain::clock::Micros;
use crate::store::ledger::{Dimension, Group, LedgerReport, LedgerRow, LedgerSums, PassedCalls, first_hour};

/// Rows and sums.
#[derive(Debug, Default)]
pub(super) struct Book {
    rows: BTreeMap<(i64, i64), LedgerRow>,
    hours: BTreeMap<(i64, Group), LedgerSums>,
}

impl Book {
    /// Enters a row unless its key is there.
    pub(super) fn enter(&mut self, row: LedgerRow) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.rows.entry((row.request, row.place)) {
            *self.hours.entry((row.hour(), row.group.clone())).or_default() += LedgerSums::of(&row);
            place.insert(row);
        }
    }

    /// Enters calls that passed through.
    pub(super) fn add(&mut self, calls: PassedCalls) {
        *self.hours.entry((calls.hour, calls.group)).or_default() += calls.sums;
    }

    /// The rows of a request.
    pub(super) fn rows_of(&self, request: i64) -> Vec<LedgerRow> {
        self.rows.range((request, i64::MIN)..=(request, i64::MAX)).map(|(_, row)| row.clone()).collect()
    }

    /// The sums since an hour.
    pub(super) fn report(&self, since: Micros, by: Option<Dimension>) -> LedgerReport {
        let mut report = LedgerReport::default();
        for ((hour, group), sums) in self.hours.iter().filter(|((hour, _), _)| *hour >= first_hour(since)) {
            report.add(by, *hour, group, *sums);
        }
        report
    }

    /// Drops at most `limit` rows of requests before `sequence` that are not `kept`, the oldest first.
    pub(super) fn expire(&mut self, sequence: i64, limit: usize, kept: impl Fn(i64) -> bool) -> usize {
        let old: Vec<_> = self
            .rows
            .range(..(sequence, i64::MIN))
            .map(|(key, _)| *key)
            .filter(|(request, _)| !kept(*request))
            .take(limit)
            .collect();
        for key in &old {
            self.rows.remove(key);
        }
        old.len()
    }
}
