//! What moving calls to the Batch API brings: two scenarios, the difference, and when it has paid for the work.
//!
//! ROI is the saving of one year divided by what the change costs (development and opportunity cost); payback is how
//! many days of saving cover that cost. A month is 30 days, a year 365. Pure; called by `nightbus roi`.

use crate::domain::money::Money;
use crate::domain::pricing::ModelPrice;
use crate::domain::service::Service;
use crate::domain::usage::Usage;

/// Days that count as a month.
pub const DAYS_PER_MONTH: u64 = 30;
/// Days that count as a year.
pub const DAYS_PER_YEAR: u64 = 365;

/// What batch costs of the live price where only live prices are given: half (providers.md, section 5.1).
const BATCH_DIVISOR: i64 = 2;

/// The same calls each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Calls per day.
    pub requests: u64,
    /// Prompt tokens of each.
    pub input: u64,
    /// Generated tokens of each.
    pub output: u64,
}

/// What one day of a workload costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyBill {
    /// All calls live.
    pub live: Money,
    /// All calls in batches.
    pub batch: Money,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoiError {
    /// The price list has no live price.
    #[error("the price list has no live price for this model")]
    NoLivePrice,
    /// The price list has no batch price, so the saving is unknown.
    #[error("the price list has no batch price for this model, so what it would save is unknown")]
    NoBatchPrice,
    /// Beyond what [`Money`] holds.
    #[error("the amounts are too large: a year's bill must stay below 9 million USD")]
    TooLarge,
}

/// The two scenarios and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roi {
    /// Everything live, per day.
    pub live: Money,
    /// What may wait in batches, the rest live, per day.
    pub batch: Money,
    /// Saved per day.
    pub saved_day: Money,
    /// Saved in 30 days.
    pub saved_month: Money,
    /// Saved in 365 days.
    pub saved_year: Money,
    /// What the change costs.
    pub cost: Money,
    /// A year's saving over the cost; none when the change costs nothing.
    pub ratio: Option<f64>,
    /// Days until the cost is saved; none when nothing is saved, 0 when the change costs nothing.
    pub payback_days: Option<f64>,
}

impl Workload {
    /// A day's bill at plain prices per million tokens; batch at half of them.
    ///
    /// # Errors
    /// [`RoiError::TooLarge`].
    pub fn at_prices(self, input: Money, output: Money) -> Result<DailyBill, RoiError> {
        let total = |tokens: u64| self.requests.checked_mul(tokens).ok_or(RoiError::TooLarge);
        let live = kept(Money::of_millionths([(total(self.input)?, input), (total(self.output)?, output)]))?;
        let batch = live.scaled(Money::from_picos(1), Money::from_picos(BATCH_DIVISOR));
        Ok(DailyBill { live, batch })
    }

    /// A day's bill at a model's listed live and batch prices, without cache hits, at the tier of the prompt's length.
    ///
    /// # Errors
    /// A price that is not listed is never guessed.
    pub fn at_model(self, price: &ModelPrice) -> Result<DailyBill, RoiError> {
        let one = Usage { input: self.input, output: self.output, ..Usage::default() };
        let day = |service, missing| {
            price.cost(service, &one).ok_or(missing)?.checked_times(self.requests).ok_or(RoiError::TooLarge)
        };
        Ok(DailyBill {
            live: day(Service::Sync, RoiError::NoLivePrice)?,
            batch: day(Service::Batch, RoiError::NoBatchPrice)?,
        })
    }
}

impl DailyBill {
    /// The scenarios when `share_millionths` of 1,000,000 calls may wait and the change costs `cost` once.
    ///
    /// # Errors
    /// [`RoiError::TooLarge`].
    pub fn roi(self, share_millionths: u32, cost: Money) -> Result<Roi, RoiError> {
        let whole = Money::from_picos(1_000_000);
        let saved_day = (self.live - self.batch).scaled(Money::from_picos(share_millionths.into()), whole);
        let over = |days| saved_day.checked_times(days).ok_or(RoiError::TooLarge);
        let (saved_month, saved_year) = (over(DAYS_PER_MONTH)?, over(DAYS_PER_YEAR)?);
        let is_free = cost == Money::ZERO;
        let payback = || (saved_day > Money::ZERO).then(|| cost.as_usd_f64() / saved_day.as_usd_f64());
        Ok(Roi {
            live: self.live,
            batch: self.live - saved_day,
            saved_day,
            saved_month,
            saved_year,
            cost,
            ratio: (!is_free).then(|| saved_year.as_usd_f64() / cost.as_usd_f64()),
            payback_days: if is_free { Some(0.0) } else { payback() },
        })
    }
}

/// Sums of money stop at their largest value; a result that has got there is not one.
fn kept(amount: Money) -> Result<Money, RoiError> {
    if amount.picos() == i64::MAX { Err(RoiError::TooLarge) } else { Ok(amount) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pricing::PriceTable;

    fn usd(text: &str) -> Money {
        text.parse().unwrap()
    }

    const ARTICLE: Workload = Workload { requests: 10_000, input: 6_000, output: 1_000 };

    #[test]
    fn the_articles_example() {
        let bill = ARTICLE.at_prices(usd("3"), usd("15")).unwrap();
        assert_eq!((bill.live, bill.batch), (usd("330"), usd("165")));
        let roi = bill.roi(1_000_000, usd("8000")).unwrap();
        assert_eq!((roi.saved_day, roi.saved_month, roi.saved_year), (usd("165"), usd("4950"), usd("60225")));
        assert_eq!(roi.ratio, Some(60_225.0 / 8_000.0));
        assert_eq!(roi.payback_days, Some(8_000.0 / 165.0));
    }

    #[test]
    fn the_same_from_the_price_list() {
        let price = PriceTable::builtin().find("anthropic", "anthropic", "claude-sonnet-4-6").unwrap();
        assert_eq!(ARTICLE.at_model(price), ARTICLE.at_prices(usd("3"), usd("15")));
    }

    #[test]
    fn a_share_saves_its_share_and_no_share_never_pays() {
        let bill = ARTICLE.at_prices(usd("3"), usd("15")).unwrap();
        let part = bill.roi(250_000, usd("1")).unwrap();
        assert_eq!((part.saved_day, part.batch), (usd("41.25"), usd("288.75")));
        let none = bill.roi(0, usd("1")).unwrap();
        assert_eq!((none.saved_year, none.ratio, none.payback_days), (Money::ZERO, Some(0.0), None));
        let free = bill.roi(0, Money::ZERO).unwrap();
        assert_eq!((free.ratio, free.payback_days), (None, Some(0.0)));
    }

    #[test]
    fn an_unlisted_batch_price_is_not_guessed() {
        let price = PriceTable::builtin().find("deepseek", "deepseek", "deepseek-v4-pro").unwrap();
        assert_eq!(ARTICLE.at_model(price), Err(RoiError::NoBatchPrice));
    }

    #[test]
    fn what_money_cannot_hold_is_refused() {
        let many = Workload { requests: u64::MAX, input: 2, output: 0 };
        assert_eq!(many.at_prices(usd("3"), usd("15")), Err(RoiError::TooLarge));
        let dear = Workload { requests: 1_000_000_000, input: 1_000_000, output: 0 };
        assert_eq!(dear.at_prices(usd("3"), usd("15")), Err(RoiError::TooLarge));
        let year = Workload { requests: 1_000_000, input: 10_000, output: 10_000 };
        let bill = year.at_prices(usd("3"), usd("15")).unwrap();
        assert_eq!(bill.roi(1_000_000, Money::ZERO), Err(RoiError::TooLarge));
    }
}
