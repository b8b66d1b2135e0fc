//! The engine under paused time, over a provider that is a script: hours pass in milliseconds.

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::body::{Body, full};
use crate::config::{self, Overrides};
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};
use crate::domain::service::{Fallback, Service};
use crate::engine::deadline::deadline_class;
use crate::engine::tests::{HOUR, MINUTE, Paused};
use crate::engine::waiters::{Answer, Waiter};
use crate::engine::{Engine, EngineParts};
use crate::store::{Account, NewRequest, RequestOptions, SharedStore, in_memory};
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::upstream::capability::Capability;
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderError, ProviderFuture, Sought,
};
use crate::wire::batch::{BatchObject, BatchStatus};

/// What the provider does.
#[derive(Clone, Copy, Debug)]
struct Script {
    upload_takes: Duration,
    batch_takes: Duration,
    /// From the cancellation to its end.
    cancelling_takes: Duration,
    /// Lines of a cancelled batch that were done.
    done: usize,
    live_takes: Duration,
    /// After the batch was created; before, downloads are answered 503.
    downloads_work_after: Duration,
    /// From the batch's end on; before, it names no result file.
    files_named_after: Duration,
    /// From the batch's end on; before, it promises an error file that is not there.
    promises_more_until: Duration,
}

const ORDINARY: Script = Script {
    upload_takes: Duration::from_secs(1),
    batch_takes: HOUR,
    cancelling_takes: MINUTE,
    done: 0,
    live_takes: Duration::from_secs(5),
    downloads_work_after: Duration::ZERO,
    files_named_after: Duration::ZERO,
    promises_more_until: Duration::ZERO,
};

#[derive(Debug)]
struct RunningBatch {
    lines: Vec<String>,
    since: Instant,
    cancelled: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seen {
    files: Vec<Vec<String>>,
    batches: Vec<RunningBatch>,
    live_calls: usize,
    last_live_answer: Option<Instant>,
}

#[derive(Debug)]
struct Scripted {
    capability: Capability,
    script: Script,
    seen: Mutex<Seen>,
}

impl Scripted {
    fn object(&self, batch: &RunningBatch) -> BatchObject {
        let status = match batch.cancelled {
            Some(at) if at.elapsed() >= self.script.cancelling_takes => BatchStatus::Cancelled,
            _ if batch.since.elapsed() >= self.script.batch_takes => BatchStatus::Completed,
            _ => BatchStatus::Running,
        };
        let over = status != BatchStatus::Running;
        let since_end = batch.since.elapsed().saturating_sub(self.script.batch_takes);
        let named = over && since_end >= self.script.files_named_after;
        let output = named && !self.answered(batch).is_empty();
        BatchObject {
            id: "batch".to_owned(),
            status,
            results_pending: over && (!named || since_end < self.script.promises_more_until),
            output_file_id: output.then(|| "output".to_owned()),
            ..BatchObject::default()
        }
    }

    fn answered<'b>(&self, batch: &'b RunningBatch) -> &'b [String] {
        let done = if batch.since.elapsed() >= self.script.batch_takes { usize::MAX } else { self.script.done };
        batch.lines.get(..done.min(batch.lines.len())).unwrap()
    }
}

impl BatchProvider for Scripted {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn upload<'a>(&'a self, _: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(async move {
            let text = file.content.collect().await.unwrap().to_bytes();
            tokio::time::sleep(self.script.upload_takes).await;
            let ids =
                String::from_utf8_lossy(&text).lines().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect();
            self.seen.lock().files.push(ids);
            Ok("file".to_owned())
        })
    }

    fn create<'a>(&'a self, _: &'a Credentials, _: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let mut seen = self.seen.lock();
            let lines = seen.files.last().unwrap().clone();
            seen.batches.push(RunningBatch { lines, since: Instant::now(), cancelled: None });
            Ok(self.object(seen.batches.last().unwrap()))
        })
    }

    fn find<'a>(&'a self, _: &'a Credentials, _: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(async { Ok(None) })
    }

    fn get<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move { Ok(self.object(self.seen.lock().batches.last().unwrap())) })
    }

    fn cancel<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let mut seen = self.seen.lock();
            let batch = seen.batches.last_mut().unwrap();
            batch.cancelled.get_or_insert_with(Instant::now);
            Ok(self.object(batch))
        })
    }

    fn download<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async move {
            let seen = self.seen.lock();
            if seen.batches.last().unwrap().since.elapsed() < self.script.downloads_work_after {
                let (code, message, body) = (String::new(), String::new(), Bytes::new());
                let operation = "download";
                return Err(ProviderError::Refused { operation, status: 503, code, message, body, retry_after: None });
            }
            let lines = self.answered(seen.batches.last().unwrap()).iter().map(|id| {
                format!(
                    "{{\"custom_id\":\"{id}\",\"response\":{{\"status_code\":200,\"body\":{{\"by\":\"batch\"}}}}}}\n"
                )
            });
            Ok(full(lines.collect::<String>()))
        })
    }

    fn call<'a>(&'a self, _: &'a Credentials, _: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(async move {
            self.seen.lock().live_calls += 1;
            tokio::time::sleep(self.script.live_takes).await;
            self.seen.lock().last_live_answer = Some(Instant::now());
            let body =
                Bytes::from_static(b"{\"choices\":[{\"message\":{\"content\":\"live\"},\"finish_reason\":\"stop\"}]}");
            Ok(LiveAnswer { status: 200, request_id: None, body })
        })
    }

    fn delete_file<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(async { Err(ProviderError::Unreadable { operation: "delete file", cause: String::new() }) })
    }
}

struct Bench {
    engine: Engine,
    store: SharedStore,
    provider: Arc<Scripted>,
    tasks: Tasks,
    telemetry: Telemetry,
    began: Instant,
}

impl Bench {
    async fn new(script: Script) -> Self {
        Self::with(script, "").await
    }

    async fn with(script: Script, tables: &str) -> Self {
        let config = config::parse(Some(("proxy.toml", tables)), [], &Overrides::default()).unwrap();
        let capability = Capability::of(&config.providers["openai"], &config.batching);
        let provider = Arc::new(Scripted { capability, script, seen: Mutex::default() });
        let (store, tasks, telemetry) = (in_memory().unwrap(), Tasks::new(), Telemetry::new());
        let began = Instant::now();
        let parts = EngineParts {
            store: Arc::clone(&store),
            clock: Arc::new(Paused(began)),
            tasks: tasks.clone(),
            telemetry: telemetry.clone(),
            providers: HashMap::from([("openai".to_owned(), Arc::clone(&provider) as Arc<dyn BatchProvider>)]),
        };
        let engine = Engine::start(&config, parts).await.unwrap();
        let account = Account { fingerprint: Fingerprint([3; 16]), provider: "openai".to_owned(), headers: Vec::new() };
        engine.keep_account(account).await.unwrap();
        Self { engine, store, provider, tasks, telemetry, began }
    }

    async fn ask(&self, deadline: Duration, fallback: &[Service]) -> Waiter {
        self.ask_of(None, deadline, fallback).await
    }

    async fn ask_of(&self, template: Option<Fingerprint>, deadline: Duration, fallback: &[Service]) -> Waiter {
        let now = self.engine.clock().now();
        let fallback = Fallback::of(fallback);
        let deadline_at = now.plus(deadline);
        let request = NewRequest {
            id: self.engine.new_request_id(),
            caller: Fingerprint([1; 16]),
            lane: Arc::new(LaneKey {
                provider: "openai".into(),
                account: Fingerprint([3; 16]),
                endpoint: Endpoint::ChatCompletions,
                model: "m".into(),
                deadline_class: deadline_class(deadline_at, now, !fallback.is_empty()),
            }),
            tag: None,
            key: None,
            created_at: now,
            deadline_at: Some(deadline_at),
            options: RequestOptions::default().with_fallback(fallback),
            body_hash: Fingerprint([2; 16]),
            idempotency: None,
            body_len: 13,
            template,
            most_output: None,
            trace: None,
        };
        let waiter = self.engine.waiters().register(request.id);
        self.store.accept(request.clone(), Bytes::from_static(b"{\"model\":\"m\"}")).await.unwrap();
        self.engine.enqueue(&request);
        waiter
    }

    /// All answers, as `service`, and when the last one came.
    async fn answers(&self, waiters: Vec<Waiter>) -> (Vec<String>, Duration) {
        let mut services = Vec::new();
        for mut waiter in waiters {
            services.push(told(&waiter.answer().await.unwrap()));
        }
        services.sort();
        (services, self.began.elapsed())
    }

    async fn ask_many(&self, count: usize, deadline: Duration) -> (Vec<String>, Duration) {
        let mut waiters = Vec::new();
        for _ in 0..count {
            waiters.push(self.ask(deadline, &[Service::Sync]).await);
        }
        self.answers(waiters).await
    }

    fn live_calls(&self) -> usize {
        self.provider.seen.lock().live_calls
    }

    fn batches(&self) -> usize {
        self.provider.seen.lock().batches.len()
    }
}

fn told(answer: &Answer) -> String {
    let service = answer.summary.service.clone();
    service.unwrap_or_else(|| format!("{} {:?}", answer.summary.status_code, answer.state))
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_quick_enough_is_left_alone() {
    let bench = Bench::new(ORDINARY).await;
    let (services, after) = bench.ask_many(3, 90 * MINUTE).await;
    assert_eq!(services, ["batch"; 3]);
    assert!(after < HOUR + MINUTE, "{after:?}");
    assert!(bench.live_calls() == 0 && bench.provider.seen.lock().batches[0].cancelled.is_none());
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_batch_has_finished_is_kept_and_the_rest_is_bought_in_time() {
    let bench = Bench::new(Script { batch_takes: 20 * HOUR, done: 2, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(5, 2 * HOUR).await;
    assert_eq!(services, ["batch", "batch", "sync", "sync", "sync"]);
    assert!(after > 90 * MINUTE && after < 2 * HOUR, "it had its time, and not more: {after:?}");
    assert_eq!((bench.live_calls(), bench.batches()), (3, 1));
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_cancellation_is_too_slow_all_is_bought_and_the_late_answers_are_counted() {
    let script = Script { batch_takes: 20 * HOUR, cancelling_takes: 40 * MINUTE, done: 2, ..ORDINARY };
    let bench = Bench::new(script).await;
    let (services, after) = bench.ask_many(5, 2 * HOUR).await;
    assert_eq!(services, ["sync"; 5]);
    assert!(after > 100 * MINUTE && after < 2 * HOUR, "{after:?}");
    tokio::time::sleep(HOUR).await;
    assert_eq!((bench.live_calls(), bench.batches()), (5, 1));
    let page = bench.telemetry.render();
    assert!(page.contains("nightbus_wasted_answers_total{service=\"batch\"} 2"), "{page}");
    let open = bench.store.batches(true, None, 9).await.unwrap();
    assert!(open.is_empty(), "the batch was followed to its end: {open:?}");
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_hangs_does_not_cost_the_deadline() {
    let bench = Bench::new(Script { upload_takes: 50 * HOUR, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(4, HOUR).await;
    assert_eq!((services, bench.batches()), (vec!["sync".to_owned(); 4], 0));
    assert!(after < HOUR, "{after:?}");
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_day_is_enough_for_any_batch_and_an_hour_is_not_for_a_model_known_to_be_slow() {
    let bench = Bench::new(Script { batch_takes: 20 * HOUR, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(1, 25 * HOUR).await;
    assert_eq!(services, ["batch"]);
    assert!(after > 20 * HOUR);
    let (services, now) = bench.ask_many(1, HOUR).await;
    assert_eq!((services, bench.batches()), (vec!["sync".to_owned()], 1));
    assert!(now - after < MINUTE, "at once: {:?}", now - after);
    // What was learned a day ago is not believed any more.
    tokio::time::sleep(25 * HOUR).await;
    let (services, _) = bench.ask_many(1, HOUR).await;
    assert_eq!((services, bench.batches()), (vec!["sync".to_owned()], 2));
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn those_without_a_fallback_keep_their_batch_until_the_deadline() {
    let bench = Bench::new(Script { batch_takes: 2 * HOUR, ..ORDINARY }).await;
    let waiter = bench.ask(HOUR, &[]).await;
    let (answers, after) = bench.answers(vec![waiter]).await;
    assert_eq!(answers, ["504 Failed"]);
    assert!(after >= HOUR && after < HOUR + Duration::from_secs(2), "{after:?}");
    assert!(bench.provider.seen.lock().batches[0].cancelled.is_none() && bench.live_calls() == 0);
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_live_call_that_is_too_slow_ends_with_the_deadline_and_is_counted_when_it_comes() {
    let bench = Bench::new(Script { live_takes: 5 * MINUTE, ..ORDINARY }).await;
    let (answers, after) = bench.ask_many(1, Duration::from_secs(20)).await;
    assert_eq!(answers, ["504 Failed"]);
    assert!(after < Duration::from_secs(22), "{after:?}");
    tokio::time::sleep(10 * MINUTE).await;
    let page = bench.telemetry.render();
    assert!(page.contains("nightbus_wasted_answers_total{service=\"sync\"} 1"), "{page}");
    assert_eq!(bench.live_calls(), 1);
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_downloads_loses_no_answer() {
    let bench = Bench::new(Script { downloads_work_after: 9 * HOUR, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(3, 25 * HOUR).await;
    assert_eq!(services, ["batch"; 3]);
    assert!(after > 9 * HOUR && after < 9 * HOUR + 2 * MINUTE, "{after:?}");
    assert_eq!((bench.live_calls(), bench.batches()), (0, 1));
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_flights_batch_begins_within_two_seconds_of_its_last_pilots_answer() {
    // No lane is due for an hour: only the verdict can submit.
    let script = Script { upload_takes: Duration::ZERO, live_takes: MINUTE, ..ORDINARY };
    let bench = Bench::with(script, "[batching]\nidle = \"1h\"\nmax_age = \"1h\"").await;
    let mut waiters = Vec::new();
    for _ in 0..100 {
        waiters.push(bench.ask_of(Some(Fingerprint([7; 16])), 25 * HOUR, &[Service::Sync]).await);
    }
    let (services, _) = bench.answers(waiters).await;
    assert_eq!(services.iter().filter(|service| *service == "sync").count(), 5);
    assert_eq!((bench.live_calls(), bench.batches()), (5, 1));
    let (created, landed) = {
        let seen = bench.provider.seen.lock();
        (seen.batches[0].since, seen.last_live_answer.unwrap())
    };
    assert!(created >= landed, "nothing is bought before the verdict");
    assert!(created - landed <= Duration::from_secs(2), "{:?}", created - landed);
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn file_ids_that_never_come_are_waited_for_five_minutes_and_nothing_is_bought_again() {
    let bench = Bench::new(Script { files_named_after: 50 * HOUR, ..ORDINARY }).await;
    let waiters = vec![bench.ask(25 * HOUR, &[Service::Sync]).await, bench.ask(25 * HOUR, &[]).await];
    let (answers, after) = bench.answers(waiters).await;
    assert_eq!(answers, ["502 Failed"; 2]);
    assert!(after > HOUR + 5 * MINUTE && after < HOUR + 6 * MINUTE, "{after:?}");
    assert_eq!(bench.live_calls(), 0);
    tokio::time::sleep(HOUR).await;
    assert!(bench.store.batches(true, None, 9).await.unwrap().is_empty());
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn answers_in_a_file_that_is_named_do_not_wait_for_the_other_file() {
    let bench = Bench::new(Script { promises_more_until: 4 * MINUTE, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(3, 25 * HOUR).await;
    assert_eq!(services, ["batch"; 3]);
    assert!(after < HOUR + MINUTE, "{after:?}");
    tokio::time::sleep(10 * MINUTE).await;
    assert!(bench.store.batches(true, None, 9).await.unwrap().is_empty(), "its end is recorded all the same");
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_although_the_file_ids_of_an_ended_batch_do_not_come() {
    let takes = Duration::from_secs(250);
    let bench = Bench::new(Script { batch_takes: takes, files_named_after: 50 * HOUR, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(3, 8 * MINUTE).await;
    assert_eq!(services, ["sync"; 3]);
    assert!(after > 7 * MINUTE && after < 8 * MINUTE, "{after:?}");
    assert!(bench.provider.seen.lock().batches[0].cancelled.is_none(), "it had ended in time");
    bench.tasks.shutdown(MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_although_results_cannot_be_read_and_what_comes_later_is_counted() {
    let bench = Bench::new(Script { downloads_work_after: 9 * HOUR, ..ORDINARY }).await;
    let (services, after) = bench.ask_many(3, 2 * HOUR).await;
    assert_eq!(services, ["sync"; 3]);
    assert!(after > 90 * MINUTE && after < 2 * HOUR, "it had its time: {after:?}");
    tokio::time::sleep(9 * HOUR).await;
    let page = bench.telemetry.render();
    assert!(page.contains("nightbus_wasted_answers_total{service=\"batch\"} 3"), "{page}");
    assert_eq!((bench.live_calls(), bench.batches()), (3, 1));
    bench.tasks.shutdown(MINUTE).await;
}

#[test]
fn a_rescue_says_when_something_is_due_next() {
    let at = |half_seconds: i64| Micros(half_seconds * 500_000);
    let schedule = Schedule { cancel_at: at(200), buy_at: at(400) };
    let mut rescue = Rescue { schedule: Some(schedule), cancelled: false, bought: false };
    let halves = |halves: u64| Some(Duration::from_millis(500 * halves));
    let moments = [80, 199, 200, 201, 399, 400, 500];
    assert_eq!(
        moments.map(|now| rescue.bound(at(now))),
        [120, 2, 200, 199, 2, 2, 2].map(halves),
        "a call needs a second"
    );
    assert_eq!(moments.map(|now| rescue.pause(at(now))), [120, 1, 2, 2, 1, 0, 0].map(halves), "a look each second");
    rescue.bought = true;
    assert_eq!(moments.map(|now| (rescue.bound(at(now)), rescue.pause(at(now)))), [(None, None); 7]);
    let without = Rescue { schedule: None, cancelled: false, bought: false };
    assert_eq!((without.bound(at(1)), without.pause(at(1))), (None, None));
}
