//! Which calls are deferred (contract, section 3), and what is refused.

use http::Method;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, Client, DEFER, Reply, chat, probe};
use super::common::process::Home;
use super::common::provider::Provider;
use super::common::proxy::Proxy;

/// Nothing leaves: what was deferred stays queued and shows in the list.
const PARKED: &str = "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"";

/// How a call was treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Live,
    Deferred,
}

/// Path, headers, body, and what should become of them.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a Value, Way);

/// Headers and text of a call, and what it is told of its way.
type Told<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);

/// Sends with `Prefer: respond-async`, so that a deferred call answers at once.
async fn way_of(client: &Client, path: &str, headers: &[(&str, &str)], body: &Value) -> Way {
    let headers: Vec<_> = headers.iter().copied().chain([ASYNC]).collect();
    let reply = client.post(path, &headers, body.to_string()).await;
    match reply.status.as_u16() {
        202 => {
            assert!(reply.headers.contains_key("x-nightbus-request-id"));
            Way::Deferred
        }
        200 => {
            assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("x-nightbus-")), "{reply:?}");
            Way::Live
        }
        _ => panic!("{path} {headers:?}: {reply:?}"),
    }
}

fn of_model(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}]})
}

#[tokio::test]
async fn header_prefix_and_suffix_mark_and_the_first_of_them_decides() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, PARKED).await;
    let client = &proxy.client;
    let (plain, suffixed) = (of_model("gpt-6-luna"), of_model("gpt-6-luna:batch"));
    let (batch, named, both) =
        ("/batch/v1/chat/completions", "/openai/v1/chat/completions", "/batch/openai/v1/chat/completions");
    let (yes, no) = (Some("true"), Some("false"));
    let table: [(&str, Option<&str>, &Value, Way); 18] = [
        (CHAT, None, &plain, Way::Live),
        (CHAT, yes, &plain, Way::Deferred),
        (CHAT, Some("1"), &plain, Way::Deferred),
        (CHAT, Some("yes"), &plain, Way::Deferred),
        (CHAT, Some("TRUE"), &plain, Way::Deferred),
        (CHAT, Some("0"), &plain, Way::Live),
        (CHAT, Some("no"), &plain, Way::Live),
        (CHAT, no, &plain, Way::Live),
        (named, None, &plain, Way::Live),
        (named, yes, &plain, Way::Deferred),
        (batch, None, &plain, Way::Deferred),
        (both, None, &plain, Way::Deferred),
        (batch, no, &plain, Way::Live),
        (CHAT, None, &suffixed, Way::Deferred),
        (batch, None, &suffixed, Way::Deferred),
        (CHAT, no, &suffixed, Way::Live),
        (batch, no, &suffixed, Way::Live),
        (CHAT, yes, &suffixed, Way::Deferred),
    ];
    for (path, header, body, expected) in table {
        let headers: Vec<_> = header.into_iter().map(|value| ("x-nightbus-defer", value)).collect();
        assert_eq!(way_of(client, path, &headers, body).await, expected, "{path} {header:?} {}", body["model"]);
    }
    // The provider never sees the suffix, and never one of our headers.
    for seen in provider.requests(CHAT).await {
        assert!(!seen["body"].as_str().unwrap().contains(":batch"), "{seen}");
        assert!(!seen["headers"].to_string().contains("x-nightbus"), "{seen}");
    }
    let listed = client.get("/nightbus/v1/requests?limit=100").await.json();
    assert!(listed["data"].as_array().unwrap().iter().all(|one| one["model"] == "gpt-6-luna"), "{listed}");
    proxy.stop().await;
}

#[tokio::test]
async fn rules_decide_by_all_their_conditions_in_order_and_then_the_default() {
    let provider = Provider::quick().await;
    let tables = format!(
        "{PARKED}\n[deferral]\ndefault = true\n\
         [[deferral.rules]]\nmodel = \"gpt-6-*\"\nuser_agent = \"interactive/*\"\ndefer = false\n\
         [[deferral.rules]]\nmodel = \"gpt-6-*\"\ndefer = true\n\
         [[deferral.rules]]\npath = \"/v1/embeddings\"\ndefer = false\n\
         [[deferral.rules]]\ntag = \"urgent\"\ndefer = false\n\
         [[deferral.rules]]\nmodel = \"gpt-5.6-*\"\ntag = \"urgent\"\ndefer = true\n"
    );
    let proxy = Proxy::with(&provider, &tables).await;
    let client = &proxy.client;
    let embeddings = json!({"model": "text-embedding-3-small", "input": "x"});
    let (six, five) = (of_model("gpt-6-luna"), of_model("gpt-5.6-luna"));
    let (browser, urgent) = (("user-agent", "interactive/1.0"), ("x-nightbus-tag", "urgent"));
    let table: [Row<'_>; 9] = [
        (CHAT, &[], &six, Way::Deferred),
        (CHAT, &[browser], &six, Way::Live),
        (CHAT, &[browser], &five, Way::Deferred),
        ("/v1/embeddings", &[], &embeddings, Way::Live),
        (CHAT, &[], &five, Way::Deferred),
        // The first match wins, although a later rule is more exact.
        (CHAT, &[urgent], &five, Way::Live),
        (CHAT, &[urgent], &six, Way::Deferred),
        (CHAT, &[browser, DEFER], &six, Way::Deferred),
        (CHAT, &[("x-nightbus-defer", "false")], &six, Way::Live),
    ];
    for (path, headers, body, expected) in table {
        assert_eq!(way_of(client, path, headers, body).await, expected, "{path} {headers:?} {}", body["model"]);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn marked_calls_that_cannot_be_batched_pass_through_and_say_why() {
    let provider = Provider::quick().await;
    let tables = format!("endpoints = [\"/v1/chat/completions\", \"/v1/responses\"]\n{PARKED}");
    let proxy = Proxy::with(&provider, &tables).await;
    let client = &proxy.client;
    let reason = |reply: &Reply| {
        assert!(!reply.headers.contains_key("x-nightbus-request-id"), "{reply:?}");
        reply.header("x-nightbus-passthrough").to_owned()
    };
    let models = client.send(Method::GET, "/batch/v1/models", &[], "").await.unwrap();
    assert_eq!((models.status.as_u16(), models.json()["object"].as_str()), (200, Some("list")));
    assert_eq!(reason(&models), "endpoint-not-batchable");
    let files = client.send(Method::GET, "/v1/files", &[DEFER], "").await.unwrap();
    assert_eq!(files.status, 200);
    assert_eq!(reason(&files), "endpoint-not-batchable");
    // The provider's table does not have it.
    let embeddings = json!({"model": "text-embedding-3-small", "input": "x"});
    let embedded = client.held("/v1/embeddings", &embeddings).await;
    assert_eq!(embedded.status, 200);
    assert_eq!(reason(&embedded), "endpoint-not-batchable");
    let background = json!({"model": "gpt-6-luna", "input": "x", "background": true});
    let queued = client.held("/v1/responses", &background).await;
    assert_eq!((queued.status.as_u16(), &queued.json()["status"]), (200, &json!("queued")));
    assert_eq!(reason(&queued), "background");
    // Not marked: not a word.
    let live = client.get("/v1/models").await;
    assert!(!live.headers.contains_key("x-nightbus-passthrough"));
    proxy.stop().await;
}

#[tokio::test]
async fn with_deferral_off_marked_calls_are_live_and_say_so() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[deferral]\nmode = \"off\"").await;
    let reply = proxy.client.post(CHAT, &[], of_model("gpt-6-luna:batch").to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-nightbus-passthrough")), (200, "deferral-off"));
    assert_eq!(provider.count("batches"), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn garbage_headers_are_refused_by_name() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, PARKED).await;
    for (name, value) in [
        ("x-nightbus-defer", "maybe"),
        ("x-nightbus-defer", ""),
        ("x-nightbus-deadline", "soon"),
        ("x-nightbus-deadline", "-5m"),
        ("x-nightbus-deadline", "2020-01-01T00:00:00Z"),
        ("x-nightbus-fallback", "batch"),
        ("x-nightbus-fallback", "flex,nonsense"),
        ("x-nightbus-tag", "two words"),
        ("x-nightbus-tag", &"x".repeat(65)),
        ("x-nightbus-callback", "not a url"),
        ("x-nightbus-flight", "maybe"),
        ("idempotency-key", &"k".repeat(1_000)),
    ] {
        let mark = DEFER;
        let headers: &[(&str, &str)] = if name == mark.0 { &[(name, value)] } else { &[mark, (name, value)] };
        let reply = proxy.client.post(CHAT, headers, chat("probe-garbage").to_string()).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "invalid_request"), "{name}: {value}");
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(name), "{reply:?}");
        assert_eq!(reply.header("x-should-retry"), "false");
    }
    assert_eq!(provider.executions_of("probe-garbage").await, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_refused_to_their_caller_alone() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let client = &proxy.client;
    let good = client.accepted(CHAT, &chat("probe-good")).await;
    let table: [(&str, &[u8]); 13] = [
        (CHAT, b"{"),
        (CHAT, b"[1]"),
        (CHAT, b"\"text\""),
        (CHAT, b"{\"model\":\"gpt-6-luna\",\"messages\":[]} x"),
        (CHAT, b"{\"model\":\"gpt-6-luna\",\"messages\":[\xff]}"),
        (CHAT, b"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"),
        (CHAT, b"{\"model\":7,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"),
        (CHAT, b"{\"model\":null,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"),
        (CHAT, b"{\"model\":\"\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"),
        (CHAT, b"{\"model\":\"gpt-6-luna\"}"),
        (CHAT, b"{\"model\":\"gpt-6-luna\",\"stream\":\"yes\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"),
        ("/v1/responses", b"{\"model\":\"gpt-6-luna\",\"background\":1,\"input\":\"x\"}"),
        ("/v1/embeddings", b"{\"model\":\"text-embedding-3-small\"}"),
    ];
    for (path, body) in table {
        let reply = client.post(path, &[DEFER], body).await;
        let text = String::from_utf8_lossy(body);
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "invalid_request"), "{text}: {reply:?}");
    }
    let empty = client.send(Method::POST, CHAT, &[DEFER], "").await.unwrap();
    assert_eq!(empty.status, 400);
    assert!(client.result(&good).await.text().contains("probe-good"), "nothing else is affected");
    assert_eq!(provider.count("lines_executed"), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_deep_or_odd_body_does_not_fail_the_batch_of_others() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[batching]\nidle = \"500ms\"\npoll = \"100ms\"").await;
    let client = &proxy.client;
    let deep = format!("{{\"model\":\"gpt-6-luna\",\"messages\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
    let wrong = json!({"model": "gpt-6-luna", "messages": "text"}).to_string();
    let duplicate = r#"{"model":"gpt-6-luna","model":"gpt-5.6-luna","messages":[{"role":"user","content":"x"}]}"#;
    let escaped = r#"{"mod\u0065l":"gpt-6-luna:batch","str\u0065am":false,"messages":[{"role":"user","content":"probe-escaped"}]}"#;
    let good = chat("probe-good");
    let (good, deep, wrong, duplicate, escaped) = tokio::join!(
        client.held(CHAT, &good),
        client.post(CHAT, &[DEFER], deep),
        client.post(CHAT, &[DEFER], wrong),
        client.post(CHAT, &[DEFER], duplicate),
        client.post(CHAT, &[DEFER], escaped),
    );
    assert!(good.text().contains("probe-good"));
    for refused in [deep, wrong] {
        assert_eq!(refused.status, 400, "{refused:?}");
        refused.code();
    }
    assert!(matches!(duplicate.status.as_u16(), 200 | 400), "{duplicate:?}");
    assert!(escaped.text().contains("probe-escaped"));
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_when_deferred_and_pass_when_live() {
    let provider = Provider::quick().await;
    let tables = "[limits]\nmax_body_bytes = 20000";
    let proxy = Proxy::with(&provider, tables).await;
    let large = chat(&format!("probe-large {}", "x".repeat(30_000)));
    for (path, headers) in [(CHAT, &[DEFER][..]), ("/batch/v1/chat/completions", &[])] {
        let reply = proxy.client.post(path, headers, large.to_string()).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (413, "too_large"), "{path}");
        assert_eq!(reply.header("x-should-retry"), "false");
    }
    let live = proxy.client.post(CHAT, &[], large.to_string()).await;
    assert_eq!(live.status, 200, "live calls have no such limit");
    assert_eq!(provider.executions_of("probe-large").await, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_too_large_to_be_deferred_is_refused_if_it_asked_for_it_and_says_why_it_is_live_if_not() {
    let provider = Provider::quick().await;
    let rules = "[limits]\nmax_body_bytes = 20000\n[deferral]\n\
        [[deferral.rules]]\ntag = \"asleep\"\ndefer = false\n\
        [[deferral.rules]]\nmodel = \"gpt-6-*\"\nuser_agent = \"eval/*\"\ndefer = true\n";
    let proxy = Proxy::with(&provider, rules).await;
    let client = &proxy.client;
    let padding = "x".repeat(30_000);
    // The model first, as the SDKs send it: the suffix is in the part that was read.
    let of = |model: &str, text: &str| {
        format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}},{{"role":"user","content":"{padding}"}}]}}"#
        )
    };
    let asked = client.post(CHAT, &[], of("gpt-6-luna:batch", "x")).await;
    assert_eq!((asked.status.as_u16(), asked.code().as_str()), (413, "too_large"));
    let (eval, asleep) = (("user-agent", "eval/1"), ("x-nightbus-tag", "asleep"));
    let live: [Told<'_>; 5] = [
        (&[], "x", None),
        (&[], "a text that ends in :batch", None),
        (&[eval], "x", Some("too-large")),
        (&[eval, asleep], "x", None),
        (&[eval, ("x-nightbus-defer", "false")], "x", None),
    ];
    for (headers, text, reason) in live {
        let reply = client.post(CHAT, headers, of("gpt-6-luna", text)).await;
        let told = reply.headers.get("x-nightbus-passthrough").map(|value| value.to_str().unwrap());
        assert_eq!((reply.status.as_u16(), told), (200, reason), "{headers:?} {text}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_compressed_call_is_refused_when_deferred_and_passes_when_live() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let body = chat("probe-packed").to_string();
    let refused = proxy.client.post(CHAT, &[DEFER, ("content-encoding", "gzip")], body.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "invalid_request"));
    assert_eq!(refused.json()["error"]["param"], "content-encoding");
    assert_eq!(provider.executions_of("probe-packed").await, 0);
    let plain = proxy.client.post(CHAT, &[DEFER, ("content-encoding", "identity")], body.clone()).await;
    assert!(plain.text().contains("probe-packed"));
    // Whether a live call may be compressed is the provider's business.
    let live = proxy.client.post(CHAT, &[("content-encoding", "zstd")], body).await;
    assert_ne!(live.json()["error"]["type"], "nightbus_error", "{live:?}");
    let seen = provider.requests(CHAT).await;
    assert!(seen.iter().any(|one| one["headers"].to_string().contains("zstd")), "{seen:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_provider_without_a_batch_api_is_an_error_at_once_and_not_an_endless_wait() {
    let provider = Provider::quick().await;
    let base_url = format!("{}/nowhere", provider.sim.base_url());
    let proxy = Proxy::from_toml(&super::common::proxy::toml(&base_url, "store = \"memory\"", "")).await;
    let headers = [DEFER, ("x-nightbus-fallback", "none")];
    let reply = proxy.client.post(CHAT, &headers, chat("probe-nowhere").to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (502, "batch_failed"));
    let told = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(told.contains("no Batch API") && told.contains("live"), "{told}");
    let object = proxy.client.get("/nightbus/v1/requests").await.json()["data"][0].clone();
    assert_eq!((&object["state"], &object["status_code"]), (&json!("failed"), &json!(502)));
    assert_eq!(object["error"]["message"], told);
    proxy.stop().await;
}

#[tokio::test]
async fn a_line_larger_than_the_providers_file_is_refused_to_that_caller_alone() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "max_bytes = 2000").await;
    let large = chat(&format!("probe-large {}", "x".repeat(2_000)));
    let small = chat("probe-small");
    let (refused, answered) = tokio::join!(proxy.client.held(CHAT, &large), proxy.client.held(CHAT, &small));
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (413, "too_large"));
    assert!(answered.text().contains("probe-small"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_full_queue_is_429_with_a_time_to_come_back_and_live_calls_go_on() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, &format!("{PARKED}\n[limits]\nmax_queued_requests = 2")).await;
    let client = &proxy.client;
    let ids = [client.accepted(CHAT, &chat(&probe(0))).await, client.accepted(CHAT, &chat(&probe(1))).await];
    let refused = client.post(CHAT, &[DEFER, ASYNC], chat(&probe(2)).to_string()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "queue_full"));
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(client.post(CHAT, &[], chat("probe-live").to_string()).await.status, 200);
    client.delete(&format!("/nightbus/v1/requests/{}", ids[0])).await;
    super::common::client::eventually("room again after a cancel", || async {
        let reply = client.post(CHAT, &[DEFER, ASYNC], chat(&probe(3)).to_string()).await;
        (reply.status == 202).then_some(())
    })
    .await;
    client.post("/nightbus/v1/flush", &[], "").await;
    assert_eq!(client.result(&ids[1]).await.status, 200);
    assert_eq!(provider.executions_of(&probe(2)).await, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_providers_are_404() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    for path in
        ["/", "/v2/chat/completions", "/nobody/v1/chat/completions", "/batch", "/nightbus", "/batch/nobody/v1/x"]
    {
        let reply = proxy.client.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not_found"), "{path}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_log_names_the_trace_of_a_deferred_call_beside_its_request() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let provider = Provider::quick().await;
    let home = Home::new(&provider, "[log]\nlevel = \"off,nightbus=debug\"");
    let running = home.start().await;
    let traced = ("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let reply =
        running.client.post(CHAT, &[DEFER, (traced.0, traced.1.as_str())], chat("probe-traced").to_string()).await;
    let id = reply.header("x-nightbus-request-id");
    let log = std::fs::read_to_string(home.log()).unwrap();
    let line = log.lines().find(|line| line.contains("request is part of a trace")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(TRACE) && line.contains(id), "{line}");
    assert!(running.terminate().await.success());
}
