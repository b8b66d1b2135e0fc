//! What a row adds to the sums.

use super::*;

fn row() -> LedgerRow {
    LedgerRow {
        request: 1,
        place: 1,
        at: Micros::from_unix_seconds(-1),
        group: Group {
            provider: Arc::from("p"),
            account: Fingerprint([0; 16]),
            model: Arc::from("m"),
            service: "sync".to_owned(),
            tag: None,
            key: None,
            agent: None,
        },
        usage: None,
        price: None,
        wasted: false,
    }
}

#[test]
fn an_observed_call_counts_only_where_both_prices_are_known() {
    let call = |price: Option<(i64, i64)>, observed| {
        let price = price.map(|(paid_nanos, live_nanos)| Price { paid_nanos, live_nanos });
        LedgerSums::of_call(&PassedCall { usage: None, price, observed }).observed
    };
    let mut sums = ObservedSums::default();
    for (price, batch) in
        [(Some((10, 10)), Some(5)), (Some((10, 10)), Some(12)), (Some((10, 10)), None), (None, Some(1))]
    {
        sums += call(price, Some(batch));
    }
    assert_eq!((sums.requests, sums.unpriced, sums.not_cheaper), (4, 2, 1));
    assert_eq!((sums.live_nanos, sums.batch_nanos, sums.would_save_nanos()), (20, 17, 3));
    assert_eq!(call(Some((1, 1)), None), ObservedSums::default());
}

#[test]
fn hours_before_the_epoch_are_hours_too() {
    let row = row();
    assert_eq!(row.hour(), -1);
    assert_eq!(Dimension::Hour.name(row.hour(), &row.group).as_deref(), Some("1969-12-31T23"));
}

#[test]
fn places_of_one_request_do_not_meet() {
    let source = crate::domain::ids::IdSource::default();
    let batch = source.batch_id(Micros::from_unix_seconds(1), 0);
    let places = [Execution::Batch(batch), Execution::Live(1), Execution::Live(2)];
    let places: std::collections::BTreeSet<i64> = places.into_iter().map(Execution::place).collect();
    assert_eq!(places.len(), 3);
}

#[test]
fn what_was_written_to_a_cache_beyond_all_its_reads_was_read_by_nobody() {
    let mut report = LedgerReport::default();
    let mut add = |model: &str, service: &str, cached, cache_written| {
        let usage = Usage { input: 9_000, cached, cache_written, ..Usage::default() };
        let sums = LedgerSums { usage, ..LedgerSums::default() };
        let group = Group { model: Arc::from(model), service: service.to_owned(), ..row().group };
        report.add(None, 7, &group, sums);
        report.caches.iter().map(|cache| (cache.unread(), cache.writers().len())).collect::<Vec<_>>()
    };
    assert_eq!(add("plain", "sync", 0, 0), [], "no cache was used");
    // Two write the same prefix, of which one is read: at least one write was in vain.
    add("m", "batch", 0, 2_000);
    add("m", "sync", 0, 2_000);
    assert_eq!(add("m-2026-01-01", "sync", 2_000, 0), [(2_000, 2)], "an alias reads what its version wrote");
    // What another model reads was not written by this one.
    assert_eq!(add("other", "sync", 9_000, 0), [(2_000, 2), (0, 0)]);
    assert_eq!(add("m", "sync", 3_000, 0), [(0, 2), (0, 0)], "never below nothing");
}
