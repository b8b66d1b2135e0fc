//! Anthropic's Messages, deferred: the second API shape against the contract.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::common::client::{ASYNC, Client, DEFER, Reply, eventually, probe};
use super::common::provider::{Provider, quick};
use super::common::proxy::{KEY, Proxy};
use nightbus::sim::SimOptions;

pub(crate) const MESSAGES: &str = "/v1/messages";
pub(crate) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// A Messages call.
pub(crate) fn message(text: &str) -> Value {
    json!({"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": text}]})
}

async fn held(client: &Client, body: &Value) -> Reply {
    client.post(MESSAGES, &[DEFER, VERSION], body.to_string()).await
}

/// The same, for what batch alone makes of it.
async fn by_batch_alone(client: &Client, body: &Value) -> Reply {
    client.post(MESSAGES, &[DEFER, VERSION, ("x-nightbus-fallback", "none")], body.to_string()).await
}

/// The text of a message's last block.
fn text(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    body["content"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap().to_owned()
}

/// The type and nightbus's code of an error in Anthropic's envelope.
fn error(reply: &Reply) -> (String, String) {
    let body = reply.json();
    assert_eq!(body["type"], "error", "{body}");
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    assert!(!text("message").is_empty(), "{body}");
    (text("type"), text("code"))
}

/// The custom ids of all batches that were created, in the order of creation.
async fn created(provider: &Provider) -> Vec<Vec<String>> {
    let calls = provider.requests("/v1/messages/batches").await;
    let creations =
        calls.iter().rev().filter(|call| call["method"] == "POST" && call["path"] == "/v1/messages/batches");
    creations
        .map(|call| {
            let body: Value = serde_json::from_str(call["body"].as_str().unwrap()).unwrap();
            let lines = body["requests"].as_array().unwrap();
            lines.iter().map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect()
        })
        .collect()
}

#[tokio::test]
async fn a_held_call_is_answered_as_the_live_one_would_be() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let mut body = message(&format!("say {}", probe(1)));
    body["system"] = json!([{"type": "text", "text": "twelve bytes twelve bytes",
        "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    let reply = held(&proxy.client, &body).await;
    assert!(text(&reply).ends_with(&format!("say {}", probe(1))), "{reply:?}");
    let answer = reply.json();
    assert_eq!((&answer["type"], &answer["stop_reason"]), (&json!("message"), &json!("end_turn")));
    assert_eq!(answer["usage"]["service_tier"], "batch");
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!((reply.header("x-nightbus-state"), reply.header("x-nightbus-service")), ("completed", "batch"));
    let count = |name: &str| answer["usage"][name].as_f64().unwrap();
    // Half of 0.1, of 2 x 0.1 for what is kept for an hour, and of 0.5 dollars per million tokens.
    let picos = count("input_tokens") * 50_000.0
        + count("cache_creation_input_tokens") * 100_000.0
        + count("output_tokens") * 250_000.0;
    let cost: f64 = reply.header("x-nightbus-cost-usd").parse().unwrap();
    assert!((cost * 1e12 - picos).abs() <= 1_000.0, "{cost} is not {picos} picodollars");
    assert_eq!(reply.header("x-nightbus-saved-usd"), reply.header("x-nightbus-cost-usd"));
    assert_eq!(provider.executions_of(&probe(1)).await, 1);
    let calls = provider.requests("/v1/messages/batches").await;
    for call in &calls {
        let headers = call["headers"].to_string();
        assert!(headers.contains("2023-06-01") && headers.contains(KEY), "{headers}");
        assert!(!headers.contains("x-nightbus"), "{headers}");
    }
    assert!(provider.requests("/v1/files").await.is_empty(), "there are no files");
    let ids = created(&provider).await;
    assert!(ids[0][0].len() <= 64 && ids[0][0].starts_with(&reply.header("x-nightbus-request-id")[..36]), "{ids:?}");
}

#[tokio::test]
async fn every_mark_defers_and_paths_lead_to_the_kind() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let client = &proxy.client;
    for path in ["/batch/v1/messages", "/batch/anthropic/v1/messages", "/batch/v1/messages?beta=true"] {
        let reply = client.post(path, &[VERSION], message("hi").to_string()).await;
        assert_eq!(reply.header("x-nightbus-service"), "batch", "{path}");
    }
    let mut suffixed = message("hi there");
    suffixed["model"] = json!("claude-haiku-5-5:batch");
    let reply = client.post(MESSAGES, &[VERSION], suffixed.to_string()).await;
    assert_eq!((reply.header("x-nightbus-service"), &reply.json()["model"]), ("batch", &json!("claude-haiku-5-5")));
    let live = client.post(MESSAGES, &[VERSION], message("live").to_string()).await;
    assert_eq!((text(&live), live.headers.get("x-nightbus-state")), (text(&live), None));
    assert!(live.headers.contains_key("request-id"));
    let counted = client.post("/v1/messages/count_tokens", &[VERSION, DEFER], message("x").to_string()).await;
    assert!(counted.json()["input_tokens"].is_u64(), "{counted:?}");
    assert_eq!(counted.header("x-nightbus-passthrough"), "endpoint-not-batchable");
    let models = client.send(Method::GET, "/v1/models", &[VERSION], "").await.unwrap();
    assert_eq!(models.json()["data"][0]["type"], "model", "an SDK has one base URL for all its calls");
    let wrong = client.post("/anthropic/v1/chat/completions", &[VERSION, DEFER], "{}").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("x-nightbus-passthrough")), (400, "endpoint-not-batchable"));
}

#[tokio::test]
async fn what_no_batch_takes_goes_live() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    for (name, value, reason) in [("speed", json!("fast"), "fast-mode"), ("max_tokens", json!(0), "cache-warming")] {
        let mut body = message("quick");
        body[name] = value;
        let reply = held(&proxy.client, &body).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-nightbus-passthrough")), (200, reason));
    }
}

#[tokio::test]
async fn both_forms_of_a_key_are_one_credential() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"").await;
    let bare = proxy.client.with_key("");
    let own = ("x-api-key", KEY);
    let first = bare.post(MESSAGES, &[DEFER, ASYNC, VERSION, own], message("one").to_string()).await;
    let second = proxy.client.post(MESSAGES, &[DEFER, ASYNC, VERSION], message("two").to_string()).await;
    let ids: Vec<String> =
        [&first, &second].iter().map(|reply| reply.json()["id"].as_str().unwrap().to_owned()).collect();
    proxy.flush().await;
    for id in &ids {
        assert_eq!(proxy.client.result(id).await.status, 200);
        let path = format!("/nightbus/v1/requests/{id}");
        assert_eq!(bare.send(Method::GET, &path, &[own], "").await.unwrap().status, 200);
        assert_eq!(bare.send(Method::GET, &path, &[("x-api-key", "another")], "").await.unwrap().status, 404);
    }
    assert_eq!(created(&provider).await.iter().map(Vec::len).collect::<Vec<_>>(), [2], "one lane");
}

#[tokio::test]
async fn versions_and_betas_make_lanes_of_their_own() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let headers: [&[(&str, &str)]; 3] = [
        &[VERSION],
        &[("anthropic-version", "2026-10-21")],
        &[VERSION, ("anthropic-beta", "a-2026-01-01"), ("anthropic-beta", "b-2026-01-01")],
    ];
    let calls = headers.map(|own| {
        let headers = [&[DEFER], own].concat();
        let client = proxy.client.clone();
        async move { client.post(MESSAGES, &headers, message("hi").to_string()).await }
    });
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(created(&provider).await.len(), 3);
    let calls = provider.requests("/v1/messages/batches").await;
    assert!(calls.iter().any(|call| call["headers"].to_string().contains("a-2026-01-01,b-2026-01-01")));
}

#[tokio::test]
async fn a_stream_is_told_in_events() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let mut body = message(&format!("say {} é", probe(1)));
    body["stream"] = json!(true);
    let reply = held(&proxy.client, &body).await;
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
    let stream = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(stream.starts_with("event: ping\ndata: {\"type\":\"ping\"}\n\n"), "{stream}");
    assert!(
        stream.contains(&probe(1)) && stream.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
    );
    body["messages"][0]["content"] = json!("fail-400");
    let failed = held(&proxy.client, &body).await;
    let stream = String::from_utf8(failed.body.to_vec()).unwrap();
    assert!(stream.contains("event: error\ndata: {") && stream.contains("invalid_request_error"), "{stream}");
    assert!(!stream.contains("message_start"), "{stream}");
}

#[tokio::test]
async fn errors_of_a_line_are_its_callers_alone() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let texts = ["fail-400", "fail-529", "fine"];
    let calls = texts.map(|text| {
        let client = proxy.client.clone();
        async move { by_batch_alone(&client, &message(text)).await }
    });
    let replies = futures_util::future::join_all(calls).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses, [400, 529, 200]);
    assert_eq!(error(&replies[0]).0, "invalid_request_error");
    assert_eq!(error(&replies[1]).0, "overloaded_error");
    assert!(replies[0].header("request-id").starts_with("req_") && replies[0].header("x-should-retry") == "false");
    let object = proxy.client.object(replies[1].header("x-nightbus-request-id")).await;
    assert_eq!(object["attempts"], 3, "an overloaded line is tried again in later batches");
}

#[tokio::test]
async fn nightbuss_own_errors_have_the_apis_envelope() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let client = &proxy.client;
    let no_version = client.post(MESSAGES, &[DEFER], message("x").to_string()).await;
    assert_eq!(error(&no_version), ("invalid_request_error".to_owned(), "invalid_request".to_owned()));
    let mut body = message("x");
    body.as_object_mut().unwrap().remove("max_tokens");
    let incomplete = held(client, &body).await;
    assert_eq!((incomplete.status.as_u16(), error(&incomplete).1.as_str()), (400, "invalid_request"));
    let no_key = client.with_key("").post(MESSAGES, &[DEFER, VERSION], message("x").to_string()).await;
    assert_eq!((no_key.status.as_u16(), error(&no_key).0.as_str()), (401, "authentication_error"));
    let page = client.post(MESSAGES, &[("origin", "https://evil.example"), VERSION], message("x").to_string()).await;
    assert_eq!((page.status.as_u16(), error(&page).1.as_str()), (403, "forbidden_origin"));
    let cancelled = client.post(MESSAGES, &[DEFER, ASYNC, VERSION], message("never").to_string()).await;
    let id = cancelled.json()["id"].as_str().unwrap().to_owned();
    if client.delete(&format!("/nightbus/v1/requests/{id}")).await.status == 200 {
        let gone = client.result(&id).await;
        assert_eq!((gone.status.as_u16(), error(&gone).1.as_str()), (410, "cancelled"));
    }
}

#[tokio::test]
async fn a_refused_creation_is_every_callers_error_and_a_full_queue_is_waited_for() {
    let provider = Provider::with_faults(&["billing"]).await;
    let proxy = Proxy::over(&provider).await;
    let refused = by_batch_alone(&proxy.client, &message("x")).await;
    assert_eq!((refused.status.as_u16(), error(&refused).0.as_str()), (400, "invalid_request_error"));
    provider.set_faults(&["create-429"]);
    assert_eq!(held(&proxy.client, &message("y")).await.status, 200);
    assert_eq!((provider.fired("create-429"), created(&provider).await.len()), (1, 3));
}

#[tokio::test]
async fn a_creation_without_an_answer_is_found_by_its_stamp() {
    for fault in ["create-lost", "create-500-after", "create-500"] {
        let provider = Provider::with_faults(&[fault, "list-stale:2"]).await;
        // Batches of somebody else in the same workspace, of the same size, at the same time.
        let stranger = Client::new(provider.sim.addr(), KEY);
        let strange = json!({"requests": [{"custom_id": "theirs", "params": message("theirs")}]}).to_string();
        provider.set_faults(&[]);
        assert_eq!(stranger.post("/v1/messages/batches", &[VERSION], strange.clone()).await.status, 200);
        provider.set_faults(&[fault, "list-stale:2"]);
        let proxy = Proxy::over(&provider).await;
        let body = message(&format!("say {}", probe(7)));
        let meddling = async {
            eventually("the fault", || async { (provider.fired(fault) == 1).then_some(()) }).await;
            assert_eq!(stranger.post("/v1/messages/batches", &[VERSION], strange).await.status, 200);
        };
        let (reply, ()) = futures_util::join!(held(&proxy.client, &body), meddling);
        assert!(text(&reply).ends_with(&probe(7)), "{fault}: {reply:?}");
        assert_eq!(provider.executions_of(&probe(7)).await, 1, "{fault}");
    }
}

#[tokio::test]
async fn batches_keep_within_the_limits() {
    let options = SimOptions { max_requests: Some(3), max_bytes: Some(900), ..quick() };
    let provider = Provider::start(options).await;
    let limits =
        format!("[providers.anthropic]\nbase_url = \"{}\"\nmax_requests = 3\nmax_bytes = 900", provider.sim.base_url());
    let proxy = Proxy::with(&provider, &limits).await;
    let calls = (0..10).map(|at| {
        let client = proxy.client.clone();
        let padding = "x".repeat(at * 30);
        async move { held(&client, &message(&format!("say {} {padding}", probe(at)))).await }
    });
    for (at, reply) in futures_util::future::join_all(calls).await.iter().enumerate() {
        assert!(text(reply).contains(&probe(at)), "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    let large = held(&proxy.client, &message(&"x".repeat(1_000))).await;
    assert_eq!((large.status.as_u16(), error(&large).1.as_str()), (413, "too_large"));
    assert!(created(&provider).await.iter().all(|lines| lines.len() <= 3));
}

async fn costs_nothing_twice(faults: &[&str]) {
    let provider = Provider::with_faults(faults).await;
    let proxy = Proxy::over(&provider).await;
    let calls = (0..6).map(|at| {
        let client = proxy.client.clone();
        async move { held(&client, &message(&format!("say {}", probe(at)))).await }
    });
    for (at, reply) in futures_util::future::join_all(calls).await.iter().enumerate() {
        assert!(text(reply).ends_with(&probe(at)), "{faults:?}: {reply:?}");
    }
    let executions = provider.executions().await;
    assert!(executions.as_object().unwrap().values().all(|count| count == 1), "{faults:?}: {executions}");
}

macro_rules! cost_nothing_twice {
    ($($test:ident: $($fault:literal),+;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                costs_nothing_twice(&[$($fault),+]).await;
            }
        )+
    };
}

cost_nothing_twice! {
    expired_half_done: "expire-half";
    expired_with_nothing_done: "expire-none";
    odd_result_files: "missing-line", "duplicate-line", "unknown-id", "blank-lines", "crlf";
    lines_that_did_not_run: "line-429", "line-500", "request-timeout";
    broken_downloads: "content-cut:2", "content-404", "content-500";
    broken_polls: "poll-500", "poll-404", "poll-cut", "status-unknown";
    results_that_are_named_late: "null-file-ids:2", "list-500";
    creation_lost_and_expired_almost_done: "create-lost", "list-500:2", "expire-most";
}

#[tokio::test]
async fn a_cancelled_batchs_lines_ride_again() {
    let provider = Provider::with_faults(&["stuck-in-progress"]).await;
    let proxy = Proxy::over(&provider).await;
    let calls = futures_util::future::join_all((0..4).map(|at| {
        let client = proxy.client.clone();
        async move { held(&client, &message(&format!("say {}", probe(at)))).await }
    }));
    let cancelling = async {
        let id = eventually("a batch", || async {
            let batches = provider.batches().await;
            Some(batches.first()?["id"].as_str()?.to_owned())
        })
        .await;
        let path = format!("/v1/messages/batches/{id}/cancel");
        let cancelled = Client::new(provider.sim.addr(), KEY).post(&path, &[VERSION], "").await;
        assert_eq!(cancelled.json()["processing_status"], "canceling");
    };
    let (replies, ()) = futures_util::join!(calls, cancelling);
    let texts: BTreeSet<String> = replies.iter().map(text).collect();
    assert_eq!(texts.len(), 4);
    let executions = provider.executions().await;
    assert!(executions.as_object().unwrap().values().all(|count| count == 1), "{executions}");
}

#[tokio::test]
async fn the_proxys_own_key_takes_the_place_of_the_clients() {
    let provider = Provider::quick().await;
    let toml = super::common::proxy::toml(
        &provider.sim.base_url(),
        "store = \"memory\"",
        &format!(
            "[providers.anthropic]\nbase_url = \"{}\"\napi_key_env = \"CLAUDE_KEY\"\n[[client_keys]]\nname = \"ci\"\nkey = \"nb-ci-0123456789\"\nproviders = [\"anthropic\"]\n",
            provider.sim.base_url()
        ),
    );
    let proxy = Proxy::with_environment(&toml, &[("CLAUDE_KEY", "sk-ant-own")]).await;
    let own = ("x-api-key", "nb-ci-0123456789");
    let client = proxy.client.with_key("");
    let deferred = client.post(MESSAGES, &[DEFER, VERSION, own], message("hi").to_string()).await;
    let live = client.post(MESSAGES, &[VERSION, own], message("hi").to_string()).await;
    assert_eq!((deferred.status.as_u16(), live.status.as_u16()), (200, 200), "{deferred:?} {live:?}");
    for call in provider.requests("/v1/messages").await {
        let headers = call["headers"].to_string();
        assert!(headers.contains("sk-ant-own") && !headers.contains("nb-ci"), "{headers}");
    }
    let stranger = client.post(MESSAGES, &[DEFER, VERSION, ("x-api-key", "wrong")], message("hi").to_string()).await;
    assert_eq!((stranger.status.as_u16(), error(&stranger).1.as_str()), (401, "unauthorized"));
}
