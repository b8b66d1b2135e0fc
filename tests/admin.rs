//! The admin listener over TCP: who gets in, what the API answers, and that it shows no secret.
//!
//! Each test runs the whole proxy in its own process memory: simulator, memory store, free ports.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

#[path = "admin/stage.rs"]
mod stage;

use serde_json::{Value, json};
use stage::Stage;

#[tokio::test]
async fn health_and_the_page_need_no_token_and_everything_else_does() {
    let stage = Stage::with_token("s3cret").await;
    for path in ["/healthz", "/readyz", "/", "/assets/main.js", "/assets/views/overview.js"] {
        assert_eq!(stage.admin("GET", path, &[]).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/api/status", "/api/requests", "/api/events", "/assets/nope.js", "/nope"] {
        let refused = stage.admin("GET", path, &[]).await;
        assert_eq!((refused.status, refused.code()), (401, "unauthorized".into()), "{path}");
        assert!(refused.head.contains("www-authenticate: Bearer"), "{}", refused.head);
        assert!(!refused.head.contains("Basic"), "a browser would ask before the page can: {}", refused.head);
    }
    let token = ("authorization", "Bearer s3cret");
    assert_eq!(stage.admin("GET", "/api/status", &[token]).await.status, 200);
    let wrong = ("authorization", "Bearer s3cret ish");
    assert_eq!(stage.admin("POST", "/api/flush", &[wrong]).await.status, 401);
}

#[tokio::test]
async fn pages_of_other_origins_and_rebound_names_are_refused() {
    let stage = Stage::new().await;
    let envelope = stage.admin("GET", "/api/status", &[("host", "evil.example")]).await;
    assert_eq!((envelope.status, envelope.code()), (403, "forbidden_origin".into()));
    let error = envelope.json()["error"].clone();
    let keys: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "message", "param", "type"]);
    assert_eq!(error["type"], "nightbus_error");
    let own = format!("http://{}", stage.app.admin_addr());
    for (headers, status) in [
        (vec![("origin", "https://evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("origin", own.as_str()), ("sec-fetch-site", "same-origin")], 200),
        (vec![], 200),
    ] {
        assert_eq!(stage.admin("POST", "/api/flush", &headers).await.status, status, "{headers:?}");
    }
    let metrics = stage.admin("GET", "/metrics", &[]).await.body;
    assert!(metrics.contains("nightbus_requests_refused_total{code=\"forbidden_origin\"} 3"), "{metrics}");
}

#[tokio::test]
async fn requests_are_listed_in_pages_and_show_no_key() {
    let stage = Stage::waiting().await;
    for number in 0..3 {
        stage.defer(&format!("number {number}")).await;
    }
    let first = stage.admin("GET", "/api/requests?limit=2&state=queued&tag=admin-test", &[]).await;
    let page = first.json();
    assert_eq!((&page["object"], page["data"].as_array().unwrap().len()), (&json!("list"), 2));
    assert_eq!(page["has_more"], true);
    let newest = &page["data"][0];
    assert_eq!((&newest["object"], &newest["state"]), (&json!("nightbus.request"), &json!("queued")));
    let fingerprint = newest["credential"].as_str().unwrap();
    assert!(fingerprint.len() == 12 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{fingerprint}");
    let next = page["next"].as_str().unwrap();
    assert_eq!(next, page["data"][1]["id"]);
    let rest = stage.admin("GET", &format!("/api/requests?limit=2&after={next}"), &[]).await;
    let last = rest.json();
    assert_eq!(
        (last["data"].as_array().unwrap().len(), &last["has_more"], &last["next"]),
        (1, &json!(false), &json!(null))
    );
    for text in [first.body, rest.body, stage.admin("GET", "/api/status", &[]).await.body] {
        assert!(!text.contains(stage::KEY) && !text.contains("number"), "a key or a body shows: {text}");
    }
}

#[tokio::test]
async fn a_filter_that_is_no_filter_is_refused_by_name() {
    let stage = Stage::new().await;
    for (path, named) in [
        ("/api/requests?state=done", "state"),
        ("/api/requests?limit=0", "limit"),
        ("/api/requests?after=bat_1", "after"),
        ("/api/requests?stat=queued", "stat"),
        ("/api/batches?state=completed", "state"),
        ("/api/batches?tag=x", "tag"),
    ] {
        let refused = stage.admin("GET", path, &[]).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_request".into()), "{path}");
        assert_eq!(refused.json()["error"]["param"], named, "{path}");
    }
}

#[tokio::test]
async fn cancel_flush_and_the_end_of_a_batch() {
    let stage = Stage::waiting().await;
    let withdrawn = stage.defer("never mind").await;
    let kept = stage.defer("go on").await;
    let path = format!("/api/requests/{withdrawn}");
    let cancelled = stage.admin("DELETE", &path, &[]).await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let again = stage.admin("DELETE", &path, &[]).await;
    assert_eq!((again.status, again.code()), (409, "already_ended".into()));
    assert_eq!(stage.admin("GET", "/api/status", &[]).await.json()["queue"]["requests"], 1);
    let flushed = stage.admin("POST", "/api/flush", &[]).await.json();
    assert_eq!((&flushed["object"], &flushed["requests"]), (&json!("nightbus.flush"), &json!(1)));
    let request = stage.until(&format!("/api/requests/{kept}"), |request| request["state"] == "completed").await;
    assert_eq!((&request["service"], &request["status_code"]), (&json!("batch"), &json!(200)));
    let batch_path = format!("/api/batches/{}", request["batch_id"].as_str().unwrap());
    let batch = stage.until(&batch_path, |batch| batch["state"] == "completed").await;
    assert_eq!(batch["counts"], json!({"total": 1, "completed": 1, "failed": 0}));
    assert_eq!((&batch["progress"], &batch["object"]), (&json!(1.0), &json!("nightbus.batch")));
    let late = stage.admin("POST", &format!("{batch_path}/cancel"), &[]).await;
    assert_eq!((late.status, late.code()), (409, "already_ended".into()));
    let open = stage.admin("GET", "/api/batches?state=open", &[]).await.json();
    assert_eq!(open["data"], json!([]));
    let status = stage.admin("GET", "/api/status", &[]).await.json();
    assert_eq!((&status["requests"]["completed"], &status["batches"]["completed"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_batch_that_its_provider_does_not_show_says_so_until_it_does() {
    let stage = Stage::new().await;
    stage.faults(&["poll-500:always", "stuck-in-progress:always"]);
    stage.defer("unseen").await;
    let list = "/api/batches?state=open";
    let troubled = stage.until(list, |list| list["data"][0]["trouble"].is_object()).await;
    let batch = &troubled["data"][0];
    assert_eq!(batch["state"], "submitted");
    let message = batch["trouble"]["message"].as_str().unwrap();
    assert!(message.starts_with("poll: the provider answered 500"), "{message}");
    assert!(batch["trouble"]["since"].as_i64() >= batch["created_at"].as_i64(), "{batch}");
    stage.faults(&["stuck-in-progress:always"]);
    let shown = stage.until(list, |list| list["data"][0]["trouble"].is_null() && list["data"][0].is_object()).await;
    assert_eq!(shown["data"][0]["state"], "submitted");
}

#[tokio::test]
async fn savings_are_the_sums_of_what_the_requests_cost() {
    let stage = Stage::new().await;
    let mut paid = 0.0;
    let mut saved = 0.0;
    for text in ["a", "two words", "three more words"] {
        let id = stage.defer(text).await;
        let request = stage.until(&format!("/api/requests/{id}"), |request| request["state"] == "completed").await;
        paid += request["cost_usd"].as_f64().unwrap();
        saved += request["saved_usd"].as_f64().unwrap();
    }
    let savings = stage.admin("GET", "/api/savings?since=1d&by=tag", &[]).await.json();
    let nanos = |usd: &Value| (usd.as_f64().unwrap() * 1e9).round();
    let totals = &savings["totals"];
    assert_eq!(
        (nanos(&totals["paid_usd"]), nanos(&totals["saved_usd"])),
        ((paid * 1e9).round(), (saved * 1e9).round())
    );
    assert!(paid > 0.0, "{savings}");
    assert_eq!(
        (&totals["requests"], &totals["unpriced_requests"], &totals["wasted_usd"]),
        (&json!(3), &json!(0), &json!(0.0))
    );
    assert_eq!(nanos(&totals["live_usd"]), nanos(&totals["paid_usd"]) + nanos(&totals["saved_usd"]));
    let groups = savings["groups"].as_array().unwrap();
    assert_eq!(
        (groups.len(), &groups[0]["key"], &groups[0]["paid_usd"]),
        (1, &json!("admin-test"), &totals["paid_usd"])
    );
    assert_eq!((&savings["prices_as_of"], &savings["observed"]), (&json!("2026-11-23"), &Value::Null));
    assert_eq!(savings["since"].as_i64().unwrap() % 3_600, 0);
    let status = stage.admin("GET", "/api/status", &[]).await.json();
    assert_eq!((&status["today"]["requests"], &status["today"]["paid_usd"]), (&json!(3), &totals["paid_usd"]));
    let later = stage.admin("GET", "/api/savings?since=2100-01-01", &[]).await.json();
    assert_eq!(later["totals"]["requests"], 0);
}

#[tokio::test]
async fn what_does_not_exist_is_said_in_the_envelope() {
    let stage = Stage::new().await;
    let no_request = format!("/api/requests/req_{}", "0".repeat(32));
    let no_batch = format!("/api/batches/bat_{}/cancel", "0".repeat(32));
    let no_flight = format!("/api/flights/flt_{}/approve", "0".repeat(32));
    for (method, path, status, code) in [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/api/", 404, "not_found"),
        ("GET", no_request.as_str(), 404, "not_found"),
        ("GET", "/api/requests/x", 404, "not_found"),
        ("DELETE", no_request.as_str(), 404, "not_found"),
        ("POST", no_batch.as_str(), 404, "not_found"),
        ("POST", no_flight.as_str(), 404, "not_found"),
        ("POST", "/api/flights/x/reject", 404, "not_found"),
        ("POST", "/api/flights", 405, "method_not_allowed"),
        ("GET", no_flight.as_str(), 405, "method_not_allowed"),
        ("GET", "/api/flights?limit=0", 400, "invalid_request"),
        ("GET", "/api/flush", 405, "method_not_allowed"),
        ("POST", "/api/status", 405, "method_not_allowed"),
        ("PUT", no_request.as_str(), 405, "method_not_allowed"),
        ("POST", "/api/reload", 400, "invalid_request"),
        ("GET", "/api/savings?since=yesterday", 400, "invalid_request"),
        ("GET", "/api/savings?by=colour", 400, "invalid_request"),
    ] {
        let answer = stage.admin(method, path, &[]).await;
        assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{method} {path}");
        assert!(
            answer.json()["error"]["message"].as_str().is_some_and(|message| message.len() > 20),
            "{}",
            answer.body
        );
    }
    assert!(stage.admin("PUT", &no_request, &[]).await.head.contains("allow: GET, DELETE"));
}

#[tokio::test]
async fn a_stopping_process_is_not_ready_but_alive() {
    let stage = Stage::new().await;
    assert_eq!(stage.admin("GET", "/readyz", &[]).await.json()["status"], "ready");
    stage.app.engine().drain();
    let ready = stage.admin("GET", "/readyz", &[]).await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("not_ready")));
    assert_eq!(ready.json()["reasons"].as_array().unwrap().len(), 1, "{}", ready.body);
    assert_eq!(stage.admin("GET", "/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let stage = Stage::waiting().await;
    stage.defer("one").await;
    let page = stage.admin("GET", "/metrics", &[]).await;
    assert!(page.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", page.head);
    assert!(page.body.ends_with("# EOF\n"));
    for line in ["nightbus_queue_requests 1", "nightbus_requests_accepted_total{endpoint=\"/v1/chat/completions\"} 1"] {
        assert!(page.body.lines().any(|found| found == line), "{line} in {}", page.body);
    }
}

#[tokio::test]
async fn the_dashboard_runs_only_its_own_script() {
    let stage = Stage::new().await;
    let page = stage.admin("GET", "/", &[]).await;
    assert!(page.head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{}", page.head);
    assert!(
        !page.body.contains("<script>") && !page.body.contains("style=") && !page.body.contains("://"),
        "{}",
        page.body
    );
    for asset in ["/assets/app.css", "/assets/parts.css", "/assets/theme.js", "/assets/main.js", "/assets/icon.svg"] {
        assert!(page.body.contains(asset), "{asset}");
        assert_eq!(stage.admin("GET", asset, &[]).await.status, 200, "{asset}");
    }
}

#[tokio::test]
async fn events_tell_of_changes_and_end_with_the_process() {
    let stage = Stage::waiting().await;
    let mut events = stage.events().await;
    let id = stage.defer("watched").await;
    let queued = format!("event: request\ndata: {{\"id\":\"{id}\",\"state\":\"queued\"}}\n\n");
    events.until(&queued).await;
    stage.app.shutdown().await;
    events.until_closed().await;
}
