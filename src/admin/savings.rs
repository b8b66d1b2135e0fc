//! `GET /api/savings?since=&by=`: what was paid, what live would have cost, what was wasted (contract, section 10), out
//! of the ledger; and the sums of today for `/api/status`.
//!
//! Money in JSON is the `f64` nearest to the ledger's nano-dollars, which prints as the same decimal up to 15 digits.
//! Rows whose price is unknown are counted and in no amount.

use serde::Serialize;

use super::AdminState;
use super::query::Query;
use super::reply::{self, Reply};
use crate::config::{DeferralMode, parse_duration};
use crate::domain::clock::Micros;
use crate::domain::pricing::Seller;
use crate::store::StoreError;
use crate::store::ledger::{CacheSums, Dimension, HOUR, LedgerSums, ObservedSums, Writer};
use crate::wire::api_error::ApiError;

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

#[derive(Serialize)]
struct Savings {
    object: &'static str,
    /// The hour in which the sums begin, in Unix seconds; null: from the beginning.
    since: Option<i64>,
    by: Option<String>,
    prices_as_of: String,
    totals: Money,
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<Observed>,
}

#[derive(Serialize)]
struct Group {
    key: Option<String>,
    #[serde(flatten)]
    money: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<Observed>,
}

/// Sums in US dollars and tokens.
#[derive(Serialize)]
pub(super) struct Money {
    requests: u64,
    paid_usd: f64,
    live_usd: f64,
    saved_usd: f64,
    wasted_usd: f64,
    wasted_requests: u64,
    priced_requests: u64,
    unpriced_requests: u64,
    unmetered_requests: u64,
    input_tokens: u64,
    cached_tokens: u64,
    cache_written_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    /// Known of everything together alone, as a part's writes may be read by another part.
    #[serde(flatten)]
    cold: Option<ColdWrites>,
}

/// Of the tokens that were written to prompt caches: those that no call read.
#[derive(Debug, PartialEq, Serialize)]
struct ColdWrites {
    /// So many at least.
    cache_unread_tokens: u64,
    /// What writing them cost at least above plain input, at the prices of today's list; null: no price is known.
    cache_unread_usd: Option<f64>,
    /// Those of them whose price is not known, which are not in the amount.
    cache_unread_unpriced_tokens: u64,
}

impl ColdWrites {
    fn new<'a>(caches: impl IntoIterator<Item = &'a CacheSums>, price: impl Fn(&Writer, u64) -> Option<i64>) -> Self {
        let (mut tokens, mut unpriced, mut nanos) = (0_u64, 0_u64, 0_i64);
        for cache in caches {
            let unread = cache.unread();
            tokens = tokens.saturating_add(unread);
            // Which of the writes was not read nobody tells: the cheapest.
            let prices: Option<Vec<i64>> = cache.writers().iter().map(|writer| price(writer, unread)).collect();
            match prices.map(|prices| prices.into_iter().min().unwrap_or(0)) {
                Some(least) => nanos = nanos.saturating_add(least),
                None => unpriced = unpriced.saturating_add(unread),
            }
        }
        let is_known = unpriced == 0 || tokens > unpriced;
        Self {
            cache_unread_tokens: tokens,
            cache_unread_usd: is_known.then(|| dollars(nanos)),
            cache_unread_unpriced_tokens: unpriced,
        }
    }
}

#[derive(Serialize)]
struct Observed {
    requests: u64,
    live_usd: f64,
    would_save_usd: f64,
    unpriced_requests: u64,
    not_cheaper_requests: u64,
}

impl Money {
    fn new(sums: &LedgerSums) -> Self {
        let rows = sums.requests.saturating_add(sums.wasted_requests);
        Self {
            requests: sums.requests,
            paid_usd: dollars(sums.paid_nanos),
            live_usd: dollars(sums.live_nanos),
            saved_usd: dollars(sums.saved_nanos()),
            wasted_usd: dollars(sums.wasted_nanos),
            wasted_requests: sums.wasted_requests,
            priced_requests: rows.saturating_sub(sums.unpriced),
            unpriced_requests: sums.unpriced,
            unmetered_requests: sums.unmetered,
            input_tokens: sums.usage.input,
            cached_tokens: sums.usage.cached,
            cache_written_tokens: sums.usage.cache_written,
            output_tokens: sums.usage.output,
            reasoning_tokens: sums.usage.reasoning,
            cold: None,
        }
    }
}

impl Observed {
    /// None where nothing was observed, unless `always`.
    fn new(sums: &ObservedSums, always: bool) -> Option<Self> {
        (always || sums.requests > 0).then(|| Self {
            requests: sums.requests,
            live_usd: dollars(sums.live_nanos),
            would_save_usd: dollars(sums.would_save_nanos()),
            unpriced_requests: sums.unpriced,
            not_cheaper_requests: sums.not_cheaper,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact to the nano-dollar up to nine million dollars")]
fn dollars(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// Answers the route.
pub(super) async fn savings(state: &AdminState, query: Option<&str>) -> Reply {
    let query = Query::parse(query, &["since", "by"])?;
    let since = query.get("since").map(|text| moment(text, state.telemetry.now())).transpose()?;
    let by = query.get("by").map(dimension).transpose()?;
    let report = state.engine.store().ledger(since.unwrap_or(Micros(i64::MIN)), by).await;
    let report = report.map_err(|error| reply::store_trouble(&error))?;
    let config = state.config.get();
    let observes = config.deferral.mode == DeferralMode::Observe;
    let cold = ColdWrites::new(report.caches.iter(), |writer, tokens| {
        let kind = config.providers.get(&*writer.provider).map_or("", |provider| provider.kind.as_str());
        let seller = Seller { name: &writer.provider, kind, model: &writer.model };
        config.prices.write_surcharge(seller, writer.service.parse().ok()?, tokens)
    });
    let groups = report.groups.into_iter().map(|(key, sums)| Group {
        key,
        money: Money::new(&sums),
        observed: Observed::new(&sums.observed, false),
    });
    reply::ok(&Savings {
        object: "nightbus.savings",
        since: since.map(|since| since.hour().saturating_mul(HOUR)),
        by: query.get("by").map(str::to_owned),
        prices_as_of: config.prices.as_of().to_owned(),
        totals: Money { cold: Some(cold), ..Money::new(&report.totals) },
        groups: groups.collect(),
        observed: Observed::new(&report.totals.observed, observes),
    })
}

/// The sums since midnight UTC.
pub(super) async fn today(state: &AdminState) -> Result<Money, StoreError> {
    let day = state.telemetry.now().unix_seconds().div_euclid(SECONDS_A_DAY);
    let midnight = Micros::from_unix_seconds(day.saturating_mul(SECONDS_A_DAY));
    Ok(Money::new(&state.engine.store().ledger(midnight, None).await?.totals))
}

fn dimension(name: &str) -> Result<Dimension, ApiError> {
    Dimension::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, by)| by).ok_or_else(|| {
        let known: Vec<&str> = Dimension::ALL.iter().map(|(name, _)| *name).collect();
        ApiError::invalid_request(format!("by={name}: use one of {}.", known.join(", "))).about("by")
    })
}

/// A time: `7d` ago, an RFC 3339 time, a day (its midnight, UTC), or Unix seconds.
fn moment(text: &str, now: Micros) -> Result<Micros, ApiError> {
    if let Some(ago) = parse_duration(text) {
        let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        return Ok(Micros(now.0.saturating_sub(micros)));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Micros(time.as_microsecond()));
    }
    if let Ok(midnight) = format!("{text}T00:00:00Z").parse::<jiff::Timestamp>() {
        return Ok(Micros(midnight.as_microsecond()));
    }
    let seconds = text.parse::<i64>().ok().filter(|seconds| seconds.checked_mul(MICROS_A_SECOND).is_some());
    seconds.map(Micros::from_unix_seconds).ok_or_else(|| {
        let message = format!(
            "since={text}: use a duration such as 7d, a day such as 2026-11-01, an RFC 3339 time, or Unix seconds."
        );
        ApiError::invalid_request(message).about("since")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Fingerprint;
    use crate::domain::usage::Usage;
    use crate::store::ledger::{Group as LedgerGroup, LedgerReport};

    #[test]
    fn a_time_is_said_in_four_ways() {
        let now = Micros::from_unix_seconds(1_795_420_800);
        for text in ["8h", "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-23T01:00:00+01:00", "1795392000"] {
            assert_eq!(moment(text, now).unwrap().unix_seconds(), 1_795_392_000, "{text}");
        }
        for wrong in ["yesterday", "7 days", "2026-13-01", "1e9", "99999999999999999999", "9223372036854775807"] {
            assert_eq!(moment(wrong, now).unwrap_err().param.as_deref(), Some("since"), "{wrong}");
        }
        assert!(moment("3650d", Micros(i64::MIN)).is_ok());
    }

    #[test]
    fn cold_writes_are_told_at_the_least_price_and_without_one_as_unknown() {
        let cold = |calls: &[(&str, &str, u64, u64)]| {
            let mut report = LedgerReport::default();
            for (model, service, cached, cache_written) in calls {
                let group = LedgerGroup {
                    provider: "p".into(),
                    account: Fingerprint([1; 16]),
                    model: (*model).into(),
                    service: (*service).to_owned(),
                    tag: None,
                    key: None,
                    agent: None,
                };
                let usage = Usage { cached: *cached, cache_written: *cache_written, ..Usage::default() };
                report.add(None, 1, &group, LedgerSums { usage, ..LedgerSums::default() });
            }
            let told = ColdWrites::new(report.caches.iter(), |writer, tokens| {
                let each = match writer.service.as_str() {
                    "sync" => 2,
                    "batch" => 1,
                    _ => return None,
                };
                i64::try_from(tokens * each).ok()
            });
            (told.cache_unread_tokens, told.cache_unread_usd, told.cache_unread_unpriced_tokens)
        };
        assert_eq!(cold(&[]), (0, Some(0.0), 0));
        assert_eq!(cold(&[("m", "sync", 0, 3), ("n", "sync", 5, 0)]), (3, Some(6e-9), 0));
        assert_eq!(cold(&[("m", "sync", 0, 3), ("m", "batch", 2, 3)]), (4, Some(4e-9), 0));
        assert_eq!(cold(&[("m", "sync", 0, 3), ("n", "priority", 0, 5)]), (8, Some(6e-9), 5));
        assert_eq!(cold(&[("m", "sync", 0, 3), ("m", "priority", 0, 5)]), (8, None, 8), "which of them is not told");
    }

    #[test]
    fn amounts_print_as_the_decimal_they_are() {
        for (nanos, text) in [(950, "9.5e-7"), (123_456_789, "0.123456789"), (-5_000_000_000, "-5.0")] {
            assert_eq!(serde_json::to_string(&dollars(nanos)).unwrap(), text);
        }
    }
}
