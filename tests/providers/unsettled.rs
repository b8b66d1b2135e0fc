//! A kind whose creations cannot be looked up: what was sent and not answered is never sent again, and says so; what certainly was not is.

use super::common::client::{ASYNC, CHAT, Client, DEFER, eventually, probe};
use super::common::process::Home;
use super::common::provider::Provider;
use super::kind;

const CALLS: usize = 4;
const KIND: &kind::Kind = &kind::OPENROUTER;

/// The configuration behind the harness's own tables.
fn tables(provider: &Provider) -> String {
    format!(
        "{}\n[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"\n[flight]\nenabled = false",
        KIND.table(provider)
    )
}

async fn accept(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    for at in 0..CALLS {
        let path = format!("/{}{CHAT}", KIND.name);
        let body = KIND.body(&format!("say {}", probe(at))).to_string();
        let reply = client.post(&path, &[DEFER, ASYNC], body).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    ids
}

/// The process dies there, and is started again. Whether the batch has answers, and how many were created.
async fn death_at(point: &str) -> (bool, usize) {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, &tables(&provider));
    let Some(mut running) = home.start_to_die_at(point).await else { panic!("died at start: {}", home.logged()) };
    let ids = accept(&running.client).await;
    // All in one batch; the process may die before it answers this.
    drop(running.admin.send(http::Method::POST, "/api/flush", &[], "").await);
    assert!(!running.ended().await.success(), "{point}");
    let running = home.start().await;
    let mut answered = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        let reply = running.client.result(id).await;
        answered.push(reply.status == 200);
        if reply.status == 200 {
            assert!(KIND.text(&reply).contains(&probe(at)), "{reply:?}");
        } else {
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (502, "batch_failed"), "{reply:?}");
            assert!(reply.json().to_string().contains("may have been executed and billed"), "{reply:?}");
        }
    }
    let executions = provider.executions().await;
    assert!(executions.as_object().unwrap().values().all(|times| times == 1), "{point}: {executions}");
    let metrics = running.admin.get("/metrics").await;
    let unsettled = String::from_utf8_lossy(&metrics.body).contains("nightbus_batches_unsettled_total 1");
    assert_eq!(unsettled, !answered[0], "{point}");
    assert!(running.terminate().await.success());
    (answered[0], KIND.creations(&provider).await)
}

#[tokio::test]
async fn a_creation_that_was_not_sent_yet_is_sent_after_a_death() {
    assert!(death_at("uploaded").await.0);
}

#[tokio::test]
async fn one_that_was_about_to_be_sent_is_not_sent_again() {
    assert!(!death_at("creation-noted").await.0);
}

#[tokio::test]
async fn one_that_was_sent_is_not_sent_again() {
    let (answered, creations) = death_at("created-before-record").await;
    assert!(!answered && creations == 1);
}

#[tokio::test]
async fn one_that_was_recorded_is_gone_on_with() {
    assert!(death_at("created").await.0);
}

/// A refusal is an answer: nothing was created, and nobody waits for nothing.
#[tokio::test]
async fn one_that_was_refused_is_sent_again() {
    let provider = Provider::with_faults(&["create-429"]).await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("data_dir = {:?}", folder.path().to_str().unwrap());
    let proxy = KIND.proxy(&provider, &store).await;
    let ids = accept(&proxy.client).await;
    proxy.flush().await;
    // It asks for two minutes; a restart need not wait for them.
    eventually("the refusal is written down", || async {
        let batches = proxy.admin().get("/api/batches").await.json();
        (batches["data"][0]["provider_status"] == "not created").then_some(())
    })
    .await;
    proxy.stop().await;
    let proxy = KIND.proxy(&provider, &store).await;
    for (at, id) in ids.iter().enumerate() {
        let reply = proxy.together(0, proxy.client.result(id)).await;
        assert!(KIND.text(&reply).contains(&probe(at)), "{reply:?}");
    }
}
