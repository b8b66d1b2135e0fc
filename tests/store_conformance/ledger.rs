//! The ledger's promises: each execution once, in the transaction of its answer, and sums that stay when rows go.

use std::sync::Arc;

use nightbus::config::StoreKind;
use nightbus::domain::lane::Fingerprint;
use nightbus::domain::pricing::Price;
use nightbus::domain::request::RequestState;
use nightbus::domain::usage::Usage;
use nightbus::store::ledger::{Charge, Dimension, Execution, Group, LedgerReport, LedgerSums, PassedCall, PassedCalls};
use nightbus::store::{Finish, NewRequest};

use super::{Bench, at, bench, finish};

const PRICE: Price = Price { paid_nanos: 950, live_nanos: 1_900 };
const USAGE: Usage = Usage { input: 9, cached: 4, cache_written: 2, cache_written_1h: 0, output: 2, reasoning: 1 };

fn charge(execution: Execution) -> Charge {
    Charge {
        provider: Arc::from("openai"),
        account: Fingerprint([3; 16]),
        model: Arc::from("m"),
        service: "batch",
        execution,
        usage: Some(USAGE),
        price: Some(PRICE),
    }
}

fn charged(finish: Finish, charge: Charge) -> Finish {
    Finish { charge: Some(charge), ..finish }
}

impl Bench {
    async fn report(&self, since: i64, by: Option<Dimension>) -> LedgerReport {
        self.store.ledger(at(since), by).await.unwrap()
    }

    async fn totals(&self) -> LedgerSums {
        self.report(-86_400, None).await.totals
    }
}

fn passed(seconds: i64, model: &str, call: PassedCall) -> PassedCalls {
    let group = Group {
        provider: Arc::from("openai"),
        account: Fingerprint([1; 16]),
        model: Arc::from(model),
        service: "sync".to_owned(),
        tag: None,
        key: None,
        agent: None,
    };
    PassedCalls { hour: at(seconds).hour(), group, sums: LedgerSums::of_call(&call) }
}

const CALL: PassedCall =
    PassedCall { usage: Some(USAGE), price: Some(Price { paid_nanos: 1_900, live_nanos: 1_900 }), observed: None };

pub(super) async fn an_execution_is_in_the_ledger_once(kind: StoreKind) {
    let bench = bench(kind);
    let request = NewRequest { tag: Some("nightly".to_owned()), key: Some("ci".to_owned()), ..bench.request() };
    let id = bench.accept(request).await;
    let batch = bench.batch(&[id]).await;
    let end = charged(finish(id, RequestState::Completed, 40, Some("{}")), charge(Execution::Batch(batch)));
    for round in 0..3 {
        assert_eq!(bench.store.finish(vec![end.clone(), end.clone()]).await.unwrap(), [round == 0, false]);
        let rows = bench.store.charges(vec![id]).await.unwrap();
        assert_eq!(rows.len(), 1, "a replay changes nothing");
        assert_eq!(
            (rows[0].usage, rows[0].price, rows[0].wasted, rows[0].at),
            (Some(USAGE), Some(PRICE), false, at(40))
        );
        let group = &rows[0].group;
        assert_eq!((group.tag.as_deref(), group.key.as_deref(), &*group.model), (Some("nightly"), Some("ci"), "m"));
        let totals = bench.totals().await;
        assert_eq!((totals.requests, totals.wasted_requests, totals.unpriced), (1, 0, 0));
        assert_eq!((totals.paid_nanos, totals.live_nanos, totals.saved_nanos()), (950, 1_900, 950));
        assert_eq!(totals.usage, USAGE);
    }
}

pub(super) async fn an_answer_that_came_too_late_is_waste(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(2).await;
    let batch = bench.batch(&ids).await;
    let live = Price { paid_nanos: 1_900, live_nanos: 1_900 };
    let rescue = Charge { service: "sync", price: Some(live), ..charge(Execution::Live(1)) };
    let late = charge(Execution::Batch(batch));
    let first = charged(finish(ids[0], RequestState::Completed, 40, Some("live")), rescue);
    let second = charged(finish(ids[0], RequestState::Completed, 50, Some("batch")), late.clone());
    // The other one ended without an answer, and then one arrived.
    let failed = finish(ids[1], RequestState::Failed, 41, None);
    let after = charged(finish(ids[1], RequestState::Completed, 51, Some("batch")), late);
    let ended = bench.store.finish(vec![first, failed, second.clone(), after]).await.unwrap();
    assert_eq!(ended, [true, true, false, false]);
    assert!(!bench.finish(ids[0], RequestState::Completed, 52, None).await);
    assert_eq!(bench.store.finish(vec![second]).await.unwrap(), [false]);
    let rows = bench.store.charges(vec![ids[0]]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.wasted).collect::<Vec<_>>(), [false, true], "both charges are shown");
    let totals = bench.totals().await;
    assert_eq!((totals.requests, totals.wasted_requests), (1, 2));
    assert_eq!((totals.paid_nanos, totals.wasted_nanos), (1_900 + 2 * 950, 2 * 950));
    assert_eq!((totals.live_nanos, totals.saved_nanos()), (1_900, -2 * 950), "waste is no saving");
}

pub(super) async fn an_execution_without_a_usable_answer_is_waste(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accepted(1).await[0];
    let batch = bench.batch(&[id]).await;
    let damaged = Charge { usage: None, price: None, ..charge(Execution::Batch(batch)) };
    let end = charged(finish(id, RequestState::Failed, 40, None), damaged);
    assert_eq!(bench.store.finish(vec![end]).await.unwrap(), [true]);
    let totals = bench.totals().await;
    assert_eq!((totals.requests, totals.wasted_requests, totals.unpriced, totals.unmetered), (0, 1, 1, 1));
}

pub(super) async fn an_unknown_price_is_counted_and_adds_nothing(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(2).await;
    let batch = bench.batch(&ids).await;
    let no_price = Charge { price: None, ..charge(Execution::Batch(batch)) };
    let no_usage = Charge { usage: None, ..no_price.clone() };
    for (id, charge) in ids.iter().zip([no_price, no_usage]) {
        let end = charged(finish(*id, RequestState::Completed, 40, None), charge);
        assert_eq!(bench.store.finish(vec![end]).await.unwrap(), [true]);
    }
    let totals = bench.totals().await;
    assert_eq!((totals.requests, totals.unpriced, totals.unmetered), (2, 2, 1));
    assert_eq!((totals.paid_nanos, totals.live_nanos, totals.usage), (0, 0, USAGE));
    assert_eq!(bench.store.charges(vec![ids[1]]).await.unwrap()[0].usage, None);
}

pub(super) async fn a_report_is_divided_and_begins_with_an_hour(kind: StoreKind) {
    let bench = bench(kind);
    let mut calls = vec![
        passed(0, "a", CALL),
        passed(10, "b", CALL),
        passed(7_200, "b", CALL),
        passed(86_400, "b", PassedCall { observed: Some(Some(950)), ..CALL }),
    ];
    calls[1].group.tag = Some("nightly".to_owned());
    calls[2].group.key = Some("ci".to_owned());
    calls[3].group.agent = Some("curl/8".to_owned());
    bench.store.record_calls(calls).await.unwrap();
    let count = |report: LedgerReport| -> Vec<(Option<String>, u64)> {
        assert_eq!(report.groups.values().map(|sums| sums.requests).sum::<u64>(), report.totals.requests);
        report.groups.into_iter().map(|(name, sums)| (name, sums.requests)).collect()
    };
    let some = |name: &str, count| (Some(name.to_owned()), count);
    assert_eq!(count(bench.report(0, Some(Dimension::Model)).await), [some("a", 1), some("b", 3)]);
    assert_eq!(count(bench.report(0, Some(Dimension::Tag)).await), [(None, 3), some("nightly", 1)]);
    assert_eq!(count(bench.report(0, Some(Dimension::Key)).await), [(None, 3), some("ci", 1)]);
    assert_eq!(count(bench.report(0, Some(Dimension::Service)).await), [some("sync", 4)]);
    assert_eq!(count(bench.report(0, Some(Dimension::UserAgent)).await), [(None, 3), some("curl/8", 1)]);
    assert_eq!(count(bench.report(0, Some(Dimension::Day)).await), [some("2026-11-23", 3), some("2026-11-24", 1)]);
    let hours = count(bench.report(0, Some(Dimension::Hour)).await);
    assert_eq!(hours, [some("2026-11-23T08", 2), some("2026-11-23T10", 1), some("2026-11-24T08", 1)]);
    assert_eq!(bench.report(3_599, None).await.totals.requests, 4, "the hour that it is in is in it");
    assert_eq!(bench.report(3_600, None).await.totals.requests, 2);
    assert_eq!(bench.report(90_000, Some(Dimension::Day)).await, LedgerReport::default());
    let observed = bench.totals().await.observed;
    assert_eq!((observed.requests, observed.live_nanos, observed.would_save_nanos()), (1, 1_900, 950));
}

pub(super) async fn rows_go_and_their_sums_stay(kind: StoreKind) {
    let bench = bench(kind);
    let kept = bench.accepted(1).await[0];
    let batch = bench.batch(&[kept]).await;
    let end = charged(finish(kept, RequestState::Completed, 40, None), charge(Execution::Batch(batch)));
    bench.store.finish(vec![end]).await.unwrap();
    let gone = bench.accepted(3).await;
    let batch = bench.batch(&gone).await;
    let ends =
        gone.iter().map(|id| charged(finish(*id, RequestState::Completed, 41, None), charge(Execution::Batch(batch))));
    bench.store.finish(ends.collect()).await.unwrap();
    bench.store.record_calls(vec![passed(21, "m", CALL), passed(22, "m", CALL)]).await.unwrap();
    let before = bench.totals().await;
    assert_eq!(before.requests, 6);
    let last = bench.store.last_sequence().await.unwrap();
    let rows_gone = async |limit| bench.store.expire_ledger(at(60), limit).await.unwrap();
    assert_eq!(rows_gone(10).await, 0, "requests that are there keep their rows");
    for (until, limit) in [(at(41), 1), (at(42), 10)] {
        bench.store.expire(until, limit).await.unwrap();
    }
    assert_eq!([rows_gone(1).await, rows_gone(10).await, rows_gone(10).await], [1, 3, 0]);
    assert!(bench.store.charges(vec![gone[0]]).await.unwrap().is_empty());
    assert_eq!(bench.totals().await, before);
    assert_eq!(bench.store.last_sequence().await.unwrap(), last, "numbers are not given out again");
}

pub(super) async fn nonsense_does_not_spoil_the_sums(kind: StoreKind) {
    let bench = bench(kind);
    let call = PassedCall {
        usage: Some(Usage { input: u64::MAX, cached: u64::MAX, ..USAGE }),
        price: Some(Price { paid_nanos: i64::MAX, live_nanos: i64::MAX }),
        ..CALL
    };
    bench.store.record_calls(vec![passed(0, "m", call), passed(0, "m", call)]).await.unwrap();
    bench.store.record_calls(vec![passed(1, "m", CALL)]).await.unwrap();
    let totals = bench.totals().await;
    assert_eq!((totals.requests, totals.paid_nanos, totals.live_nanos), (3, i64::MAX, i64::MAX));
}
