//! Deadlines, rescue and fallback: who is served by what, in time, and what it takes of the provider.

use futures_util::future::join_all;
use http::Method;
use nightbus::sim::SimOptions;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, Client, DEFER, Reply, chat, eventually, probe};
use super::common::process::Home;
use super::common::provider::{Provider, Tap, quick};
use super::common::proxy::{Proxy, toml};

const TABLES: &str = "[batching]\nidle = \"60ms\"\nmax_age = \"5s\"\npoll = \"100ms\"\nmax_attempts = 2";
/// A batch with a deadline must have time for the idle one as well: this is too much for deadlines up to twenty seconds.
const UNHURRIED: &str = "[batching]\nidle = \"10s\"\nmax_age = \"10s\"\npoll = \"100ms\"\nmax_attempts = 2";

async fn with_deadline(client: &Client, deadline: &str, fallback: &str, body: &Value) -> Reply {
    let headers = [DEFER, ("x-nightbus-deadline", deadline), ("x-nightbus-fallback", fallback)];
    client.post(CHAT, &headers, body.to_string()).await
}

async fn falling_back_to(client: &Client, fallback: &str, body: &Value) -> Reply {
    client.post(CHAT, &[DEFER, ("x-nightbus-fallback", fallback)], body.to_string()).await
}

/// Batches that take so long that neither their end nor that of their cancellation is waited for.
fn endless() -> SimOptions {
    SimOptions { batch_seconds: 3_000.0, ..quick() }
}

async fn metric(proxy: &Proxy, line: &str) -> f64 {
    let page = String::from_utf8(proxy.admin().get("/metrics").await.body.to_vec()).unwrap();
    let found = page.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}

#[tokio::test]
async fn a_batch_that_never_ends_is_bought_live_before_the_deadline() {
    let provider = Provider::start(endless()).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let reply = with_deadline(&proxy.client, "24s", "sync", &chat("probe-late")).await;
    assert!(reply.text().ends_with("probe-late"), "{reply:?}");
    assert_eq!(reply.header("x-nightbus-service"), "sync");
    // After the deadline it would be an error. How long each step takes is judged under paused time (src/engine/rescue).
    assert_eq!((provider.count("batches"), provider.count("cancelled")), (1, 1), "the batch was tried and given up");
    assert_eq!((provider.count("live_calls"), provider.executions_of("probe-late").await), (1, 1));
    assert_eq!(reply.header("x-nightbus-saved-usd").parse::<f64>().unwrap(), 0.0);
    let object = proxy.client.object(reply.header("x-nightbus-request-id")).await;
    assert_eq!((&object["state"], &object["service"]), (&json!("completed"), &json!("sync")));
    assert_eq!(metric(&proxy, "nightbus_rescues_total ").await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn of_a_cancelled_batch_only_what_is_missing_is_bought() {
    let provider = Provider::with_faults(&["stuck-in-progress"]).await;
    let proxy = Proxy::with(&provider, &UNHURRIED.replace("10s", "5s")).await;
    let client = &proxy.client;
    // One moment for all: durations would be counted from twelve different ones.
    let moment = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(30)).to_string();
    let deadline = moment.as_str();
    let calls =
        join_all((0..12).map(|at| async move { with_deadline(client, deadline, "sync", &chat(&probe(at))).await }));
    let replies = proxy.together(12, calls).await;
    let mut live = 0;
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
        live += u64::from(reply.header("x-nightbus-service") == "sync");
    }
    assert_eq!(provider.count("batches"), 1, "close deadlines share a batch, and no second one is tried");
    assert!((1..12).contains(&live), "{live} of 12 were bought live");
    assert_eq!(provider.count("live_calls"), live);
    assert_eq!(metric(&proxy, "nightbus_wasted_answers_total").await, 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_batchs_answer_that_comes_after_the_bought_one_is_waste_that_shows() {
    let provider = Provider::start(endless()).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    // The cancellation is never heard, and the batch completes after all.
    provider.set_faults(&["cancel-500:always"]);
    let reply = with_deadline(&proxy.client, "24s", "sync", &chat("probe-twice")).await;
    assert_eq!(reply.header("x-nightbus-service"), "sync");
    provider.batch_seconds(1.0).await;
    eventually("the waste is counted", || async {
        (metric(&proxy, "nightbus_wasted_answers_total{service=\"batch\"} ").await == 1.0).then_some(())
    })
    .await;
    assert!(metric(&proxy, "nightbus_wasted_usd_total ").await > 0.0);
    assert_eq!(provider.executions_of("probe-twice").await, 2);
    let again = proxy.client.result(reply.header("x-nightbus-request-id")).await;
    assert_eq!(again.body, reply.body, "the first answer stands");
    proxy.stop().await;
}

#[tokio::test]
async fn without_a_fallback_the_deadline_is_an_error_of_its_own() {
    let provider = Provider::start(endless()).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let reply = with_deadline(&proxy.client, "2s", "none", &chat("probe-none")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (504, "deadline_exceeded"));
    assert_eq!(reply.header("x-nightbus-state"), "failed");
    assert_eq!((provider.count("live_calls"), provider.count("cancelled")), (0, 0));
    proxy.stop().await;
    // A live call that comes to nothing is no better.
    let proxy = Proxy::with(&provider, UNHURRIED).await;
    provider.set_faults(&["live-500:always"]);
    let reply = with_deadline(&proxy.client, "8s", "sync", &chat("probe-failing")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (504, "deadline_exceeded"));
    assert!(provider.fired("live-500") >= 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_deadline_that_no_batch_can_meet_is_served_live_at_once() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, UNHURRIED).await;
    let reply = with_deadline(&proxy.client, "20s", "flex,sync", &chat("probe-now")).await;
    assert_eq!((reply.text().ends_with("probe-now"), reply.header("x-nightbus-service")), (true, "flex"));
    assert_eq!((provider.count("batches"), provider.count("live_calls")), (0, 1));
    // One that a batch can meet rides.
    let tomorrow = chat("probe-tomorrow");
    let reply = proxy.together(1, with_deadline(&proxy.client, "1d", "flex,sync", &tomorrow)).await;
    assert_eq!(reply.header("x-nightbus-service"), "batch");
    proxy.stop().await;
}

#[tokio::test]
async fn what_was_learned_of_a_models_batches_decides() {
    let provider = Provider::quick().await;
    provider.batch_seconds(7.0).await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::on_disk(&provider, folder.path(), TABLES).await;
    assert_eq!(proxy.client.held(CHAT, &chat("probe-slow")).await.header("x-nightbus-service"), "batch");
    proxy.stop().await;
    let proxy = Proxy::on_disk(&provider, folder.path(), TABLES).await;
    let reply = with_deadline(&proxy.client, "14s", "sync", &chat("probe-quicker")).await;
    assert_eq!(reply.header("x-nightbus-service"), "sync", "a batch of this model took longer: {reply:?}");
    assert_eq!(provider.count("batches"), 1);
    let reply = with_deadline(&proxy.client, "10m", "sync", &chat("probe-patient")).await;
    assert_eq!(reply.header("x-nightbus-service"), "batch");
    proxy.stop().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_batched_falls_back_and_is_remembered() {
    let provider = Provider::with_faults(&["model-not-found"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let client = &proxy.client;
    let replies = join_all((0..6).map(|at| async move { client.held(CHAT, &chat(&probe(at))).await })).await;
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "{reply:?}");
        assert_eq!(reply.header("x-nightbus-service"), "sync", "the default fallback");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    let batches = provider.count("batches");
    let reply = client.held(CHAT, &chat("probe-next")).await;
    assert_eq!((reply.text().ends_with("probe-next"), reply.header("x-nightbus-service")), (true, "sync"));
    assert_eq!(provider.count("batches"), batches, "straight to the fallback");
    let mut other = chat("probe-other");
    other["model"] = json!("gpt-5.6-luna");
    assert_eq!(client.held(CHAT, &other).await.header("x-nightbus-service"), "batch", "another model's business");
    assert_eq!(metric(&proxy, "nightbus_fallbacks_total{service=\"sync\"} ").await, 7.0);
    proxy.stop().await;
}

#[tokio::test]
async fn none_keeps_the_batchs_error() {
    let provider = Provider::with_faults(&["model-not-found:always"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let (yes, no) = (chat("probe-yes"), chat("probe-no"));
    let (served, refused) =
        tokio::join!(falling_back_to(&proxy.client, "sync", &yes), falling_back_to(&proxy.client, "none", &no),);
    assert!(served.text().ends_with("probe-yes"));
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "model_not_found"));
    assert_eq!((provider.count("live_calls"), provider.executions_of("probe-no").await), (1, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn lines_without_attempts_left_fall_back() {
    for fault in ["expire-none:always", "line-429:always", "request-timeout:always", "null-response:always"] {
        let provider = Provider::with_faults(&[fault]).await;
        let proxy = Proxy::with(&provider, TABLES).await;
        let client = &proxy.client;
        let replies = join_all((0..4).map(|at| async move { client.held(CHAT, &chat(&probe(at))).await })).await;
        let live = replies.iter().filter(|reply| reply.header("x-nightbus-service") == "sync").count();
        assert!(live >= 1, "{fault}");
        for (at, reply) in replies.iter().enumerate() {
            assert!(reply.text().ends_with(&probe(at)), "{fault}: {reply:?}");
            assert_eq!(provider.executions_of(&probe(at)).await, 1, "{fault}");
        }
        assert_eq!(provider.count("live_calls"), u64::try_from(live).unwrap(), "{fault}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn flex_without_room_gives_way_to_sync_and_is_not_billed() {
    let provider = Provider::with_faults(&["model-not-found", "flex-unavailable"]).await;
    let tap = Tap::before(&provider).await;
    let text = toml(&tap.base_url(), "store = \"memory\"", TABLES);
    let proxy = Proxy::from_toml(&text).await;
    let reply = falling_back_to(&proxy.client, "flex,sync", &chat("probe-full")).await;
    assert_eq!((reply.text().ends_with("probe-full"), reply.header("x-nightbus-service")), (true, "sync"));
    assert_eq!((provider.fired("flex-unavailable"), provider.executions_of("probe-full").await), (1, 1));
    let reply = falling_back_to(&proxy.client, "flex,sync", &chat("probe-room")).await;
    assert_eq!(reply.header("x-nightbus-service"), "flex");
    assert!(reply.header("x-nightbus-saved-usd").parse::<f64>().unwrap() > 0.0, "flex has a price of its own");
    let sent: Vec<Value> = tap
        .all()
        .into_iter()
        .filter(|seen| seen.path == CHAT)
        .map(|seen| serde_json::from_slice(&seen.sent).unwrap())
        .collect();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0]["service_tier"], "flex");
    assert!(sent[1].get("service_tier").is_none() && sent[1].get("stream").is_none());
    proxy.stop().await;
}

#[tokio::test]
async fn streams_and_polls_get_the_bought_answer_as_well() {
    let provider = Provider::with_faults(&["model-not-found"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let mut body = chat("probe-stream");
    body["stream"] = json!(true);
    let reply = falling_back_to(&proxy.client, "sync", &body).await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.contains("probe-stream") && text.trim_end().ends_with("data: [DONE]"), "{text}");
    let headers = [DEFER, ASYNC, ("x-nightbus-fallback", "sync")];
    let reply = proxy.client.post(CHAT, &headers, chat("probe-later").to_string()).await;
    let answer = proxy.client.result(reply.json()["id"].as_str().unwrap()).await;
    assert_eq!((answer.text().ends_with("probe-later"), answer.header("x-nightbus-service")), (true, "sync"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_live_call_is_tried_again_when_it_was_refused_for_the_moment() {
    let provider = Provider::with_faults(&["model-not-found", "live-500", "live-429"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let reply = falling_back_to(&proxy.client, "sync", &chat("probe-again")).await;
    assert!(reply.text().ends_with("probe-again"));
    assert_eq!((provider.fired("live-500"), provider.fired("live-429")), (1, 1));
    assert_eq!(provider.executions_of("probe-again").await, 1);
    // A refusal for good is the answer, as it would be of a live call.
    provider.set_faults(&["model-not-found:always"]);
    let mut bad = chat("probe-bad");
    bad["model"] = json!("gpt-5.6-luna");
    bad["temperature"] = json!(99);
    let reply = falling_back_to(&proxy.client, "sync", &bad).await;
    if reply.status != 200 {
        assert_eq!(reply.status, 400, "{reply:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_lost_answer_is_bought_again_only_when_the_first_call_cannot_run_any_more() {
    let provider = Provider::with_faults(&["model-not-found", "live-cut"]).await;
    let tables = format!("{TABLES}\n[upstream]\nfirst_byte_timeout = \"8s\"");
    let proxy = Proxy::with(&provider, &tables).await;
    let reply = falling_back_to(&proxy.client, "sync", &chat("probe-lost")).await;
    assert!(reply.text().ends_with("probe-lost"));
    let waited: u64 = reply.header("x-nightbus-wait-ms").parse().unwrap();
    assert!(waited >= 8_800, "its time and a tenth: {waited} ms");
    assert_eq!(provider.executions_of("probe-lost").await, 2, "the provider executed both");
    assert_eq!(metric(&proxy, "nightbus_live_calls_unsettled_total{service=\"sync\"} ").await, 1.0);
    // With a deadline before that moment the caller is told, and nothing is bought twice, which another call of then is.
    provider.set_faults(&["live-cut:2"]);
    let (hurried, patient) = (chat("probe-cut"), chat("probe-patient"));
    let (reply, again) = tokio::join!(
        with_deadline(&proxy.client, "7s", "sync", &hurried),
        falling_back_to(&proxy.client, "sync", &patient)
    );
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (504, "deadline_exceeded"));
    assert!(again.text().ends_with("probe-patient"));
    assert_eq!((provider.executions_of("probe-cut").await, provider.executions_of("probe-patient").await), (1, 2));
    proxy.stop().await;
}

/// Dies at `point` with a dozen requests that batch cannot serve, and goes on. `lost`: how many answers a death there may
/// lose that are paid for.
async fn survives(point: &str, faults: &[&str], deadline: Option<&str>, lost: u64) {
    let provider = Provider::with_faults(faults).await;
    let home = Home::new(&provider, &format!("{TABLES}\n[upstream]\nfirst_byte_timeout = \"5s\""));
    let mut running = home.start_to_die_at(point).await.unwrap();
    let mut ids = Vec::new();
    for at in 0..8 {
        let mut headers = vec![DEFER, ASYNC];
        headers.extend(deadline.map(|deadline| ("x-nightbus-deadline", deadline)));
        if let Ok(reply) = running.client.send(Method::POST, CHAT, &headers, chat(&probe(at)).to_string()).await {
            ids.push((at, reply.json()["id"].as_str().unwrap().to_owned()));
        }
    }
    assert!(!running.ended().await.success());
    let running = home.start().await;
    for (at, id) in &ids {
        let reply = running.client.result(id).await;
        assert!(reply.text().ends_with(&probe(*at)), "{point}: {reply:?}\n{}", home.logged());
    }
    let executions = provider.executions().await;
    let twice: u64 = executions.as_object().unwrap().values().map(|count| count.as_u64().unwrap() - 1).sum();
    assert!(twice <= lost, "{point}: {executions}\n{}", home.logged());
    assert!(ids.iter().all(|(at, _)| executions[probe(*at)].as_u64() >= Some(1)));
    assert!(running.terminate().await.success());
}

macro_rules! deaths {
    ($($test:ident: $point:literal, $fault:literal, $deadline:expr, $lost:literal;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                survives($point, &[$fault], $deadline, $lost).await;
            }
        )+
        /// The points that are tested here.
        pub(crate) const TESTED: &[&str] = &[$($point),+];
    };
}

deaths! {
    death_after_requests_were_handed_over: "live-handed", "model-not-found:always", None, 0;
    // Others may have been sent, and their answers lost with the process: at most those that were out together.
    death_with_a_live_call_written_down_and_not_sent: "live-intended", "model-not-found:always", None, 8;
    death_with_an_answer_not_recorded: "live-answered", "model-not-found:always", None, 8;
    death_after_a_rescue_has_cancelled: "rescue-cancelled", "stuck-in-progress", Some("30s"), 0;
}
