//! What the whole simulator shares: settings, clock, ids, faults, files, batches, counters.
//!
//! Every part has its own lock, held for moments and never over an await.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::clock::{Clock as _, SystemClock};
use crate::sim::SimOptions;
use crate::sim::anthropic::{MAX_BATCH_BYTES, MAX_BATCH_REQUESTS, MessageBatches};
use crate::sim::background::Background;
use crate::sim::batches::Batches;
use crate::sim::counters::{Counters, RequestLog};
use crate::sim::dialect::Dialect;
use crate::sim::faults::Faults;
use crate::sim::files::Files;
use crate::sim::limits::{HourlyCreates, Limits, TokenPool};

use crate::tasks::Tasks;

/// What can be changed while the simulator runs; running batches follow at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) batch_seconds: f64,
    pub(super) live_latency: Duration,
    pub(super) fail_rate: f64,
    pub(super) enqueued_token_limit: Option<u64>,
}

/// Whose files and batches these are: dialect, key, organisation and project together (providers.md, section 1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Account {
    pub(super) dialect: Dialect,
    pub(super) key: String,
    pub(super) organization: String,
    pub(super) project: String,
}

/// The simulator.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: watch::Sender<Settings>,
    max_requests: Option<usize>,
    max_bytes: Option<u64>,
    pub(super) message_limits: Limits,
    pub(super) api_keys: Option<Vec<String>>,
    pub(super) require_key: bool,
    pub(super) seed: u64,
    pub(super) clock: SimClock,
    pub(super) ids: Ids,
    pub(super) tasks: Tasks,
    pub(super) faults: Faults,
    pub(super) files: Files,
    pub(super) batches: Batches,
    pub(super) messages: MessageBatches,
    pub(super) pool: TokenPool,
    pub(super) creates: HourlyCreates,
    pub(super) counters: Counters,
    pub(super) requests: RequestLog,
    pub(super) background: Background,
    luck: Mutex<fastrand::Rng>,
}

impl State {
    /// A simulator without files and batches. Fails with a text for people when an option is not valid.
    pub(super) fn new(options: SimOptions, tasks: Tasks) -> Result<Self, String> {
        let settings = Settings {
            batch_seconds: checked_seconds(options.batch_seconds)?,
            live_latency: options.live_latency,
            fail_rate: checked_share(options.fail_rate)?,
            enqueued_token_limit: options.enqueued_token_limit,
        };
        let clock = SimClock::start();
        Ok(Self {
            settings: watch::Sender::new(settings),
            max_requests: options.max_requests,
            max_bytes: options.max_bytes,
            message_limits: Limits {
                max_requests: options.max_requests.unwrap_or(MAX_BATCH_REQUESTS),
                max_bytes: options.max_bytes.unwrap_or(MAX_BATCH_BYTES as u64),
            },
            api_keys: options.api_keys,
            require_key: options.require_key,
            seed: options.seed,
            ids: Ids::new(),
            clock,
            tasks,
            faults: Faults::new(&options.faults)?,
            files: Files::default(),
            batches: Batches::default(),
            messages: MessageBatches::default(),
            pool: TokenPool::default(),
            creates: HourlyCreates::default(),
            counters: Counters::default(),
            requests: RequestLog::default(),
            background: Background::default(),
            luck: Mutex::new(fastrand::Rng::with_seed(options.seed)),
        })
    }

    /// The limits of one batch file: the dialect's own, or those that the options gave.
    pub(super) fn limits(&self, dialect: Dialect) -> Limits {
        let own = dialect.rules().limits;
        Limits {
            max_requests: self.max_requests.unwrap_or(own.max_requests),
            max_bytes: self.max_bytes.unwrap_or(own.max_bytes),
        }
    }

    /// The settings of this moment.
    pub(super) fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    /// Whether something that happens with probability `share` happens now.
    pub(super) fn is_unlucky(&self, share: f64) -> bool {
        share > 0.0 && self.luck.lock().f64() < share
    }

    /// A generator of its own for one batch or call; the same for the same seed and `number`.
    pub(super) fn rng(&self, number: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(mix(self.seed ^ mix(number)))
    }

    /// Forgets files, batches, faults and counters. Running batches stop where they are.
    pub(super) fn reset(&self) {
        self.batches.clear();
        self.messages.clear();
        self.files.clear();
        self.faults.reset();
        self.pool.clear();
        self.creates.clear();
        self.counters.clear();
        self.requests.clear();
        self.background.clear();
    }
}

/// `seconds` if it is a length of time.
pub(super) fn checked_seconds(seconds: f64) -> Result<f64, String> {
    let fits = seconds.is_finite() && (0.0..=1e9).contains(&seconds);
    if fits { Ok(seconds) } else { Err(format!("batch_seconds must be between 0 and 1e9, not {seconds}")) }
}

/// `share` if it is one.
pub(super) fn checked_share(share: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(format!("fail_rate must be between 0 and 1, not {share}"))
    }
}

/// Wall-clock time that advances with tokio's clock, so that times stay in step when a test pauses time.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimClock {
    started: Instant,
    started_unix_micros: i64,
}

impl SimClock {
    fn start() -> Self {
        Self { started: Instant::now(), started_unix_micros: SystemClock.now().0 }
    }

    /// Now, in Unix seconds.
    pub(super) fn unix_now(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.started_unix_micros.saturating_add(elapsed).div_euclid(1_000_000)
    }
}

/// Makes ids that look like the provider's. They differ between two runs with the same seed, so that a proxy that
/// outlives its simulator never takes a new batch for an old one.
#[derive(Debug)]
pub(super) struct Ids {
    base: u64,
    next: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        Self { base: fastrand::Rng::new().u64(..), next: AtomicU64::new(1) }
    }

    /// `prefix` followed by 32 hexadecimal digits.
    pub(super) fn long(&self, prefix: &str) -> String {
        let number = self.base.wrapping_add(self.next.fetch_add(1, Ordering::Relaxed));
        format!("{prefix}{:016x}{:016x}", mix(number), mix(!number))
    }

    /// A number that no other call of this run gets; small numbers first.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Spreads the bits of a number (the finalizer of splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
