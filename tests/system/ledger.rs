//! The ledger against the simulator's own record of what it executed: equal to the nano-dollar, whatever happened.

use std::collections::BTreeMap;

use bytes::Bytes;
use nightbus::domain::pricing::Price;
use nightbus::domain::request::RequestState;
use nightbus::sim::SimOptions;
use nightbus::store::ledger::{Charge, Dimension, Execution, LedgerSums};
use nightbus::store::{Finish, OutcomeSummary, SharedStore};
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, DEFER, chat, eventually};
use super::common::process::Home;
use super::common::provider::{Provider, quick};
use super::common::proxy::Proxy;

/// Nano-dollars for a token in and one out, live: the provider's published prices, written down here once more.
const LIVE: &[(&str, i64, i64)] =
    &[("gpt-6-luna", 100, 500), ("gpt-5.6-luna", 200, 1_200), ("text-embedding-3-small", 20, 0)];

/// Paid and live price of what the simulator says it executed, by service.
async fn expected(provider: &Provider) -> BTreeMap<String, (u64, i64, i64)> {
    let bill = provider.client().get("/sim/bill").await.json();
    let mut sums = BTreeMap::<String, (u64, i64, i64)>::new();
    for row in bill["data"].as_array().unwrap() {
        let (_, input, output) = LIVE.iter().find(|(model, ..)| row["model"] == *model).unwrap();
        let count = |name: &str| row[name].as_i64().unwrap();
        let live = count("input") * input + count("output") * output;
        let paid = if row["service"] == "sync" { live } else { live / 2 };
        let sum = sums.entry(row["service"].as_str().unwrap().to_owned()).or_default();
        *sum = (sum.0 + row["executions"].as_u64().unwrap(), sum.1 + paid, sum.2 + live);
    }
    sums
}

/// The ledger says what the simulator says, and nothing was wasted.
pub(crate) async fn agrees(store: &SharedStore, provider: &Provider) {
    let report = store.ledger(nightbus::domain::clock::Micros(0), Some(Dimension::Service)).await.unwrap();
    let found: BTreeMap<String, (u64, i64, i64)> = report
        .groups
        .iter()
        .map(|(service, sums)| (service.clone().unwrap(), (sums.requests, sums.paid_nanos, sums.live_nanos)))
        .collect();
    assert_eq!(found, expected(provider).await);
    let totals = report.totals;
    assert_eq!((totals.unpriced, totals.wasted_requests, totals.wasted_nanos), (0, 0, 0), "{totals:?}");
}

/// The totals, once so many live calls are in.
async fn totals(proxy: &Proxy, requests: u64) -> LedgerSums {
    let store = proxy.app().engine().store();
    eventually("the calls are in the ledger", || async {
        let totals = store.ledger(nightbus::domain::clock::Micros(0), None).await.unwrap().totals;
        (totals.requests >= requests).then_some(totals)
    })
    .await
}

fn streamed(mut body: Value, usage: bool) -> String {
    body["stream"] = json!(true);
    if usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    body.to_string()
}

#[tokio::test]
async fn live_calls_are_in_it_with_the_service_they_used() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let client = &proxy.client;
    let responses = json!({"model": "gpt-5.6-luna", "input": "say something to me"});
    let mut flex = chat("half the price");
    flex["service_tier"] = json!("flex");
    let inputs: Vec<String> = (0..60).map(|at| format!("text number {at}")).collect();
    let embeddings = json!({"model": "text-embedding-3-small", "input": inputs, "encoding_format": "float"});
    let large = client.post("/v1/embeddings", &[], embeddings.to_string()).await;
    assert!(large.body.len() > 200_000, "the beginning is not kept: {}", large.body.len());
    let plain = client.post(CHAT, &[("x-nightbus-tag", "live")], chat("hello").to_string()).await;
    assert_eq!(plain.header("content-length"), plain.body.len().to_string(), "not a byte is different");
    for (path, body) in [
        (CHAT, flex.to_string()),
        (CHAT, streamed(chat(&"many words ".repeat(2_000)), true)),
        ("/v1/responses", responses.to_string()),
        ("/v1/responses", streamed(responses.clone(), false)),
    ] {
        assert_eq!(client.post(path, &[], body).await.status, 200);
    }
    assert_eq!(totals(&proxy, 6).await.requests, 6);
    agrees(proxy.app().engine().store(), &provider).await;
    // What is not billed, or has no price, is not in it.
    let moderation = json!({"model": "omni-moderation-latest", "input": "x"}).to_string();
    assert_eq!(client.post("/v1/moderations", &[], moderation).await.status, 200);
    assert_eq!(client.post(CHAT, &[], "{}").await.status, 400);
    assert_eq!(client.get("/v1/models").await.status, 200);
    // A stream that does not tell its usage is counted, and no price is invented.
    assert_eq!(client.post(CHAT, &[], streamed(chat("unknown"), false)).await.status, 200);
    let sums = totals(&proxy, 7).await;
    assert_eq!((sums.requests, sums.unpriced, sums.unmetered), (7, 1, 1));
    let by_tag = proxy.admin().get("/api/savings?by=tag").await.json();
    assert_eq!((&by_tag["groups"][1]["key"], &by_tag["groups"][1]["requests"]), (&json!("live"), &json!(1)));
    proxy.stop().await;
}

#[tokio::test]
async fn answers_show_what_the_ledger_has() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let reply = proxy.client.held(CHAT, &chat("what does this cost?")).await;
    let nanos = |text: &str| (text.parse::<f64>().unwrap() * 1e9).round();
    let id = reply.header("x-nightbus-request-id");
    let rows = proxy.app().engine().store().charges(vec![id.parse().unwrap()]).await.unwrap();
    let price = rows[0].price.unwrap();
    let shown = (nanos(reply.header("x-nightbus-cost-usd")), nanos(reply.header("x-nightbus-saved-usd")));
    assert_eq!(shown, (price.paid_nanos as f64, (price.live_nanos - price.paid_nanos) as f64));
    let object = proxy.client.object(id).await;
    assert_eq!(object["cost_usd"].as_f64().unwrap(), price.paid_nanos as f64 / 1e9);
    assert_eq!(object["saved_usd"].as_f64().unwrap(), (price.live_nanos - price.paid_nanos) as f64 / 1e9);
    agrees(proxy.app().engine().store(), &provider).await;
    proxy.stop().await;
}

#[tokio::test]
async fn duplicates_retries_and_broken_downloads_are_billed_once() {
    let faults = ["duplicate-line:2", "line-429:2", "line-500:1", "content-cut:3", "expire-half:1", "null-response:1"];
    let provider = Provider::with_faults(&faults).await;
    let proxy = Proxy::with(&provider, "[batching]\nidle = \"150ms\"\npoll = \"100ms\"").await;
    let calls = (0..20).map(|at| {
        let client = &proxy.client;
        async move { client.held(CHAT, &chat(&format!("number {at}"))).await }
    });
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200);
    }
    assert!(provider.fired("duplicate-line") > 0 && provider.fired("expire-half") > 0, "{}", provider.counters());
    agrees(proxy.app().engine().store(), &provider).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_batch_line_that_came_after_another_answer_is_waste() {
    let provider = Provider::start(SimOptions { batch_seconds: 1.0, ..quick() }).await;
    let proxy = Proxy::over(&provider).await;
    let id = proxy.client.accepted(CHAT, &chat("too slow")).await;
    proxy.client.until_state(&id, &["submitted"]).await;
    let engine = proxy.app().engine();
    let live = Price { paid_nanos: 7_000, live_nanos: 7_000 };
    let record = engine.store().request(id.parse().unwrap()).await.unwrap().unwrap();
    let answer = Finish {
        id: record.request.id,
        state: RequestState::Completed,
        at: engine.clock().now(),
        summary: OutcomeSummary {
            status_code: 200,
            service: Some("sync".to_owned()),
            provider_request_id: None,
            error: None,
            usage_json: None,
            cost_nanos: Some(live.paid_nanos),
            saved_nanos: Some(0),
        },
        body: Some(Bytes::from_static(b"{}")),
        charge: Some(Charge {
            provider: record.request.lane.provider.clone(),
            account: record.request.lane.account,
            model: record.request.lane.model.clone(),
            service: "sync",
            execution: Execution::Live(1),
            usage: None,
            price: Some(live),
        }),
    };
    assert_eq!(engine.store().finish(vec![answer]).await.unwrap(), [true]);
    let rows = eventually("the batch's line is in the ledger, too", || async {
        let rows = engine.store().charges(vec![record.request.id]).await.unwrap();
        (rows.len() == 2).then_some(rows)
    })
    .await;
    assert_eq!((rows[0].wasted, rows[0].group.service.as_str()), (false, "sync"));
    assert_eq!((rows[1].wasted, rows[1].group.service.as_str()), (true, "batch"));
    let (_, batch, _) = expected(&provider).await["batch"];
    let sums = engine.store().ledger(nightbus::domain::clock::Micros(0), None).await.unwrap().totals;
    assert_eq!((sums.paid_nanos, sums.wasted_nanos, sums.saved_nanos()), (7_000 + batch, batch, -batch));
    proxy.stop().await;
}

/// What the simulator executed of a model by a service: how often, and what that costs live.
async fn executed(provider: &Provider, model: &str, service: &str) -> (u64, i64) {
    let bill = provider.client().get("/sim/bill").await.json();
    let rows = bill["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["model"] == model && row["service"] == service).unwrap();
    let (_, input, output) = LIVE.iter().find(|(priced, ..)| *priced == model).unwrap();
    let live = row["input"].as_i64().unwrap() * input + row["output"].as_i64().unwrap() * output;
    (row["executions"].as_u64().unwrap(), live)
}

/// Calls that were rescued while their batch ran, whose batch answers all the same; deaths meanwhile, and results that are
/// read again: every execution is in the ledger once, as what it is.
#[tokio::test]
async fn after_crashes_replays_rescue_and_duplicates_the_ledger_is_the_providers_bill() {
    const EACH: usize = 4;
    let provider = Provider::start(SimOptions { batch_seconds: 3_000.0, ..quick() }).await;
    provider.set_faults(&["cancel-500:always", "duplicate-line:4", "content-cut:2"]);
    let home = Home::new(&provider, "[batching]\nidle = \"60ms\"\nmax_age = \"5s\"\npoll = \"100ms\"");
    let running = home.start().await;
    let accepted = |model: &'static str, more: &'static [(&'static str, &'static str)]| {
        let client = running.client.clone();
        async move {
            let headers = [&[DEFER, ASYNC], more].concat();
            let mut ids = Vec::new();
            for at in 0..EACH {
                let mut body = chat(&format!("{model} {at}"));
                body["model"] = json!(model);
                let reply = client.post(CHAT, &headers, body.to_string()).await;
                ids.push(reply.json()["id"].as_str().unwrap().to_owned());
            }
            ids
        }
    };
    let patient = accepted("gpt-5.6-luna", &[]).await;
    let hurried = accepted("gpt-6-luna", &[("x-nightbus-deadline", "24s"), ("x-nightbus-fallback", "sync")]).await;
    for id in &hurried {
        assert_eq!(running.client.until_state(id, &["completed"]).await["service"], "sync");
    }
    running.kill().await;
    // The batches end after all, and the process dies among their results.
    provider.batch_seconds(0.2).await;
    for point in ["results-recorded:1", "results-recorded:2"] {
        if let Some(mut running) = home.start_to_die_at(point).await {
            running.ended().await;
        }
    }
    let mut store = None;
    for _again in 0..30 {
        let running = home.start().await;
        for id in &patient {
            assert_eq!(running.client.until_state(id, &["completed"]).await["service"], "batch");
        }
        assert!(running.terminate().await.success());
        let ledger = home.store();
        if ledger.ledger(nightbus::domain::clock::Micros(0), None).await.unwrap().totals.wasted_requests > 0 {
            store = Some(ledger);
            break;
        }
        ledger.close().await.unwrap();
    }
    let sums = store.unwrap().ledger(nightbus::domain::clock::Micros(0), None).await.unwrap().totals;
    let (rescued, rescued_live) = executed(&provider, "gpt-6-luna", "sync").await;
    let (wasted, wasted_live) = executed(&provider, "gpt-6-luna", "batch").await;
    let (waited, waited_live) = executed(&provider, "gpt-5.6-luna", "batch").await;
    assert_eq!((rescued, wasted, waited), (EACH as u64, EACH as u64, EACH as u64));
    assert_eq!((sums.requests, sums.wasted_requests, sums.unpriced), (rescued + waited, wasted, 0));
    assert_eq!(sums.paid_nanos, rescued_live + (wasted_live + waited_live) / 2);
    assert_eq!((sums.live_nanos, sums.wasted_nanos), (rescued_live + waited_live, wasted_live / 2));
}

#[tokio::test]
async fn observe_mode_touches_nothing_and_says_what_batch_would_have_saved() {
    let provider = Provider::quick().await;
    let tables = "[deferral]\nmode = \"observe\"\n[[deferral.rules]]\nuser_agent = \"nightly*\"\ndefer = true";
    let proxy = Proxy::with(&provider, tables).await;
    let client = &proxy.client;
    let agent = ("user-agent", "nightly-eval/2.0 (linux)");
    let by_rule = client.post(CHAT, &[agent], chat("by rule").to_string()).await;
    assert!(!by_rule.headers.keys().any(|name| name.as_str().starts_with("x-nightbus")), "{by_rule:?}");
    let by_header = client.post(CHAT, &[DEFER, ("x-nightbus-tag", "eval")], chat("by header").to_string()).await;
    assert_eq!((by_header.status.as_u16(), by_header.header("x-nightbus-passthrough")), (200, "observe"));
    let mut suffixed = chat("by suffix");
    suffixed["model"] = json!("gpt-6-luna:batch");
    assert_eq!(client.post(CHAT, &[], suffixed.to_string()).await.status, 200);
    assert_eq!(client.post(CHAT, &[], chat("not marked").to_string()).await.status, 200);
    totals(&proxy, 4).await;
    assert_eq!((provider.count("batches"), provider.count("live_calls")), (0, 4));
    agrees(proxy.app().engine().store(), &provider).await;
    let savings = proxy.admin().get("/api/savings?by=user_agent").await.json();
    let observed = &savings["observed"];
    assert_eq!((&observed["requests"], &observed["not_cheaper_requests"]), (&json!(3), &json!(0)));
    let nanos = |value: &Value| (value.as_f64().unwrap() * 1e9).round();
    assert!(nanos(&observed["live_usd"]) > 0.0 && nanos(&observed["live_usd"]) < nanos(&savings["totals"]["live_usd"]));
    assert_eq!(nanos(&observed["would_save_usd"]) * 2.0, nanos(&observed["live_usd"]), "half the price");
    let groups = savings["groups"].as_array().unwrap();
    let nightly = groups.iter().find(|group| group["key"] == "nightly-eval/2.0").unwrap();
    assert_eq!(nightly["observed"]["requests"], 1);
    let models = proxy.admin().get("/api/savings?by=model").await.json();
    assert_eq!(models["groups"].as_array().unwrap().len(), 1, "the mark is no part of a model: {models}");
    proxy.stop().await;
}
