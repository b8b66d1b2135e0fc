//! How fast the durable store accepts, submits, reads and finishes, and what a row costs in CPU.
//!
//! `cargo bench --bench store_insert [-- SECONDS [CALLERS]]`; with CALLERS only that many are measured. A plain program: each line is one measurement. Bodies are chat
//! requests of about 2 KB made of English-like words; answers are 4 KB. The directory is made in the working
//! directory (set `BENCH_DIR` for another disk), because a temporary directory may be memory.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use nightbus::config::StoreKind;
use nightbus::domain::clock::{Clock as _, SystemClock};
use nightbus::domain::ids::{IdSource, RequestId};
use nightbus::domain::lane::{Endpoint, Fingerprint, LaneKey};
use nightbus::domain::pricing::Price;
use nightbus::domain::request::RequestState;
use nightbus::domain::usage::Usage;
use nightbus::store::ledger::{Charge, Execution};
use nightbus::store::{self, Finish, NewBatch, NewRequest, OutcomeSummary, RequestOptions, SharedStore};
use tokio::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const WORDS: &str = "the of and to in is that for it as was with be by on not he his but at are this have from or had \
    an they which one you were all her she there would their we him been has when who will no more if out so up said \
    what its about than into them can only other time new some could these two may first then do any like my now over \
    such our man me even most made after also did many off before must well back through years much where your way \
    down should because long each just state those people too mister how little good world make very year still see \
    own work men day get here old life both between being under three never know same last another while us might \
    great go come since against right came take used himself few house american use place during high without again \
    home around small however found part school number every system general united left water until always away fact \
    public something less though put think almost hand enough far took head yet government began";

fn main() -> Outcome<()> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u32>().ok());
    let duration = Duration::from_secs(numbers.next().unwrap_or(3).into());
    let only = numbers.next();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(callers) = only {
        return runtime.block_on(accepting(duration, &[callers]));
    }
    compression();
    runtime.block_on(async {
        accepting(duration, &[1, 16, 64, 256, 512, 2_048]).await?;
        harvesting().await
    })
}

/// CPU and ratio of the levels that come into question.
fn compression() {
    let bodies: Vec<Vec<u8>> = (0..2_000).map(|_| chat_body(2_048)).collect();
    let plain: usize = bodies.iter().map(Vec::len).sum();
    println!("zstd, bodies of about 2 KB: level, us each, ratio");
    for level in [3, 1, -1, -3, -5, -7] {
        let Ok(mut compressor) = zstd::bulk::Compressor::new(level) else { continue };
        let mut buffer = vec![0; 8_192];
        let started = cpu();
        let mut written = 0;
        for body in bodies.iter().cycle().take(20_000) {
            written += compressor.compress_to_buffer(body, &mut buffer).unwrap_or(0);
        }
        println!(
            "  {level:>3} {:>6.1} {:>6.2}",
            (cpu() - started) * 1e6 / 20_000.0,
            10.0 * count(plain) / count(written)
        );
    }
}

struct Bench {
    store: SharedStore,
    ids: IdSource,
    lane: Arc<LaneKey>,
    dir: PathBuf,
}

impl Bench {
    fn open(name: &str) -> Outcome<Self> {
        let base = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let dir = base.join(format!("bench-store-{name}-{}", std::process::id()));
        let store = store::open(StoreKind::Sqlite, &dir, None, store::no_observer())?;
        let lane = Arc::new(LaneKey {
            provider: "openai".into(),
            account: Fingerprint([3; 16]),
            endpoint: Endpoint::ChatCompletions,
            model: "gpt-5-mini".into(),
            deadline_class: 0,
        });
        Ok(Self { store, ids: IdSource::default(), lane, dir })
    }

    async fn accept(&self, body: Bytes) -> Outcome<RequestId> {
        let now = SystemClock.now();
        let request = NewRequest {
            id: self.ids.request_id(now, fastrand::u64(..)),
            caller: Fingerprint([1; 16]),
            lane: Arc::clone(&self.lane),
            key: None,
            tag: Some("nightly".to_owned()),
            created_at: now,
            deadline_at: None,
            options: RequestOptions(RequestOptions::HOLD),
            body_hash: Fingerprint(fastrand::u128(..).to_le_bytes()),
            idempotency: None,
            body_len: u32::try_from(body.len())?,
            template: None,
            most_output: None,
            trace: None,
        };
        let id = request.id;
        self.store.accept(request, body).await?;
        Ok(id)
    }

    async fn close(self) -> Outcome<()> {
        self.store.close().await?;
        Ok(std::fs::remove_dir_all(&self.dir)?)
    }
}

/// Closed loops of callers, each waiting for its own commit.
async fn accepting(duration: Duration, loads: &[u32]) -> Outcome<()> {
    println!("accept, bodies of about 2 KB: callers, durable rows/s, CPU us per row");
    let bodies: Arc<Vec<Bytes>> = Arc::new((0..2_000).map(|_| chat_body(2_048).into()).collect());
    for callers in loads {
        let bench = Arc::new(Bench::open("accept")?);
        let tasks = nightbus::tasks::Tasks::new();
        let (started, cpu_before) = (Instant::now(), cpu());
        let loops = (0..*callers).map(|_| {
            let (bench, bodies) = (Arc::clone(&bench), Arc::clone(&bodies));
            tasks.spawn("caller", async move {
                let mut rows = 0_usize;
                while started.elapsed() < duration {
                    let body = fastrand::choice(bodies.iter()).cloned().unwrap_or_default();
                    bench.accept(body).await?;
                    rows += 1;
                }
                Outcome::Ok(rows)
            })
        });
        let mut rows = 0;
        for done in join_all(loops.collect::<Vec<_>>()).await {
            rows += done?.ok_or("a caller panicked")??;
        }
        let (elapsed, used) = (started.elapsed().as_secs_f64(), cpu() - cpu_before);
        println!("  {callers:>5} {:>8.0} {:>6.1}", count(rows) / elapsed, used * 1e6 / count(rows));
        drop(tasks);
        Arc::into_inner(bench).ok_or("a caller holds on")?.close().await?;
    }
    Ok(())
}

/// A batch of 50,000: intent, reading the bodies, and 200 MB of answers.
async fn harvesting() -> Outcome<()> {
    const LINES: usize = 50_000;
    let bench = Bench::open("harvest")?;
    let mut ids = Vec::with_capacity(LINES);
    for _ in 0..LINES / 500 {
        for id in join_all((0..500).map(|_| bench.accept(chat_body(2_048).into()))).await {
            ids.push(id?);
        }
    }
    println!("a batch of {LINES}: step, seconds, CPU seconds");
    let (started, used) = (Instant::now(), cpu());
    let id = bench.ids.batch_id(SystemClock.now(), 1);
    let intent = NewBatch { id, lane: Arc::clone(&bench.lane), created_at: SystemClock.now(), lines: ids.clone() };
    bench.store.create_batch(intent).await?;
    step("intent", started, used);

    let (started, used) = (Instant::now(), cpu());
    for chunk in ids.chunks(500) {
        if bench.store.bodies(chunk.to_vec()).await?.len() != chunk.len() {
            return Err("a body is missing".into());
        }
    }
    step("bodies, 500 at a time", started, used);

    fastrand::shuffle(&mut ids);
    let answers: Vec<Bytes> = (0..500).map(|_| chat_body(4_096).into()).collect();
    let (started, used) = (Instant::now(), cpu());
    for chunks in ids.chunks(500).collect::<Vec<_>>().chunks(4) {
        let finishes =
            chunks.iter().map(|chunk| bench.store.finish(chunk.iter().map(|id| finish(*id, &answers)).collect()));
        for finished in join_all(finishes).await {
            if !finished?.iter().all(|first| *first) {
                return Err("a result was refused".into());
            }
        }
    }
    step("finish, 4 x 500 at a time, shuffled, 4 KB", started, used);
    bench.close().await
}

fn finish(id: RequestId, answers: &[Bytes]) -> Finish {
    let summary = OutcomeSummary {
        status_code: 200,
        service: Some("batch".to_owned()),
        provider_request_id: Some("req_0123456789abcdef".to_owned()),
        error: None,
        usage_json: Some(r#"{"input":512,"output":128}"#.to_owned()),
        cost_nanos: Some(1_000),
        saved_nanos: Some(1_000),
    };
    let body = fastrand::choice(answers).cloned();
    let charge = Some(Charge {
        provider: "openai".into(),
        account: Fingerprint([1; 16]),
        model: "gpt-5-mini".into(),
        service: "batch",
        execution: Execution::Live(1),
        usage: Some(Usage { input: 512, output: 128, ..Usage::default() }),
        price: Some(Price { paid_nanos: 1_000, live_nanos: 2_000 }),
    });
    Finish { id, state: RequestState::Completed, at: SystemClock.now(), summary, body, charge }
}

fn step(name: &str, started: Instant, used: f64) {
    println!("  {name}: {:.2} {:.2}", started.elapsed().as_secs_f64(), cpu() - used);
}

fn chat_body(len: usize) -> Vec<u8> {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut text = String::from(
        r#"{"model":"gpt-5-mini","messages":[{"role":"system","content":"You label texts."},{"role":"user","content":""#,
    );
    while text.len() < len.saturating_sub(60) {
        text.push_str(fastrand::choice(&words).copied().unwrap_or_default());
        text.push(' ');
        if fastrand::u8(..) < 12 {
            text.push_str(&fastrand::u32(..).to_string());
        }
    }
    text.push_str(r#""}],"temperature":0.2,"max_completion_tokens":256}"#);
    text.into_bytes()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

/// CPU seconds of this process so far, to the hundredth (Linux; elsewhere 0).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
