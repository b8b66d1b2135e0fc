//! `[[routes]]`: models that another provider serves, and chat completions that Claude answers.

use serde_json::{Value, json};

use super::common::client::{ASYNC, DEFER, Reply, eventually, probe};
use super::common::provider::{Provider, Tap};
use super::common::proxy::{KEY, Proxy, toml};

const CHAT: &str = "/v1/chat/completions";
const OWN_KEY: &str = "sk-ant-own";
const ROUTES: &str = "[[routes]]\nmodel = \"claude-*\"\nprovider = \"anthropic\"\n\
                      [[routes]]\nmodel = \"fast\"\nprovider = \"anthropic\"\nrename = \"claude-haiku-5-5\"\n";

async fn routed(provider: &Provider, more: &str) -> Proxy {
    let base = provider.sim.base_url();
    let tables =
        format!("[providers.anthropic]\nbase_url = \"{base}\"\napi_key_env = \"ANTHROPIC_KEY\"\n{ROUTES}{more}");
    Proxy::with_environment(&toml(&base, "store = \"memory\"", &tables), &[("ANTHROPIC_KEY", OWN_KEY)]).await
}

fn chat(text: &str) -> Value {
    json!({"model": "claude-haiku-5-5", "messages": [{"role": "system", "content": "Be brief."},
        {"role": "user", "content": text}]})
}

fn content(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion", "{body}");
    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The caller's key is for OpenAI: Anthropic must never see it.
async fn nobody_saw_the_callers_key(provider: &Provider) {
    let mut calls = provider.requests("/v1/messages").await;
    calls.extend(provider.requests("/v1/messages/batches").await);
    assert!(!calls.is_empty());
    for call in calls {
        let headers = call["headers"].to_string();
        assert!(headers.contains(OWN_KEY) && !headers.contains(KEY), "{headers}");
    }
}

#[tokio::test]
async fn a_deferred_chat_call_rides_in_a_message_batch_and_is_answered_as_a_chat_completion() {
    let provider = Provider::quick().await;
    let proxy = routed(&provider, "").await;
    let reply = proxy.client.post(CHAT, &[DEFER], chat(&format!("say {}", probe(1))).to_string()).await;
    assert!(content(&reply).contains(&probe(1)), "{reply:?}");
    let body = reply.json();
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let count = |name: &str| body["usage"][name].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert_eq!(reply.header("x-nightbus-service"), "batch");
    assert!(reply.headers.contains_key("x-nightbus-cost-usd"), "priced as Claude: {reply:?}");
    assert_eq!(provider.executions_of(&probe(1)).await, 1);
    let again = proxy.client.result(reply.header("x-nightbus-request-id")).await;
    assert_eq!(content(&again), content(&reply), "the store keeps the provider's body, and it is told anew");
    nobody_saw_the_callers_key(&provider).await;
    let id = reply.header("x-nightbus-request-id");
    let path = format!("/nightbus/v1/requests/{id}");
    let object = proxy.client.send(http::Method::GET, &path, &[], "").await.unwrap().json();
    assert_eq!((&object["endpoint"], &object["model"]), (&json!(CHAT), &json!("claude-haiku-5-5")));
}

#[tokio::test]
async fn deferred_streams_are_told_as_chat_chunks() {
    let provider = Provider::quick().await;
    let proxy = routed(&provider, "").await;
    let mut body = chat(&format!("say {}", probe(2)));
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    for headers in [&[DEFER][..], &[]] {
        let reply = proxy.client.post(CHAT, headers, body.to_string()).await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        assert_eq!(reply.status, 200, "{text}");
        assert!(text.contains("chat.completion.chunk") && text.contains("\"finish_reason\":\"stop\""), "{text}");
        assert!(text.contains("\"prompt_tokens\"") && text.trim_end().ends_with("data: [DONE]"), "{text}");
        assert!(!text.contains("message_start"), "{text}");
    }
    nobody_saw_the_callers_key(&provider).await;
}

#[tokio::test]
async fn a_live_chat_call_is_translated_and_renamed_too() {
    let provider = Provider::quick().await;
    let proxy = routed(&provider, "").await;
    let mut body = chat(&format!("say {}", probe(3)));
    body["model"] = json!("fast");
    let reply = proxy.client.post(CHAT, &[], body.to_string()).await;
    assert!(content(&reply).contains(&probe(3)), "{reply:?}");
    assert_eq!(reply.json()["model"], "claude-haiku-5-5");
    assert!(!reply.headers.contains_key("x-nightbus-state") && reply.headers.contains_key("x-request-id"));
    body["model"] = json!("fast:batch");
    let deferred = proxy.client.post(CHAT, &[], body.to_string()).await;
    assert_eq!(
        (deferred.header("x-nightbus-service"), &deferred.json()["model"]),
        ("batch", &json!("claude-haiku-5-5"))
    );
    nobody_saw_the_callers_key(&provider).await;
}

#[tokio::test]
async fn what_cannot_be_mapped_is_a_400_that_names_the_field() {
    let provider = Provider::quick().await;
    let proxy = routed(&provider, "").await;
    let mut body = chat("x");
    body["n"] = json!(2);
    for headers in [&[DEFER][..], &[]] {
        let reply = proxy.client.post(CHAT, headers, body.to_string()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!("n")), "{reply:?}");
    }
    let embedded = json!({"model": "claude-haiku-5-5", "input": "x"}).to_string();
    let reply = proxy.client.post("/v1/embeddings", &[DEFER], embedded).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!("model")), "{reply:?}");
    assert!(provider.requests("/v1/messages").await.is_empty());
}

#[tokio::test]
async fn without_a_key_of_its_own_the_other_provider_is_not_called() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, ROUTES).await;
    for headers in [&[DEFER][..], &[]] {
        let reply = proxy.client.post(CHAT, headers, chat("x").to_string()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (401, &json!("unauthorized")), "{reply:?}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("api_key_env"), "{reply:?}");
    }
    assert!(provider.requests("/v1/messages").await.is_empty());
}

#[tokio::test]
async fn errors_of_the_provider_have_the_callers_envelope() {
    let provider = Provider::quick().await;
    let proxy = routed(&provider, "").await;
    let mut body = chat("x");
    body["max_tokens"] = json!(0);
    let live = proxy.client.post(CHAT, &[], body.to_string()).await;
    // Zero is allowed live (it warms the cache), and refused by the model in a batch.
    let deferred = proxy.client.post(CHAT, &[DEFER], body.to_string()).await;
    assert_eq!(live.status, 200, "{live:?}");
    assert_eq!(
        (deferred.status.as_u16(), &deferred.json()["error"]["type"]),
        (400, &json!("invalid_request_error")),
        "{deferred:?}"
    );
    assert!(deferred.json()["error"].get("code").is_some(), "{deferred:?}");
}

#[tokio::test]
async fn a_route_of_the_same_shape_changes_provider_model_and_key() {
    let (first, second) = (Provider::quick().await, Provider::quick().await);
    let tables = format!(
        "[providers.other]\nbase_url = \"{}\"\napi_key_env = \"OTHER_KEY\"\n\
         [[routes]]\nmodel = \"gpt-6-*\"\nprovider = \"other\"\nrename = \"gpt-6-luna\"\n\
         [[routes]]\nmodel = \"*\"\nprovider = \"openai\"\n",
        second.sim.base_url()
    );
    let text = toml(&first.sim.base_url(), "store = \"memory\"", &tables);
    let proxy = Proxy::with_environment(&text, &[("OTHER_KEY", "sk-other")]).await;
    let body = json!({"model": "gpt-6-any", "messages": [{"role": "user", "content": probe(5)}]}).to_string();
    for headers in [&[DEFER][..], &[]] {
        let reply = proxy.client.post(CHAT, headers, body.clone()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["model"]), (200, &json!("gpt-6-luna")), "{reply:?}");
    }
    assert_eq!((first.executions_of(&probe(5)).await, second.executions_of(&probe(5)).await), (0, 2));
    for call in second.requests("/v1/").await {
        let headers = call["headers"].to_string();
        assert!(headers.contains("sk-other") && !headers.contains(KEY), "{headers}");
    }
    let named = proxy.client.post("/openai/v1/chat/completions", &[], body).await;
    assert!(
        named.status.as_u16() != 401 && first.executions_of(&probe(5)).await <= 1,
        "a named provider is not routed"
    );
}

#[tokio::test]
async fn a_kind_without_batches_goes_live_and_says_so() {
    let provider = Provider::quick().await;
    let base = provider.sim.base_url();
    let tables = format!("[providers.own]\nkind = \"vllm\"\nbase_url = \"{base}\"\n");
    let proxy = Proxy::with(&provider, &tables).await;
    let body = json!({"model": "gpt-6-luna", "messages": [{"role": "user", "content": probe(6)}]}).to_string();
    let reply = proxy.client.post("/batch/own/v1/chat/completions", &[], body).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-nightbus-passthrough")), (200, "provider-has-no-batch"));
    assert!(provider.requests("/v1/batches").await.is_empty());
}

#[tokio::test]
async fn azure_is_called_with_its_own_header() {
    let provider = Provider::quick().await;
    let tap = Tap::before(&provider).await;
    let tables = format!(
        "[providers.azure]\nkind = \"azure\"\nbase_url = \"{}\"\napi_key_env = \"AZ\"\napi_version = \"2025-04-01\"\n",
        tap.base_url()
    );
    let text = toml(&provider.sim.base_url(), "store = \"memory\"", &tables);
    let proxy = Proxy::with_environment(&text, &[("AZ", "az-own")]).await;
    let body = json!({"model": "gpt-6-luna", "messages": [{"role": "user", "content": probe(7)}]}).to_string();
    for (headers, path) in
        [(&[][..], "/azure/v1/chat/completions"), (&[ASYNC, DEFER][..], "/azure/v1/chat/completions")]
    {
        proxy.client.post(path, headers, body.clone()).await;
    }
    eventually("a live call and an upload", || async { (tap.all().len() >= 2).then_some(()) }).await;
    for exchange in tap.all() {
        assert_eq!(exchange.headers["api-key"], "az-own", "{}", exchange.path);
        assert!(!exchange.headers.contains_key("authorization"));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_chat_call_is_refused_in_its_own_envelope_whatever_the_default_provider_is() {
    let provider = Provider::quick().await;
    let base = provider.sim.base_url();
    let tables = format!("[providers.anthropic]\nbase_url = \"{base}\"\napi_key_env = \"ANTHROPIC_KEY\"\n{ROUTES}");
    let text = toml(&base, "store = \"memory\"\ndefault_provider = \"anthropic\"", &tables);
    let proxy = Proxy::with_environment(&text, &[("ANTHROPIC_KEY", OWN_KEY)]).await;
    let mut body = chat("x");
    body["n"] = json!(2);
    let reply = proxy.client.post(CHAT, &[DEFER], body.to_string()).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!("n")), "{reply:?}");
    assert_eq!(reply.json().get("type"), None, "OpenAI's envelope: {reply:?}");
}
