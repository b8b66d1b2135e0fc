//! What one seed's run shares: its time, its chance, its weather, what the provider did, and the trace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nightbus::domain::clock::{Clock, Micros};
use nightbus::domain::ids::{BatchId, RequestId};
use nightbus::domain::lane::Endpoint;
use nightbus::store::OutcomeSummary;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// When the first process of a run starts.
pub(crate) const BEGIN: Micros = Micros::from_unix_seconds(1_795_420_800);

/// How bad things are; all of it drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Chance that a call to the provider, or a batch, goes wrong.
    pub(crate) provider: f64,
    /// Chance that a call to the store fails.
    pub(crate) store: f64,
    /// From then on nothing goes wrong any more.
    pub(crate) until: Micros,
}

/// One execution at the provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveExecution {
    /// In which process's life it was asked for.
    pub(crate) life: u32,
    /// Whether its answer reached nightbus.
    pub(crate) delivered: bool,
}

/// One request as its caller made it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    pub(crate) caller: usize,
    /// Its `Idempotency-Key`.
    pub(crate) key: Option<u8>,
    pub(crate) deadline: Option<Micros>,
    pub(crate) may_fall_back: bool,
    /// The caller was told that it is accepted.
    pub(crate) accepted: bool,
    /// The caller was told that it is withdrawn.
    pub(crate) withdrawn: bool,
}

/// How a request ended, as it was first recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) state: nightbus::domain::request::RequestState,
    pub(crate) summary: OutcomeSummary,
    pub(crate) body: Option<bytes::Bytes>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rng: fastrand::Rng,
    pub(crate) weather: Weather,
    began: Option<(Instant, Micros)>,
    now: Micros,
    /// The machine's clock against true time, in microseconds.
    pub(crate) skew: i64,
    pub(crate) jumped: bool,
    /// The provider's name and the endpoint that all callers call.
    pub(crate) wire: (&'static str, Endpoint),
    pub(crate) life: u32,
    steps: u32,
    crash_at: Option<u32>,
    pub(crate) downtime: Duration,
    pub(crate) provider: crate::books::Books,
    /// Live executions, by what the body says.
    pub(crate) live: BTreeMap<String, Vec<LiveExecution>>,
    /// By what the body says.
    pub(crate) asked: BTreeMap<String, Asked>,
    pub(crate) ended: BTreeMap<RequestId, End>,
    /// What was found wrong while it ran.
    pub(crate) broken: Vec<String>,
    trace: String,
    names: BTreeMap<String, usize>,
    /// So many times the end of a request cannot be recorded, whatever the weather.
    pub(crate) ends_to_fail: u32,
    /// So many creations are refused for good, whatever the weather.
    pub(crate) creations_to_refuse: u32,
    /// What becomes of every line of a batch, whatever the weather.
    pub(crate) every_line: Option<crate::books::Outcome>,
}

/// Shared by the store, the provider and the callers of one run.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    pub(crate) crashed: Notify,
}

impl World {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x6e69_6768_7462_7573);
        let chances = [0.0, 0.01, 0.05, 0.15, 0.4];
        let provider = chances[rng.usize(..chances.len())];
        let store = [0.0, 0.0, 0.01, 0.05, 0.2][rng.usize(..5)];
        let until = BEGIN.plus(MINUTE * rng.u32(10..90));
        let state = State {
            weather: Weather { provider, store, until },
            rng,
            began: None,
            now: BEGIN,
            skew: 0,
            jumped: false,
            wire: ("openai", Endpoint::ChatCompletions),
            life: 0,
            steps: 0,
            crash_at: None,
            downtime: Duration::ZERO,
            provider: crate::books::Books::default(),
            live: BTreeMap::new(),
            asked: BTreeMap::new(),
            ended: BTreeMap::new(),
            broken: Vec::new(),
            trace: String::new(),
            names: BTreeMap::new(),
            ends_to_fail: 0,
            creations_to_refuse: 0,
            every_line: None,
        };
        Arc::new(Self { state: Mutex::new(state), crashed: Notify::new() })
    }

    /// A world in which nothing goes wrong but what is asked for.
    pub(crate) fn calm(change: impl FnOnce(&mut State)) -> Arc<Self> {
        let world = Self::new(0);
        world.with(|state| {
            (state.weather.provider, state.weather.store) = (0.0, 0.0);
            change(state);
        });
        world
    }

    /// A process starts, in a runtime of its own; `crash_at`: it dies at that step.
    pub(crate) fn begin_life(&self, crash_at: Option<u32>) {
        let mut state = self.state.lock();
        state.began = Some((Instant::now(), state.now));
        state.steps = 0;
        state.crash_at = crash_at;
    }

    /// The process is gone, and for so long there is none. To be called while its runtime is still there.
    pub(crate) fn end_life(&self, down: Duration) {
        let now = self.true_now();
        let mut state = self.state.lock();
        state.now = now.plus(down);
        state.began = None;
        state.life += 1;
        state.downtime += down;
    }

    /// True time, which the provider goes by.
    pub(crate) fn true_now(&self) -> Micros {
        let state = self.state.lock();
        state.began.map_or(state.now, |(instant, at)| at.plus(instant.elapsed()))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }

    /// Whether something of this chance happens.
    pub(crate) fn happens(&self, chance: f64) -> bool {
        self.with(|state| state.rng.f64() < chance)
    }

    /// Whether the provider misbehaves now, so many times as often as the weather says.
    pub(crate) fn provider_fails(&self, times: f64) -> bool {
        let calm = self.true_now() > self.with(|state| state.weather.until);
        let chance = self.with(|state| state.weather.provider) * times;
        !calm && self.happens(chance)
    }

    /// Whether the store fails now.
    pub(crate) fn store_fails(&self) -> bool {
        let calm = self.true_now() > self.with(|state| state.weather.until);
        let chance = self.with(|state| state.weather.store);
        !calm && self.happens(chance)
    }

    pub(crate) fn between(&self, range: std::ops::Range<u64>) -> u64 {
        self.with(|state| state.rng.u64(range))
    }

    /// A place at which the process may die: then nothing after it happens.
    pub(crate) async fn step(&self) {
        let dies = self.with(|state| {
            state.steps += 1;
            state.crash_at == Some(state.steps)
        });
        if dies {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Takes so many milliseconds.
    pub(crate) async fn takes(&self, milliseconds: std::ops::Range<u64>) {
        let milliseconds = self.between(milliseconds);
        if milliseconds > 0 {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    /// The machine's clock is set.
    pub(crate) fn jump(&self) {
        self.with(|state| {
            state.skew = state.rng.i64(-3_600_000_000..3_600_000_000);
            state.jumped = true;
        });
        self.note("the clock jumps");
    }

    pub(crate) fn note(&self, what: &str) {
        let at = self.true_now().since(BEGIN).as_millis();
        self.with(|state| {
            let life = state.life;
            writeln!(state.trace, "{at:>9} life {life} {what}").expect("texts grow");
        });
    }

    pub(crate) fn broke(&self, what: String) {
        self.note(&format!("BROKEN {what}"));
        self.with(|state| state.broken.push(what));
    }

    pub(crate) fn trace(&self) -> String {
        self.with(|state| state.trace.clone())
    }

    /// A short name that is the same in each run of the seed, although ids are not.
    pub(crate) fn name(&self, id: &impl std::fmt::Display) -> String {
        let text = id.to_string();
        let (kind, _) = text.split_once('_').unwrap_or(("thing", ""));
        self.with(|state| {
            let next = state.names.len();
            format!("{kind}{}", state.names.entry(text.clone()).or_insert(next))
        })
    }

    pub(crate) fn names(&self, ids: &[RequestId]) -> String {
        ids.iter().map(|id| self.name(id)).collect::<Vec<_>>().join(" ")
    }

    /// Which live executions were lost with the process that asked for them: nothing of them is in the ledger.
    pub(crate) fn lose_live(&self, is_recorded: impl Fn(RequestId) -> bool) {
        let asked: Vec<(String, RequestId)> =
            self.with(|state| state.asked.iter().map(|(nonce, asked)| (nonce.clone(), asked.id)).collect());
        for (nonce, _) in asked.into_iter().filter(|(_, id)| !is_recorded(*id)) {
            self.with(|state| {
                let life = state.life;
                let lost = state.live.get_mut(&nonce).into_iter().flatten().filter(|one| one.life == life);
                lost.for_each(|one| one.delivered = false);
            });
        }
    }

    pub(crate) fn batch_name(&self, id: BatchId) -> String {
        self.name(&id)
    }
}

/// The machine's clock: true time, and how far it is off.
#[derive(Debug)]
pub(crate) struct Machine(pub(crate) Arc<World>);

impl Clock for Machine {
    fn now(&self) -> Micros {
        let skew = self.0.with(|state| state.skew);
        Micros(self.0.true_now().0 + skew)
    }
}
