//! Spans as a collector gets them (feature `otel`): a receiver of this test's own, which reads OTLP's protobuf by itself,
//! and the real process.

#![cfg(feature = "otel")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests may fail a test"
)]

#[path = "otel/collector.rs"]
mod collector;
#[path = "common/mod.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod common;

use nightbus::domain::clock::{Clock as _, SystemClock};
use nightbus::sim::SimOptions;

use collector::{Collector, Span};
use common::client::{CHAT, Client, DEFER, chat, eventually, probe};
use common::process::{Home, Running};
use common::provider::{Provider, quick};
use common::proxy::KEY;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

fn home(provider: &Provider, collector: &Collector) -> Home {
    let otel = format!("[otel]\nendpoint = \"http://{}\"\nservice_name = \"nightbus-test\"", collector.addr());
    Home::new(provider, &otel)
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{CALLER}-{flags}")
}

/// A held call in the caller's trace; the id of its request.
async fn traced(client: &Client, traceparent: &str, text: &str) -> String {
    let reply = client.post(CHAT, &[DEFER, ("traceparent", traceparent)], chat(text).to_string()).await;
    assert!(reply.text().ends_with(text), "{reply:?}");
    reply.header("x-nightbus-request-id").to_owned()
}

async fn metric(running: &Running, series: &str) -> f64 {
    let page = String::from_utf8(running.admin.get("/metrics").await.body.to_vec()).unwrap();
    page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0.0)
}

fn nanos_now() -> u64 {
    u64::try_from(SystemClock.now().0).unwrap() * 1_000
}

#[tokio::test]
async fn a_deferred_call_is_a_span_in_its_callers_trace_and_its_batch_links_to_it() {
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    let home = home(&provider, &collector);
    let before = nanos_now();
    let running = home.start().await;
    let id = traced(&running.client, &traceparent(TRACE, "01"), &probe(1)).await;
    let (call, line, batch) = (
        collector.one("POST /v1/chat/completions").await,
        collector.one("nightbus.batch_line").await,
        collector.one("nightbus.batch").await,
    );
    assert_eq!((call.trace.as_str(), call.parent.as_str(), call.kind), (TRACE, CALLER, SERVER));
    assert_eq!((line.trace.as_str(), line.parent.as_str(), line.kind), (TRACE, call.id.as_str(), CLIENT));
    assert_eq!((batch.parent.as_str(), batch.trace == TRACE), ("", false), "a batch is nobody's child");
    assert_eq!(batch.links, [(TRACE.to_owned(), call.id.clone())]);
    assert_eq!(line.links, [(batch.trace.clone(), batch.id.clone())]);

    let object = running.client.object(&id).await;
    let is = |span: &Span, key: &str| span.attributes.get(key).cloned().unwrap_or_default();
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/chat/completions"),
        ("http.response.status_code", "200"),
        ("nightbus.request.id", id.as_str()),
        ("nightbus.state", "completed"),
        ("nightbus.service", "batch"),
        ("nightbus.attempts", "1"),
        ("nightbus.provider", "openai"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", object["model"].as_str().unwrap()),
        ("gen_ai.usage.input_tokens", &object["usage"]["prompt_tokens"].to_string()),
    ] {
        assert_eq!(is(&call, key), value, "{key} of {call:?}");
    }
    let batch_id = object["batch_id"].as_str().unwrap();
    assert_eq!([is(&line, "nightbus.batch.id"), is(&batch, "nightbus.batch.id")], [batch_id, batch_id]);
    assert_eq!(
        (is(&batch, "nightbus.batch.state").as_str(), is(&batch, "nightbus.batch.lines").as_str()),
        ("completed", "1")
    );
    assert_eq!(batch.events, ["nightbus.batch.submitted"]);
    assert!(
        before <= call.from && call.from <= line.from && line.to == call.to && line.from < line.to,
        "{call:?} {line:?}"
    );
    assert_eq!((line.from, batch.from <= batch.to), (batch.from, true), "a line begins with its batch's intent");
    assert_eq!((call.status, batch.status), (0, 0));

    let resource = collector.resource();
    assert_eq!(resource["service.name"], "nightbus-test");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    for secret in [probe(1).as_str(), KEY] {
        assert!(!collector.received(secret.as_bytes()), "{secret} is nobody else's business");
    }
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn a_request_that_outlives_a_death_ends_its_span_with_the_times_and_the_parent_of_its_call() {
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    let home = home(&provider, &collector);
    let before = nanos_now();
    let mut first = home.start_to_die_at("uploaded").await.expect("it listens");
    let headers = [DEFER, ("prefer", "respond-async"), ("traceparent", &traceparent(TRACE, "01"))];
    let reply = first.client.post(CHAT, &headers, chat(&probe(1)).to_string()).await;
    let id = reply.header("x-nightbus-request-id").to_owned();
    first.ended().await;
    let died = nanos_now();
    assert_eq!(collector.spans(), []);
    let second = home.start().await;
    assert!(second.client.result(&id).await.text().contains(&probe(1)), "{}", home.logged());
    let (call, line) = (collector.one("POST /v1/chat/completions").await, collector.one("nightbus.batch_line").await);
    assert_eq!((call.trace.as_str(), call.parent.as_str()), (TRACE, CALLER));
    assert_eq!(line.parent, call.id);
    assert!(before <= call.from && call.from <= died && died < call.to, "{before} {died} {call:?}");
    assert!(call.from <= line.from && line.from <= died && line.to == call.to, "{line:?}");
    collector.one("nightbus.batch").await;
    assert!(second.terminate().await.success());
}

#[tokio::test]
async fn what_its_caller_does_not_record_has_no_span() {
    const UNRECORDED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    let running = home(&provider, &collector).start().await;
    let (recorded, unrecorded) = (traceparent(TRACE, "01"), traceparent(UNRECORDED, "00"));
    let plain = async { running.client.held(CHAT, &chat(&probe(3))).await };
    let (first, second) = (probe(1), probe(2));
    tokio::join!(traced(&running.client, &recorded, &first), traced(&running.client, &unrecorded, &second), plain);
    // All three have ended; a stop sends what was not sent yet.
    assert!(running.terminate().await.success());
    let calls: Vec<Span> = collector.spans().into_iter().filter(|span| span.name.starts_with("POST")).collect();
    assert_eq!(calls.len(), 2, "{calls:?}");
    let with_parent: Vec<_> = calls.iter().filter(|span| !span.parent.is_empty()).collect();
    assert!(with_parent.len() == 1 && with_parent[0].trace == TRACE, "one call began a trace of its own: {calls:?}");
    assert!(collector.spans().iter().all(|span| span.trace != UNRECORDED));
    assert!(collector.spans().iter().flat_map(|span| &span.links).all(|(trace, _)| trace != UNRECORDED));
}

#[tokio::test]
async fn a_live_call_in_place_of_a_batch_is_a_span_of_its_own() {
    let endless = SimOptions { batch_seconds: 3_000.0, ..quick() };
    let (provider, collector) = (Provider::start(endless).await, Collector::start().await);
    let running = home(&provider, &collector).start().await;
    let parent = traceparent(TRACE, "01");
    let headers =
        [DEFER, ("x-nightbus-deadline", "24s"), ("x-nightbus-fallback", "sync"), ("traceparent", parent.as_str())];
    let reply = running.client.post(CHAT, &headers, chat(&probe(1)).to_string()).await;
    assert!(reply.text().ends_with(&probe(1)), "{reply:?}");
    let (call, line) = (collector.one("POST /v1/chat/completions").await, collector.one("nightbus.batch_line").await);
    let live = collector.one("nightbus.live_call").await;
    assert_eq!((live.trace.as_str(), live.parent.as_str(), live.kind), (TRACE, call.id.as_str(), CLIENT));
    assert_eq!((live.attributes["nightbus.service"].as_str(), live.to), ("sync", call.to));
    assert!(line.to <= live.from && live.from <= live.to, "{line:?} {live:?}");
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn a_stop_sends_what_is_left_and_a_withdrawn_request_has_a_span_too() {
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    let otel = format!(
        "[otel]\nendpoint = \"http://{}/\"\n[batching]\nidle = \"10m\"\nmax_age = \"10m\"\npoll = \"1s\"",
        collector.addr()
    );
    let running = Home::new(&provider, &otel).start().await;
    let id = running.client.accepted(CHAT, &chat(&probe(1))).await;
    assert_eq!(running.client.delete(&format!("/nightbus/v1/requests/{id}")).await.status, 200);
    assert!(running.terminate().await.success());
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!((spans[0].attributes["nightbus.state"].as_str(), spans[0].parent.as_str()), ("cancelled", ""));
    assert_eq!((spans[0].attributes["http.response.status_code"].as_str(), spans[0].status), ("410", 0));
    assert_eq!(collector.resource()["service.name"], "nightbus");
}

#[tokio::test]
async fn a_failure_is_an_error_with_its_code_and_without_its_message() {
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    let otel = format!(
        "[otel]\nendpoint = \"http://{}\"\n[batching]\nidle = \"10m\"\nmax_age = \"10m\"\npoll = \"1s\"",
        collector.addr()
    );
    let running = Home::new(&provider, &otel).start().await;
    let headers = [DEFER, ("x-nightbus-deadline", "1s"), ("x-nightbus-fallback", "none")];
    let reply = running.client.post(CHAT, &headers, chat(&probe(1)).to_string()).await;
    assert!(reply.status.as_u16() >= 500, "{reply:?}");
    let call = collector.one("POST /v1/chat/completions").await;
    assert_eq!((call.status, call.attributes["error.type"].as_str()), (2, reply.code().as_str()));
    assert_eq!(call.attributes["http.response.status_code"], reply.status.as_u16().to_string());
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn a_collector_that_is_gone_costs_callers_nothing_and_is_counted_and_said_once() {
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    collector.answer(400);
    let home = home(&provider, &collector);
    let running = home.start().await;
    for (at, ends) in [(1, 2.0), (2, 4.0)] {
        traced(&running.client, &traceparent(TRACE, "01"), &probe(at)).await;
        let lost = eventually("the spans of the request and its batch are lost", || async {
            let lost = metric(&running, "nightbus_trace_exports_total{outcome=\"refused\"} ").await;
            (lost >= ends).then_some(lost)
        })
        .await;
        assert_eq!(lost, ends);
    }
    assert!(running.terminate().await.success());
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(log.matches("spans cannot be sent").count(), 1, "{log}");
}

#[tokio::test]
async fn an_unreachable_collector_does_not_hold_up_a_stop_for_long() {
    let provider = Provider::quick().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // It accepts and says nothing.
    let otel = format!("[otel]\nendpoint = \"http://{}\"\n[shutdown]\ngrace = \"10m\"", listener.local_addr().unwrap());
    let running = Home::new(&provider, &otel).start().await;
    running.client.held(CHAT, &chat(&probe(1))).await;
    // A test that waits for ten minutes fails.
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn the_standard_variables_name_the_collector_its_headers_and_the_service() {
    let (provider, collector) = (Provider::quick().await, Collector::start().await);
    let home = Home::new(&provider, "");
    let variables = format!(
        "export OTEL_EXPORTER_OTLP_ENDPOINT=http://{}\nexport OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20secret\n\
         export OTEL_SERVICE_NAME=from-the-environment",
        collector.addr()
    );
    let running = home.start_after(&variables).await;
    running.client.held(CHAT, &chat(&probe(1))).await;
    assert!(running.terminate().await.success());
    assert!(collector.spans().iter().any(|span| span.name.starts_with("POST")), "{}", home.logged());
    assert_eq!(collector.resource()["service.name"], "from-the-environment");
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer secret"));
    let seen = collector.spans().len();

    let running = home.start_after(&format!("{variables}\nexport OTEL_SDK_DISABLED=true")).await;
    running.client.held(CHAT, &chat(&probe(2))).await;
    assert!(running.terminate().await.success());
    assert_eq!(collector.spans().len(), seen, "switched off");
}
