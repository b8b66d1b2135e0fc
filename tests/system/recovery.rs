//! Calls to the provider whose outcome is unknown, and processes that die over them: nothing is bought twice.

use std::collections::BTreeSet;

use serde_json::json;

use super::common::client::{CHAT, chat, eventually, probe};
use super::common::process::Home;
use super::common::provider::Provider;
use super::common::proxy::Proxy;

const TABLES: &str = "[batching]\nidle = \"40ms\"\nmax_age = \"300ms\"\npoll = \"100ms\"";

/// The process is killed as soon as the faults have fired, and started again.
async fn never_doubles(faults: &[&str], fired: &str) {
    let provider = Provider::with_faults(faults).await;
    let home = Home::new(&provider, TABLES);
    let running = home.start().await;
    let mut ids = Vec::new();
    for at in 0..5 {
        ids.push(running.client.accepted(CHAT, &chat(&probe(at))).await);
    }
    eventually(&format!("{fired} happens"), || async { (provider.fired(fired) > 0).then_some(()) }).await;
    running.kill().await;
    let running = home.start().await;
    for (at, id) in ids.iter().enumerate() {
        assert!(running.client.result(id).await.text().contains(&probe(at)), "{}", home.logged());
        assert_eq!(provider.executions_of(&probe(at)).await, 1, "{}", provider.counters());
    }
    // Each of our batches exists once at the provider.
    let batches = provider.batches().await;
    let ours: BTreeSet<&str> = batches.iter().map(|one| one["metadata"]["nightbus_batch"].as_str().unwrap()).collect();
    assert_eq!(ours.len(), batches.len(), "{batches:?}");
    running.kill().await;
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_found_after_a_kill() {
    never_doubles(&["create-lost"], "create-lost").await;
}

#[tokio::test]
async fn a_creation_that_was_answered_500_is_found_after_a_kill() {
    never_doubles(&["create-500-after"], "create-500-after").await;
}

#[tokio::test]
async fn a_creation_that_the_list_does_not_show_yet_is_found_after_a_kill() {
    never_doubles(&["create-lost", "list-stale:2"], "create-lost").await;
}

#[tokio::test]
async fn a_creation_is_not_repeated_while_the_list_cannot_be_read() {
    never_doubles(&["create-lost", "list-500:3"], "create-lost").await;
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_repeated_and_bought_once() {
    never_doubles(&["upload-lost"], "upload-lost").await;
}

#[tokio::test]
async fn a_creation_that_is_refused_for_two_minutes_goes_on_after_a_restart() {
    never_doubles(&["create-429"], "create-429").await;
}

#[tokio::test]
async fn a_wait_for_the_provider_does_not_keep_the_process_from_stopping() {
    let provider = Provider::with_faults(&["create-429"]).await;
    let home = Home::new(&provider, TABLES);
    let running = home.start().await;
    let id = running.client.accepted(CHAT, &chat("probe-wait")).await;
    eventually("the fault fires", || async { (provider.fired("create-429") > 0).then_some(()) }).await;
    assert!(running.terminate().await.success(), "{}", home.logged());
    let running = home.start().await;
    assert!(running.client.result(&id).await.text().contains("probe-wait"));
    running.kill().await;
}

/// A batch whose lines were queued again is harvested a second time after a crash, while they ride in the next one.
#[tokio::test]
async fn a_line_that_rides_again_is_not_ended_by_its_old_batch() {
    let provider = Provider::with_faults(&["line-429"]).await;
    let tables = "[batching]\nidle = \"0ms\"\nmax_age = \"1s\"\npoll = \"300ms\"\nmax_attempts = 2";
    let home = Home::new(&provider, tables);
    let mut running = home.start_to_die_at("requeued").await.unwrap();
    let id = running.client.accepted(CHAT, &chat("probe-again")).await;
    running.ended().await;
    // The old batch is seen only after the new one is on its way.
    provider.set_faults(&["poll-500:2"]);
    provider.batch_seconds(1.5).await;
    let running = home.start().await;
    let reply = running.client.result(&id).await;
    assert_eq!(reply.status, 200, "its second attempt succeeds: {reply:?}\n{}", home.logged());
    assert!(reply.text().contains("probe-again"));
    assert_eq!(provider.executions_of("probe-again").await, 1);
    assert_eq!(running.client.object(&id).await["attempts"], json!(2));
    running.kill().await;
}

#[tokio::test]
async fn batches_of_an_earlier_run_go_on_with_the_callers_own_credential() {
    let provider = Provider::quick().await;
    provider.batch_seconds(3_600.0).await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::on_disk(&provider, folder.path(), "").await;
    let other = proxy.client.with_key("sk-other");
    let (mine, theirs) =
        (proxy.client.accepted(CHAT, &chat("probe-mine")).await, other.accepted(CHAT, &chat("probe-theirs")).await);
    proxy.client.until_state(&mine, &["submitted"]).await;
    other.until_state(&theirs, &["submitted"]).await;
    eventually("both batches exist", || async { (provider.count("batches") == 2).then_some(()) }).await;
    proxy.stop().await;
    provider.batch_seconds(0.1).await;
    let proxy = Proxy::on_disk(&provider, folder.path(), "").await;
    assert!(proxy.client.result(&mine).await.text().contains("probe-mine"));
    assert!(proxy.client.with_key("sk-other").result(&theirs).await.text().contains("probe-theirs"));
    assert_eq!(provider.count("batches"), 2);
    let calls = provider.requests("/v1/batches").await;
    for key in ["Bearer sk-caller", "Bearer sk-other"] {
        assert!(calls.iter().any(|call| call["headers"].to_string().contains(key)));
    }
    proxy.stop().await;
}
