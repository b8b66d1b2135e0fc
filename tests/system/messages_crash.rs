//! The real process dies while Messages ride in batches whose creation cannot be repeated, and goes on as if nothing had
//! been.

use std::time::Duration;

use super::common::client::{ASYNC, Client, DEFER};
use super::common::process::Home;
use super::common::provider::{Provider, quick};
use super::messages::{MESSAGES, VERSION, message};
use nightbus::sim::SimOptions;

const TABLES: &str = "[batching]\nidle = \"40ms\"\nmax_age = \"300ms\"\npoll = \"100ms\"\n\
                      [flight]\nenabled = false";

/// Sends an asynchronous call; its id if the 202 arrived.
async fn send(client: &Client, probe: &str) -> Option<String> {
    let body = message(&format!("say {probe}")).to_string();
    let reply = client.send(http::Method::POST, MESSAGES, &[DEFER, ASYNC, VERSION], body).await.ok()?;
    (reply.status == 202).then(|| reply.json()["id"].as_str().unwrap().to_owned())
}

/// All that was accepted is answered with its own answer, and was executed once.
async fn are_kept(accepted: &[(String, String)], home: &Home, client: &Client, provider: &Provider) {
    for (id, probe) in accepted {
        let reply = client.result(id).await;
        assert_eq!(reply.status, 200, "{reply:?}\n{}", home.logged());
        let text = reply.json()["content"][0]["text"].as_str().unwrap().to_owned();
        assert!(text.ends_with(&format!("say {probe}")), "{id} got another's answer: {text}");
    }
    let executions = provider.executions().await;
    let executed = executions.as_object().unwrap();
    assert!(executed.values().all(|count| count == 1), "executed more than once: {executions}\n{}", home.logged());
    assert!(accepted.iter().all(|(_, probe)| executed.contains_key(probe)));
}

async fn survives(point: &str, faults: &[&str]) {
    let provider = Provider::with_faults(faults).await;
    let home = Home::new(&provider, TABLES);
    let Some(mut running) = home.start_to_die_at(point).await else { panic!("died at start: {}", home.logged()) };
    let mut accepted = Vec::new();
    for at in 0..5 {
        let probe = format!("probe-{at}m");
        if let Some(id) = send(&running.client, &probe).await {
            accepted.push((id, probe));
        }
    }
    assert!(!running.ended().await.success(), "{point}");
    let running = home.start().await;
    are_kept(&accepted, &home, &running.client, &provider).await;
    running.kill().await;
    let running = home.start().await;
    are_kept(&accepted, &home, &running.client, &provider).await;
    assert!(running.terminate().await.success());
}

macro_rules! deaths {
    ($($test:ident: $point:literal $faults:expr;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                survives($point, $faults).await;
            }
        )+
    };
}

deaths! {
    death_after_the_intent: "intent-written" &[];
    death_before_the_creation: "uploaded" &[];
    death_with_a_batch_not_recorded: "created-before-record" &[];
    death_with_a_batch_not_recorded_nor_listed: "created-before-record" &["list-stale:3"];
    death_after_the_creation: "created" &[];
    death_when_the_end_is_seen: "ended-seen" &[];
    death_after_results_are_recorded: "results-recorded" &[];
    death_after_lines_are_queued_again: "requeued" &["expire-half"];
    death_after_the_harvest: "harvested" &[];
}

/// Kills in the test below, at least.
const KILLS: u64 = 10;
/// Accepted requests in the test below, at least: fewer are hardly any load.
const ACCEPTED: usize = 10;

#[tokio::test]
async fn kills_at_random_moments_while_creations_get_no_answer() {
    let faults = ["create-lost:3", "create-500-after:3", "list-500:2"].map(ToOwned::to_owned).to_vec();
    let provider = Provider::start(SimOptions { seed: 5, faults, ..quick() }).await;
    let home = Home::new(&provider, TABLES);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut accepted = Vec::new();
    for round in 0_u64.. {
        // A slow machine needs more rounds, and longer ones, until enough was accepted.
        let more = round.saturating_sub(KILLS);
        if round >= KILLS && accepted.len() > ACCEPTED {
            break;
        }
        let running = home.start().await;
        let callers = async {
            for call in 0..u64::MAX {
                let probe = format!("probe-{call}r{round}");
                if let Some(id) = send(&running.client, &probe).await {
                    accepted.push((id, probe));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let moment = Duration::from_millis(rng.u64(100..700) * (1 + more));
        assert!(tokio::time::timeout(moment, callers).await.is_err(), "callers never end");
        running.kill().await;
    }
    let running = home.start().await;
    are_kept(&accepted, &home, &running.client, &provider).await;
    assert!(running.terminate().await.success());
}
