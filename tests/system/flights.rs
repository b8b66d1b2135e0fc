//! Test flights: what a bad template costs, what a good one loses, and who decides.

use std::path::Path;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, DEFER, Reply, chat, eventually, probe};
use super::common::process::Home;
use super::common::provider::Provider;
use super::common::proxy::Proxy;

/// No lane is due for an hour: what leaves was let go by a verdict, or flushed.
const TABLES: &str = "[flight]\nmin_requests = 20\nsize = 3\n\
                      [batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"";

/// A body whose answer is cut off.
fn cut(at: usize) -> Value {
    chat(&format!("sim-length {}", probe(at)))
}

async fn accept_all(
    proxy: &Proxy,
    count: usize,
    headers: &[(&str, &str)],
    body: impl Fn(usize) -> Value,
) -> Vec<String> {
    let headers = [&[DEFER, ASYNC], headers].concat();
    let replies: Vec<Reply> =
        join_all((0..count).map(|at| proxy.client.post(CHAT, &headers, body(at).to_string()))).await;
    replies.iter().map(|reply| reply.json()["id"].as_str().unwrap().to_owned()).collect()
}

async fn flight_in(proxy: &Proxy, state: &str) -> Value {
    eventually(&format!("a flight is {state}"), || async {
        let list = proxy.admin().get("/api/flights").await.json();
        list["data"].as_array().unwrap().iter().find(|flight| flight["state"] == state).cloned()
    })
    .await
}

async fn decide(proxy: &Proxy, flight: &Value, verdict: &str) -> Reply {
    let path = format!("/api/flights/{}/{verdict}", flight["id"].as_str().unwrap());
    proxy.admin().post(&path, &[], "").await
}

async fn states(proxy: &Proxy, ids: &[String], ends: &[&str]) -> Vec<Value> {
    join_all(ids.iter().map(|id| proxy.client.until_state(id, ends))).await
}

fn codes(objects: &[Value], code: &str) -> usize {
    objects.iter().filter(|object| object["error"]["code"] == code).count()
}

#[tokio::test]
async fn a_bad_template_of_a_thousand_costs_its_pilots_alone() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, &format!("{TABLES}\n[limits]\nmax_queued_requests = 5000")).await;
    let ids = accept_all(&proxy, 1_000, &[("x-nightbus-tag", "bad")], cut).await;
    let flight = flight_in(&proxy, "grounded").await;
    assert_eq!((&flight["tag"], flight["pilots"].as_array().unwrap().len()), (&json!("bad"), 3));
    assert!(flight["reasons"][0].as_str().unwrap().contains("3 of 3: cut off"), "{flight}");
    let waiting = eventually("all others wait", || async {
        let flight = flight_in(&proxy, "grounded").await;
        (flight["waiting_requests"] == 997).then_some(flight)
    })
    .await;
    assert_eq!(proxy.admin().get("/api/status").await.json()["queue"]["requests"], 997, "{waiting}");
    let rejected = decide(&proxy, &flight, "reject").await;
    assert_eq!((rejected.status.as_u16(), &rejected.json()["requests"]), (200, &json!(997)));
    let ended = states(&proxy, &ids, &["completed", "failed"]).await;
    assert_eq!(codes(&ended, "flight_grounded"), 997);
    let refused = ended.iter().find(|object| object["state"] == "failed").unwrap();
    let told = proxy.client.result(refused["id"].as_str().unwrap()).await;
    assert_eq!(
        (told.status.as_u16(), told.code().as_str(), told.header("x-should-retry")),
        (422, "flight_grounded", "false")
    );
    let sample = flight["pilots"][0].as_str().unwrap();
    assert!(ended.iter().any(|object| object["id"] == sample && object["service"] == "sync"));
    assert!(told.json()["error"]["message"].as_str().unwrap().contains("req_"), "names a sample");
    assert_eq!((provider.count("live_calls"), provider.count("batches"), provider.count("lines_executed")), (3, 0, 0));
    assert_eq!(decide(&proxy, &flight, "approve").await.status, 409);
    assert_eq!(proxy.app().engine().queued_requests(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_good_template_rides_on_at_once_and_does_not_fly_again() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let ids = accept_all(&proxy, 20, &[], |at| chat(&probe(at))).await;
    let ended = states(&proxy, &ids, &["completed"]).await;
    let live = ended.iter().filter(|object| object["service"] == "sync").count();
    assert_eq!((live, provider.count("live_calls"), provider.count("lines_executed")), (3, 3, 17));
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    let flight = flight_in(&proxy, "cleared").await;
    assert_eq!(flight["shared_prefix_chars"].as_u64().map(|chars| chars >= 6), Some(true), "\"probe-\": {flight}");
    // How soon is judged under paused time (`src/engine/rescue/tests.rs`), and that only the verdict can submit here.
    let times = |service: &str, time: &str| {
        let those = ended.iter().filter(|one| one["service"] == service);
        those.map(|one| one[time].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let landed = times("sync", "finished_at").into_iter().max();
    assert!(
        times("batch", "submitted_at").into_iter().min() >= landed,
        "nothing is bought before the verdict: {flight}"
    );
    let more = accept_all(&proxy, 25, &[], |at| chat(&probe(100 + at))).await;
    proxy.flush().await;
    states(&proxy, &more, &["completed"]).await;
    assert_eq!((provider.count("live_calls"), provider.count("lines_executed")), (3, 42));
    proxy.stop().await;
}

#[tokio::test]
async fn approval_submits_what_waits_and_is_remembered() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let ids = accept_all(&proxy, 20, &[], cut).await;
    let flight = flight_in(&proxy, "grounded").await;
    assert_eq!(provider.count("batches"), 0);
    assert_eq!(decide(&proxy, &flight, "approve").await.status, 200);
    states(&proxy, &ids, &["completed"]).await;
    assert_eq!((provider.count("live_calls"), provider.count("lines_executed")), (3, 17));
    let more = accept_all(&proxy, 30, &[], |at| cut(100 + at)).await;
    proxy.flush().await;
    states(&proxy, &more, &["completed"]).await;
    assert_eq!(provider.count("live_calls"), 3, "an approved template does not fly again");
    proxy.stop().await;
}

#[tokio::test]
async fn nobody_decides_and_the_time_is_over() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, &TABLES.replace("size = 3", "size = 3\nground_timeout = \"1s\"")).await;
    let ids = accept_all(&proxy, 20, &[], cut).await;
    let ended = states(&proxy, &ids, &["completed", "failed"]).await;
    assert_eq!(codes(&ended, "flight_grounded"), 17);
    flight_in(&proxy, "expired").await;
    assert_eq!((provider.count("live_calls"), provider.count("batches")), (3, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn who_does_not_want_to_fly_and_who_is_too_few_rides_at_once() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let off = accept_all(&proxy, 30, &[("x-nightbus-flight", "off")], cut).await;
    let few = accept_all(&proxy, 19, &[], |at| chat(&probe(100 + at))).await;
    proxy.flush().await;
    states(&proxy, &off, &["completed"]).await;
    states(&proxy, &few, &["completed"]).await;
    assert_eq!((provider.count("live_calls"), provider.count("lines_executed")), (0, 49));
    proxy.stop().await;
}

#[tokio::test]
async fn a_grounded_request_can_be_cancelled_and_one_with_a_deadline_leaves_in_time() {
    let provider = Provider::quick().await;
    // A lane that may wait longer than there is time until the deadline is not waited for at all.
    let proxy = Proxy::with(&provider, &TABLES.replace("\"1h\"", "\"3s\"")).await;
    // One moment for all: durations would be counted from twenty different ones, and make lanes of their own.
    let moment = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(30)).to_string();
    let headers = [("x-nightbus-deadline", moment.as_str()), ("x-nightbus-fallback", "sync")];
    let ids = accept_all(&proxy, 20, &headers, cut).await;
    let flight = flight_in(&proxy, "grounded").await;
    let pilots: Vec<&str> = flight["pilots"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let waiting = ids.iter().find(|id| !pilots.contains(&id.as_str())).unwrap();
    assert_eq!(proxy.client.delete(&format!("/nightbus/v1/requests/{waiting}")).await.status, 200);
    let ended = states(&proxy, &ids, &["completed", "failed", "cancelled"]).await;
    let by = |state: &str| ended.iter().filter(|object| object["state"] == state).count();
    assert_eq!((by("completed"), by("cancelled"), by("failed")), (19, 1, 0), "no deadline was missed");
    assert_eq!(provider.count("batches"), 0);
    proxy.stop().await;
}

async fn on_disk(provider: &Provider, dir: &Path) -> Proxy {
    // A call that the stop cuts off is made again when it cannot be running any more.
    Proxy::on_disk(provider, dir, &format!("{TABLES}\n[upstream]\nfirst_byte_timeout = \"5s\"")).await
}

#[tokio::test]
async fn a_restart_forgets_no_verdict_and_calls_no_pilot_twice() {
    let provider = Provider::with_faults(&["live-silent:3"]).await;
    let home = tempfile::tempdir().unwrap();
    // While it flies: the pilots are under way when the process stops, and nobody ever answers or executes these calls.
    let proxy = on_disk(&provider, home.path()).await;
    let ids = accept_all(&proxy, 20, &[], cut).await;
    flight_in(&proxy, "flying").await;
    eventually("all pilots are under way", || async { (provider.fired("live-silent") == 3).then_some(()) }).await;
    proxy.stop().await;
    // Grounded.
    let proxy = on_disk(&provider, home.path()).await;
    let flight = flight_in(&proxy, "grounded").await;
    proxy.stop().await;
    let proxy = on_disk(&provider, home.path()).await;
    let found = flight_in(&proxy, "grounded").await;
    assert_eq!((&found["id"], &found["reasons"]), (&flight["id"], &flight["reasons"]));
    eventually("the rest waits again", || async {
        (flight_in(&proxy, "grounded").await["waiting_requests"] == 17).then_some(())
    })
    .await;
    assert_eq!(provider.count("batches"), 0);
    assert_eq!(decide(&proxy, &found, "approve").await.status, 200);
    proxy.stop().await;
    // Approved.
    let proxy = on_disk(&provider, home.path()).await;
    proxy.flush().await;
    states(&proxy, &ids, &["completed"]).await;
    let more = accept_all(&proxy, 20, &[], |at| cut(100 + at)).await;
    proxy.flush().await;
    states(&proxy, &more, &["completed"]).await;
    assert_eq!((provider.count("live_calls"), provider.count("lines_executed")), (3, 37));
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    proxy.stop().await;
}

/// Dies at `point` of a flight that goes wrong, and goes on: the pilots are called once, and nothing else is bought.
async fn survives(point: &str) {
    let provider = Provider::quick().await;
    let tables = TABLES.replace("size = 3", "size = 3\nground_timeout = \"1s\"");
    let home = Home::new(&provider, &format!("{tables}\n[upstream]\nfirst_byte_timeout = \"5s\""));
    let mut running = home.start_to_die_at(point).await.unwrap();
    let client = running.client.clone();
    // The last answers may be lost with the process; the requests are not.
    let send = |at: usize| {
        let client = client.clone();
        async move { drop(client.send(Method::POST, CHAT, &[DEFER, ASYNC], cut(at).to_string()).await) }
    };
    join_all((0..20).map(send)).await;
    assert!(!running.ended().await.success());
    let running = home.start().await;
    let client = &running.client;
    let ended = eventually("all have ended", || async {
        let list = client.get("/nightbus/v1/requests?limit=100").await.json()["data"].as_array().unwrap().clone();
        list.iter().all(|object| !matches!(object["state"].as_str(), Some("queued" | "submitted"))).then_some(list)
    })
    .await;
    assert_eq!((ended.len(), codes(&ended, "flight_grounded")), (20, 17), "{point}: {}", home.logged());
    assert_eq!((provider.count("live_calls"), provider.count("batches")), (3, 0), "{point}");
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    assert!(running.terminate().await.success());
}

/// The points that are tested here.
pub(crate) const TESTED: &[&str] = &["flight-begun", "flight-called", "flight-judged"];

#[tokio::test]
async fn deaths_within_a_flight() {
    for point in TESTED {
        survives(point).await;
    }
}

#[tokio::test]
async fn beyond_the_budget_lanes_wait_and_say_so() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[budget]\ndaily_usd = 0.000001").await;
    let id = accept_all(&proxy, 1, &[], |at| chat(&format!("{} {}", "words ".repeat(200), probe(at)))).await.remove(0);
    let status = eventually("the lane waits", || async {
        let status = proxy.admin().get("/api/status").await.json();
        (status["budget"]["used_up"] == true).then_some(status)
    })
    .await;
    assert_eq!((&status["budget"]["daily_usd"], &status["queue"]["requests"]), (&json!(0.000_001), &json!(1)));
    let held_back = eventually("the lane says why", || async {
        let status = proxy.admin().get("/api/status").await.json();
        status["lanes"][0]["held_back"].as_str().map(ToOwned::to_owned)
    })
    .await;
    assert!(held_back.contains("budget.daily_usd"), "{held_back}");
    let hurried = [DEFER, ASYNC, ("x-nightbus-deadline", "1s")];
    let refused = proxy.client.post(CHAT, &hurried, chat("probe-now").to_string()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str(), refused.header("retry-after")),
        (429, "budget_exceeded", "60")
    );
    assert_eq!(proxy.client.object(&id).await["state"], "queued");
    assert_eq!(provider.count("batches"), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn within_the_budget_nothing_waits() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[budget]\ndaily_usd = 1.0").await;
    let ids = accept_all(&proxy, 5, &[], |at| chat(&probe(at))).await;
    states(&proxy, &ids, &["completed"]).await;
    let budget = eventually("what was spent is seen, and nothing is reserved", || async {
        let budget = proxy.admin().get("/api/status").await.json()["budget"].clone();
        (budget["spent_usd"].as_f64()? > 0.0 && budget["reserved_usd"] == 0.0).then_some(budget)
    })
    .await;
    assert_eq!(budget["used_up"], false);
    proxy.stop().await;
}
