//! The ledger's rows and sums: what was executed and billed, what it cost, and what the live call would have cost.
//!
//! Invariants, the same in every store:
//! - One row per execution of a deferred request, named by its request and its [`Execution`]: a row that is there already is left as it is, so
//!   replays and duplicate result lines change nothing.
//! - A row is written in the transaction that stores the answer. An execution whose request had ended otherwise, or
//!   whose answer could not be used, is wasted: paid for, worth nothing.
//! - Calls that only pass through have no request: they enter as sums, once.
//! - Amounts are whole nano-dollars (a thousandth of a micro-dollar); sums saturate. An unknown price adds no money and
//!   is counted.
//!
//! Made by `engine::charge` and `intake::meter`, kept by both stores, read by `admin`.

mod caches;

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::Fingerprint;
use crate::domain::pricing::Price;
use crate::domain::usage::Usage;
use crate::store::NewRequest;

pub use caches::{CacheSums, Caches, Writer};

/// An hour of the clock, the step of the rolled-up sums, in seconds.
pub const HOUR: i64 = 3_600;
const HOURS_A_DAY: i64 = 24;

/// Which of a request's executions it is. Together with the request it is the row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execution {
    /// A line of this batch.
    Batch(BatchId),
    /// A live call that answered a deferred request: 1, and a background response 2 or 3, by its window.
    Live(u32),
}

impl Execution {
    /// As kept: a batch's sequence number, the others as a negative number.
    pub(crate) fn place(self) -> i64 {
        match self {
            Self::Batch(id) => id.sequence(),
            Self::Live(attempt) => -i64::from(attempt),
        }
    }
}

/// What one execution is charged with; who asked for it is known by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Provider name.
    pub provider: Arc<str>,
    /// The upstream credential that pays.
    pub account: Fingerprint,
    /// The model, as it was asked for.
    pub model: Arc<str>,
    /// The service that was really used: `batch`, `flex`, `sync`, or another tier in the provider's word.
    pub service: &'static str,
    /// Which execution it is.
    pub execution: Execution,
    /// Tokens; none when the answer does not say.
    pub usage: Option<Usage>,
    /// What it cost; none when the price or the usage is unknown.
    pub price: Option<Price>,
}

/// Live calls that passed through, of one hour and group. Nothing asks for them one by one, so they have no ids and no
/// rows: only their sums are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedCalls {
    /// The hour in which their answers ended: see [`Micros::hour`].
    pub hour: i64,
    /// Where they are added up.
    pub group: Group,
    /// What they add.
    pub sums: LedgerSums,
}

/// What a live call that passed through adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedCall {
    /// Tokens; none when the answer does not say.
    pub usage: Option<Usage>,
    /// What it cost; none when the price or the usage is unknown.
    pub price: Option<Price>,
    /// It would have been deferred: what the same usage costs by batch, in nano-dollars, if that is known.
    pub observed: Option<Option<i64>>,
}

/// By what the rows are added up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Provider name.
    pub provider: Arc<str>,
    /// The upstream credential.
    pub account: Fingerprint,
    /// The model.
    pub model: Arc<str>,
    /// The service.
    pub service: String,
    /// The tag.
    pub tag: Option<String>,
    /// Name of the client key.
    pub key: Option<String>,
    /// The caller's program; only of observed calls.
    pub agent: Option<String>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The sequence number of the request.
    pub request: i64,
    /// Which execution: see [`Execution`].
    pub place: i64,
    /// When its answer was recorded.
    pub at: Micros,
    /// Where it is added up.
    pub group: Group,
    /// Tokens.
    pub usage: Option<Usage>,
    /// What it cost.
    pub price: Option<Price>,
    /// Its answer does not stand: another one was there, or the request had ended.
    pub wasted: bool,
}

/// Who asked, as the store knows it of a deferred request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    pub(crate) tag: Option<String>,
    pub(crate) key: Option<String>,
}

impl Asker {
    pub(crate) fn of(request: &NewRequest) -> Self {
        Self { tag: request.tag.clone(), key: request.key.clone() }
    }
}

/// More tokens than any answer has: a provider's nonsense must not spoil the sums.
const MOST_TOKENS: u64 = 0xFFFF_FFFF;

impl LedgerRow {
    /// The row of a deferred request's execution. `wasted`: it was not this answer that ended the request.
    pub(crate) fn of_charge(request: RequestId, at: Micros, charge: &Charge, asker: Asker, wasted: bool) -> Self {
        let price = match charge.price {
            // The live call would have been made once, and its price stands in the row of the answer that counts.
            Some(price) if wasted => Some(Price { live_nanos: 0, ..price }),
            price => price,
        };
        Self {
            request: request.sequence(),
            place: charge.execution.place(),
            at,
            group: Group {
                provider: Arc::clone(&charge.provider),
                account: charge.account,
                model: Arc::clone(&charge.model),
                service: charge.service.to_owned(),
                tag: asker.tag,
                key: asker.key,
                agent: None,
            },
            usage: charge.usage.map(bounded),
            price,
            wasted,
        }
    }

    /// The hour it is added up in.
    pub(crate) const fn hour(&self) -> i64 {
        self.at.hour()
    }
}

fn bounded(usage: Usage) -> Usage {
    let [input, cached, cache_written, output, reasoning] =
        [usage.input, usage.cached, usage.cache_written, usage.output, usage.reasoning]
            .map(|count| count.min(MOST_TOKENS));
    // For how long tokens were written is in the price; only the price needs it.
    Usage { input, cached, cache_written, cache_written_1h: 0, output, reasoning }
}

/// Sums of rows. Money is in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerSums {
    /// Answers that stand, and calls that passed through.
    pub requests: u64,
    /// Executions that were paid for beside these.
    pub wasted_requests: u64,
    /// Rows of either kind whose price is unknown: they are in no amount.
    pub unpriced: u64,
    /// Of those: rows whose usage is unknown.
    pub unmetered: u64,
    /// Tokens of all rows.
    pub usage: Usage,
    /// What was paid, waste included.
    pub paid_nanos: i64,
    /// What the live calls would have cost.
    pub live_nanos: i64,
    /// The part of `paid_nanos` that bought nothing.
    pub wasted_nanos: i64,
    /// What observe mode saw.
    pub observed: ObservedSums,
}

/// Sums of the calls that would have been deferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedSums {
    /// How many.
    pub requests: u64,
    /// Of those: calls whose price, live or by batch, is unknown: they are in no amount.
    pub unpriced: u64,
    /// What the others cost live.
    pub live_nanos: i64,
    /// What they would have cost by batch.
    pub batch_nanos: i64,
    /// How many of them would have cost as much by batch, or more: the prompt cache ate the difference.
    pub not_cheaper: u64,
}

impl LedgerSums {
    /// What was saved after all: less than zero where waste was more.
    pub const fn saved_nanos(&self) -> i64 {
        self.live_nanos.saturating_sub(self.paid_nanos)
    }

    /// The sums of one row.
    pub(crate) fn of(row: &LedgerRow) -> Self {
        let mut sums = Self { usage: row.usage.unwrap_or_default(), ..Self::default() };
        if row.wasted {
            sums.wasted_requests = 1;
        } else {
            sums.requests = 1;
        }
        sums.unmetered = u64::from(row.usage.is_none());
        match row.price {
            Some(price) => {
                sums.paid_nanos = price.paid_nanos;
                sums.live_nanos = price.live_nanos;
                sums.wasted_nanos = if row.wasted { price.paid_nanos } else { 0 };
            }
            None => sums.unpriced = 1,
        }
        sums
    }

    /// The sums of one call that passed through: what is paid is the live price.
    pub fn of_call(call: &PassedCall) -> Self {
        Self {
            requests: 1,
            unpriced: u64::from(call.price.is_none()),
            unmetered: u64::from(call.usage.is_none()),
            usage: call.usage.map(bounded).unwrap_or_default(),
            paid_nanos: call.price.map_or(0, |price| price.paid_nanos),
            live_nanos: call.price.map_or(0, |price| price.live_nanos),
            observed: call.observed.map(|batch_nanos| ObservedSums::of(call.price, batch_nanos)).unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl ObservedSums {
    fn of(price: Option<Price>, batch_nanos: Option<i64>) -> Self {
        let Some((price, batch_nanos)) = price.zip(batch_nanos) else {
            return Self { requests: 1, unpriced: 1, ..Self::default() };
        };
        Self {
            requests: 1,
            unpriced: 0,
            live_nanos: price.paid_nanos,
            batch_nanos,
            not_cheaper: u64::from(batch_nanos >= price.paid_nanos),
        }
    }

    /// What batch would have saved.
    pub const fn would_save_nanos(&self) -> i64 {
        self.live_nanos.saturating_sub(self.batch_nanos)
    }
}

impl AddAssign for LedgerSums {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.wasted_requests = self.wasted_requests.saturating_add(other.wasted_requests);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.unmetered = self.unmetered.saturating_add(other.unmetered);
        self.usage += other.usage;
        self.paid_nanos = self.paid_nanos.saturating_add(other.paid_nanos);
        self.live_nanos = self.live_nanos.saturating_add(other.live_nanos);
        self.wasted_nanos = self.wasted_nanos.saturating_add(other.wasted_nanos);
        self.observed += other.observed;
    }
}

impl AddAssign for ObservedSums {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.live_nanos = self.live_nanos.saturating_add(other.live_nanos);
        self.batch_nanos = self.batch_nanos.saturating_add(other.batch_nanos);
        self.not_cheaper = self.not_cheaper.saturating_add(other.not_cheaper);
    }
}

/// By what a report is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// UTC days, `2026-11-23`.
    Day,
    /// UTC hours, `2026-11-23T14`.
    Hour,
    /// Models.
    Model,
    /// Tags.
    Tag,
    /// Services.
    Service,
    /// Names of client keys.
    Key,
    /// Provider names.
    Provider,
    /// Fingerprints of upstream credentials.
    Credential,
    /// Programs of callers; only observe mode notes them.
    UserAgent,
}

impl Dimension {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("day", Self::Day),
        ("hour", Self::Hour),
        ("model", Self::Model),
        ("tag", Self::Tag),
        ("service", Self::Service),
        ("key", Self::Key),
        ("provider", Self::Provider),
        ("credential", Self::Credential),
        ("user_agent", Self::UserAgent),
    ];

    /// The name of the part in which rows of `hour` and `group` are; none: they have no such mark.
    fn name(self, hour: i64, group: &Group) -> Option<String> {
        match self {
            Self::Day => Some(date(hour)),
            Self::Hour => Some(format!("{}T{:02}", date(hour), hour.rem_euclid(HOURS_A_DAY))),
            Self::Model => Some(group.model.to_string()),
            Self::Tag => group.tag.clone(),
            Self::Service => Some(group.service.clone()),
            Self::Key => group.key.clone(),
            Self::Provider => Some(group.provider.to_string()),
            Self::Credential => Some(group.account.to_string()),
            Self::UserAgent => group.agent.clone(),
        }
    }
}

/// The day of an hour since the epoch, as `YYYY-MM-DD` (UTC).
fn date(hour: i64) -> String {
    let seconds = hour.saturating_mul(HOUR);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_beyond| seconds.to_string(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// What was spent since some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReport {
    /// Of everything.
    pub totals: LedgerSums,
    /// The parts, in order of their names; none: what has no such mark.
    pub groups: BTreeMap<Option<String>, LedgerSums>,
    /// What was written to prompt caches, and read. Of everything alone: what one part writes another may read.
    pub caches: Caches,
}

impl LedgerReport {
    /// Adds the sums of one hour and group.
    pub(crate) fn add(&mut self, by: Option<Dimension>, hour: i64, group: &Group, sums: LedgerSums) {
        self.totals += sums;
        self.caches.add(group, &sums);
        if let Some(by) = by {
            *self.groups.entry(by.name(hour, group)).or_default() += sums;
        }
    }
}

/// The first hour of a report since `since`: whole hours only, the one that `since` is in included.
pub(crate) const fn first_hour(since: Micros) -> i64 {
    since.hour()
}

#[cfg(test)]
mod tests;
