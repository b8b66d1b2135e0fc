//! The price of one execution: what was paid and what the live call costs, in whole nano-dollars.
//!
//! Rounded here and nowhere else: the exact amount in picodollars, once, half up, for each of the two. Everything that
//! shows or adds up money (headers, request objects, the ledger) starts from these two integers, so they agree to the
//! last digit.

use super::{ModelPrice, PriceTable};
use crate::domain::money::Money;
use crate::domain::service::Service;
use crate::domain::usage::Usage;

const PICOS_PER_NANO: i64 = 1_000;

/// What one execution cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// What was paid, in nano-dollars.
    pub paid_nanos: i64,
    /// What the same usage costs live, in nano-dollars, as computed from the answer's own cached counts.
    pub live_nanos: i64,
}

impl Price {
    /// What the live call would have cost more; below zero where it would have been cheaper.
    pub const fn saved_nanos(self) -> i64 {
        self.live_nanos.saturating_sub(self.paid_nanos)
    }
}

impl ModelPrice {
    /// What `usage` cost by `service`; none unless both prices are listed (providers.md, section 5.1).
    pub fn price(&self, service: Service, usage: &Usage) -> Option<Price> {
        let nanos = |service| self.cost(service, usage).map(nanos);
        Some(Price { paid_nanos: nanos(service)?, live_nanos: nanos(Service::Sync)? })
    }
}

/// Half up: the one rounding of money.
fn nanos(money: Money) -> i64 {
    money.picos().saturating_add(PICOS_PER_NANO / 2).div_euclid(PICOS_PER_NANO)
}

/// Whose prices apply to a call.
#[derive(Clone, Copy, Debug)]
pub struct Seller<'a> {
    /// The provider's name in the configuration.
    pub name: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// The model that was asked for.
    pub model: &'a str,
}

impl PriceTable {
    /// What `usage` cost by `service`; none when the model or one of its prices is not listed.
    pub fn price(&self, seller: Seller<'_>, service: Service, usage: &Usage) -> Option<Price> {
        self.find(seller.name, seller.kind, seller.model)?.price(service, usage)
    }

    /// What writing `tokens` to the prompt cache cost at least above plain input, in nano-dollars; none when the model or its
    /// price by `service` is not listed.
    pub fn write_surcharge(&self, seller: Seller<'_>, service: Service, tokens: u64) -> Option<i64> {
        self.find(seller.name, seller.kind, seller.model)?.write_surcharge(service, tokens).map(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_amounts_are_rounded_half_up_to_a_nano_dollar() {
        let json = br#"{"schema":1,"as_of":"2026-01-01","currency":"USD","unit":"per 1,000,000 tokens","models":[
            {"provider":"p","model":"m","input":0.0015,"output":1,"batch_input":0.0005,"batch_output":0.5},
            {"provider":"p","model":"live-only","input":1,"output":1}]}"#;
        let table = PriceTable::from_json(json).unwrap();
        let seller = |model| Seller { name: "p", kind: "p", model };
        let one = Usage { input: 1, ..Usage::default() };
        // 0.5 and 1.5 nano-dollars.
        let price = table.price(seller("m"), Service::Batch, &one).unwrap();
        assert_eq!((price.paid_nanos, price.live_nanos, price.saved_nanos()), (1, 2, 1));
        assert_eq!(table.price(seller("live-only"), Service::Batch, &one), None);
        assert_eq!(table.price(seller("nobody"), Service::Sync, &one), None);
        let live = table.price(seller("live-only"), Service::Sync, &one).unwrap();
        assert_eq!((live.paid_nanos, live.saved_nanos()), (1_000, 0));
    }

    #[test]
    fn what_a_cache_write_costs_above_input_is_the_least_that_may_have_been_paid() {
        let json = br#"{"schema":1,"as_of":"2026-01-01","currency":"USD","unit":"per 1,000,000 tokens","models":[
            {"provider":"p","model":"m","input":4,"cache_write":5,"output":9,"batch_input":2,"batch_output":4,
             "above_prompt_tokens":{"10":{"input":8,"cache_write":10,"output":9}}},
            {"provider":"p","model":"free","input":4,"output":9},
            {"provider":"p","model":"odd","input":4,"cache_write":1,"output":9}]}"#;
        let table = PriceTable::from_json(json).unwrap();
        let of = |model, service| table.write_surcharge(Seller { name: "p", kind: "p", model }, service, 1_000);
        assert_eq!(of("m", Service::Sync), Some(1_000_000), "at the price of short prompts");
        assert_eq!(of("m", Service::Batch), Some(500_000), "the ratio of the live price");
        assert_eq!((of("free", Service::Sync), of("odd", Service::Sync)), (Some(0), Some(0)));
        assert_eq!((of("m", Service::Flex), of("nobody", Service::Sync)), (None, None));
    }
}
