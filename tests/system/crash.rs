//! The real process dies, at every named point and at random moments, and goes on as if nothing had been.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, Client, DEFER, chat, eventually};
use super::common::process::Home;
use super::common::provider::{Provider, quick};
use super::ledger::agrees;
use nightbus::sim::SimOptions;

const TABLES: &str = "[batching]\nidle = \"40ms\"\nmax_age = \"300ms\"\npoll = \"100ms\"\n\
                      [flight]\nenabled = false";

/// What callers were promised: markers of requests whose 202 arrived, by id.
#[derive(Clone, Default)]
struct Promises {
    accepted: Arc<Mutex<BTreeMap<String, String>>>,
    /// Answers that were seen, which must stay as they are.
    answers: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl Promises {
    /// Sends an asynchronous request; whatever becomes of the process, a 202 that arrived is a promise.
    async fn send(&self, client: &Client, probe: &str, model: &str) {
        let mut body = chat(&format!("say {probe}"));
        body["model"] = json!(model);
        let Ok(reply) = client.send(http::Method::POST, CHAT, &[DEFER, ASYNC], body.to_string()).await else { return };
        if reply.status == 202 {
            let id = reply.json()["id"].as_str().unwrap().to_owned();
            self.accepted.lock().insert(id, probe.to_owned());
        } else {
            assert_eq!(reply.status, 503, "{reply:?}");
        }
    }

    /// Looks at everything that was promised, without waiting: what is answered must be right, and stay so.
    async fn look(&self, client: &Client) {
        let promised = self.accepted.lock().clone();
        for (id, probe) in promised {
            let path = format!("/nightbus/v1/requests/{id}/result");
            let Ok(reply) = client.send(http::Method::GET, &path, &[], "").await else { return };
            match reply.status.as_u16() {
                202 => assert!(!self.answers.lock().contains_key(&id), "{id} was answered, and is not any more"),
                _ => self.check(&id, &probe, &reply.text(), &reply.body),
            }
        }
    }

    fn check(&self, id: &str, probe: &str, text: &str, body: &Bytes) {
        assert!(text.ends_with(&format!("say {probe}")), "{id} got another's answer: {text}");
        let mut answers = self.answers.lock();
        let first = answers.entry(id.to_owned()).or_insert_with(|| body.clone());
        assert_eq!(first, body, "{id} was answered twice, differently");
    }

    /// Waits for all, and counts executions.
    async fn are_kept(&self, home: &Home, client: &Client, provider: &Provider) {
        let promised = self.accepted.lock().clone();
        for (id, probe) in &promised {
            let reply = client.result(id).await;
            assert_eq!(reply.status, 200, "{reply:?}\n{}", home.logged());
            self.check(id, probe, &reply.text(), &reply.body);
        }
        // Requests whose 202 got lost on the way are requests as well.
        eventually("nothing is unfinished", || async {
            for state in ["queued", "submitted"] {
                let list = client.get(&format!("/nightbus/v1/requests?limit=1&state={state}")).await.json();
                if !list["data"].as_array()?.is_empty() {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let stored = all_requests(client).await;
        let executions = provider.executions().await;
        let executed = executions.as_object().unwrap();
        assert!(executed.values().all(|count| count == 1), "executed more than once: {executions}\n{}", home.logged());
        for probe in promised.values() {
            assert_eq!(executions[probe], 1, "{probe} was accepted and never executed");
        }
        assert_eq!(executed.len(), stored.len(), "each stored request is executed once, and nothing else is");
        assert!(stored.values().all(|state| state == "completed"), "{stored:?}");
        assert!(promised.keys().all(|id| stored.contains_key(id)));
        assert_eq!(provider.count("max_executions_per_custom_id"), 1);
    }
}

async fn all_requests(client: &Client) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let list = client.get(&format!("/nightbus/v1/requests?limit=100{after}")).await.json();
        for one in list["data"].as_array().unwrap() {
            let text = |name: &str| one[name].as_str().unwrap().to_owned();
            all.insert(text("id"), text("state"));
        }
        match list["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

/// Two lanes of asynchronous and held requests, a death at `point`, a restart.
async fn survives(point: &str, faults: &[&str]) {
    let provider = Provider::with_faults(faults).await;
    let home = Home::new(&provider, TABLES);
    let promises = Promises::default();
    let Some(mut running) = home.start_to_die_at(point).await else { panic!("died at start: {}", home.logged()) };
    let client = running.client.clone();
    let held: Vec<_> = (0..3)
        .map(|at| {
            let client = client.clone();
            tokio::task::spawn_local(async move {
                let body = chat(&format!("say probe-held{at}"));
                client.send(http::Method::POST, CHAT, &[DEFER], body.to_string()).await
            })
        })
        .collect();
    for at in 0..6 {
        let model = if at % 2 == 0 { "gpt-6-luna" } else { "gpt-5.6-luna" };
        promises.send(&client, &format!("probe-async{at}"), model).await;
    }
    let status = running.ended().await;
    assert!(!status.success(), "{point}: {status}");
    for (at, held) in held.into_iter().enumerate() {
        // Who was still on the line has either the true answer or a broken connection.
        if let Ok(reply) = held.await.unwrap() {
            assert!(reply.text().ends_with(&format!("say probe-held{at}")), "{point}");
        }
    }
    let running = home.start().await;
    promises.look(&running.client).await;
    promises.are_kept(&home, &running.client, &provider).await;
    running.kill().await;
    let running = home.start().await;
    promises.look(&running.client).await;
    promises.are_kept(&home, &running.client, &provider).await;
    assert!(running.terminate().await.success());
    agrees(&home.store(), &provider).await;
}

/// The points of `src`, with what it takes to come by.
const POINTS: &[(&str, &[&str])] = &[
    ("accepted", &[]),
    ("intent-before", &[]),
    ("intent-written", &[]),
    ("uploaded-before-record", &[]),
    ("uploaded", &[]),
    ("created-before-record", &[]),
    ("created", &[]),
    ("ended-seen", &[]),
    ("results-recorded", &[]),
    ("requeued", &["line-429:2"]),
    ("harvested", &[]),
    ("batch-ended", &[]),
];

macro_rules! deaths {
    ($($test:ident: $point:literal $times:literal;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                let (_, faults) = POINTS.iter().find(|(name, _)| *name == $point).unwrap();
                tokio::task::LocalSet::new().run_until(survives(concat!($point, ":", $times), faults)).await;
            }
        )+
        const TESTED: &[&str] = &[$($point),+];
    };
}

deaths! {
    death_before_the_first_202: "accepted" 1;
    death_between_two_acceptances: "accepted" 5;
    death_before_the_intent: "intent-before" 1;
    death_before_the_second_intent: "intent-before" 2;
    death_after_the_intent: "intent-written" 1;
    death_after_the_second_intent: "intent-written" 2;
    death_with_an_upload_not_recorded: "uploaded-before-record" 1;
    death_with_the_second_upload_not_recorded: "uploaded-before-record" 2;
    death_after_the_upload: "uploaded" 1;
    death_after_the_second_upload: "uploaded" 2;
    death_with_a_batch_not_recorded: "created-before-record" 1;
    death_with_the_second_batch_not_recorded: "created-before-record" 2;
    death_after_the_creation: "created" 1;
    death_after_the_second_creation: "created" 2;
    death_when_the_end_is_seen: "ended-seen" 1;
    death_when_the_second_end_is_seen: "ended-seen" 2;
    death_after_results_are_recorded: "results-recorded" 1;
    death_after_the_second_results_are_recorded: "results-recorded" 2;
    death_after_lines_are_queued_again: "requeued" 1;
    death_after_the_harvest: "harvested" 1;
    death_after_the_second_harvest: "harvested" 2;
    death_after_a_batchs_end: "batch-ended" 1;
    death_after_the_second_batchs_end: "batch-ended" 2;
}

#[test]
fn every_named_point_has_its_death() {
    // `tests/providers/unsettled.rs` has the death of the only kind that comes by it.
    const OF_A_KIND: &[&str] = &["creation-noted"];
    let mut named = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let points = text.split("crash::point(\"").skip(1);
                named.extend(points.map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }
    let of_services = || {
        let elsewhere = [
            super::services::TESTED,
            super::background::TESTED,
            super::flights::TESTED,
            super::callbacks::TESTED,
            OF_A_KIND,
        ];
        elsewhere.into_iter().flatten().map(|name| (*name).to_owned())
    };
    assert_eq!(named, POINTS.iter().map(|(name, _)| (*name).to_owned()).chain(of_services()).collect());
    assert_eq!(named, TESTED.iter().map(|name| (*name).to_owned()).chain(of_services()).collect());
}

/// Kills in one of the tests below, at least.
const KILLS: u64 = 26;
/// Accepted requests in one of the tests below, at least: fewer are hardly any load.
const ACCEPTED: usize = 30;

/// Callers send without pause; `kill -9` at random moments, again and again.
async fn survives_kills(seed: u64, faults: &[&str]) {
    let options = SimOptions { seed, faults: faults.iter().map(ToString::to_string).collect(), ..quick() };
    let provider = Provider::start(options).await;
    let home = Home::new(&provider, TABLES);
    let promises = Promises::default();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut next = 0;
    for round in 0_u64.. {
        // A slow machine needs more rounds, and longer ones, until enough was accepted.
        let more = round.saturating_sub(KILLS);
        if round >= KILLS && promises.accepted.lock().len() > ACCEPTED {
            break;
        }
        let running = home.start().await;
        let client = running.client.clone();
        let first = next;
        next += 1_000;
        let callers = async {
            let caller = |at: u64| {
                let (promises, client) = (&promises, &client);
                async move {
                    for call in 0..u64::MAX {
                        let probe = format!("probe-{}r{round}", first + at * 300 + call);
                        let model = if call % 3 == 0 { "gpt-5.6-luna" } else { "gpt-6-luna" };
                        promises.send(client, &probe, model).await;
                        // A few dozen in a second are enough to have every step going on somewhere.
                        tokio::time::sleep(Duration::from_millis(15)).await;
                    }
                }
            };
            futures_util::join!(caller(0), caller(1), promises.look(&client));
        };
        let moment = Duration::from_millis(rng.u64(20..600) * (1 + more));
        if tokio::time::timeout(moment, callers).await.is_ok() {
            panic!("callers never end");
        }
        running.kill().await;
    }
    let running = home.start().await;
    promises.are_kept(&home, &running.client, &provider).await;
    assert!(running.terminate().await.success());
    agrees(&home.store(), &provider).await;
}

#[tokio::test]
async fn kills_at_random_moments() {
    survives_kills(1, &[]).await;
}

#[tokio::test]
async fn kills_at_random_moments_again() {
    survives_kills(2, &[]).await;
}

#[tokio::test]
async fn kills_while_creations_get_no_answer() {
    survives_kills(3, &["create-lost:6", "create-500-after:6", "list-500:3"]).await;
}

#[tokio::test]
async fn kills_while_uploads_and_downloads_break_off() {
    survives_kills(4, &["upload-lost:6", "upload-500:4", "content-cut:6", "poll-cut:6", "duplicate-line:4"]).await;
}

#[tokio::test]
async fn an_ordered_stop_under_load_loses_nothing() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, TABLES);
    let promises = Promises::default();
    for round in 0..4 {
        let running = home.start().await;
        let client = running.client.clone();
        let calls = async {
            for call in 0..u64::MAX {
                promises.send(&client, &format!("probe-{call}s{round}"), "gpt-6-luna").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let stop = async {
            eventually("some are accepted", || async {
                (promises.accepted.lock().len() > 10 * (round + 1)).then_some(())
            })
            .await;
            running.terminate().await
        };
        tokio::select! {
            () = calls => panic!("callers never end"),
            status = stop => assert!(status.success(), "{status}\n{}", home.logged()),
        }
    }
    let running = home.start().await;
    promises.are_kept(&home, &running.client, &provider).await;
    running.kill().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, TABLES);
    let running = home.start().await;
    assert!(home.start_to_die_at("never").await.is_none(), "two processes would submit everything twice");
    let reply: Value = running.client.get("/nightbus/v1/requests").await.json();
    assert_eq!(reply["object"], "list");
    running.kill().await;
}
