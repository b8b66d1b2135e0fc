//! Running sums of the deferred requests that ended since the start, and what was paid and saved for them.
//!
//! Kept in memory only: a restart begins at zero; what lasts is in the store's ledger. Amounts are integers
//! (nano-dollars), so that sums are exact; a request whose price is unknown counts as unpriced and adds no money.

use std::collections::BTreeMap;

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests that ended, by service (`none`: nothing was executed).
    pub requests: BTreeMap<&'static str, u64>,
    /// Of those that were executed: requests whose price is known.
    pub priced: u64,
    /// What was paid for those, in nano-dollars.
    pub paid_nanos: i64,
    /// What the live calls would have cost more, in nano-dollars.
    pub saved_nanos: i64,
}

impl Sums {
    /// All requests that ended.
    pub fn finished(&self) -> u64 {
        self.requests.values().sum()
    }

    pub(super) fn finish(&mut self, service: &'static str) {
        *self.requests.entry(service).or_default() += 1;
    }

    pub(super) fn price(&mut self, paid_nanos: i64, saved_nanos: i64) {
        self.priced += 1;
        self.paid_nanos = self.paid_nanos.saturating_add(paid_nanos);
        self.saved_nanos = self.saved_nanos.saturating_add(saved_nanos);
    }
}
