//! The checks. Each one ends in the words of its column.

use std::collections::BTreeSet;

use super::common::client::{ASYNC, eventually, probe};
use super::common::provider::{Provider, quick};
use super::common::proxy::{KEY, Proxy};
use super::kind::Kind;
use nightbus::sim::SimOptions;

/// The columns of the table, in the order of [`run`]'s cells.
pub(crate) const COLUMNS: [&str; 8] = [
    "A deferred call",
    "Faults survived",
    "A bad line",
    "Not done in time",
    "Cancelled there",
    "Creation without answer, restart",
    "First answers",
    "Ledger",
];

const IN_MEMORY: &str = "store = \"memory\"";

/// All checks of one kind; what stands in its row.
pub(crate) async fn run(kind: &Kind) -> Vec<String> {
    vec![
        Box::pin(a_deferred_call(kind)).await,
        Box::pin(faults(kind)).await,
        Box::pin(a_bad_line(kind)).await,
        Box::pin(not_done_in_time(kind)).await,
        Box::pin(cancelled(kind)).await,
        Box::pin(lost_creations(kind)).await,
        Box::pin(first_answers(kind)).await,
        Box::pin(ledger(kind)).await,
    ]
}

/// Sends `count` held calls; each must get its own answer, and none be executed twice.
async fn all_are_answered(kind: &Kind, provider: &Provider, proxy: &Proxy, count: usize, context: &str) {
    let texts: Vec<String> = (0..count).map(|at| format!("say {}", probe(at))).collect();
    let calls = texts.iter().map(|text| kind.post(&proxy.client, text, &[]));
    let replies = proxy.together(count, futures_util::future::join_all(calls)).await;
    for (at, reply) in replies.iter().enumerate() {
        assert!(kind.text(reply).contains(&probe(at)), "{} {context}: {reply:?}", kind.name);
    }
    none_twice(kind, provider, context).await;
}

async fn none_twice(kind: &Kind, provider: &Provider, context: &str) {
    let executions = provider.executions().await;
    let executed = executions.as_object().unwrap();
    assert!(executed.values().all(|times| times == 1), "{} {context}: executed twice: {executions}", kind.name);
}

/// Where no file stays behind, and the batch is created once.
async fn a_deferred_call(kind: &Kind) -> String {
    let provider = Provider::quick().await;
    let proxy = kind.proxy(&provider, IN_MEMORY).await;
    all_are_answered(kind, &provider, &proxy, 3, "without faults").await;
    assert_eq!(kind.creations(&provider).await, 1, "{}: one batch, and at the first try", kind.name);
    let reply = proxy.together(1, kind.post(&proxy.client, "again", &[])).await;
    assert_eq!(reply.header("x-nightbus-service"), "batch", "{}", kind.name);
    let files = provider.count("files");
    eventually("files are deleted", || async { (provider.count("files_stored") == 0).then_some(()) }).await;
    if files == 0 { "lines inline" } else { "file, deleted" }.to_owned()
}

/// How many of the faults befell it.
async fn faults(kind: &Kind) -> String {
    let groups: [&[&str]; 6] = [
        &["upload-500", "upload-lost"],
        &["create-500"],
        &["poll-500", "poll-404", "poll-cut", "status-unknown", "status-backwards", "missing-fields", "null-file-ids"],
        &["missing-line", "duplicate-line", "duplicate-differs", "unknown-id", "blank-lines", "crlf"],
        &["line-429", "line-500", "request-timeout", "null-response", "empty-error-file"],
        &["content-cut:2", "content-404", "content-500"],
    ];
    let mut survived = 0;
    for faults in groups {
        // A 500 does not say that nothing was created: see `unsettled`.
        if !kind.finds && faults.contains(&"create-500") {
            continue;
        }
        let provider = Provider::with_faults(faults).await;
        let proxy = kind.proxy(&provider, IN_MEMORY).await;
        all_are_answered(kind, &provider, &proxy, 6, &format!("{faults:?}")).await;
        survived += faults.iter().filter(|fault| provider.fired(fault.split(':').next().unwrap()) > 0).count();
        proxy.stop().await;
    }
    survived.to_string()
}

/// A line that the provider refuses: its caller gets the error, the others their answers.
async fn a_bad_line(kind: &Kind) -> String {
    let provider = Provider::with_faults(&["validation-marked:always"]).await;
    let proxy = kind.proxy(&provider, IN_MEMORY).await;
    let alone = [("x-nightbus-fallback", "none")];
    let text =
        |at: usize| format!("say {}{}", probe(at), if at == 2 && !kind.is_anthropic() { " BAD-LINE" } else { "" });
    // A line that Anthropic's worker refuses is an error of its own: nobody else is touched.
    let texts: Vec<String> =
        (0..5).map(|at| if at == 2 && kind.is_anthropic() { "fail-400".to_owned() } else { text(at) }).collect();
    let calls = texts.iter().map(|text| kind.post(&proxy.client, text, &alone));
    let replies = proxy.together(5, futures_util::future::join_all(calls)).await;
    for (at, reply) in replies.iter().enumerate().filter(|(at, _)| *at != 2) {
        assert!(kind.text(reply).contains(&probe(at)), "{}: {reply:?}", kind.name);
    }
    assert!(replies[2].status.is_client_error() || replies[2].status == 502, "{}: {:?}", kind.name, replies[2]);
    none_twice(kind, &provider, "a bad line").await;
    match (provider.fired("validation-marked"), kind.creations(&provider).await) {
        (0, 1) => "its own error",
        (1, 2) => "named, the rest again",
        _ => "searched for",
    }
    .to_owned()
}

/// What a batch has not done in its time.
async fn not_done_in_time(kind: &Kind) -> String {
    let provider = Provider::with_faults(&["expire-half"]).await;
    let proxy = kind.proxy(&provider, IN_MEMORY).await;
    all_are_answered(kind, &provider, &proxy, 6, "expiry").await;
    match (provider.fired("expire-half"), kind.creations(&provider).await) {
        (0, 1) => "never expires",
        (1, 2) => "rides again",
        other => panic!("{}: {other:?}", kind.name),
    }
    .to_owned()
}

/// A batch that somebody cancels at the provider.
async fn cancelled(kind: &Kind) -> String {
    let provider = Provider::with_faults(&["stuck-in-progress"]).await;
    let proxy = kind.proxy(&provider, IN_MEMORY).await;
    let calls = all_are_answered(kind, &provider, &proxy, 4, "cancelled");
    let cancelling = async {
        let id = running(&provider).await;
        assert_eq!(kind.cancel(&provider, KEY, &id).await, 200, "{}", kind.name);
    };
    futures_util::join!(calls, cancelling);
    assert_eq!(kind.creations(&provider).await, 2, "{}", kind.name);
    "rides again".to_owned()
}

/// The id of the batch that gets stuck.
async fn running(provider: &Provider) -> String {
    eventually("a batch gets stuck", || async {
        let batches = provider.batches().await;
        let first = batches.first()?;
        let id = first.get("id").or_else(|| first.get("batch_id"))?.as_str()?.to_owned();
        (provider.fired("stuck-in-progress") == 1).then_some(id)
    })
    .await
}

/// The batch exists, but nightbus does not hear of it, and is started anew.
async fn lost_creations(kind: &Kind) -> String {
    for fault in ["create-lost", "create-500-after"] {
        let provider = Provider::with_faults(&[fault, "list-stale"]).await;
        let folder = tempfile::tempdir().unwrap();
        let store = format!("data_dir = {:?}", folder.path().to_str().unwrap());
        let proxy = kind.proxy(&provider, &store).await;
        let mut ids = Vec::new();
        for at in 0..3 {
            let reply = kind.post(&proxy.client, &format!("say {}", probe(at)), &[ASYNC]).await;
            assert_eq!(reply.status, 202, "{}: {reply:?}", kind.name);
            ids.push(reply.json()["id"].as_str().unwrap().to_owned());
        }
        proxy.flush().await;
        eventually(fault, || async { (provider.fired(fault) == 1).then_some(()) }).await;
        proxy.stop().await;
        let proxy = kind.proxy(&provider, &store).await;
        for (at, id) in ids.iter().enumerate() {
            let reply = proxy.together(0, proxy.client.result(id)).await;
            if kind.finds {
                assert!(kind.text(&reply).contains(&probe(at)), "{} {fault}: {reply:?}", kind.name);
            } else {
                assert_eq!((reply.status.as_u16(), reply.code().as_str()), (502, "batch_failed"), "{reply:?}");
            }
        }
        none_twice(kind, &provider, fault).await;
        if !kind.finds {
            assert_eq!(kind.creations(&provider).await, 1, "{}: never sent again", kind.name);
            let batches = proxy.admin().get("/api/batches").await.json();
            let status = batches["data"][0]["provider_status"].as_str().unwrap().to_owned();
            assert!(status.starts_with("unsettled since "), "{batches}");
        }
        proxy.stop().await;
    }
    if kind.finds { "found, not bought twice" } else { "an error, not bought twice" }.to_owned()
}

/// Whether answers come while their batch is running.
async fn first_answers(kind: &Kind) -> String {
    let provider =
        Provider::start(SimOptions { faults: vec!["stuck-in-progress".to_owned()], batch_seconds: 0.4, ..quick() })
            .await;
    let proxy = kind.proxy(&provider, IN_MEMORY).await;
    let mut ids = Vec::new();
    for at in 0..4 {
        let reply = kind.post(&proxy.client, &format!("say {}", probe(at)), &[ASYNC]).await;
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    proxy.flush().await;
    let batch = running(&provider).await;
    if kind.name == "doubleword" {
        eventually("half of the answers", || async {
            let mut ended = BTreeSet::new();
            for id in &ids {
                if proxy.client.object(id).await["state"] == "completed" {
                    ended.insert(id);
                }
            }
            (ended.len() == 2).then_some(())
        })
        .await;
    }
    for id in &ids {
        let state = proxy.client.object(id).await["state"].as_str().unwrap().to_owned();
        assert!(state == "submitted" || kind.name == "doubleword", "{}: {state}", kind.name);
    }
    assert_eq!(kind.cancel(&provider, KEY, &batch).await, 200, "{}", kind.name);
    for (at, id) in ids.iter().enumerate() {
        let reply = proxy.together(0, proxy.client.result(id)).await;
        assert!(kind.text(&reply).contains(&probe(at)), "{}: {reply:?}", kind.name);
    }
    none_twice(kind, &provider, "first answers").await;
    if kind.name == "doubleword" { "while it runs" } else { "at its end" }.to_owned()
}

/// What a batch costs, as a share of the live price.
async fn ledger(kind: &Kind) -> String {
    let provider = Provider::quick().await;
    let proxy = kind.proxy(&provider, IN_MEMORY).await;
    let text = "a long question ".repeat(200);
    let reply = proxy.together(1, kind.post(&proxy.client, &text, &[])).await;
    assert_eq!(reply.status, 200, "{}: {reply:?}", kind.name);
    let dollars = |name| reply.headers.get(name).map(|value| value.to_str().unwrap().parse::<f64>().unwrap());
    let (Some(cost), Some(saved)) = (dollars("x-nightbus-cost-usd"), dollars("x-nightbus-saved-usd")) else {
        return "no price listed".to_owned();
    };
    assert!(cost > 0.0 && saved > 0.0, "{}: {cost} {saved}", kind.name);
    format!("-{:.0} %", 100.0 * saved / (cost + saved))
}
