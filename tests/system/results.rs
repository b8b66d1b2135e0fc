//! nightbus's own routes: answers that are fetched later, lists, cancel, flush, and who may see what.

use http::Method;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, DEFER, chat, probe};
use super::common::provider::{Provider, quick};
use super::common::proxy::Proxy;
use nightbus::sim::SimOptions;

const NEVER: &str = "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"";

async fn slow_provider() -> Provider {
    Provider::start(SimOptions { batch_seconds: 3_600.0, ..quick() }).await
}

#[tokio::test]
async fn respond_async_says_at_once_where_the_result_will_be() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let headers = [DEFER, ASYNC, ("x-nightbus-tag", "nightly-eval"), ("x-nightbus-deadline", "90m")];
    let reply = proxy.client.post(CHAT, &headers, chat("later probe-1").to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let object = reply.json();
    let id = object["id"].as_str().unwrap();
    assert_eq!(reply.header("location"), format!("/nightbus/v1/requests/{id}/result"));
    assert!((1..=60).contains(&reply.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(reply.header("preference-applied"), "respond-async");
    assert_eq!((reply.header("x-nightbus-request-id"), reply.header("x-nightbus-state")), (id, "queued"));
    let names = [
        "id",
        "object",
        "state",
        "endpoint",
        "model",
        "tag",
        "created_at",
        "submitted_at",
        "finished_at",
        "deadline_at",
        "expires_at",
        "expected_at",
        "expected_by",
        "batch_id",
        "service",
        "attempts",
        "status_code",
        "error",
        "result_url",
        "usage",
        "cost_usd",
        "saved_usd",
    ];
    let found: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found.iter().filter(|name| names.contains(name)).count(), names.len(), "{object}");
    assert_eq!(object["object"], "nightbus.request");
    assert_eq!((&object["state"], &object["tag"]), (&json!("queued"), &json!("nightly-eval")));
    assert_eq!((&object["endpoint"], &object["model"]), (&json!(CHAT), &json!("gpt-6-luna")));
    // The deadline counts from the call's arrival, which may lie in the second before it was accepted; both are whole seconds.
    let time_given = object["deadline_at"].as_i64().unwrap() - object["created_at"].as_i64().unwrap();
    assert!((5_399..=5_400).contains(&time_given), "{object}");
    assert_eq!(object["result_url"], format!("/nightbus/v1/requests/{id}/result"));

    let result = proxy.client.result(id).await;
    assert!(result.text().ends_with("later probe-1"));
    assert_eq!(result.header("x-nightbus-state"), "completed");
    assert_eq!(result.header("x-nightbus-service"), "batch");
    let object = proxy.client.object(id).await;
    assert_eq!(
        (&object["state"], &object["status_code"], &object["attempts"]),
        (&json!("completed"), &json!(200), &json!(1))
    );
    assert_eq!(object["batch_id"], result.header("x-nightbus-batch-id"));
    assert_eq!(object["usage"], result.json()["usage"]);
    assert!(object["cost_usd"].as_f64().unwrap() > 0.0 && object["error"].is_null(), "{object}");
    assert_eq!(object["expires_at"].as_i64().unwrap() - object["finished_at"].as_i64().unwrap(), 72 * 3_600);
    proxy.stop().await;
}

#[tokio::test]
async fn prefer_wait_holds_for_so_long_and_then_answers_202() {
    let provider = slow_provider().await;
    let proxy = Proxy::over(&provider).await;
    let reply = proxy.client.post(CHAT, &[DEFER, ("prefer", "wait=1")], chat("probe-slow").to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    assert_eq!(reply.header("preference-applied"), "wait=1");
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    provider.batch_seconds(0.1).await;
    assert!(proxy.client.result(&id).await.text().contains("probe-slow"));
    let quick = proxy.client.post(CHAT, &[DEFER, ("prefer", "wait=100")], chat("probe-quick").to_string()).await;
    assert!(quick.text().contains("probe-quick"), "answered within the wait");
    proxy.stop().await;
}

#[tokio::test]
async fn pending_results_are_202_and_a_long_poll_gets_the_answer_when_it_is_there() {
    let provider = slow_provider().await;
    let proxy = Proxy::over(&provider).await;
    let id = proxy.client.accepted(CHAT, &chat("probe-poll")).await;
    let path = format!("/nightbus/v1/requests/{id}/result");
    let pending = proxy.client.get(&path).await;
    assert_eq!(pending.status, 202);
    assert_eq!(pending.json()["id"], id.as_str());
    assert!((1..=60).contains(&pending.header("retry-after").parse::<u32>().unwrap()));
    let waited = proxy.client.get(&format!("{path}?wait=1")).await;
    assert_eq!(waited.status, 202, "the wait is over first");
    proxy.client.until_state(&id, &["submitted"]).await;
    let by_query = async { proxy.client.get(&format!("{path}?wait=60")).await };
    let by_header = async { proxy.client.send(Method::GET, &path, &[("prefer", "wait=60")], "").await.unwrap() };
    let release = async { provider.batch_seconds(0.1).await };
    let (by_query, by_header, ()) = tokio::join!(by_query, by_header, release);
    assert!(by_query.text().contains("probe-poll"));
    assert_eq!(by_query.body, by_header.body);
    assert_eq!(proxy.client.get(&path).await.body, by_query.body, "a result can be fetched again");
    let bad = proxy.client.get(&format!("{path}?wait=soon")).await;
    assert_eq!((bad.status.as_u16(), bad.code().as_str()), (400, "invalid_request"));
    proxy.stop().await;
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_filtered() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, NEVER).await;
    let mut ids = Vec::new();
    for at in 0..5 {
        let tag = if at % 2 == 0 { "even" } else { "odd" };
        let headers = [DEFER, ASYNC, ("x-nightbus-tag", tag)];
        let reply = proxy.client.post(CHAT, &headers, chat(&probe(at)).to_string()).await;
        ids.insert(0, reply.json()["id"].as_str().unwrap().to_owned());
    }
    let list = |query: String| {
        let client = proxy.client.clone();
        async move {
            let list = client.get(&format!("/nightbus/v1/requests{query}")).await.json();
            assert_eq!(list["object"], "list", "{list}");
            let found: Vec<String> =
                list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
            (found, list["has_more"].as_bool().unwrap(), list["next"].as_str().map(ToOwned::to_owned))
        }
    };
    assert_eq!(list(String::new()).await, (ids.clone(), false, None));
    let (first, more, next) = list("?limit=2".to_owned()).await;
    assert_eq!((&first[..], more), (&ids[..2], true));
    let (second, more, next) = list(format!("?limit=2&after={}", next.unwrap())).await;
    assert_eq!((&second[..], more), (&ids[2..4], true));
    let (third, more, next) = list(format!("?limit=2&after={}", next.unwrap())).await;
    assert_eq!((&third[..], more, next), (&ids[4..], false, None));
    assert_eq!(list("?tag=odd".to_owned()).await.0, [ids[1].clone(), ids[3].clone()]);
    assert_eq!(list("?state=completed".to_owned()).await.0.len(), 0);
    proxy.client.delete(&format!("/nightbus/v1/requests/{}", ids[0])).await;
    assert_eq!(list("?state=cancelled".to_owned()).await.0, ids[..1]);
    assert_eq!(list("?state=queued&tag=even".to_owned()).await.0, [ids[2].clone(), ids[4].clone()]);
    for query in ["state=odd", "limit=0", "limit=x", "after=req_1"] {
        let refused = proxy.client.get(&format!("/nightbus/v1/requests?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "invalid_request"), "{query}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_queued_request_can_be_cancelled_and_its_holder_hears_of_it() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, NEVER).await;
    let client = &proxy.client;
    let held = async { client.held(CHAT, &chat("probe-cancelled")).await };
    let cancel = async {
        let id = super::common::client::eventually("it is queued", || async {
            let list = client.get("/nightbus/v1/requests").await.json();
            list["data"][0]["id"].as_str().map(ToOwned::to_owned)
        })
        .await;
        let reply = client.delete(&format!("/nightbus/v1/requests/{id}")).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["state"]), (200, &json!("cancelled")));
        id
    };
    let (held, id) = tokio::join!(held, cancel);
    assert_eq!((held.status.as_u16(), held.code().as_str()), (410, "cancelled"));
    let result = client.get(&format!("/nightbus/v1/requests/{id}/result")).await;
    assert_eq!((result.status.as_u16(), result.code().as_str()), (410, "cancelled"));
    assert_eq!(result.header("x-nightbus-state"), "cancelled");
    let body = chat("probe-other");
    let (other, ()) = tokio::join!(client.held(CHAT, &body), async {
        super::common::client::eventually("the other is flushed", || async {
            let flushed = client.post("/nightbus/v1/flush", &[], "").await.json();
            (flushed["requests"].as_u64() > Some(0)).then_some(())
        })
        .await;
    });
    assert_eq!(other.status, 200);
    assert_eq!(provider.executions_of("probe-cancelled").await, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_submitted_request_cannot_be_cancelled_and_is_answered() {
    let provider = slow_provider().await;
    let proxy = Proxy::over(&provider).await;
    let id = proxy.client.accepted(CHAT, &chat("probe-submitted")).await;
    proxy.client.until_state(&id, &["submitted"]).await;
    let refused = proxy.client.delete(&format!("/nightbus/v1/requests/{id}")).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "already_submitted"));
    provider.batch_seconds(0.1).await;
    assert_eq!(proxy.client.result(&id).await.status, 200);
    assert_eq!(provider.count("cancelled"), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_flush_submits_ones_own_requests_now() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, NEVER).await;
    let other = proxy.client.with_key("sk-other");
    let (mine, theirs) =
        (proxy.client.accepted(CHAT, &chat("probe-mine")).await, other.accepted(CHAT, &chat("probe-theirs")).await);
    let flushed = proxy.client.post("/nightbus/v1/flush", &[], "").await;
    assert_eq!(flushed.status, 200);
    assert_eq!(flushed.json()["requests"], 1);
    assert_eq!(proxy.client.result(&mine).await.status, 200);
    assert_eq!(other.object(&theirs).await["state"], "queued");
    proxy.stop().await;
}

#[tokio::test]
async fn deferred_completions_are_fetched_in_the_shape_that_xais_clients_poll() {
    let provider = slow_provider().await;
    let proxy = Proxy::over(&provider).await;
    let id = proxy.client.accepted(CHAT, &chat("probe-xai")).await;
    let path = format!("/v1/chat/deferred-completion/{id}");
    let pending = proxy.client.get(&path).await;
    assert_eq!((pending.status.as_u16(), pending.body.len()), (202, 0));
    provider.batch_seconds(0.1).await;
    let result = proxy.client.result(&id).await;
    let fetched = proxy.client.get(&path).await;
    assert_eq!((fetched.status.as_u16(), &fetched.body), (200, &result.body));
    assert_eq!(proxy.client.with_key("sk-other").get(&path).await.status, 404);
    proxy.stop().await;
}

#[tokio::test]
async fn another_credential_sees_nothing() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, NEVER).await;
    let id = proxy.client.accepted(CHAT, &chat("probe-secret")).await;
    for key in ["sk-other", ""] {
        let other = proxy.client.with_key(key);
        for (method, path) in [
            (Method::GET, format!("/nightbus/v1/requests/{id}")),
            (Method::GET, format!("/nightbus/v1/requests/{id}/result")),
            (Method::GET, format!("/nightbus/v1/requests/{id}/result?wait=5")),
            (Method::DELETE, format!("/nightbus/v1/requests/{id}")),
        ] {
            let reply = other.send(method, &path, &[], "").await.unwrap();
            assert!(matches!(reply.status.as_u16(), 401 | 404), "{key:?} {path}: {reply:?}");
            assert!(!String::from_utf8_lossy(&reply.body).contains("queued"));
        }
        let list = other.get("/nightbus/v1/requests").await;
        assert!(list.status == 401 || list.json()["data"].as_array().unwrap().is_empty(), "{list:?}");
    }
    assert_eq!(proxy.client.object(&id).await["state"], "queued", "nobody cancelled it");
    for unknown in ["req_0197", "garbage", "req_00000000000000000000000000000000"] {
        let reply = proxy.client.get(&format!("/nightbus/v1/requests/{unknown}")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not_found"), "{unknown}");
    }
    let none = proxy.client.send(Method::PUT, "/nightbus/v1/requests", &[], "").await.unwrap();
    assert_eq!(none.status, 404);
    proxy.stop().await;
}

#[tokio::test]
async fn a_deferred_call_without_a_key_is_refused() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let reply = proxy.client.with_key("").held(CHAT, &chat("probe-nobody")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "unauthorized"));
    assert_eq!(reply.header("x-should-retry"), "false");
    proxy.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_queued_submitted_and_finished_requests() {
    let provider = Provider::quick().await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::on_disk(&provider, folder.path(), "").await;
    let finished = proxy.client.accepted(CHAT, &chat("probe-finished")).await;
    let before = proxy.client.result(&finished).await;
    provider.batch_seconds(3_600.0).await;
    let submitted = proxy.client.accepted(CHAT, &chat("probe-submitted")).await;
    proxy.client.until_state(&submitted, &["submitted"]).await;
    proxy.stop().await;

    let proxy = Proxy::on_disk(&provider, folder.path(), NEVER).await;
    let queued = proxy.client.accepted(CHAT, &chat("probe-queued")).await;
    let held = proxy.client.post(CHAT, &[DEFER, ("prefer", "wait=0")], chat("probe-held").to_string()).await;
    let held = held.json()["id"].as_str().unwrap().to_owned();
    proxy.stop().await;

    provider.batch_seconds(0.2).await;
    let proxy = Proxy::on_disk(&provider, folder.path(), "").await;
    let after = proxy.client.get(&format!("/nightbus/v1/requests/{finished}/result")).await;
    assert_eq!((after.status, &after.body), (before.status, &before.body));
    for name in ["service", "batch-id", "wait-ms", "cost-usd", "saved-usd", "state"] {
        let name = format!("x-nightbus-{name}");
        assert_eq!(after.header(&name), before.header(&name));
    }
    for (id, probe) in [(&submitted, "probe-submitted"), (&queued, "probe-queued"), (&held, "probe-held")] {
        assert!(proxy.client.result(id).await.text().contains(probe));
        assert_eq!(provider.executions_of(probe).await, 1, "{probe}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_stop_tells_held_callers_and_refuses_new_deferrals_and_keeps_both() {
    let provider = slow_provider().await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::on_disk(&provider, folder.path(), "[shutdown]\ngrace = \"2s\"").await;
    let client = proxy.client.clone();
    let held = async { client.held(CHAT, &chat("probe-held")).await };
    let stop = async {
        let id = super::common::client::eventually("it is submitted", || async {
            let list = client.get("/nightbus/v1/requests?state=submitted").await.json();
            list["data"][0]["id"].as_str().map(ToOwned::to_owned)
        })
        .await;
        let engine = proxy.app().engine().clone();
        let refuse = async {
            while !engine.is_draining() {
                tokio::task::yield_now().await;
            }
            client.post(CHAT, &[DEFER], chat("probe-late").to_string()).await
        };
        let ((), refused) = tokio::join!(proxy.stop(), refuse);
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "shutting_down"));
        assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
        id
    };
    let (held, id) = tokio::join!(held, stop);
    assert_eq!((held.status.as_u16(), held.code().as_str()), (503, "shutting_down"));
    assert_eq!(held.header("x-nightbus-request-id"), id);
    assert_eq!(provider.count("cancelled"), 0, "nothing submitted is cancelled");
    provider.batch_seconds(0.2).await;
    let proxy = Proxy::on_disk(&provider, folder.path(), "").await;
    assert!(proxy.client.result(&id).await.text().contains("probe-held"));
    let executions: Value = provider.executions().await;
    assert_eq!((&executions["probe-held"], executions.get("probe-late")), (&json!(1), None));
    proxy.stop().await;
}
