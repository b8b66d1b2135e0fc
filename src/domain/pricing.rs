//! What tokens cost: a price list by provider and model, and the rules of providers.md, section 5.1.
//!
//! A price that is not in the list is `None` everywhere and never guessed. The built-in list is parsed on first use
//! and kept as a few numbers per model. Called where requests finish (ledger, headers), by reports and by budgets.

mod list;
mod price;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::domain::money::Money;
use crate::domain::service::Service;
use crate::domain::usage::Usage;

pub use price::{Price, Seller};

static BUILTIN_JSON: &str = include_str!("prices.json");

/// A price list that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Not JSON, or not in the form of the built-in list.
    #[error("the price list is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Another currency, unit or version of the form, or no date.
    #[error(
        "the price list must have \"schema\": 1, \"as_of\": \"YYYY-MM-DD\", \"currency\": \"USD\" and \"unit\": \"per 1,000,000 tokens\""
    )]
    Form,
    /// A price below zero or beyond any sense, or a threshold that is not a number.
    #[error("the price list has an unusable number for model {model:?} of {provider:?}")]
    Number {
        /// The row's provider.
        provider: String,
        /// The row's model.
        model: String,
    },
    /// A column that is none.
    #[error("the price list has an unknown column {column:?} for model {model:?} of {provider:?}")]
    Column {
        /// The row's provider.
        provider: String,
        /// The row's model.
        model: String,
        /// Its name.
        column: String,
    },
    /// Two rows for one model.
    #[error("the price list names model {model:?} of {provider:?} twice")]
    Twice {
        /// The rows' provider.
        provider: String,
        /// Their model.
        model: String,
    },
}

/// Prices by provider and model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceTable {
    as_of: Box<str>,
    providers: BTreeMap<Box<str>, BTreeMap<Box<str>, ModelPrice>>,
}

/// The prices of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    base: Lanes,
    /// Ascending by threshold: a request whose prompt is above it is charged wholly at that tier's prices.
    above: Box<[(u64, Lanes)]>,
}

/// Prices per service; none where the provider lists none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lanes {
    sync: Option<Rates>,
    batch: Option<Rates>,
    flex: Option<Rates>,
    background_8h: Option<Rates>,
    background_2h: Option<Rates>,
}

/// Prices per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    input: Money,
    cached: Money,
    cache_write: Money,
    /// A write that is kept for an hour.
    cache_write_1h: Money,
    output: Money,
}

impl Lanes {
    const fn of(&self, service: Service) -> Option<Rates> {
        match service {
            Service::Batch => self.batch,
            Service::Flex => self.flex,
            Service::Background8h => self.background_8h,
            Service::Background2h => self.background_2h,
            Service::Sync => self.sync,
        }
    }
}

impl PriceTable {
    /// The list that comes with nightbus (its date: [`PriceTable::as_of`]).
    pub fn builtin() -> &'static Self {
        static TABLE: OnceLock<PriceTable> = OnceLock::new();
        // A broken built-in list is caught by a test; at run time it would mean "no price is known", which is safe.
        TABLE.get_or_init(|| Self::from_json(BUILTIN_JSON.as_bytes()).unwrap_or_default())
    }

    /// Reads a list in the form of the built-in one (`src/domain/prices.json`).
    ///
    /// # Errors
    /// [`PriceError`]: the file's author is at fault.
    pub fn from_json(json: &[u8]) -> Result<Self, PriceError> {
        list::read(json)
    }

    /// This list first, and `base` for the models it does not name.
    #[must_use]
    pub fn over(mut self, base: &Self) -> Self {
        for (provider, models) in &base.providers {
            let own = self.providers.entry(provider.clone()).or_default();
            for (model, price) in models {
                own.entry(model.clone()).or_insert_with(|| price.clone());
            }
        }
        self
    }

    /// The day the prices were read, as `YYYY-MM-DD`.
    pub fn as_of(&self) -> &str {
        &self.as_of
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.providers.values().map(BTreeMap::len).sum()
    }

    /// Whether no price is known at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The prices of `model` at the provider configured as `name`, or, when the list has no provider of that name,
    /// at its `kind`. Tries the model as given, without its vendor prefix (`openai/…`), and without its date.
    pub fn find(&self, name: &str, kind: &str, model: &str) -> Option<&ModelPrice> {
        let (vendor, models) = match self.providers.get(name) {
            Some(models) => (name, models),
            None => (kind, self.providers.get(kind)?),
        };
        let bare = model.strip_prefix(vendor).and_then(|rest| rest.strip_prefix('/'));
        [Some(model), bare].into_iter().flatten().find_map(|candidate| find_model(models, candidate))
    }
}

impl PriceTable {
    /// The prices of a model whose provider nobody names: those of the one provider that lists it, or, with a vendor
    /// prefix (`openai/…`), of that vendor. None when several providers list it at different prices.
    pub fn find_anywhere(&self, model: &str) -> Option<&ModelPrice> {
        if let Some((vendor, bare)) = model.split_once('/')
            && let Some(models) = self.providers.get(vendor)
        {
            return find_model(models, bare).or_else(|| find_model(models, model));
        }
        let mut found = self.providers.values().filter_map(|models| find_model(models, model));
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }
}

impl ModelPrice {
    /// What `usage` costs by `service`; none where that price is not listed.
    pub fn cost(&self, service: Service, usage: &Usage) -> Option<Money> {
        let lanes = self.above.iter().rev().find(|(threshold, _)| usage.input > *threshold).map(|(_, lanes)| lanes);
        let rates = lanes.unwrap_or(&self.base).of(service)?;
        Some(Money::of_millionths([
            (usage.plain_input(), rates.input),
            (usage.cached, rates.cached),
            (usage.cache_written.saturating_sub(usage.cache_written_1h), rates.cache_write),
            (usage.cache_written_1h, rates.cache_write_1h),
            (usage.output, rates.output),
        ]))
    }

    /// What writing `tokens` to the prompt cache by `service` costs at least above plain input: nothing where the provider
    /// does not charge for it; none where that price is not listed. The dearer prices of long prompts and of writes that are
    /// kept for an hour may have been paid.
    fn write_surcharge(&self, service: Service, tokens: u64) -> Option<Money> {
        let rates = self.base.of(service)?;
        Some(Money::of_millionths([(tokens, (rates.cache_write - rates.input).max(Money::ZERO))]))
    }
}

fn find_model<'t>(models: &'t BTreeMap<Box<str>, ModelPrice>, model: &str) -> Option<&'t ModelPrice> {
    if let Some(exact) = models.get(model) {
        return Some(exact);
    }
    let (alias, date) = split_date(model)?;
    // Older than every dated version in the list: the alias may have become cheaper since, so its price says nothing.
    let mut listed_dates =
        models.keys().filter_map(|key| split_date(key)).filter(|(name, _)| *name == alias).map(|(_, date)| date);
    match listed_dates.next() {
        Some(first) if listed_dates.fold(first, Ord::min) > date => None,
        _ => models.get(alias),
    }
}

/// A model's name without the date of its version.
pub(crate) fn undated(model: &str) -> &str {
    split_date(model).map_or(model, |(name, _)| name)
}

/// Splits `name-2026-08-01` and `name-20260801` into the name and the date as a number.
fn split_date(model: &str) -> Option<(&str, u32)> {
    let digits_at = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, last) = model.rsplit_once('-')?;
    if last.len() == 8 && digits_at(last) {
        return Some((rest, last.parse().ok()?));
    }
    let (rest, month) = rest.rsplit_once('-')?;
    let (name, year) = rest.rsplit_once('-')?;
    let is_date = last.len() == 2 && month.len() == 2 && year.len() == 4;
    if !is_date || ![year, month, last].into_iter().all(digits_at) {
        return None;
    }
    Some((name, format!("{year}{month}{last}").parse().ok()?))
}

#[cfg(test)]
mod tests;
