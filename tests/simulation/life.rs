//! One seed: processes that start, work and die over the same store and the same provider, until all is done.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use nightbus::config::{self, Config, Overrides};
use nightbus::domain::lane::Endpoint;
use nightbus::engine::{Engine, EngineParts};
use nightbus::store::{SharedStore, in_memory};
use nightbus::tasks::Tasks;
use nightbus::telemetry::Telemetry;
use nightbus::upstream::capability::Capability;
use nightbus::upstream::provider::BatchProvider;
use parking_lot::Mutex;

use crate::callers::{Caller, Visit};
use crate::checks;
use crate::provider::Provider;
use crate::store::Shaky;
use crate::world::{BEGIN, Machine, SECOND, State, World};

/// Whatever has not ended by then is stuck.
const HORIZON: Duration = Duration::from_secs(3 * 24 * 3600);

/// What came of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Vec<String>,
    pub(crate) trace: String,
    pub(crate) executions: usize,
}

/// The same for all seeds, made once.
pub(crate) fn configuration() -> Config {
    let mut config = config::parse(None, [], &Overrides::default()).expect("the defaults are sound");
    config.batching.poll = SECOND * 60;
    config.batching.idle = SECOND * 5;
    config.hold.orphan_grace = SECOND * 400;
    config.upstream.first_byte_timeout = SECOND * 60;
    config.retention = HORIZON * 30;
    config
}

#[derive(Debug, PartialEq)]
enum End {
    Done,
    Died,
    Stuck,
}

struct Run {
    config: Config,
    /// The clock is set while processes run, and between them.
    jumps: bool,
    world: Arc<World>,
    store: Arc<Shaky>,
    provider: Arc<Provider>,
    callers: Vec<Arc<Mutex<Caller>>>,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, config: &Config) -> Outcome {
    fastrand::seed(seed);
    let world = World::new(seed);
    let mut crowd = BEGIN;
    let count = usize::try_from(world.between(1..10)).expect("small");
    let callers = (0..count).map(|number| Caller::draw(&world, number, &mut crowd)).collect();
    let deaths = [0, 0, 1, 1, 2, 4][usize::try_from(world.between(0..6)).expect("small")];
    let jumps = world.happens(0.15);
    if world.happens(0.35) {
        world.with(|state| state.wire = ("anthropic", Endpoint::Messages));
    }
    through(config, &world, callers, deaths, jumps)
}

/// Some callers, in a world in which nothing goes wrong but what is asked for.
pub(crate) fn with(callers: Vec<Caller>, change: impl FnOnce(&mut State)) -> Outcome {
    fastrand::seed(1);
    through(&configuration(), &World::calm(change), callers, 0, false)
}

fn through(config: &Config, world: &Arc<World>, callers: Vec<Caller>, deaths: u32, jumps: bool) -> Outcome {
    let (name, _) = world.with(|state| state.wire);
    let mut capability = Capability::of(&config.providers[name], &config.batching);
    capability.max_requests = u32::try_from(world.between(1..12)).expect("small");
    let run = Run {
        config: config.clone(),
        world: Arc::clone(world),
        jumps,
        store: Arc::new(Shaky { inner: in_memory().expect("random numbers"), world: Arc::clone(world) }),
        provider: Arc::new(Provider { capability, world: Arc::clone(world) }),
        callers: callers.into_iter().map(|caller| Arc::new(Mutex::new(caller))).collect(),
    };
    for life in 0.. {
        let crash_at = (life < deaths).then(|| u32::try_from(world.between(1..250)).expect("small"));
        if run.live(crash_at) != End::Died {
            break;
        }
        if jumps {
            world.jump();
        }
    }
    let executions = checks::check(world, &run.store.inner);
    let broken = world.with(|state| state.broken.clone());
    let mut trace = world.trace();
    writeln!(trace, "{executions} executions").expect("texts grow");
    Outcome { broken, trace, executions }
}

impl Run {
    /// One process, in a runtime that dies with it.
    fn live(&self, crash_at: Option<u32>) -> End {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let end = runtime.block_on(async {
            self.world.begin_life(crash_at);
            let end = tokio::select! {
                biased;
                () = self.world.crashed.notified() => End::Died,
                end = self.process() => end,
            };
            self.world.note(&format!("the process ends: {end:?}"));
            let down = if self.world.happens(0.7) { 1..20 } else { 20..2_000 };
            let recorded = |id| self.live_row(id);
            self.world.lose_live(recorded);
            self.world.end_life(SECOND * u32::try_from(self.world.between(down)).expect("small"));
            end
        });
        drop(runtime);
        end
    }

    fn live_row(&self, id: nightbus::domain::ids::RequestId) -> bool {
        let rows = self.store.inner.charges(vec![id]).now_or_never().expect("memory answers at once");
        rows.expect("it is open").iter().any(|row| row.place < 0)
    }

    async fn process(&self) -> End {
        let tasks = Tasks::new();
        let (name, _) = self.world.with(|state| state.wire);
        let parts = EngineParts {
            store: Arc::clone(&self.store) as SharedStore,
            clock: Arc::new(Machine(Arc::clone(&self.world))),
            tasks: tasks.clone(),
            telemetry: Telemetry::new(),
            providers: HashMap::from([(name.to_owned(), Arc::clone(&self.provider) as Arc<dyn BatchProvider>)]),
        };
        let Ok(engine) = Engine::start(&self.config, parts).await else {
            // Whoever supervises it starts it again.
            return End::Died;
        };
        for caller in &self.callers {
            let visit = Visit { world: Arc::clone(&self.world), engine: engine.clone(), caller: Arc::clone(caller) };
            drop(tasks.spawn("caller", visit.run()));
        }
        if self.jumps {
            let (world, after) =
                (Arc::clone(&self.world), SECOND * u32::try_from(self.world.between(1..3_000)).expect("small"));
            drop(tasks.spawn("clock", async move {
                tokio::time::sleep(after).await;
                world.jump();
            }));
        }
        while self.world.true_now().since(BEGIN) < HORIZON {
            tokio::time::sleep(SECOND * 20).await;
            let over = self.callers.iter().all(|caller| caller.lock().is_over());
            if over && checks::settled(&self.world, &self.store.inner) {
                if engine.queued_requests() != 0 || engine.waiters().count() != 0 {
                    let (queued, waiting) = (engine.queued_requests(), engine.waiters().count());
                    self.world.broke(format!("at the end {queued} are counted as queued and {waiting} as waiting"));
                }
                return End::Done;
            }
        }
        self.world.broke(format!("stuck: {}", checks::open(&self.world, &self.store.inner)));
        End::Stuck
    }
}
