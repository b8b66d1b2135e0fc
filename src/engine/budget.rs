//! The day's budget: what may still be submitted before midnight (UTC).
//!
//! What was spent is the ledger's word, whatever service it went to, pass-through included. What is on its way is an
//! estimate: prompt tokens by bytes, output by what answers of the model had on average, or by the request's own limit.
//! A model without a price is not limited: its cost is unknown, and so it is not in the ledger's sums either.
//!
//! The dispatcher reserves before it submits, and what a batch has reserved is given back when it ends; its real price is
//! in the ledger then. Intake asks whether the budget is used up. Live calls for deadlines and test flights are not held.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

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
use crate::store::ledger::Dimension;

/// How often the ledger is asked.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// Averages are of so many days …
const LEARNED_FROM: Duration = Duration::from_secs(7 * 24 * 3600);
/// … and of so many answers at least.
const ENOUGH: u64 = 10;
const DAY: i64 = 24 * 3600;
const PICOS_PER_NANO: i64 = 1_000;

/// Where the budget stands. Money is in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetView {
    /// Most that is spent in a day.
    pub limit_nanos: i64,
    /// What the ledger has of today.
    pub spent_nanos: i64,
    /// What is estimated of batches that are on their way.
    pub reserved_nanos: i64,
    /// Lanes wait for the next day.
    pub is_used_up: bool,
    /// When that begins.
    pub resets_at: Micros,
}

#[derive(Debug, Default)]
struct Standing {
    day: i64,
    spent: i64,
    reserved: i64,
    holds: bool,
    /// Average output tokens by model.
    outputs: HashMap<String, u64>,
}

/// The budget; without a limit everything fits.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    limit: Option<i64>,
    standing: Mutex<Standing>,
}

impl Budget {
    /// Of so many dollars a day.
    pub(crate) fn new(daily_usd: Option<f64>) -> Self {
        let nanos = |usd| Money::from_usd_f64(usd).map_or(i64::MAX, |money| money.picos() / PICOS_PER_NANO);
        Self { limit: daily_usd.map(nanos), standing: Mutex::default() }
    }

    /// Reads what the ledger has. Whether more may be spent than before.
    pub(crate) async fn look(&self, context: &Context) -> Result<bool, StoreError> {
        if self.limit.is_none() {
            return Ok(false);
        }
        let now = context.now();
        let day = now.unix_seconds().div_euclid(DAY);
        let week = Micros(now.0.saturating_sub(i64::try_from(LEARNED_FROM.as_micros()).unwrap_or(i64::MAX)));
        let today = context.store.ledger(Micros::from_unix_seconds(day.saturating_mul(DAY)), None).await?;
        let models = context.store.ledger(week, Some(Dimension::Model)).await?;
        let outputs = models.groups.into_iter().filter_map(|(model, sums)| {
            let answers = sums.requests.saturating_add(sums.wasted_requests).saturating_sub(sums.unmetered);
            (answers >= ENOUGH).then(|| (model.unwrap_or_default(), sums.usage.output.div_ceil(answers)))
        });
        let outputs = outputs.collect();
        let mut standing = self.standing.lock();
        let is_better = day > standing.day || today.totals.paid_nanos < standing.spent;
        standing.day = day;
        standing.spent = today.totals.paid_nanos;
        standing.outputs = outputs;
        if is_better {
            standing.holds = false;
        }
        Ok(is_better)
    }

    /// What a request is expected to cost by batch, in nano-dollars; 0 where there is no limit or no price.
    pub(crate) fn estimate(&self, context: &Context, lane: &LaneKey, queued: &Queued) -> u64 {
        if self.limit.is_none() {
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

    /// What may still be submitted today, in nano-dollars; none: as much as there is.
    pub(crate) fn room(&self) -> Option<u64> {
        let limit = self.limit?;
        let standing = self.standing.lock();
        let left = limit.saturating_sub(standing.spent).saturating_sub(standing.reserved);
        Some(u64::try_from(left).unwrap_or(0))
    }

    /// A batch leaves that is expected to cost so much.
    pub(crate) fn reserve(&self, nanos: u64) {
        let mut standing = self.standing.lock();
        standing.reserved = standing.reserved.saturating_add(i64::try_from(nanos).unwrap_or(i64::MAX));
    }

    /// It has ended.
    pub(crate) fn give_back(&self, nanos: u64) {
        let mut standing = self.standing.lock();
        standing.reserved = standing.reserved.saturating_sub(i64::try_from(nanos).unwrap_or(i64::MAX)).max(0);
        standing.holds = false;
    }

    /// A lane waits for the next day. Whether it is the first one.
    pub(crate) fn hold(&self) -> bool {
        !std::mem::replace(&mut self.standing.lock().holds, true)
    }

    /// Where it stands at `now`; none: there is no limit.
    pub(crate) fn view(&self, now: Micros) -> Option<BudgetView> {
        let limit_nanos = self.limit?;
        let standing = self.standing.lock();
        let tomorrow = now.unix_seconds().div_euclid(DAY).saturating_add(1);
        Some(BudgetView {
            limit_nanos,
            spent_nanos: standing.spent,
            reserved_nanos: standing.reserved,
            is_used_up: standing.holds || standing.spent >= limit_nanos,
            resets_at: Micros::from_unix_seconds(tomorrow.saturating_mul(DAY)),
        })
    }
}

/// Keeps the budget up to date until the process stops.
pub(crate) async fn run(context: Arc<Context>) {
    if context.budget.limit.is_none() {
        return;
    }
    while context.sleep(LOOK).await {
        match context.budget.look(&context).await {
            Ok(true) => context.tell(Message::Budget),
            Ok(false) => {}
            Err(error) => context.telemetry.store_failed(&error),
        }
    }
}
