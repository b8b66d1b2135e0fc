//! Running sums of what was finished, paid and saved: since the start, and today (UTC).
//!
//! Kept in memory only: a restart begins at zero. Amounts are integers (nano-dollars), so that sums are exact; a request
//! whose price is unknown counts as unpriced and adds no money.

use std::collections::BTreeMap;

use crate::domain::clock::Micros;

const SECONDS_A_DAY: i64 = 86_400;

/// Sums over some span of time.
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

/// Both spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Since the process started.
    pub since_start: Sums,
    /// Since midnight UTC, or since the start if that was later.
    pub today: Sums,
}

impl Sums {
    /// All requests that ended.
    pub fn finished(&self) -> u64 {
        self.requests.values().sum()
    }

    fn finish(&mut self, service: &'static str) {
        *self.requests.entry(service).or_default() += 1;
    }

    fn price(&mut self, paid_nanos: i64, saved_nanos: i64) {
        self.priced += 1;
        self.paid_nanos = self.paid_nanos.saturating_add(paid_nanos);
        self.saved_nanos = self.saved_nanos.saturating_add(saved_nanos);
    }
}

/// The sums as they grow.
#[derive(Debug)]
pub(super) struct Ledger {
    totals: Totals,
    day: i64,
}

impl Ledger {
    pub(super) fn starting(at: Micros) -> Self {
        Self { totals: Totals::default(), day: day_of(at) }
    }

    pub(super) fn totals(&mut self, now: Micros) -> Totals {
        self.turn_page(now);
        self.totals.clone()
    }

    pub(super) fn finish(&mut self, now: Micros, service: &'static str) {
        self.turn_page(now);
        self.totals.since_start.finish(service);
        self.totals.today.finish(service);
    }

    pub(super) fn price(&mut self, now: Micros, paid_nanos: i64, saved_nanos: i64) {
        self.turn_page(now);
        self.totals.since_start.price(paid_nanos, saved_nanos);
        self.totals.today.price(paid_nanos, saved_nanos);
    }

    /// A clock that was set back keeps the page: no sum is lost twice.
    fn turn_page(&mut self, now: Micros) {
        let day = day_of(now);
        if day > self.day {
            self.day = day;
            self.totals.today = Sums::default();
        }
    }
}

const fn day_of(at: Micros) -> i64 {
    at.unix_seconds().div_euclid(SECONDS_A_DAY)
}
