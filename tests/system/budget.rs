//! Budgets of single tags and client keys, and all limits at once: the provider's queue, a test flight and a budget.

use futures_util::future::join_all;
use serde_json::{Value, json};

use nightbus::domain::clock::Micros;
use nightbus::sim::SimOptions;

use super::common::client::{ASYNC, CHAT, Client, DEFER, chat, eventually, probe};
use super::common::provider::{Provider, quick};
use super::common::proxy::{Proxy, toml};
use super::ledger::agrees;

/// Less than any call is expected to cost.
const NOTHING: &str = "daily_usd = 0.000001";

async fn accept(client: &Client, tag: &str, from: usize, to: usize) -> Vec<String> {
    let headers = [DEFER, ASYNC, ("x-nightbus-tag", tag)];
    let body = |at: usize| chat(&format!("{}{}", "word ".repeat(80), probe(at))).to_string();
    let replies = join_all((from..to).map(|at| client.post(CHAT, &headers, body(at)))).await;
    replies.iter().map(|reply| reply.json()["id"].as_str().unwrap().to_owned()).collect()
}

async fn completed(client: &Client, ids: &[String]) {
    for object in join_all(ids.iter().map(|id| client.until_state(id, &["completed"]))).await {
        assert_eq!(object["status_code"], 200, "{object}");
    }
}

async fn status(proxy: &Proxy) -> Value {
    proxy.admin().get("/api/status").await.json()
}

#[tokio::test]
async fn a_tag_at_its_limit_waits_and_others_of_its_lane_leave() {
    let provider = Provider::quick().await;
    let folder = tempfile::tempdir().unwrap();
    let limit = |daily: &str| format!("[[budget.limits]]\ntag = \"eval\"\n{daily}");
    let proxy = Proxy::on_disk(&provider, folder.path(), &limit(NOTHING)).await;
    let waiting = accept(&proxy.client, "eval", 0, 3).await;
    let others = accept(&proxy.client, "other", 3, 6).await;
    completed(&proxy.client, &others).await;
    let status = eventually("the lane says why it waits", || async {
        let status = status(&proxy).await;
        status["lanes"][0]["held_back"].as_str()?.contains("budget.limits").then_some(status)
    })
    .await;
    assert_eq!((&status["budget"], &status["queue"]["requests"]), (&Value::Null, &json!(3)));
    let limits = &status["budget_limits"];
    assert_eq!(
        (&limits[0]["tag"], &limits[0]["used_up"], &limits[0]["spent_usd"]),
        (&json!("eval"), &json!(true), &json!(0.0))
    );
    // Who cannot wait until midnight is told so; who is not of the tag is served.
    let hurried = |tag| [DEFER, ASYNC, ("x-nightbus-deadline", "30s"), ("x-nightbus-tag", tag)];
    let refused = proxy.client.post(CHAT, &hurried("eval"), chat("probe-now").to_string()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "budget_exceeded"));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("tag \"eval\""), "{refused:?}");
    let served = proxy.client.post(CHAT, &hurried("other"), chat("probe-now").to_string()).await;
    assert_eq!(served.status, 202);
    completed(&proxy.client, &[served.json()["id"].as_str().unwrap().to_owned()]).await;
    // A flush is no money; a cancellation is always possible.
    assert_eq!(proxy.admin().post("/api/flush", &[], "").await.status, 200);
    assert_eq!(proxy.client.delete(&format!("/nightbus/v1/requests/{}", waiting[0])).await.status, 200);
    for id in &waiting[1..] {
        assert_eq!(proxy.client.object(id).await["state"], "queued");
    }
    assert_eq!(
        provider.count("lines_executed") + provider.count("live_calls"),
        4,
        "the three others, and the hurried one"
    );
    proxy.stop().await;
    // A higher limit lets them go.
    let proxy = Proxy::on_disk(&provider, folder.path(), &limit("daily_usd = 1")).await;
    completed(&proxy.client, &waiting[1..]).await;
    agrees(proxy.app().engine().store(), &provider).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_key_at_its_limit_waits_and_others_do_not() {
    let provider = Provider::quick().await;
    let tables = format!(
        "api_key_env = \"PROVIDER_KEY\"\n[limits]\nmax_queued_requests = 2\n\
         [[client_keys]]\nname = \"ci\"\nkey = \"nb-ci-secret\"\n[[client_keys]]\nname = \"lab\"\nkey = \"nb-lab-secret\"\n\
         [[budget.limits]]\nclient_key = \"ci\"\n{NOTHING}"
    );
    let text = toml(&provider.sim.base_url(), "store = \"memory\"", &tables);
    let proxy = Proxy::with_environment(&text, &[("PROVIDER_KEY", "sk-1")]).await;
    let (ci, lab) = (proxy.client.with_key("nb-ci-secret"), proxy.client.with_key("nb-lab-secret"));
    let waiting = accept(&ci, "any", 0, 1).await;
    let served = accept(&lab, "any", 1, 2).await;
    completed(&lab, &served).await;
    let limit = eventually("the limit is used up", || async {
        let limit = status(&proxy).await["budget_limits"][0].clone();
        (limit["used_up"] == true).then_some(limit)
    })
    .await;
    assert_eq!((&limit["client_key"], &limit["tag"]), (&json!("ci"), &Value::Null));
    assert_eq!(ci.object(&waiting[0]).await["state"], "queued");
    // A full queue is the budget's fault only for those whom it holds.
    accept(&ci, "any", 2, 3).await;
    let refused = |client: Client| async move {
        let reply = client.post(CHAT, &[DEFER, ASYNC], chat("one too many").to_string()).await;
        (reply.status.as_u16(), reply.code())
    };
    assert_eq!(refused(ci).await, (429, "budget_exceeded".to_owned()));
    assert_eq!(refused(lab).await, (429, "queue_full".to_owned()));
    proxy.stop().await;
}

/// The provider's queue takes three of these calls at a time, their template is new, and a day's money is not enough for all.
#[tokio::test]
async fn queue_limit_flight_and_budget_at_once() {
    const CALLS: usize = 30;
    const DAILY: f64 = 0.0006;
    let provider = Provider::start(SimOptions { enqueued_token_limit: Some(700), ..quick() }).await;
    let folder = tempfile::tempdir().unwrap();
    let tables = |daily: f64| {
        format!(
            "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"\nin_flight_tokens = 700\n\
             [flight]\nmin_requests = 20\nsize = 3\n[budget]\ndaily_usd = {daily}\n[[budget.limits]]\ntag = \"eval\"\ndaily_usd = 1"
        )
    };
    let proxy = Proxy::on_disk(&provider, folder.path(), &tables(DAILY)).await;
    let ids = accept(&proxy.client, "eval", 0, CALLS).await;
    let status = eventually("the day's money is spent, and nothing is on its way", || async {
        let status = status(&proxy).await;
        let (budget, open) = (&status["budget"], status["lanes"][0]["open_batches"].as_u64()?);
        (budget["used_up"] == true && budget["reserved_usd"] == 0.0 && open == 0).then_some(status)
    })
    .await;
    let waiting = status["queue"]["requests"].as_u64().unwrap();
    assert!(waiting > 0 && waiting < CALLS as u64 - 3, "some were served, and some wait: {status}");
    assert!(status["budget"]["spent_usd"].as_f64().unwrap() <= DAILY, "{status}");
    assert_eq!(status["budget_limits"][0]["spent_usd"], status["budget"]["spent_usd"], "it is all of one tag");
    assert_eq!((provider.count("live_calls"), provider.count("lines_executed")), (3, CALLS as u64 - 3 - waiting));
    proxy.stop().await;
    let proxy = Proxy::on_disk(&provider, folder.path(), &tables(1.0)).await;
    proxy.flush().await;
    completed(&proxy.client, &ids).await;
    assert_eq!((provider.count("live_calls"), provider.count("lines_executed")), (3, CALLS as u64 - 3));
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    let batches = provider.batches().await;
    assert!(batches.iter().all(|batch| batch["status"] == "completed"), "its limit was kept, not met: {batches:?}");
    agrees(proxy.app().engine().store(), &provider).await;
    let sums = proxy.app().engine().store().ledger(Micros(0), None).await.unwrap().totals;
    assert_eq!(sums.requests, CALLS as u64);
    proxy.stop().await;
}
