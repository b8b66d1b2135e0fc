//! Reads the price list's JSON into the table, and settles once, at load, what a missing column means.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Lanes, ModelPrice, PriceError, PriceTable, Rates};
use crate::domain::money::Money;

#[derive(Deserialize)]
struct List<'a> {
    schema: u32,
    #[serde(borrow)]
    as_of: &'a str,
    #[serde(borrow)]
    currency: &'a str,
    #[serde(borrow)]
    unit: &'a str,
    models: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    provider: String,
    model: String,
    #[serde(flatten)]
    prices: Columns,
    #[serde(default)]
    above_prompt_tokens: BTreeMap<String, Tier>,
    /// Where the batch price is from: for people.
    #[serde(default, rename = "batch_basis")]
    _batch_basis: IgnoredAny,
    /// A misspelt column would be a price that is not there: nothing unknown is passed over.
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// Prices above a number of prompt tokens.
#[derive(Deserialize)]
struct Tier {
    #[serde(flatten)]
    prices: Columns,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// USD per million tokens.
#[derive(Deserialize, Default)]
struct Columns {
    input: Option<f64>,
    cached_input: Option<f64>,
    cache_write: Option<f64>,
    output: Option<f64>,
    batch_input: Option<f64>,
    batch_cached_input: Option<f64>,
    batch_cache_write: Option<f64>,
    batch_output: Option<f64>,
    flex_input: Option<f64>,
    flex_cached_input: Option<f64>,
    flex_output: Option<f64>,
}

/// The columns of one service, as listed.
#[derive(Clone, Copy, Default)]
struct Listed {
    input: Option<Money>,
    cached: Option<Money>,
    cache_write: Option<Money>,
    output: Option<Money>,
}

pub(super) fn read(json: &[u8]) -> Result<PriceTable, PriceError> {
    let list: List<'_> = serde_json::from_slice(json)?;
    if list.schema != 1 || list.currency != "USD" || list.unit != "per 1,000,000 tokens" || !is_day(list.as_of) {
        return Err(PriceError::Form);
    }
    let mut table = PriceTable { as_of: list.as_of.into(), ..PriceTable::default() };
    for row in list.models {
        let mut names = row.unknown.keys().chain(row.above_prompt_tokens.values().flat_map(|tier| tier.unknown.keys()));
        if let Some(column) = names.next().cloned() {
            return Err(PriceError::Column { provider: row.provider, model: row.model, column });
        }
        let Some(price) = model_price(&row) else {
            return Err(PriceError::Number { provider: row.provider, model: row.model });
        };
        let models = table.providers.entry(row.provider.as_str().into()).or_default();
        if models.insert(row.model.as_str().into(), price).is_some() {
            return Err(PriceError::Twice { provider: row.provider, model: row.model });
        }
    }
    Ok(table)
}

/// `YYYY-MM-DD`.
fn is_day(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn model_price(row: &Row) -> Option<ModelPrice> {
    let [sync, batch, flex] = listed(&row.prices)?;
    let base = lanes(row, [sync, batch, flex], sync);
    let mut above = Vec::with_capacity(row.above_prompt_tokens.len());
    for (threshold, tier) in &row.above_prompt_tokens {
        let mut lanes = lanes(row, listed(&tier.prices)?, sync);
        // OpenAI sells flex at batch rates (providers.md, section 1.12); the list names them only for the base tier.
        if lanes.flex.is_none() && base.flex.is_some() && row.provider == "openai" {
            lanes.flex = lanes.batch;
        }
        above.push((threshold.parse().ok()?, lanes));
    }
    above.sort_by_key(|(threshold, _)| *threshold);
    Some(ModelPrice { base, above: above.into() })
}

/// The prices per service. Only OpenAI has background windows (providers.md, sections 1.12 and 5.1): 40 and 30 percent
/// below each live price, that of cached tokens included, which nobody has verified.
fn lanes(row: &Row, [sync, batch, flex]: [Listed; 3], live: Listed) -> Lanes {
    let settle = |listed: Listed| listed.settle(live.cache_write, live.input);
    let window = |tenths| settle(sync).filter(|_| row.provider == "openai").map(|rates| rates.tenths(tenths));
    Lanes {
        sync: settle(sync),
        batch: settle(batch),
        flex: settle(flex),
        background_8h: window(6),
        background_2h: window(7),
    }
}

impl Rates {
    fn tenths(self, tenths: i64) -> Self {
        let part = |price: Money| price.scaled(Money::from_picos(tenths), Money::from_picos(10));
        Self {
            input: part(self.input),
            cached: part(self.cached),
            cache_write: part(self.cache_write),
            cache_write_1h: part(self.cache_write_1h),
            output: part(self.output),
        }
    }
}

impl Listed {
    /// Fills what the list leaves out: cached tokens cost what other input costs in that service (section 5.1: no
    /// cache discount there), and cache writes keep their ratio to the model's live input price (section 1.10), which
    /// is 1 where the provider does not charge for writes. Without an input or output price there is no price.
    fn settle(self, live_write: Option<Money>, live_input: Option<Money>) -> Option<Rates> {
        let (input, output) = (self.input?, self.output?);
        let same_ratio = || Some(live_write?.scaled(input, live_input?));
        Some(Rates {
            input,
            cached: self.cached.unwrap_or(input),
            cache_write: self.cache_write.or_else(same_ratio).unwrap_or(input),
            // Only Anthropic tells such writes apart: twice the input price (section 5.1: stacks with the batch price).
            cache_write_1h: input + input,
            output,
        })
    }
}

/// Live, batch and flex columns; none when a number is unusable.
fn listed(columns: &Columns) -> Option<[Listed; 3]> {
    let c = columns;
    Some([
        columns_of([c.input, c.cached_input, c.cache_write, c.output])?,
        columns_of([c.batch_input, c.batch_cached_input, c.batch_cache_write, c.batch_output])?,
        columns_of([c.flex_input, c.flex_cached_input, None, c.flex_output])?,
    ])
}

fn columns_of([input, cached, cache_write, output]: [Option<f64>; 4]) -> Option<Listed> {
    Some(Listed {
        input: money(input)?,
        cached: money(cached)?,
        cache_write: money(cache_write)?,
        output: money(output)?,
    })
}

/// The outer option: whether the number is usable.
#[expect(clippy::option_option, reason = "absent and unusable are two things")]
fn money(usd: Option<f64>) -> Option<Option<Money>> {
    let Some(usd) = usd else { return Some(None) };
    let money = Money::from_usd_f64(usd).ok().filter(|money| *money >= Money::ZERO)?;
    Some(Some(money))
}
