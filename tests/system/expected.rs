//! When answers are expected: from what earlier batches took, over a restart, and silent while nothing is known.

use nightbus::domain::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, DEFER, chat, eventually};
use super::common::provider::Provider;
use super::common::proxy::Proxy;

const HOURS: [u32; 2] = [3_600_000, 7_200_000];

#[tokio::test]
async fn forecasts_come_from_earlier_batches_and_survive_a_restart() {
    let provider = Provider::quick().await;
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::on_disk(&provider, directory.path(), "").await;
    let reply = proxy.client.post(CHAT, &[DEFER, ASYNC], chat("probe-first").to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.headers.get("x-nightbus-expected-at")), (202, None), "nothing is learned");
    assert_eq!((&reply.json()["expected_at"], &reply.json()["expected_by"]), (&Value::Null, &Value::Null));
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    proxy.client.result(&id).await;
    // What was learned, as if those batches had taken hours.
    let store = proxy.app().engine().store();
    let mut learned = eventually("something is learned", || async { store.durations().await.unwrap().pop() }).await;
    learned.recent_ms = HOURS.to_vec();
    store.keep_durations(learned).await.unwrap();
    proxy.stop().await;

    provider.batch_seconds(36_000.0).await;
    let proxy = Proxy::on_disk(&provider, directory.path(), "").await;
    assert_eq!(proxy.client.object(&id).await["expected_at"], Value::Null, "it has ended");
    let reply = proxy.client.post(CHAT, &[DEFER, ASYNC], chat("probe-next").to_string()).await;
    let heard = SystemClock.now().unix_seconds();
    let object = reply.json();
    let after = |object: &Value, name: &str| {
        object[name].as_i64().unwrap_or_else(|| panic!("{object}")) - object["created_at"].as_i64().unwrap()
    };
    assert_eq!(reply.header("x-nightbus-expected-at"), object["expected_at"].to_string());
    let moments = |earliest: i64| object["created_at"].as_i64().unwrap() + earliest..=heard + earliest + 1;
    assert!(moments(3_600).contains(&object["expected_at"].as_i64().unwrap()), "{object}");
    assert!(moments(7_205).contains(&object["expected_by"].as_i64().unwrap()), "max_age, and the slower one: {object}");
    let batch = eventually("a batch is open", || async {
        let batches = proxy.admin().get("/api/batches?state=open").await.json();
        batches["data"].as_array().unwrap().first().filter(|batch| batch["state"] == "submitted").cloned()
    })
    .await;
    assert_eq!([after(&batch, "expected_at"), after(&batch, "expected_by")], [3_600, 7_200]);
    let of_batch = |object: &Value| (object["expected_at"].clone(), object["expected_by"].clone());
    let found = proxy.client.object(object["id"].as_str().unwrap()).await;
    assert_eq!(found["state"], json!("submitted"));
    assert_eq!(of_batch(&found), of_batch(&batch));
    let path = format!("/v1/chat/deferred-completion/{}", object["id"].as_str().unwrap());
    assert_eq!(proxy.client.get(&path).await.header("x-nightbus-expected-at"), batch["expected_at"].to_string());
    proxy.stop().await;
}
