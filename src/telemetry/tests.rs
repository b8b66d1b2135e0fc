//! The page holds what the events said, under names that operators can rely on.

use std::sync::Arc;
use std::time::Duration;

use super::{Gauges, Telemetry};
use crate::domain::clock::Micros;
use crate::domain::ids::IdSource;
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};

fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn lane() -> LaneKey {
    LaneKey {
        provider: Arc::from("openai"),
        account: Fingerprint([7; 16]),
        endpoint: Endpoint::ChatCompletions,
        model: Arc::from("gpt-6-luna"),
        deadline_class: 0,
    }
}

#[test]
fn every_event_shows_on_the_page() {
    let telemetry = Telemetry::new();
    let batch = IdSource::default().batch_id(Micros::from_unix_seconds(1), 1);
    let lane = lane();
    let second = Duration::from_secs(1);
    telemetry.request_accepted("/v1/chat/completions", 2_000);
    telemetry.ledger_lost(6);
    telemetry.request_finished("batch", 200, second);
    telemetry.request_finished("", 502, second);
    telemetry.requests_cancelled(4, "caller");
    telemetry.request_refused("queue_full");
    telemetry.passthrough_finished("groq", 404, Some("endpoint"));
    telemetry.batch_prepared(batch, &lane, 300, 9_000);
    telemetry.batch_submitted(batch, "batch_1", 300, second);
    telemetry.batch_ended(batch, "completed", 299, 1, 0, second);
    telemetry.provider_error("poll", &"connection reset", Some(second));
    telemetry.line_unusable(batch, "unknown id");
    telemetry.harvest(300, 1_000, second);
    telemetry.poll(second);
    telemetry.requests_requeued(3, "expired");
    telemetry.fallback("sync", 2, "no batch");
    telemetry.waiter_opened();
    telemetry.waiter_opened();
    telemetry.waiter_closed();
    telemetry.store_commit(256, 0.004);
    telemetry.store_failed(&"disk full");
    telemetry.panic_contained("poll");
    telemetry.set_gauges(&Gauges {
        queued_requests: 12,
        queued_bytes: 34,
        oldest_queued_seconds: 1.5,
        lanes: 2,
        held_back: vec![("queue_full", 1)],
        batches: vec![("submitted", 3)],
        store_bytes: 8192,
    });
    let page = telemetry.render();
    for (series, expected) in [
        ("nightbus_requests_accepted_total{endpoint=\"/v1/chat/completions\"}", 1.0),
        ("nightbus_request_body_bytes_total", 2_000.0),
        ("nightbus_requests_finished_total{service=\"batch\",outcome=\"ok\"}", 1.0),
        ("nightbus_requests_finished_total{service=\"none\",outcome=\"server_error\"}", 1.0),
        ("nightbus_request_wait_seconds_count{service=\"batch\"}", 1.0),
        ("nightbus_requests_cancelled_total", 4.0),
        ("nightbus_requests_refused_total{code=\"queue_full\"}", 1.0),
        ("nightbus_passthrough_calls_total{provider=\"groq\",status=\"4xx\"}", 1.0),
        ("nightbus_passthrough_marked_total{reason=\"endpoint\"}", 1.0),
        ("nightbus_ledger_lost_calls_total", 6.0),
        ("nightbus_batch_lines_sum", 300.0),
        ("nightbus_lanes_held_back{reason=\"queue_full\"}", 1.0),
        ("nightbus_batches_submitted_total", 1.0),
        ("nightbus_batches_ended_total{state=\"completed\"}", 1.0),
        ("nightbus_submit_seconds_count", 1.0),
        ("nightbus_poll_seconds_count", 1.0),
        ("nightbus_harvest_seconds_count", 1.0),
        ("nightbus_harvest_lines_total", 300.0),
        ("nightbus_provider_errors_total{operation=\"poll\"}", 1.0),
        ("nightbus_unusable_lines_total{reason=\"unknown id\"}", 1.0),
        ("nightbus_requests_requeued_total{reason=\"expired\"}", 3.0),
        ("nightbus_fallbacks_total{service=\"sync\"}", 2.0),
        ("nightbus_held_connections", 1.0),
        ("nightbus_store_commit_rows_sum", 256.0),
        ("nightbus_store_commit_seconds_count", 1.0),
        ("nightbus_store_errors_total", 1.0),
        ("nightbus_panics_total{task=\"poll\"}", 1.0),
        ("nightbus_queue_requests", 12.0),
        ("nightbus_queue_bytes", 34.0),
        ("nightbus_queue_oldest_age_seconds", 1.5),
        ("nightbus_lanes", 2.0),
        ("nightbus_batches{state=\"submitted\"}", 3.0),
        ("nightbus_batches{state=\"prepared\"}", 0.0),
        ("nightbus_store_bytes", 8192.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} in\n{page}");
    }
    assert!(value(&page, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 0.0), "{page}");
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn reasons_are_capped() {
    let telemetry = Telemetry::new();
    for number in 0..200 {
        telemetry.passthrough_finished("openai", 200, Some(&format!("reason {number}")));
    }
    let page = telemetry.render();
    let series = page.lines().filter(|line| line.starts_with("nightbus_passthrough_marked_total{")).count();
    assert_eq!(series, 65, "64 reasons and `other`");
    assert_eq!(value(&page, "nightbus_passthrough_marked_total{reason=\"other\"}"), Some(136.0));
}

#[test]
fn two_sets_of_numbers_do_not_mix() {
    let (one, other) = (Telemetry::new(), Telemetry::new());
    one.request_refused("queue_full");
    assert!(one.render().contains("queue_full"));
    assert!(!other.render().contains("queue_full"));
}

#[test]
fn sums_are_exact_and_count_what_has_no_price() {
    let telemetry = Telemetry::new();
    telemetry.request_finished("batch", 200, Duration::ZERO);
    telemetry.request_priced(1_500, 1_500);
    telemetry.request_finished("sync", 200, Duration::ZERO);
    let sums = telemetry.totals();
    assert_eq!((sums.finished(), sums.priced, sums.paid_nanos, sums.saved_nanos), (2, 1, 1_500, 1_500));
}
