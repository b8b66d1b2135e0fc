//! Background windows: Responses calls that batch cannot serve, or not in time, for less than the live price.

use http::Method;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, Client, DEFER, Reply, chat, eventually, probe};
use super::common::process::{Home, Running};
use super::common::provider::Provider;
use super::common::proxy::Proxy;

const RESPONSES: &str = "/v1/responses";
const TABLES: &str = "[batching]\nidle = \"60ms\"\nmax_age = \"5s\"\npoll = \"100ms\"\nmax_attempts = 2";

fn call(text: &str) -> Value {
    json!({"model": "gpt-6-luna", "input": text})
}

async fn asked(client: &Client, more: &[(&str, &str)], body: &Value) -> Reply {
    let headers = [&[DEFER][..], more].concat();
    client.post(RESPONSES, &headers, body.to_string()).await
}

async fn falling_back_to(client: &Client, fallback: &str, body: &Value) -> Reply {
    asked(client, &[("x-nightbus-fallback", fallback)], body).await
}

async fn metric(admin: &Client, line: &str) -> f64 {
    let page = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    let found = page.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}

#[tokio::test]
async fn what_batch_refuses_is_answered_in_a_window_as_the_live_call_would_have() {
    let provider = Provider::with_faults(&["model-not-found:always"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let reply = falling_back_to(&proxy.client, "background_8h,sync", &call("probe-window")).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-nightbus-service")), (200, "background_8h"), "{reply:?}");
    let body = reply.json();
    assert!(body.to_string().contains("probe-window"), "{body}");
    assert_eq!((&body["status"], &body["background"]), (&json!("completed"), &json!(false)));
    assert!(body.get("background_options").is_none());
    let cost: f64 = reply.header("x-nightbus-cost-usd").parse().unwrap();
    let saved: f64 = reply.header("x-nightbus-saved-usd").parse().unwrap();
    assert!((cost / (cost + saved) - 0.6).abs() < 0.01, "{cost} paid, {saved} saved");
    assert_eq!((provider.count("background"), provider.executions_of("probe-window").await), (1, 1));
    let object = proxy.client.object(reply.header("x-nightbus-request-id")).await;
    assert_eq!((&object["state"], &object["service"]), (&json!("completed"), &json!("background_8h")));
    // A stream is made from it as from any other answer.
    let mut streamed = call("probe-streamed");
    streamed["stream"] = json!(true);
    let reply = falling_back_to(&proxy.client, "background_2h", &streamed).await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.contains("response.completed") && text.contains("probe-streamed"), "{text}");
    let by_service = proxy.admin().get("/api/savings?by=service").await.json();
    let groups: Vec<&str> =
        by_service["groups"].as_array().unwrap().iter().filter_map(|group| group["key"].as_str()).collect();
    assert!(groups.contains(&"background_8h") && groups.contains(&"background_2h"), "{by_service}");
    assert_eq!(metric(&proxy.admin(), "nightbus_fallbacks_total{service=\"background_8h\"} ").await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn only_a_responses_call_that_may_be_kept_goes_by_a_window() {
    let provider = Provider::with_faults(&["model-not-found:always"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let headers = [DEFER, ("x-nightbus-fallback", "background_8h,sync")];
    let reply = proxy.client.post(CHAT, &headers, chat("probe-chat").to_string()).await;
    assert_eq!(reply.header("x-nightbus-service"), "sync");
    let mut unstored = call("probe-unstored");
    unstored["store"] = json!(false);
    let reply = falling_back_to(&proxy.client, "background_8h,sync", &unstored).await;
    assert_eq!(reply.header("x-nightbus-service"), "sync");
    proxy.stop().await;
    let off = format!("background_windows = []\n{TABLES}");
    let proxy = Proxy::with(&provider, &off).await;
    let reply = falling_back_to(&proxy.client, "background_8h,sync", &call("probe-off")).await;
    assert_eq!(reply.header("x-nightbus-service"), "sync");
    assert_eq!(provider.count("background"), 0);
    proxy.stop().await;
}

/// A home whose batches of our model are known to take 20 hours.
async fn of_slow_batches(provider: &Provider) -> Home {
    let home = Home::new(provider, TABLES);
    let running = home.start().await;
    assert_eq!(running.client.held(RESPONSES, &call("probe-first")).await.header("x-nightbus-service"), "batch");
    assert!(running.terminate().await.success());
    let store = home.store();
    for mut learned in store.durations().await.unwrap() {
        learned.recent_ms = vec![20 * 3600 * 1000];
        store.keep_durations(learned).await.unwrap();
    }
    store.close().await.unwrap();
    home
}

#[tokio::test]
async fn a_deadline_that_batch_will_miss_goes_to_the_cheapest_service_in_time() {
    let provider = Provider::quick().await;
    let home = of_slow_batches(&provider).await;
    let running = home.start().await;
    let client = &running.client;
    for (deadline, service) in
        [("2d", "batch"), ("10h", "background_8h"), ("8h", "background_2h"), ("3h", "background_2h"), ("2h", "sync")]
    {
        let name = format!("probe-in-{deadline}");
        let reply = asked(client, &[("x-nightbus-deadline", deadline)], &call(&name)).await;
        assert_eq!(reply.header("x-nightbus-service"), service, "{deadline}: {reply:?}");
        assert_eq!(provider.executions_of(&name).await, 1);
    }
    // A list of the caller's own is taken at its word.
    for (fallback, service) in [("sync", "sync"), ("flex,sync", "flex"), ("background_2h,sync", "background_2h")] {
        let headers = [("x-nightbus-deadline", "10h"), ("x-nightbus-fallback", fallback)];
        let reply = asked(client, &headers, &call(&format!("probe-{fallback}"))).await;
        assert_eq!(reply.header("x-nightbus-service"), service, "{fallback}: {reply:?}");
    }
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn a_model_without_windows_is_remembered() {
    let provider = Provider::with_faults(&["model-not-found:always", "background-refused:always"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    for at in 0..3 {
        let reply = falling_back_to(&proxy.client, "background_8h,background_2h,sync", &call(&probe(at))).await;
        assert_eq!(reply.header("x-nightbus-service"), "sync", "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    assert_eq!(provider.fired("background-refused"), 2, "each window was asked once");
    proxy.stop().await;
}

#[tokio::test]
async fn a_window_without_room_is_tried_again_and_then_left() {
    let provider = Provider::with_faults(&["model-not-found:always", "background-429"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let reply = falling_back_to(&proxy.client, "background_2h,sync", &call("probe-room")).await;
    assert_eq!(reply.header("x-nightbus-service"), "background_2h", "{reply:?}");
    provider.set_faults(&["model-not-found:always", "background-429:always"]);
    let reply = falling_back_to(&proxy.client, "background_2h,sync", &call("probe-full")).await;
    assert_eq!(reply.header("x-nightbus-service"), "sync", "{reply:?}");
    let asked = provider.fired("background-429");
    let reply = falling_back_to(&proxy.client, "background_2h,sync", &call("probe-still-full")).await;
    assert_eq!((reply.header("x-nightbus-service"), provider.fired("background-429")), ("sync", asked));
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_that_fails_or_is_cancelled_goes_to_the_next_service_or_is_an_error() {
    for fault in ["background-fail", "background-cancelled"] {
        let provider = Provider::with_faults(&["model-not-found:always", fault]).await;
        let proxy = Proxy::with(&provider, TABLES).await;
        let reply = falling_back_to(&proxy.client, "background_2h,sync", &call("probe-next")).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-nightbus-service")), (200, "sync"), "{fault}: {reply:?}");
        assert_eq!(provider.executions_of("probe-next").await, 1);
        provider.set_faults(&["model-not-found:always", fault]);
        let reply = falling_back_to(&proxy.client, "background_2h", &call("probe-alone")).await;
        assert_eq!(reply.status.as_u16(), 500, "{fault}: {reply:?}");
        assert_eq!((provider.count("background"), provider.executions_of("probe-alone").await), (2, 0));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_response_that_cannot_be_read_for_a_while_is_waited_for() {
    for fault in ["background-poll-500:2", "background-poll-404:2"] {
        let provider = Provider::with_faults(&["model-not-found:always", fault]).await;
        let proxy = Proxy::with(&provider, TABLES).await;
        let reply = falling_back_to(&proxy.client, "background_2h,sync", &call("probe-poll")).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-nightbus-service")), (200, "background_2h"), "{fault}");
        assert_eq!((provider.count("background"), provider.executions_of("probe-poll").await), (1, 1));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_response_whose_beginning_was_not_heard_of_is_not_begun_again_while_it_may_run() {
    let provider = Provider::with_faults(&["model-not-found:always", "background-lost"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let headers = [DEFER, ASYNC, ("x-nightbus-fallback", "background_2h,sync")];
    let reply = proxy.client.post(RESPONSES, &headers, call("probe-lost").to_string()).await;
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let admin = proxy.admin();
    eventually("it is said that nobody knows", || async {
        (metric(&admin, "nightbus_live_calls_unsettled_total{service=\"background_2h\"} ").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(proxy.client.object(&id).await["state"], "submitted");
    assert_eq!((provider.count("background"), provider.executions_of("probe-lost").await), (1, 1));
    proxy.stop().await;
}

/// Starts nightbus to die at `point` with one request that goes by a window, and starts it again.
async fn dies_at(provider: &Provider, home: &Home, point: &str, text: &str) -> (Running, String) {
    let mut running = home.start_to_die_at(point).await.unwrap();
    let headers = [DEFER, ASYNC, ("x-nightbus-fallback", "background_8h,sync")];
    let sent = running.client.send(Method::POST, RESPONSES, &headers, call(text).to_string()).await;
    let id = sent.unwrap().json()["id"].as_str().unwrap().to_owned();
    assert!(!running.ended().await.success(), "{point}: {}", provider.counters());
    (home.start().await, id)
}

#[tokio::test]
async fn death_after_a_response_was_recorded_is_followed_by_looking_at_it() {
    let provider = Provider::with_faults(&["model-not-found:always"]).await;
    let home = Home::new(&provider, TABLES);
    let (running, id) = dies_at(&provider, &home, "response-recorded", "sim-sleep=1500 probe-known").await;
    let reply = running.client.result(&id).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-nightbus-service")),
        (200, "background_8h"),
        "{}",
        home.logged()
    );
    assert!(reply.json().to_string().contains("probe-known"));
    assert_eq!((provider.count("background"), provider.executions_of("probe-known").await), (1, 1));
    // Killed at any other moment of its run it goes on as well.
    let headers = [DEFER, ASYNC, ("x-nightbus-fallback", "background_8h,sync")];
    let body = call("sim-sleep=2500 probe-killed").to_string();
    let reply = running.client.post(RESPONSES, &headers, body).await;
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    eventually("it runs", || async { (provider.requests("/v1/responses/").await.len() > 3).then_some(()) }).await;
    running.kill().await;
    let running = home.start().await;
    let reply = running.client.result(&id).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", home.logged());
    assert_eq!((provider.count("background"), provider.executions_of("probe-killed").await), (2, 1));
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn death_between_the_beginning_of_a_response_and_its_record_buys_nothing_twice() {
    for (point, begun) in [("live-answered", 1), ("live-intended", 0)] {
        let provider = Provider::with_faults(&["model-not-found:always"]).await;
        let home = Home::new(&provider, TABLES);
        let (running, id) = dies_at(&provider, &home, point, "probe-between").await;
        eventually("it is said that nobody knows", || async {
            let line = "nightbus_live_calls_unsettled_total{service=\"background_8h\"} ";
            (metric(&running.admin, line).await == 1.0).then_some(())
        })
        .await;
        assert_eq!(running.client.object(&id).await["state"], "submitted", "it waits");
        // Others go on.
        let headers = [("x-nightbus-fallback", "background_8h,sync")];
        let reply = asked(&running.client, &headers, &call("probe-other")).await;
        assert_eq!(reply.header("x-nightbus-service"), "background_8h");
        assert_eq!((provider.count("background"), provider.executions_of("probe-between").await), (begun + 1, begun));
        assert!(running.terminate().await.success());
    }
}

/// The points that are tested here.
pub(crate) const TESTED: &[&str] = &["response-recorded"];
