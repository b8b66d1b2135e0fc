//! Everything that a provider can do to a batch: each accepted request gets exactly one answer, its own, and no
//! success is bought twice.

use futures_util::future::join_all;
use serde_json::json;

use super::common::client::{CHAT, Reply, chat, eventually, probe};
use super::common::provider::Provider;
use super::common::proxy::Proxy;

const CALLS: usize = 12;
// What batch alone makes of it: services.rs has the fallback.
const TABLES: &str = "[deferral]\nfallback = []\n[batching]\nidle = \"150ms\"\npoll = \"100ms\"\n[upstream]\nfirst_byte_timeout = \"3s\"";

/// The answers to a dozen calls that share a batch, by caller.
async fn ask(provider: &Provider, tables: &str) -> Vec<Reply> {
    let tables = tables.replace("idle = \"150ms\"", "idle = \"1h\"\nmax_age = \"1h\"");
    let proxy = Proxy::with(provider, &tables).await;
    let client = &proxy.client;
    let calls = join_all((0..CALLS).map(|at| async move { client.held(CHAT, &chat(&probe(at))).await }));
    let replies = proxy.together(CALLS, calls).await;
    // Later calls of the same lane are not affected.
    provider.set_faults(&[]);
    let later = chat("probe-later");
    assert!(proxy.together(1, client.held(CHAT, &later)).await.text().contains("probe-later"));
    let states: Vec<String> = client.get("/nightbus/v1/requests?limit=100").await.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states.len(), CALLS + 1);
    assert!(states.iter().all(|state| state == "completed" || state == "failed"), "{states:?}");
    proxy.stop().await;
    replies
}

/// All get their own answers, each bought once.
async fn all_are_answered(faults: &[&str]) {
    let provider = Provider::with_faults(faults).await;
    let replies = ask(&provider, TABLES).await;
    for fault in faults {
        let name = fault.split(':').next().unwrap();
        assert!(provider.fired(name) > 0, "{name} never fired: {}", provider.counters());
    }
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "caller {at} of {faults:?}: {reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1, "caller {at} of {faults:?}");
    }
    assert_eq!(provider.count("max_executions_per_probe"), 1);
    assert_eq!(provider.count("live_calls"), 0);
}

macro_rules! faults {
    ($($test:ident: $($fault:literal),+;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                all_are_answered(&[$($fault),+]).await;
            }
        )+
    };
}

faults! {
    creation_lost: "create-lost";
    creation_lost_and_list_stale: "create-lost", "list-stale:2";
    creation_lost_and_list_failing: "create-lost", "list-500:2";
    creation_500_although_it_happened: "create-500-after";
    creation_500: "create-500:2";
    upload_500: "upload-500:2";
    upload_lost: "upload-lost";
    upload_never_answered: "upload-timeout";
    polls_500: "poll-500:3";
    polls_404: "poll-404:3";
    polls_cut: "poll-cut:3";
    status_that_nobody_knows: "status-unknown:3";
    status_that_goes_backwards: "status-backwards:3";
    status_in_capitals: "capitals:always";
    times_as_text: "rfc3339-times:always";
    fields_left_out: "missing-fields:always";
    file_ids_that_come_late: "null-file-ids";
    file_not_found_at_validation: "file-not-found";
    validation_error_without_line: "validation-no-line";
    validation_error_past_the_end: "validation-wrong-line";
    full_queue: "queue-full:2";
    expired_with_nothing_done: "expire-none";
    expired_half_done: "expire-half";
    expired_almost_done: "expire-most";
    expired_twice: "expire-half:2";
    line_missing: "missing-line";
    line_twice: "duplicate-line";
    line_twice_with_another_answer: "duplicate-differs";
    line_of_nobody: "unknown-id";
    half_a_last_line_of_nobody: "unknown-id", "half-last-line";
    blank_lines: "blank-lines";
    crlf: "crlf";
    crlf_and_blank_lines: "crlf", "blank-lines";
    not_utf8: "invalid-utf8";
    line_of_20_megabytes: "long-line";
    response_and_error_both_null: "null-response";
    line_timed_out: "request-timeout";
    line_429: "line-429";
    line_500: "line-500";
    many_bad_lines_at_once: "missing-line", "line-429", "line-500", "duplicate-line", "unknown-id", "blank-lines";
    empty_error_file: "empty-error-file";
    download_cut: "content-cut:2";
    download_404: "content-404:2";
    download_500: "content-500:2";
    download_compressed_although_not_asked_for: "content-gzip:2";
}

/// How many got `status`; all others are answered, and bought once.
async fn split(faults: &[&str], tables: &str, status: u16) -> (usize, Vec<Reply>) {
    let provider = Provider::with_faults(faults).await;
    let replies = ask(&provider, tables).await;
    let mut refused = Vec::new();
    for (at, reply) in replies.into_iter().enumerate() {
        let executions = provider.executions_of(&probe(at)).await;
        if reply.status == status {
            assert!(reply.json()["error"]["message"].is_string(), "{reply:?}");
            assert!(executions <= 1);
            refused.push(reply);
        } else {
            assert!(reply.text().ends_with(&probe(at)), "caller {at} of {faults:?}: {reply:?}");
            assert_eq!(executions, 1, "caller {at} of {faults:?}");
        }
    }
    (refused.len(), refused)
}

#[tokio::test]
async fn bad_lines_get_their_error_and_the_rest_is_submitted_again() {
    for (fault, expected) in [("validation-one-bad", 1), ("validation-ten-bad", 10), ("validation-truncated", 1)] {
        let (count, refused) = split(&[fault], TABLES, 400).await;
        assert_eq!(count, expected, "{fault}");
        let message = refused[0].json()["error"]["message"].to_string();
        assert!(message.contains("injected fault"), "{message}");
    }
}

#[tokio::test]
async fn a_batch_of_bad_lines_only_is_refused_line_by_line() {
    assert_eq!(split(&["validation-all-bad"], TABLES, 400).await.0, CALLS);
}

#[tokio::test]
async fn a_model_that_cannot_be_batched_is_every_callers_error() {
    let (count, refused) = split(&["model-not-found"], TABLES, 400).await;
    assert_eq!((count, refused[0].code().as_str()), (CALLS, "model_not_found"));
}

#[tokio::test]
async fn a_used_up_quota_is_every_callers_error() {
    let (count, refused) = split(&["quota"], TABLES, 429).await;
    assert_eq!((count, refused[0].code().as_str()), (CALLS, "insufficient_quota"));
    assert_eq!(refused[0].header("x-should-retry"), "false", "it cannot get better by itself");
    let (count, refused) = split(&["billing"], TABLES, 400).await;
    assert_eq!((count, refused[0].code().as_str()), (CALLS, "billing_hard_limit_reached"));
}

#[tokio::test]
async fn a_line_that_was_cut_off_is_not_bought_again() {
    // It ran and is billed: its answer is lost, and the caller is told so.
    let (count, refused) = split(&["half-last-line"], TABLES, 502).await;
    assert_eq!((count, refused[0].code().as_str()), (1, "batch_failed"));
}

#[tokio::test]
async fn lines_that_fail_again_and_again_get_their_own_error_in_the_end() {
    let tables = format!("{TABLES}\n").replace("poll =", "max_attempts = 2\npoll =");
    for (fault, status) in [("line-429:always", 429), ("line-500:always", 500)] {
        let (count, refused) = split(&[fault], &tables, status).await;
        assert_eq!(count, 1, "{fault}");
        assert_ne!(refused[0].json()["error"]["type"], "nightbus_error", "the provider's own error");
    }
    for fault in ["expire-none:always", "null-response:always", "request-timeout:always"] {
        let (count, refused) = split(&[fault], &tables, 502).await;
        assert!(count >= 1, "{fault}");
        assert!(refused.iter().all(|reply| reply.code() == "batch_failed"), "{fault}");
    }
}

#[tokio::test]
async fn a_truly_bad_line_does_not_harm_its_neighbours_wherever_it_stands() {
    for position in [0, 5, 11] {
        let provider = Provider::quick().await;
        let proxy = Proxy::with(&provider, TABLES).await;
        let client = &proxy.client;
        let ids = {
            let mut ids = Vec::new();
            for at in 0..CALLS {
                // The provider's validation refuses a content that is null; ours does not look that deep.
                let mut body = chat(&probe(at));
                if at == position {
                    body["messages"] = json!([]);
                }
                let reply = client
                    .post(CHAT, &[super::common::client::DEFER, super::common::client::ASYNC], body.to_string())
                    .await;
                ids.push((reply.status == 202).then(|| reply.json()["id"].as_str().unwrap().to_owned()));
            }
            ids
        };
        for (at, id) in ids.iter().enumerate() {
            let Some(id) = id else {
                assert_eq!(at, position, "refused at once");
                continue;
            };
            let reply = client.result(id).await;
            if at == position {
                assert_eq!(reply.status, 400, "{reply:?}");
            } else {
                assert!(reply.text().ends_with(&probe(at)), "{at}: {reply:?}");
            }
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_batch_that_an_operator_cancels_gives_what_it_finished_and_the_rest_rides_again() {
    let provider = Provider::with_faults(&["stuck-in-progress"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let client = &proxy.client;
    let calls = join_all((0..CALLS).map(|at| async move { client.held(CHAT, &chat(&probe(at))).await }));
    let cancel = async {
        let admin = proxy.admin();
        let id = eventually("a batch is submitted", || async {
            let batches = admin.get("/api/batches").await.json();
            let batch = batches["data"].as_array()?.first()?.clone();
            (batch["provider_status"] == "in_progress" || batch["state"] == "submitted")
                .then(|| batch["id"].as_str().unwrap().to_owned())
        })
        .await;
        eventually("it is stuck half way", || async {
            let batches = provider.batches().await;
            (batches[0]["status"] == "in_progress" && batches[0]["request_counts"]["completed"].as_u64() > Some(3))
                .then_some(())
        })
        .await;
        let reply = admin.post(&format!("/api/batches/{id}/cancel"), &[], "{}").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    let (replies, ()) = tokio::join!(calls, cancel);
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    assert_eq!((provider.count("cancelled"), provider.count("batches")), (1, 2));
    proxy.stop().await;
}

#[tokio::test]
async fn a_refused_batch_does_not_end_the_wait_that_its_refusal_began() {
    let provider = Provider::with_faults(&["queue-full:always"]).await;
    provider.batch_seconds(0.0).await;
    let tables = "[batching]\nidle = \"10ms\"\npoll = \"2s\"";
    let proxy = Proxy::with(&provider, tables).await;
    let id = proxy.client.accepted(CHAT, &chat("probe-full")).await;
    eventually("the lane says why it waits", || async {
        let status = proxy.admin().get("/api/status").await.json();
        status["lanes"].to_string().contains("token_limit_exceeded").then_some(())
    })
    .await;
    assert_eq!(provider.count("batches"), 1, "asked again at once, it would be refused again");
    assert_eq!(proxy.client.object(&id).await["state"], "queued");
    provider.set_faults(&[]);
    assert_eq!(proxy.client.result(&id).await.status, 200, "it is tried again in the end");
    proxy.stop().await;
}

#[tokio::test]
async fn one_lanes_trouble_is_not_anothers() {
    let provider = Provider::with_faults(&["stuck-validating"]).await;
    let proxy = Proxy::with(&provider, TABLES).await;
    let stuck = proxy.client.accepted(CHAT, &chat("probe-stuck")).await;
    eventually("it is stuck", || async { (provider.fired("stuck-validating") > 0).then_some(()) }).await;
    let mut other = chat("probe-other");
    other["model"] = json!("gpt-5.6-luna");
    assert!(proxy.client.held(CHAT, &other).await.text().contains("probe-other"));
    assert!(proxy.client.held(CHAT, &chat("probe-same-lane")).await.text().contains("probe-same-lane"));
    assert_eq!(proxy.client.object(&stuck).await["state"], "submitted");
    proxy.stop().await;
}

#[tokio::test]
async fn the_providers_token_limit_is_waited_for_and_callers_never_see_it() {
    let options = nightbus::sim::SimOptions {
        enqueued_token_limit: Some(700),
        max_requests: Some(4),
        ..super::common::provider::quick()
    };
    let provider = Provider::start(options).await;
    let proxy = Proxy::with(&provider, &format!("max_requests = 4\n{TABLES}")).await;
    let client = &proxy.client;
    let padding = "word ".repeat(80);
    let padding = &padding;
    let replies = join_all(
        (0..CALLS).map(|at| async move { client.held(CHAT, &chat(&format!("{padding}{}", probe(at)))).await }),
    )
    .await;
    for (at, reply) in replies.iter().enumerate() {
        assert!(reply.text().ends_with(&probe(at)), "{reply:?}");
        assert_eq!(provider.executions_of(&probe(at)).await, 1);
    }
    proxy.stop().await;
}
