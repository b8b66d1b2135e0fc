//! A provider that takes less than it is given: files refused without a word about the line, files that are too large, a
//! full queue, and so many batches an hour. Callers see nothing of it, but for the one whose line it is.

use futures_util::future::join_all;
use serde_json::Value;

use nightbus::config::StoreKind;
use nightbus::domain::clock::Micros;
use nightbus::domain::request::RequestState;
use nightbus::sim::SimOptions;
use nightbus::store::{self, Finish, OutcomeSummary, no_observer};

use super::common::client::{CHAT, Reply, chat, eventually, probe};
use super::common::provider::{Provider, quick};
use super::common::proxy::Proxy;

const CALLS: usize = 12;
const TABLES: &str = "[deferral]\nfallback = []\n[batching]\nidle = \"200ms\"\npoll = \"100ms\"\n[upstream]\nfirst_byte_timeout = \"3s\"";

/// What the provider refuses while a fault says so.
fn bad(at: usize) -> Value {
    chat(&format!("BAD-LINE {}", probe(at)))
}

/// Lanes leave when they are let go, as [`held_together`] does.
const PATIENT: &str = "[deferral]\nfallback = []\n[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"\n[upstream]\nfirst_byte_timeout = \"3s\"";

async fn held_together(proxy: &Proxy, bodies: Vec<Value>) -> Vec<Reply> {
    let calls = join_all(bodies.iter().map(|body| proxy.client.held(CHAT, body)));
    proxy.together(bodies.len(), calls).await
}

async fn with_bad_lines(positions: &[usize]) -> u64 {
    let provider = Provider::with_faults(&["validation-unnamed:always"]).await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    let bodies = (0..CALLS).map(|at| if positions.contains(&at) { bad(at) } else { chat(&probe(at)) }).collect();
    for (at, reply) in held_together(&proxy, bodies).await.iter().enumerate() {
        if positions.contains(&at) {
            assert_eq!(reply.status, 400, "{reply:?}");
            assert_ne!(reply.json()["error"]["type"], "nightbus_error", "the provider's own error: {reply:?}");
        } else {
            assert!(reply.text().ends_with(&probe(at)), "{at}: {reply:?}");
            assert_eq!(provider.executions_of(&probe(at)).await, 1);
        }
    }
    assert!(provider.fired("validation-unnamed") > 0);
    proxy.stop().await;
    provider.count("batches")
}

#[tokio::test]
async fn a_bad_line_that_nobody_names_is_found_and_the_others_are_served() {
    for position in [0, 5, 11] {
        let batches = with_bad_lines(&[position]).await;
        // Two for each halving of twelve, and some room for parts that left together with others.
        assert!(batches <= 11, "{batches} batches for one line");
    }
}

#[tokio::test]
async fn several_bad_lines_that_nobody_names_are_found() {
    assert!(with_bad_lines(&[1, 2, 9]).await <= 24);
    assert!(with_bad_lines(&(0..CALLS).collect::<Vec<_>>()).await <= 24, "bounded, whatever is bad");
}

#[tokio::test]
async fn a_file_that_is_too_large_becomes_two_batches() {
    let provider = Provider::with_faults(&["upload-413"]).await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    let replies = held_together(&proxy, (0..CALLS).map(|at| chat(&probe(at))).collect()).await;
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    assert_eq!((provider.fired("upload-413"), provider.count("batches")), (1, 2), "{}", provider.counters());
    proxy.stop().await;
}

#[tokio::test]
async fn a_provider_that_takes_no_file_at_all_is_every_callers_error_after_a_bounded_number_of_uploads() {
    let provider = Provider::with_faults(&["upload-413:always"]).await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    let replies = held_together(&proxy, (0..CALLS).map(|at| chat(&probe(at))).collect()).await;
    assert!(replies.iter().all(|reply| reply.status == 413), "{replies:?}");
    assert!(provider.fired("upload-413") <= 3 * CALLS as u64, "{}", provider.counters());
    provider.set_faults(&[]);
    let later = held_together(&proxy, vec![chat("probe-later")]).await.remove(0);
    assert!(later.text().contains("probe-later"), "the model is not shut out: {later:?}");
    proxy.stop().await;
}

async fn lanes(proxy: &Proxy) -> Value {
    proxy.admin().get("/api/status").await.json()["lanes"].clone()
}

#[tokio::test]
async fn what_a_refusal_taught_is_known_after_a_restart() {
    let provider = Provider::start(SimOptions { enqueued_token_limit: Some(700), ..quick() }).await;
    let folder = tempfile::tempdir().unwrap();
    let padding = "word ".repeat(80);
    for run in 0..3 {
        let proxy = Proxy::on_disk(&provider, folder.path(), PATIENT).await;
        let of = |at| probe(run * 100 + at);
        let bodies = (0..CALLS).map(|at| chat(&format!("{padding}{}", of(at)))).collect();
        for (at, reply) in held_together(&proxy, bodies).await.iter().enumerate() {
            assert!(reply.text().ends_with(&of(at)), "{reply:?}");
        }
        proxy.stop().await;
        let batches = provider.batches().await;
        let refused = batches.iter().filter(|batch| batch["status"] == "failed").count();
        assert_eq!(refused, 1, "one refusal teaches for good, run {run}: {batches:?}");
    }
}

#[tokio::test]
async fn the_limit_that_a_refusal_names_is_kept_from_then_on() {
    let options = SimOptions { enqueued_token_limit: Some(700), ..quick() };
    let provider = Provider::start(options).await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    let padding = "word ".repeat(80);
    let replies = held_together(&proxy, (0..CALLS).map(|at| chat(&format!("{padding}{}", probe(at)))).collect()).await;
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    let batches = provider.batches().await;
    let refused = batches.iter().filter(|batch| batch["status"] == "failed").count();
    assert_eq!(refused, 1, "one refusal teaches: {batches:?}");
    proxy.client.accepted(CHAT, &chat("probe-later")).await;
    eventually("the ceiling is shown", || async {
        (lanes(&proxy).await[0]["token_ceiling"].as_u64()? == 700).then_some(())
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn batches_per_hour_hold_a_lane_back_over_a_restart() {
    let provider = Provider::quick().await;
    let folder = tempfile::tempdir().unwrap();
    let tables = format!("batches_per_hour = 2\n{TABLES}");
    let proxy = Proxy::on_disk(&provider, folder.path(), &tables).await;
    for at in 0..2 {
        assert!(proxy.client.held(CHAT, &chat(&probe(at))).await.text().ends_with(&probe(at)));
    }
    let id = proxy.client.accepted(CHAT, &chat(&probe(2))).await;
    let is_held = async |proxy: &Proxy| {
        eventually("the lane says why it waits", || async {
            lanes(proxy).await.to_string().contains("batches_per_hour").then_some(())
        })
        .await;
        let metrics = String::from_utf8(proxy.admin().get("/metrics").await.body.to_vec()).unwrap();
        assert!(metrics.contains("nightbus_lanes_held_back{reason=\"batches_per_hour\"} 1"), "{metrics}");
        assert_eq!(proxy.client.object(&id).await["state"], "queued");
    };
    is_held(&proxy).await;
    proxy.stop().await;
    let proxy = Proxy::on_disk(&provider, folder.path(), &tables).await;
    is_held(&proxy).await;
    assert_eq!(provider.count("batches"), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_without_room_is_passed_by_and_leaves_when_there_is_room() {
    let provider = Provider::with_faults(&["stuck-in-progress"]).await;
    let proxy = Proxy::with(&provider, &format!("in_flight_tokens = 500\n{TABLES}")).await;
    let client = &proxy.client;
    let first = client.accepted(CHAT, &chat("probe-first")).await;
    eventually("the first one is stuck", || async { (provider.fired("stuck-in-progress") > 0).then_some(()) }).await;
    let large = client.accepted(CHAT, &chat(&format!("{}probe-large", "word ".repeat(400)))).await;
    eventually("the large one is held back", || async {
        lanes(&proxy).await.to_string().contains("in_flight_tokens is used up").then_some(())
    })
    .await;
    assert!(client.held(CHAT, &chat("probe-small")).await.text().contains("probe-small"));
    assert_eq!(client.object(&large).await["state"], "queued");
    let batches = proxy.admin().get("/api/batches").await.json();
    let stuck = batches["data"].as_array().unwrap().iter().find(|batch| batch["state"] == "submitted").unwrap();
    let stuck = stuck["id"].as_str().unwrap().to_owned();
    assert_eq!(proxy.admin().post(&format!("/api/batches/{stuck}/cancel"), &[], "{}").await.status, 200);
    for (id, probe) in [(first, "probe-first"), (large, "probe-large")] {
        assert!(client.result(&id).await.text().contains(probe));
        assert_eq!(provider.executions_of(probe).await, 1);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_that_ends_between_upload_and_creation_keeps_its_place_in_the_numbering() {
    let provider = Provider::with_faults(&["create-500:always"]).await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::on_disk(&provider, folder.path(), TABLES).await;
    let mut ids = Vec::new();
    for body in [chat(&probe(0)), bad(1), chat(&probe(2))] {
        ids.push(proxy.client.accepted(CHAT, &body).await);
    }
    eventually("the file is uploaded", || async { (provider.fired("create-500") > 0).then_some(()) }).await;
    proxy.stop().await;
    // As a deadline ends it.
    let store = store::open(StoreKind::Sqlite, folder.path(), None, no_observer()).unwrap();
    let error = Some(("deadline_exceeded".to_owned(), "too late".to_owned()));
    let summary = OutcomeSummary {
        status_code: 504,
        service: None,
        provider_request_id: None,
        error,
        usage_json: None,
        cost_nanos: None,
        saved_nanos: None,
    };
    let (id, at) = (ids[0].parse().unwrap(), Micros::from_unix_seconds(1_795_420_800));
    let end = Finish { id, state: RequestState::Failed, at, summary, body: None, charge: None };
    assert_eq!(store.finish(vec![end]).await.unwrap(), [true]);
    store.close().await.unwrap();

    provider.set_faults(&["validation-marked:always"]);
    let proxy = Proxy::on_disk(&provider, folder.path(), TABLES).await;
    assert_eq!(proxy.client.result(&ids[1]).await.status, 400, "the second line is the bad one");
    assert!(proxy.client.result(&ids[2]).await.text().ends_with(&probe(2)));
    assert_eq!((provider.executions_of(&probe(1)).await, provider.executions_of(&probe(2)).await), (0, 1));
    proxy.stop().await;
}
