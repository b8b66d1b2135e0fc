//! Who may call: client keys, and web pages. The admin listener's guards are in `admin`'s own tests.

use http::Method;
use serde_json::json;

use super::common::client::{ASYNC, CHAT, DEFER, chat};
use super::common::provider::{Provider, Tap};
use super::common::proxy::{Proxy, toml};

const PROVIDERS_KEY: (&str, &str) = ("TEST_PROVIDER_KEY", "sk-the-providers-own");
const CLIENTS: &str = "api_key_env = \"TEST_PROVIDER_KEY\"\n\
    [providers.second]\nbase_url = \"BASE\"\napi_key_env = \"TEST_PROVIDER_KEY\"\n\
    [[client_keys]]\nname = \"ci\"\nkey = \"nb-ci-secret\"\nproviders = [\"openai\"]\n\
    [[client_keys]]\nname = \"lab\"\nkey = \"nb-lab-secret\"\n";

async fn with_client_keys(more: &str) -> (Provider, Tap, Proxy) {
    let provider = Provider::quick().await;
    let tap = Tap::before(&provider).await;
    let tables = format!("{}{more}", CLIENTS.replace("BASE", &tap.base_url()));
    let text = toml(&tap.base_url(), "store = \"memory\"", &tables);
    let proxy = Proxy::with_environment(&text, &[PROVIDERS_KEY]).await;
    (provider, tap, proxy)
}

#[tokio::test]
async fn a_clients_key_never_goes_upstream_the_providers_does() {
    let (provider, tap, proxy) = with_client_keys("").await;
    let client = proxy.client.with_key("nb-ci-secret");
    assert!(client.held(CHAT, &chat("probe-deferred")).await.text().contains("probe-deferred"));
    assert_eq!(client.post(CHAT, &[], chat("probe-live").to_string()).await.status, 200);
    assert_eq!(client.get("/v1/models").await.status, 200);
    // The other places a key may stand in.
    for name in ["x-api-key", "api-key"] {
        let keyless = client.with_key("");
        let reply = keyless.post(CHAT, &[DEFER, (name, "nb-ci-secret")], chat("probe-named").to_string()).await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        let reply = keyless.post(CHAT, &[(name, "nb-ci-secret")], chat("probe-named").to_string()).await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
    }
    let seen = tap.all();
    assert!(seen.len() > 8);
    for exchange in seen {
        assert_eq!(exchange.headers["authorization"], "Bearer sk-the-providers-own", "{}", exchange.path);
        let whole = format!("{:?} {}", exchange.headers, String::from_utf8_lossy(&exchange.sent));
        assert!(!whole.contains("nb-"), "{whole}");
    }
    assert_eq!(provider.executions_of("probe-deferred").await, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn unknown_keys_and_no_key_are_refused_on_every_route() {
    let (provider, _tap, proxy) = with_client_keys("").await;
    for key in ["", "nb-ci-secre", "nb-ci-secret2", "sk-the-providers-own", "NB-CI-SECRET"] {
        let client = proxy.client.with_key(key);
        for (method, path, headers) in [
            (Method::POST, CHAT, &[][..]),
            (Method::POST, CHAT, &[DEFER][..]),
            (Method::GET, "/v1/models", &[]),
            (Method::GET, "/nightbus/v1/requests", &[]),
            (Method::POST, "/nightbus/v1/flush", &[]),
        ] {
            let reply = client.send(method, path, headers, chat("probe-x").to_string()).await.unwrap();
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "unauthorized"), "{key:?} {path}");
            assert_eq!(reply.header("x-should-retry"), "false");
        }
    }
    assert_eq!((provider.count("lines_executed"), provider.count("live_calls")), (0, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_key_reaches_only_its_providers() {
    let (_provider, _tap, proxy) = with_client_keys("").await;
    let (ci, lab) = (proxy.client.with_key("nb-ci-secret"), proxy.client.with_key("nb-lab-secret"));
    for (path, headers) in [("/second/v1/chat/completions", &[][..]), ("/batch/second/v1/chat/completions", &[DEFER])] {
        let refused = ci.post(path, headers, chat("x").to_string()).await;
        assert!(matches!(refused.status.as_u16(), 401 | 403), "{refused:?}");
        assert_eq!(lab.post(path, headers, chat("x").to_string()).await.status, 200);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_sees_only_its_own_requests() {
    let (_provider, _tap, proxy) = with_client_keys("").await;
    let (ci, lab) = (proxy.client.with_key("nb-ci-secret"), proxy.client.with_key("nb-lab-secret"));
    let id = ci.accepted(CHAT, &chat("probe-ci")).await;
    assert_eq!(lab.get(&format!("/nightbus/v1/requests/{id}/result")).await.status, 404);
    assert_eq!(lab.get("/nightbus/v1/requests").await.json()["data"], json!([]));
    assert_eq!(ci.result(&id).await.status, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn rules_may_name_a_client_key() {
    let rule = "[[deferral.rules]]\nkey = \"ci\"\ndefer = true\n";
    let (_provider, _tap, proxy) = with_client_keys(rule).await;
    let reply = proxy.client.with_key("nb-ci-secret").post(CHAT, &[ASYNC], chat("x").to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let reply = proxy.client.with_key("nb-lab-secret").post(CHAT, &[ASYNC], chat("x").to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn web_pages_are_refused_unless_their_origin_is_listed() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, "[cors]\nallow_origins = [\"https://app.example\"]").await;
    let client = &proxy.client;
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "http://app.example",
        "http://127.0.0.1:5050",
    ] {
        for (method, path) in [
            (Method::POST, CHAT),
            (Method::GET, "/v1/models"),
            (Method::GET, "/nightbus/v1/requests"),
            (Method::OPTIONS, CHAT),
        ] {
            let headers = [("origin", origin), DEFER, ASYNC, ("access-control-request-method", "POST")];
            let reply = client.send(method.clone(), path, &headers, chat("probe-evil").to_string()).await.unwrap();
            assert_eq!(
                (reply.status.as_u16(), reply.code().as_str()),
                (403, "forbidden_origin"),
                "{origin} {method} {path}"
            );
            assert!(!reply.headers.contains_key("access-control-allow-origin"));
        }
    }
    // An image or a script of a page: no Origin, but the browser tells that it comes from elsewhere.
    for site in ["cross-site", "same-site"] {
        let reply = client.send(Method::GET, "/v1/models", &[("sec-fetch-site", site)], "").await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (403, "forbidden_origin"), "{site}");
    }
    let listed = ("origin", "https://app.example");
    let preflight = [
        listed,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,x-nightbus-defer"),
    ];
    let reply = client.with_key("").send(Method::OPTIONS, CHAT, &preflight, "").await.unwrap();
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
    assert!(reply.header("access-control-allow-methods").contains("POST"));
    assert!(reply.header("access-control-allow-headers").contains("x-nightbus-defer"));
    let deferred = client.post(CHAT, &[listed, DEFER], chat("probe-page").to_string()).await;
    assert!(deferred.text().contains("probe-page"));
    let live = client.post(CHAT, &[listed], chat("probe-page").to_string()).await;
    for reply in [deferred, live] {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
        let readable = reply.header("access-control-expose-headers");
        for name in ["x-nightbus-request-id", "x-nightbus-cost-usd", "location", "retry-after", "x-request-id"] {
            assert!(readable.split(", ").any(|one| one == name), "{name}: {readable}");
        }
        assert!(reply.headers.get_all("vary").iter().any(|value| value == "origin"));
    }
    assert_eq!(provider.executions_of("probe-evil").await, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_whose_name_was_pointed_here_cannot_read_with_nightbuss_own_key() {
    let provider = Provider::quick().await;
    let own_key = "api_key_env = \"UPSTREAM\"";
    let keys = "\n[[client_keys]]\nname = \"ci\"\nkey = \"sk-caller\"\nproviders = [\"openai\"]";
    let status = |tables: String, method: Method, host: &'static str| {
        let text = toml(&provider.sim.base_url(), "store = \"memory\"", &tables);
        async move {
            let proxy = Proxy::with_environment(&text, &[("UPSTREAM", "sk-upstream")]).await;
            let path = if method == Method::GET { "/v1/models" } else { CHAT };
            let body = if method == Method::GET { String::new() } else { chat("probe-host").to_string() };
            let reply = proxy.client.send(method, path, &[("host", host)], body).await.unwrap();
            if reply.status == 403 {
                assert_eq!(reply.code(), "forbidden_origin");
            }
            proxy.stop().await;
            reply.status.as_u16()
        }
    };
    assert_eq!(status(own_key.to_owned(), Method::GET, "evil.example:5050").await, 403);
    for host in ["nightbus:5050", "127.0.0.1:5050", "nightbus.team.svc.cluster.local"] {
        assert_eq!(status(own_key.to_owned(), Method::GET, host).await, 200, "{host}");
    }
    let listed = format!("{own_key}\n[cors]\nallow_hosts = [\"Evil.example\"]");
    assert_eq!(status(listed, Method::GET, "evil.example:5050").await, 200, "not evil after all");
    // What writes comes with an Origin; who has to authenticate, or brings the provider's key, is no page.
    assert_eq!(status(own_key.to_owned(), Method::POST, "evil.example:5050").await, 200);
    assert_eq!(status(format!("{own_key}{keys}"), Method::GET, "evil.example:5050").await, 200);
    assert_eq!(status(String::new(), Method::GET, "evil.example:5050").await, 200);
}
