//! Webhooks of the provider: a hint to look at a batch now, from nobody but the provider, and believed in nothing else.

use nightbus::domain::webhook::Signer;
use nightbus::sim::SimOptions;
use serde_json::json;

use super::common::client::{CHAT, Client, Reply, chat, eventually};
use super::common::provider::{Provider, quick};
use super::common::proxy::{Proxy, toml};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PATH: &str = "/nightbus/v1/webhooks/openai";
/// Pauses between two looks that grow for ever.
const RARELY: &str = "webhook_secret_env = \"HOOKS\"\n\
                      [batching]\nidle = \"60ms\"\nmax_age = \"5s\"\npoll = \"1h\"";

async fn proxy(provider: &Provider, tables: &str) -> Proxy {
    let text = toml(&provider.sim.base_url(), "store = \"memory\"", tables);
    Proxy::with_environment(&text, &[("HOOKS", SECRET)]).await
}

fn event(kind: &str, batch: &str) -> String {
    json!({"id": "evt_1", "object": "event", "created_at": 1, "type": kind, "data": {"id": batch}}).to_string()
}

/// As OpenAI sends it, `late` seconds ago.
async fn send(proxy: &Proxy, id: &str, body: &str, late: i64) -> Reply {
    let at = proxy.app().engine().clock().now().unix_seconds() - late;
    let signature = Signer::new(SECRET).unwrap().sign(id, at, body.as_bytes());
    let at = at.to_string();
    let headers = [("webhook-id", id), ("webhook-timestamp", at.as_str()), ("webhook-signature", signature.as_str())];
    Client::new(proxy.client.to, "").post(PATH, &headers, body.to_owned()).await
}

async fn count(proxy: &Proxy, outcome: &str) -> u64 {
    let page = String::from_utf8(proxy.admin().get("/metrics").await.body.to_vec()).unwrap();
    let line = format!("nightbus_webhooks_received_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|one| one.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_signed_webhook_ends_the_pause_between_two_looks() {
    let provider = Provider::start(SimOptions { batch_seconds: 3_600.0, ..quick() }).await;
    let proxy = proxy(&provider, RARELY).await;
    let id = proxy.client.accepted(CHAT, &chat("probe-hinted")).await;
    let batch = eventually("the batch is created", || async {
        let id = provider.batches().await.first()?["id"].as_str()?.to_owned();
        // … and known here by that id.
        let open = proxy.admin().get("/api/batches?state=open").await.json();
        (open["data"][0]["provider_batch_id"] == id).then_some(id)
    })
    .await;
    let polls = || async { provider.requests(&format!("/v1/batches/{batch}")).await.len() };
    // Pauses double without hints: so many looks would take hours.
    for turn in 0..12 {
        let before = polls().await;
        let body = event("batch.completed", &batch);
        assert_eq!(send(&proxy, &format!("wh_{turn}"), &body, 0).await.status, 204);
        eventually("the hint costs a look", || async { (polls().await > before).then_some(()) }).await;
    }
    assert_eq!(proxy.client.object(&id).await["state"], "submitted", "a claim is no proof: it runs");
    assert_eq!(count(&proxy, "hint").await, 12);
    // The same message again is nothing new, nor is what concerns no batch of ours, or no batch at all.
    assert_eq!(send(&proxy, "wh_3", &event("batch.completed", &batch), 0).await.status, 204);
    assert_eq!(send(&proxy, "wh_other", &event("batch.failed", "batch_of_somebody"), 0).await.status, 204);
    assert_eq!(send(&proxy, "wh_more", &event("response.completed", &batch), 0).await.status, 204);
    assert_eq!(send(&proxy, "wh_odd", "signed, but no event", 0).await.status, 204);
    assert_eq!((count(&proxy, "duplicate").await, count(&proxy, "unknown").await), (1, 1));
    assert_eq!(count(&proxy, "ignored").await, 2);
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_not_signed_or_too_old_is_refused_without_a_reason() {
    let provider = Provider::quick().await;
    let proxy = proxy(&provider, RARELY).await;
    let anybody = Client::new(proxy.client.to, "");
    let body = event("batch.completed", "batch_1");
    let bare = anybody.post(PATH, &[], body.clone()).await;
    let late = send(&proxy, "wh_late", &body, 301).await;
    let early = send(&proxy, "wh_early", &body, -310).await;
    let now = proxy.app().engine().clock().now().unix_seconds();
    let signature = Signer::new(SECRET).unwrap().sign("wh_1", now, body.as_bytes());
    let now = now.to_string();
    let headers =
        [("webhook-id", "wh_1"), ("webhook-timestamp", now.as_str()), ("webhook-signature", signature.as_str())];
    let other = anybody.post(PATH, &headers, event("batch.completed", "batch_2")).await;
    for refused in [&bare, &late, &early, &other] {
        assert_eq!((refused.status.as_u16(), &refused.body), (401, &bare.body), "each alike: {refused:?}");
    }
    assert_eq!(count(&proxy, "refused").await, 4);
    let long = "x".repeat((64 << 10) + 1);
    assert_eq!(anybody.post(PATH, &headers, long).await.status, 413);
    assert_eq!(anybody.get(PATH).await.status, 404);
    proxy.stop().await;
    // Without a secret there is no such route, whatever is sent.
    let proxy = Proxy::over(&provider).await;
    assert_eq!(send(&proxy, "wh_1", &body, 0).await.status, 404);
    proxy.stop().await;
}

#[tokio::test]
async fn client_keys_are_not_asked_of_a_provider() {
    let provider = Provider::quick().await;
    let keys = "webhook_secret_env = \"HOOKS\"\napi_key_env = \"UPSTREAM\"\n\
                [[client_keys]]\nname = \"ci\"\nkey = \"sk-caller\"\nproviders = [\"openai\"]";
    let text = toml(&provider.sim.base_url(), "store = \"memory\"", keys);
    let proxy = Proxy::with_environment(&text, &[("HOOKS", SECRET), ("UPSTREAM", "sk-upstream")]).await;
    assert_eq!(send(&proxy, "wh_1", &event("batch.expired", "batch_1"), 0).await.status, 204);
    let anybody = Client::new(proxy.client.to, "");
    assert_eq!(anybody.get("/nightbus/v1/requests").await.status, 401, "everything else asks for one");
    proxy.stop().await;
}
