//! `cache_ttl = "1h"`: what reaches the provider in a batch, and live.

use serde_json::json;

use super::common::client::DEFER;
use super::common::provider::Provider;
use super::common::proxy::{Proxy, toml};

const MESSAGES: &str = "/anthropic/v1/messages";
const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

#[tokio::test]
async fn marks_without_a_time_ask_for_an_hour_in_batches_and_not_live() {
    let provider = Provider::quick().await;
    let base = provider.sim.base_url();
    let table = format!(
        "[providers.anthropic]\nbase_url = \"http://{}/v1\"\ncache_ttl = \"1h\"\n[flight]\nenabled = false",
        provider.sim.addr()
    );
    let proxy = Proxy::from_toml(&toml(&base, "store = \"memory\"", &table)).await;
    let system = json!([{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}]);
    let body = json!({"model": "claude-haiku-5-5", "max_tokens": 64, "system": system,
        "messages": [{"role": "user", "content": "hi"}]});
    let deferred = proxy.client.post(MESSAGES, &[DEFER, VERSION], body.to_string()).await;
    assert_eq!((deferred.status.as_u16(), deferred.header("x-nightbus-service")), (200, "batch"), "{deferred:?}");
    let live = proxy.client.post(MESSAGES, &[VERSION], body.to_string()).await;
    assert_eq!(live.status, 200, "{live:?}");
    let calls = provider.requests("/v1/messages").await;
    let sent = |path: &str| {
        let call = calls.iter().find(|call| call["method"] == "POST" && call["path"] == path);
        call.unwrap_or_else(|| panic!("no call of {path} in {calls:?}"))["body"].to_string()
    };
    assert!(sent("/v1/messages/batches").contains("1h"), "{calls:?}");
    assert!(!sent("/v1/messages").contains("1h"), "{calls:?}");
}
