//! Background responses under paused time, over a provider that has no batches and answers as it is told.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::*;
use crate::body::Body;
use crate::config::{self, Overrides};
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};
use crate::domain::service::Fallback;
use crate::engine::deadline::deadline_class;
use crate::engine::tests::{HOUR, MINUTE, Paused};
use crate::engine::waiters::Waiter;
use crate::engine::{Engine, EngineParts};
use crate::store::{Account, NewRequest, RequestOptions, SharedStore, in_memory};
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::upstream::capability::Capability;
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderFuture, Sought,
};
use crate::wire::batch::BatchObject;

const NEVER: Duration = Duration::from_secs(1_000 * 3600);

/// How the provider behaves.
#[derive(Clone, Copy, Debug)]
struct Script {
    takes: Duration,
    cancels: bool,
    knows: bool,
    ends: &'static str,
}

const ORDINARY: Script = Script { takes: HOUR, cancels: true, knows: true, ends: "completed" };

#[derive(Debug, Default)]
struct Seen {
    begun: Vec<(String, Instant)>,
    live: u32,
    looks: u32,
    cancelled: Option<Instant>,
}

#[derive(Debug)]
struct Scripted {
    capability: Capability,
    script: Script,
    seen: Mutex<Seen>,
}

fn refused(status: u16) -> ProviderError {
    let (code, message, body) = (String::new(), "no".to_owned(), Bytes::from_static(b"{}"));
    ProviderError::Refused { operation: "upload", status, code, message, body, retry_after: None }
}

impl Scripted {
    fn response(&self, cancels: bool) -> Result<BackgroundResponse, ProviderError> {
        let mut seen = self.seen.lock();
        seen.looks += 1;
        if !self.script.knows {
            return Err(refused(404));
        }
        let ready = seen.begun.last().unwrap().1.elapsed() >= self.script.takes;
        if cancels && !self.script.cancels {
            return Err(refused(500));
        }
        if cancels && !ready {
            seen.cancelled.get_or_insert_with(Instant::now);
        }
        let status = match seen.cancelled {
            Some(_) => "cancelled",
            None if ready => self.script.ends,
            None => "in_progress",
        };
        let body = format!(
            r#"{{"id":"resp_1","background":true,"status":"{status}","service_tier":"default","usage":{{"input_tokens":9,"output_tokens":2}}}}"#
        );
        Ok(BackgroundResponse::read(Bytes::from(body)).unwrap())
    }
}

impl BatchProvider for Scripted {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn upload<'a>(&'a self, _: &'a Credentials, _: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(async { Err(refused(404)) })
    }

    fn create<'a>(&'a self, _: &'a Credentials, _: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async { Err(refused(404)) })
    }

    fn find<'a>(&'a self, _: &'a Credentials, _: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(async { Ok(None) })
    }

    fn get<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async { Err(refused(404)) })
    }

    fn cancel<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async { Err(refused(404)) })
    }

    fn download<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async { Err(refused(404)) })
    }

    fn call<'a>(&'a self, _: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(async move {
            let mut seen = self.seen.lock();
            let body = String::from_utf8_lossy(&call.body).into_owned();
            let answer = if body.contains("background") {
                seen.begun.push((body, Instant::now()));
                r#"{"id":"resp_1","background":true,"status":"queued"}"#
            } else {
                seen.live += 1;
                r#"{"id":"resp_2","background":false,"status":"completed","usage":{"input_tokens":9,"output_tokens":2}}"#
            };
            Ok(LiveAnswer { status: 200, request_id: None, body: Bytes::from_static(answer.as_bytes()) })
        })
    }

    fn response<'a>(&'a self, _: &'a Credentials, id: &'a str) -> ProviderFuture<'a, BackgroundResponse> {
        assert_eq!(id, "resp_1");
        Box::pin(async { self.response(false) })
    }

    fn cancel_response<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, BackgroundResponse> {
        Box::pin(async { self.response(true) })
    }
}

struct Bench {
    engine: Engine,
    store: SharedStore,
    provider: Arc<Scripted>,
    began: Instant,
}

/// How a request ended: by which service, its status, and after how long.
type End = (Option<String>, u16, Duration);

impl Bench {
    async fn new(script: Script) -> Self {
        let config = config::parse(None, [], &Overrides::default()).unwrap();
        let capability = Capability::of(&config.providers["openai"], &config.batching);
        let provider = Arc::new(Scripted { capability, script, seen: Mutex::default() });
        let store = in_memory().unwrap();
        let began = Instant::now();
        let parts = EngineParts {
            store: Arc::clone(&store),
            clock: Arc::new(Paused(began)),
            tasks: Tasks::new(),
            telemetry: Telemetry::new(),
            providers: HashMap::from([("openai".to_owned(), Arc::clone(&provider) as Arc<dyn BatchProvider>)]),
        };
        let engine = Engine::start(&config, parts).await.unwrap();
        let account = Account { fingerprint: Fingerprint([3; 16]), provider: "openai".to_owned(), headers: Vec::new() };
        engine.keep_account(account).await.unwrap();
        Self { engine, store, provider, began }
    }

    async fn ask(&self, deadline: Option<Duration>, fallback: &[Service]) -> (RequestId, Waiter) {
        let now = self.engine.clock().now();
        let fallback = Fallback::of(fallback);
        let deadline_at = deadline.map(|deadline| now.plus(deadline));
        let request = NewRequest {
            id: self.engine.new_request_id(),
            caller: Fingerprint([1; 16]),
            lane: Arc::new(LaneKey {
                provider: "openai".into(),
                account: Fingerprint([3; 16]),
                endpoint: Endpoint::Responses,
                model: "gpt-6-luna".into(),
                deadline_class: deadline_at.map_or(0, |at| deadline_class(at, now, fallback.may_rescue())),
            }),
            tag: None,
            key: None,
            created_at: now,
            deadline_at,
            options: RequestOptions::default().with_fallback(fallback),
            body_hash: Fingerprint([2; 16]),
            idempotency: None,
            body_len: 22,
            template: None,
            most_output: None,
            trace: None,
        };
        let waiter = self.engine.waiters().register(request.id);
        self.store.accept(request.clone(), Bytes::from_static(b"{\"model\":\"gpt-6-luna\"}")).await.unwrap();
        self.engine.enqueue(&request);
        (request.id, waiter)
    }

    async fn end(&self, (_, mut waiter): (RequestId, Waiter)) -> End {
        let answer = waiter.answer().await.unwrap();
        (answer.summary.service.clone(), answer.summary.status_code, self.began.elapsed())
    }

    /// What the ledger has of a request, wasted or not.
    async fn charged(&self, id: RequestId) -> Vec<(String, bool)> {
        let rows = self.store.charges(vec![id]).await.unwrap();
        let mut rows: Vec<_> = rows.into_iter().map(|row| (row.group.service, row.wasted)).collect();
        rows.sort();
        rows
    }
}

#[test]
fn a_window_is_shut_by_its_own_refusal_and_not_by_a_bad_call() {
    let refused = |status, code, param: &str| {
        is_no_window(status, code, format!(r#"{{"error":{{"param":{param}}}}}"#).as_bytes())
    };
    assert!(refused(400, "unsupported_parameter", "\"background_options.completion_window\""));
    assert!(refused(400, "", "\"background\"") && refused(400, "", "\"model\""));
    assert!(refused(404, "model_not_found", "null") && refused(403, "", "null"));
    assert!(!refused(400, "invalid_value", "\"temperature\"") && !refused(400, "", "null"));
    assert!(!refused(500, "", "\"model\"") && !is_no_window(400, "", b"<html>"));
}

#[tokio::test(start_paused = true)]
async fn the_cheapest_window_that_is_in_time_answers_and_is_looked_at_ever_more_seldom() {
    let all = [Service::Background8h, Service::Background2h, Service::Sync];
    for (deadline, window) in [(None, "8h"), (Some(9 * HOUR), "8h"), (Some(3 * HOUR), "2h")] {
        let bench = Bench::new(ORDINARY).await;
        let asked = bench.ask(deadline, &all).await;
        let id = asked.0;
        let (service, status, after) = bench.end(asked).await;
        assert_eq!((service.as_deref(), status), (Some(&*format!("background_{window}")), 200), "{deadline:?}");
        assert!((HOUR..HOUR + 3 * MINUTE).contains(&after), "{after:?}");
        assert_eq!(bench.charged(id).await, [(format!("background_{window}"), false)]);
        let seen = bench.provider.seen.lock();
        assert!(seen.begun.len() == 1 && seen.begun[0].0.contains(window) && seen.live == 0, "{seen:?}");
        assert!((20..100).contains(&seen.looks), "{seen:?}");
    }
    let bench = Bench::new(ORDINARY).await;
    let asked = bench.ask(Some(HOUR), &all).await;
    assert_eq!(bench.end(asked).await.0.as_deref(), Some("sync"), "no window is in time");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_not_kept_is_cancelled_and_bought_before_the_deadline() {
    let bench = Bench::new(Script { takes: NEVER, ..ORDINARY }).await;
    let asked = bench.ask(Some(3 * HOUR), &[Service::Background2h, Service::Sync]).await;
    let id = asked.0;
    let (service, status, after) = bench.end(asked).await;
    assert_eq!((service.as_deref(), status), (Some("sync"), 200));
    assert!((2 * HOUR..3 * HOUR).contains(&after), "{after:?}");
    assert!(bench.provider.seen.lock().cancelled.is_some());
    assert_eq!(bench.charged(id).await, [("sync".to_owned(), false)]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_cancelled_is_bought_all_the_same_and_both_charges_show() {
    let takes = 3 * HOUR + MINUTE;
    let bench = Bench::new(Script { takes, cancels: false, ..ORDINARY }).await;
    let asked = bench.ask(Some(3 * HOUR), &[Service::Background2h, Service::Sync]).await;
    let id = asked.0;
    let (service, _, after) = bench.end(asked).await;
    assert_eq!(service.as_deref(), Some("sync"));
    assert!(after < 3 * HOUR, "{after:?}");
    assert_eq!(bench.charged(id).await, [("sync".to_owned(), false)]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(bench.charged(id).await, [("background_2h".to_owned(), true), ("sync".to_owned(), false)]);
    assert_eq!(bench.provider.seen.lock().live, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_without_a_rescue_is_told_and_its_response_cancelled() {
    let bench = Bench::new(Script { takes: NEVER, ..ORDINARY }).await;
    let asked = bench.ask(Some(3 * HOUR), &[Service::Background2h]).await;
    let (service, status, after) = bench.end(asked).await;
    assert_eq!((service, status), (None, 504));
    assert!((3 * HOUR..3 * HOUR + MINUTE).contains(&after), "{after:?}");
    tokio::time::sleep(5 * MINUTE).await;
    let seen = bench.provider.seen.lock();
    assert!(seen.cancelled.is_some() && seen.begun.len() == 1 && seen.live == 0, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_over_by_half_is_given_up_without_a_deadline_too() {
    let bench = Bench::new(Script { takes: NEVER, ..ORDINARY }).await;
    let asked = bench.ask(None, &[Service::Background2h, Service::Sync]).await;
    let (service, _, after) = bench.end(asked).await;
    assert_eq!(service.as_deref(), Some("sync"));
    assert!((3 * HOUR..3 * HOUR + MINUTE).contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_gone_is_not_bought_again() {
    let bench = Bench::new(Script { knows: false, ..ORDINARY }).await;
    let asked = bench.ask(None, &[Service::Background2h, Service::Sync]).await;
    let id = asked.0;
    let (service, status, after) = bench.end(asked).await;
    assert_eq!((service, status), (None, 502));
    assert!((10 * MINUTE..30 * MINUTE).contains(&after), "{after:?}");
    assert_eq!(bench.charged(id).await, [("background_2h".to_owned(), true)], "it may have been billed");
    let seen = bench.provider.seen.lock();
    assert!(seen.begun.len() == 1 && seen.live == 0, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_goes_to_the_next_service_and_without_one_is_an_error() {
    let fails = Script { ends: "failed", ..ORDINARY };
    let bench = Bench::new(fails).await;
    let asked = bench.ask(None, &[Service::Background8h, Service::Sync]).await;
    assert_eq!(bench.end(asked).await.0.as_deref(), Some("sync"));
    let bench = Bench::new(fails).await;
    let asked = bench.ask(None, &[Service::Background8h]).await;
    let id = asked.0;
    let (service, status, _) = bench.end(asked).await;
    assert_eq!((service.as_deref(), status), (Some("background_8h"), 500));
    assert!(bench.charged(id).await.is_empty(), "an error is not billed");
    let bench = Bench::new(Script { ends: "incomplete", ..ORDINARY }).await;
    let asked = bench.ask(None, &[Service::Background8h, Service::Sync]).await;
    assert_eq!(bench.end(asked).await.1, 200, "as the live answer");
}
