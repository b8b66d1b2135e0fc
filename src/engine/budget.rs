//! The day's budget: what may still be submitted before midnight (UTC), altogether and for single tags and client keys.
//!
//! What was spent is the ledger's word, whatever service it went to, pass-through included. What is on its way is an
//! estimate: prompt tokens by bytes, output by what answers of the model had on average, or by the request's own limit.
//! A model without a price is not limited: its cost is unknown, and so it is not in the ledger's sums either.
//!
//! The dispatcher reserves before it submits. What a batch has reserved is free again at the first look at the ledger that
//! begins after the batch's end: its real price is in there then, and nothing is spent twice in between. Intake asks whether
//! a limit is used up. Live calls for deadlines and test flights are not held.

mod purses;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::{BudgetConfig, BudgetScope};
use crate::domain::clock::Micros;
use crate::domain::lane::LaneKey;
use crate::domain::money::Money;
use crate::domain::pricing::Seller;
use crate::domain::service::Service;
use crate::domain::usage::Usage;
use crate::engine::context::Context;
use crate::engine::dispatch::Message;
use crate::engine::plan::{Queued, estimated_tokens};
use crate::store::StoreError;
use crate::store::ledger::{Dimension, LedgerReport};

pub(crate) use purses::{Purses, Reserve, Room};

/// How often the ledger is asked …
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// … and how soon after a batch has ended.
const SETTLED: Duration = Duration::from_millis(500);
/// Averages are of so many days …
const LEARNED_FROM: Duration = Duration::from_secs(7 * 24 * 3600);
/// … and of so many answers at least.
const ENOUGH: u64 = 10;
const DAY: i64 = 24 * 3600;
const PICOS_PER_NANO: i64 = 1_000;

/// Where a limit stands. Money is in nano-dollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// Whose limit it is; none: everybody's.
    pub scope: Option<BudgetScope>,
    /// Most that is spent in a day.
    pub limit_nanos: i64,
    /// What the ledger has of today.
    pub spent_nanos: i64,
    /// What is estimated of batches that are on their way, or whose prices are not looked up yet.
    pub reserved_nanos: i64,
    /// Calls wait for the next day.
    pub is_used_up: bool,
    /// When that begins.
    pub resets_at: Micros,
}

/// One limit. Money is in nano-dollars.
#[derive(Debug)]
struct Limit {
    scope: Option<BudgetScope>,
    most: i64,
    spent: i64,
    reserved: i64,
    /// Reserved by batches that have ended: kept until the ledger was asked.
    ended: i64,
    /// Somebody waits for the next day because of it.
    holds: bool,
}

impl Limit {
    fn new(scope: Option<BudgetScope>, daily_usd: f64) -> Self {
        let most = Money::from_usd_f64(daily_usd).map_or(i64::MAX, |money| money.picos() / PICOS_PER_NANO);
        Self { scope, most, spent: 0, reserved: 0, ended: 0, holds: false }
    }

    /// 0 where more was spent than is left.
    fn left(&self) -> u64 {
        let left = self.most.saturating_sub(self.spent).saturating_sub(self.reserved).saturating_sub(self.ended);
        u64::try_from(left).unwrap_or(0)
    }

    fn reserve(&mut self, nanos: u64) {
        self.reserved = self.reserved.saturating_add(signed(nanos));
    }

    fn end(&mut self, nanos: u64) {
        let nanos = signed(nanos).min(self.reserved);
        self.reserved -= nanos;
        self.ended = self.ended.saturating_add(nanos);
    }

    /// What the ledger has, asked after `ended` was. Whether there may be more room than before.
    fn looked(&mut self, spent: i64, ended: i64, is_new_day: bool) -> bool {
        let is_better = is_new_day || ended > 0 || spent < self.spent;
        self.spent = spent;
        self.ended = self.ended.saturating_sub(ended);
        self.holds &= !is_better;
        is_better
    }
}

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct Standing {
    day: i64,
    /// Of everything; none: no limit.
    total: Option<Limit>,
    /// In the order of the configuration.
    limits: Vec<Limit>,
    /// Average output tokens by model.
    outputs: HashMap<String, u64>,
}

impl Standing {
    fn all(&mut self) -> impl Iterator<Item = &mut Limit> {
        self.total.iter_mut().chain(&mut self.limits)
    }
}

/// The budget; without a limit everything fits.
#[derive(Debug)]
pub(crate) struct Budget {
    config: BudgetConfig,
    standing: Mutex<Standing>,
}

impl Budget {
    /// As configured.
    pub(crate) fn new(config: &BudgetConfig) -> Self {
        let limit = |limit: &crate::config::BudgetLimit| Limit::new(Some(limit.scope.clone()), limit.daily_usd);
        let standing = Standing {
            day: 0,
            total: config.daily_usd.map(|usd| Limit::new(None, usd)),
            limits: config.limits.iter().map(limit).collect(),
            outputs: HashMap::new(),
        };
        Self { config: config.clone(), standing: Mutex::new(standing) }
    }

    /// Whether there is a limit at all.
    pub(crate) const fn is_kept(&self) -> bool {
        self.config.daily_usd.is_some() || self.has_limits()
    }

    /// Whether single tags or client keys have limits.
    pub(crate) const fn has_limits(&self) -> bool {
        !self.config.limits.is_empty()
    }

    /// Reads what the ledger has. Whether more may be spent than before.
    pub(crate) async fn look(&self, context: &Context) -> Result<bool, StoreError> {
        if !self.is_kept() {
            return Ok(false);
        }
        let now = context.now();
        let day = now.unix_seconds().div_euclid(DAY);
        let midnight = Micros::from_unix_seconds(day.saturating_mul(DAY));
        let week = Micros(now.0.saturating_sub(i64::try_from(LEARNED_FROM.as_micros()).unwrap_or(i64::MAX)));
        // Before the ledger is asked: these batches' prices are in its answer.
        let ended: Vec<i64> = self.standing.lock().all().map(|limit| limit.ended).collect();
        let by_tag = context.store.ledger(midnight, Some(Dimension::Tag)).await?;
        let by_key = match self.has_limits() {
            true => context.store.ledger(midnight, Some(Dimension::Key)).await?,
            false => LedgerReport::default(),
        };
        let models = context.store.ledger(week, Some(Dimension::Model)).await?;
        let outputs = models.groups.into_iter().filter_map(|(model, sums)| {
            let answers = sums.requests.saturating_add(sums.wasted_requests).saturating_sub(sums.unmetered);
            (answers >= ENOUGH).then(|| (model.unwrap_or_default(), sums.usage.output.div_ceil(answers)))
        });
        let outputs = outputs.collect();
        let paid = |report: &LedgerReport, name: &str| {
            report.groups.get(&Some(name.to_owned())).map_or(0, |sums| sums.paid_nanos)
        };
        let mut standing = self.standing.lock();
        let is_new_day = day > std::mem::replace(&mut standing.day, day);
        standing.outputs = outputs;
        let mut is_better = false;
        for (limit, ended) in standing.all().zip(ended) {
            let spent = match &limit.scope {
                None => by_tag.totals.paid_nanos,
                Some(BudgetScope::Tag(tag)) => paid(&by_tag, tag),
                Some(BudgetScope::ClientKey(name)) => paid(&by_key, name),
            };
            is_better |= limit.looked(spent, ended, is_new_day);
        }
        Ok(is_better)
    }

    /// The limits of a request with this tag, of this client key.
    pub(crate) fn purses(&self, tag: Option<&str>, key: Option<&str>) -> Purses {
        let place = |fits: &dyn Fn(&BudgetScope) -> bool| {
            let at = self.config.limits.iter().position(|limit| fits(&limit.scope))?;
            u16::try_from(at).ok()
        };
        Purses::new(
            tag.and_then(|tag| place(&|scope| matches!(scope, BudgetScope::Tag(limited) if limited == tag))),
            key.and_then(|key| place(&|scope| matches!(scope, BudgetScope::ClientKey(limited) if limited == key))),
        )
    }

    /// What a request is expected to cost by batch, in nano-dollars; 0 where there is no limit or no price.
    pub(crate) fn estimate(&self, context: &Context, lane: &LaneKey, queued: &Queued) -> u64 {
        if !self.is_kept() {
            return 0;
        }
        let input = estimated_tokens(queued.line_bytes);
        let learned = self.standing.lock().outputs.get(&*lane.model).copied();
        let most = queued.most_output.map(u64::from);
        let output = match (learned, most) {
            (Some(learned), Some(most)) => learned.min(most),
            // Nothing is known: about as much as was asked.
            (learned, most) => learned.or(most).unwrap_or(input),
        };
        let kind = context.provider_configs.get(&*lane.provider).map_or("", |config| config.kind.as_str());
        let seller = Seller { name: &lane.provider, kind, model: &lane.model };
        let usage = Usage { input, output, ..Usage::default() };
        let price = context.settings().prices.price(seller, Service::Batch, &usage);
        price.map_or(0, |price| u64::try_from(price.paid_nanos).unwrap_or(0))
    }

    /// What may still be submitted today altogether, in nano-dollars; none: as much as there is.
    pub(crate) fn left(&self) -> Option<u64> {
        self.standing.lock().total.as_ref().map(Limit::left)
    }

    /// What may still be submitted today of each tag and client key.
    pub(crate) fn room(&self) -> Room {
        Room::of(self.standing.lock().limits.iter().map(Limit::left).collect())
    }

    /// A batch leaves.
    pub(crate) fn reserve(&self, reserve: &Reserve) {
        self.change(reserve, Limit::reserve);
    }

    /// It has ended.
    pub(crate) fn give_back(&self, reserve: &Reserve) {
        self.change(reserve, Limit::end);
    }

    fn change(&self, reserve: &Reserve, change: fn(&mut Limit, u64)) {
        let mut standing = self.standing.lock();
        if let Some(total) = &mut standing.total {
            change(total, reserve.total());
        }
        for (purse, nanos) in reserve.parts() {
            if let Some(limit) = standing.limits.get_mut(usize::from(purse)) {
                change(limit, nanos);
            }
        }
    }

    /// Whether a batch has ended whose price was not looked up yet.
    fn has_ended(&self) -> bool {
        self.standing.lock().all().any(|limit| limit.ended > 0)
    }

    /// A lane waits for the next day. Whether it is the first one.
    pub(crate) fn hold(&self) -> bool {
        self.standing.lock().total.as_mut().is_some_and(|total| !std::mem::replace(&mut total.holds, true))
    }

    /// These requests wait for the next day. The limits that nobody waited for before.
    pub(crate) fn hold_aside(&self, aside: &[Queued]) -> Vec<BudgetScope> {
        let mut standing = self.standing.lock();
        let mut first = Vec::new();
        for queued in aside {
            for purse in queued.purses.each() {
                let Some(limit) = standing.limits.get_mut(usize::from(purse)) else { continue };
                // Of two limits it may be the other one that has no room.
                if limit.left() < queued.estimate && !std::mem::replace(&mut limit.holds, true) {
                    first.extend(limit.scope.clone());
                }
            }
        }
        first
    }

    /// Where each limit stands at `now`, that of everything first.
    pub(crate) fn view(&self, now: Micros) -> Vec<BudgetView> {
        let tomorrow = now.unix_seconds().div_euclid(DAY).saturating_add(1);
        let resets_at = Micros::from_unix_seconds(tomorrow.saturating_mul(DAY));
        let view = |limit: &mut Limit| BudgetView {
            scope: limit.scope.clone(),
            limit_nanos: limit.most,
            spent_nanos: limit.spent,
            reserved_nanos: limit.reserved.saturating_add(limit.ended),
            is_used_up: limit.holds || limit.spent >= limit.most,
            resets_at,
        };
        self.standing.lock().all().map(view).collect()
    }

    /// The limit that is used up for a call with this tag, of this client key; none: it may be queued.
    pub(crate) fn used_up(&self, tag: Option<&str>, key: Option<&str>, now: Micros) -> Option<BudgetView> {
        if !self.is_kept() {
            return None;
        }
        self.view(now).into_iter().filter(|view| view.is_used_up).find(|view| match &view.scope {
            None => true,
            Some(BudgetScope::Tag(limited)) => tag == Some(limited),
            Some(BudgetScope::ClientKey(limited)) => key == Some(limited),
        })
    }
}

/// Keeps the budget up to date until the process stops.
pub(crate) async fn run(context: Arc<Context>) {
    if !context.budget.is_kept() {
        return;
    }
    let mut looked_at = Instant::now();
    while context.sleep(SETTLED).await {
        if looked_at.elapsed() < LOOK && !context.budget.has_ended() {
            continue;
        }
        looked_at = Instant::now();
        match context.budget.look(&context).await {
            Ok(true) => context.tell(Message::Budget),
            Ok(false) => {}
            Err(error) => context.telemetry.store_failed(&error),
        }
    }
}

#[cfg(test)]
mod tests;
