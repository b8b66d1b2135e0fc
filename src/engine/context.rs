//! What all parts of the engine share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc};

use crate::config::{BatchingConfig, Config, FlightConfig, ProviderConfig};
use crate::domain::clock::{Micros, SharedClock};
use crate::domain::ids::{IdSource, RequestId};
use crate::domain::lane::LaneKey;
use crate::domain::pricing::PriceTable;
use crate::engine::accounts::Accounts;
use crate::engine::bisect::Suspects;
use crate::engine::budget::Budget;
use crate::engine::callbacks::Callbacks;
use crate::engine::dispatch::Message;
use crate::engine::fallback::Refused;
use crate::engine::flight::Flights;
use crate::engine::keys::IdempotencyKeys;
use crate::engine::learned::Learned;
use crate::engine::live::LiveRoom;
use crate::engine::orphans::Orphans;
use crate::engine::retries::Retries;
use crate::engine::running::Running;
use crate::engine::view::{EngineEvent, LaneView};
use crate::engine::waiters::Waiters;
use crate::store::{NewRequest, SharedStore};
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::upstream::provider::BatchProvider;

/// What a reload replaces while everything runs. Whoever acts by it asks again at each turn.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) prices: Arc<PriceTable>,
    pub(crate) batching: BatchingConfig,
    pub(crate) orphan_grace: Duration,
}

impl Settings {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            prices: Arc::clone(&config.prices),
            batching: config.batching.clone(),
            orphan_grace: config.hold.orphan_grace,
        }
    }
}

/// Shared by the dispatcher and all batch tasks.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: SharedStore,
    pub(crate) clock: SharedClock,
    pub(crate) ids: IdSource,
    pub(crate) tasks: Tasks,
    pub(crate) telemetry: Telemetry,
    pub(crate) waiters: Waiters,
    pub(crate) orphans: Orphans,
    pub(crate) keys: IdempotencyKeys,
    pub(crate) accounts: Accounts,
    pub(crate) providers: HashMap<String, Arc<dyn BatchProvider>>,
    /// For keys and prices.
    pub(crate) provider_configs: HashMap<String, ProviderConfig>,
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) retention: Duration,
    pub(crate) events: broadcast::Sender<EngineEvent>,
    pub(crate) dispatcher: mpsc::UnboundedSender<Message>,
    /// Whoever has no answer by its deadline is told so.
    pub(crate) deadlines: mpsc::UnboundedSender<(Micros, RequestId)>,
    /// How many live calls there are at the same time.
    pub(crate) live_room: LiveRoom,
    /// The longest time of a live call by `sync`.
    pub(crate) live_bound: Duration,
    /// What batch cannot serve.
    pub(crate) refused: Refused,
    /// Batches in which a line is looked for that nobody named.
    pub(crate) suspects: Suspects,
    /// How often failed calls are made again.
    pub(crate) retries: Retries,
    /// Which templates were tried, and how that went.
    pub(crate) flights: Flights,
    pub(crate) flight: FlightConfig,
    /// What may still be spent today.
    pub(crate) budget: Budget,
    /// How long batches take.
    pub(crate) learned: Learned,
    /// The batches that have a task.
    pub(crate) running: Running,
    /// Requests accepted and in no batch; intake refuses above the limit.
    pub(crate) queued: AtomicU64,
    /// No new batches: the process is stopping.
    pub(crate) draining: AtomicBool,
    /// Written by the dispatcher, read by the admin API.
    pub(crate) lanes: RwLock<Vec<LaneView>>,
    /// Who is called when a request has ended.
    pub(crate) callbacks: Callbacks,
}

impl Context {
    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    pub(crate) fn provider(&self, lane: &LaneKey) -> Option<&Arc<dyn BatchProvider>> {
        self.providers.get(&*lane.provider)
    }

    /// Tells the dispatcher. It lives as long as the process; after its end there is nothing left to tell.
    pub(crate) fn tell(&self, message: Message) {
        if self.dispatcher.send(message).is_err() {
            tracing::debug!("the dispatcher has stopped");
        }
    }

    /// From now on the request's deadline, if it has one, is watched.
    pub(crate) fn watch_deadline(&self, request: &NewRequest) {
        if let Some(at) = request.deadline_at
            && self.deadlines.send((at, request.id)).is_err()
        {
            tracing::debug!("deadlines are not watched any more");
        }
    }

    /// Tells live listeners, if there are any.
    pub(crate) fn announce(&self, event: EngineEvent) {
        if self.events.receiver_count() > 0 {
            drop(self.events.send(event));
        }
    }

    pub(crate) fn announce_request(&self, id: RequestId, state: &'static str) {
        self.callbacks.look();
        self.announce(EngineEvent::Request { id, state });
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Sleeps; `false` when the process stops meanwhile.
    pub(crate) async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.tasks.stop_token().cancelled() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}
