//! Background work: lanes, batches, results. Restartable at any line.
//!
//! What must survive is in the store before the next step begins: a request is durable before it is queued here, a
//! batch's intent before its upload, its file's id before its creation, every answer before its caller hears of it.
//! Nothing here needs a client to be there.
//!
//! `intake` hands accepted requests to [`Engine::enqueue`] and waits with [`Engine::waiters`]; `admin` looks and acts
//! through the same handle.

mod accounts;
mod background;
mod bisect;
mod budget;
pub mod callbacks;
mod ceilings;
mod charge;
mod choice;
mod collect;
mod context;
pub mod deadline;
mod dispatch;
mod early;
mod expected;
mod expire;
mod fallback;
mod flight;
mod input_file;
pub mod keys;
mod learned;
pub(crate) mod line;
mod lines;
mod live;
pub mod object;
pub mod orphans;
mod outcome;
mod plan;
mod poll;
mod quota;
mod recorder;
mod recover;
mod rescue;
mod retries;
mod run;
mod running;
mod settle;
mod submit;
mod unsettled;
mod validation;
pub mod view;
pub mod waiters;
mod watchdog;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::config::Config;
use crate::domain::clock::SharedClock;
use crate::domain::ids::{BatchId, FlightId, IdSource, RequestId};
use crate::domain::lane::Fingerprint;
use crate::domain::request::RequestState;
use crate::engine::accounts::Accounts;
use crate::engine::bisect::Suspects;
use crate::engine::budget::Budget;
use crate::engine::callbacks::Callbacks;
use crate::engine::context::{Context, Settings};
use crate::engine::dispatch::Message;
use crate::engine::fallback::Refused;
use crate::engine::flight::Flights;
use crate::engine::keys::IdempotencyKeys;
use crate::engine::learned::Learned;
use crate::engine::live::LiveRoom;
use crate::engine::orphans::Orphans;
use crate::engine::retries::Retries;
use crate::engine::running::Running;
use crate::engine::settle::queued_of;
use crate::engine::waiters::{Answer, Waiters};
use crate::store::flights::FlightRecord;
use crate::store::{Account, Finish, NewRequest, OutcomeSummary, RequestRecord, SharedStore, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::{Ended, Telemetry};
use crate::upstream::capability::Capability;
use crate::upstream::provider::BatchProvider;
pub use budget::BudgetView;
pub use flight::FlightDecision;
pub use running::Trouble;
pub use view::{CancelOutcome, EngineEvent, EngineView, FlushReport, HeldBack, LaneView};

/// Live listeners that are slower than this many changes lose the oldest.
const EVENT_BUFFER: usize = 4_096;

/// The handle of the running engine. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Engine {
    context: Arc<Context>,
}

/// What the engine is made of.
#[derive(Debug)]
pub struct EngineParts {
    /// Durable state.
    pub store: SharedStore,
    /// Wall clock.
    pub clock: SharedClock,
    /// Owner of all background tasks.
    pub tasks: Tasks,
    /// Log lines and metrics.
    pub telemetry: Telemetry,
    /// The batch APIs, by provider name.
    pub providers: HashMap<String, Arc<dyn BatchProvider>>,
}

impl Engine {
    /// Starts the engine: what an earlier run left goes on at once.
    pub async fn start(config: &Config, parts: EngineParts) -> Result<Self, StoreError> {
        let (dispatcher, messages) = mpsc::unbounded_channel();
        let (deadlines, entered) = mpsc::unbounded_channel();
        let (orphans, delivered) = Orphans::new();
        let context = Arc::new(Context {
            ids: IdSource::after(parts.store.last_sequence().await?),
            store: parts.store,
            clock: parts.clock,
            tasks: parts.tasks,
            telemetry: parts.telemetry,
            waiters: Waiters::new(),
            orphans,
            keys: IdempotencyKeys::default(),
            accounts: Accounts::default(),
            providers: parts.providers,
            provider_configs: config.providers.iter().map(|(name, config)| (name.clone(), config.clone())).collect(),
            settings: parking_lot::RwLock::new(Arc::new(Settings::of(config))),
            retention: config.retention,
            events: broadcast::channel(EVENT_BUFFER).0,
            dispatcher,
            deadlines,
            live_room: LiveRoom::default(),
            live_bound: config.upstream.first_byte_timeout,
            refused: Refused::default(),
            suspects: Suspects::default(),
            retries: Retries::default(),
            flights: Flights::default(),
            flight: config.flight.clone(),
            budget: Budget::new(&config.budget),
            learned: Learned::default(),
            running: Running::default(),
            queued: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            lanes: parking_lot::RwLock::new(Vec::new()),
            callbacks: Callbacks::new(config),
        });
        let quotas = ceilings::load(&context).await?;
        let found = recover::recover(&context, &quotas).await?;
        if found.queued + found.batches > 0 {
            tracing::info!(queued = found.queued, batches = found.batches, "going on with what an earlier run left");
        }
        let (lessons, learned) = mpsc::unbounded_channel();
        context.tasks.spawn("ceilings", ceilings::keep(Arc::clone(&context), learned));
        context.tasks.spawn("dispatcher", dispatch::run(Arc::clone(&context), messages, quotas, lessons));
        context.tasks.spawn("budget", budget::run(Arc::clone(&context)));
        context.tasks.spawn("deadlines", watchdog::run(Arc::clone(&context), entered));
        context.tasks.spawn("callbacks", callbacks::run(Arc::clone(&context)));
        context.tasks.spawn("expiry", expire::run(Arc::clone(&context)));
        context.tasks.spawn("deliveries", expire::record_deliveries(Arc::clone(&context), delivered));
        let engine = Self { context };
        engine.context.tasks.spawn("orphans", expire::drop_orphans(engine.clone()));
        Ok(engine)
    }

    /// Takes what a running engine can take of another configuration (`config::reload` says what): for what happens from
    /// now on.
    pub fn reconfigure(&self, config: &Config) {
        *self.context.settings.write() = Arc::new(Settings::of(config));
        self.context.tell(Message::Settings);
        self.set_callback_policy(config.callbacks.clone());
    }

    /// The store behind it.
    pub fn store(&self) -> &SharedStore {
        &self.context.store
    }

    /// Log lines and metrics.
    pub fn telemetry(&self) -> &Telemetry {
        &self.context.telemetry
    }

    /// The wall clock.
    pub fn clock(&self) -> &SharedClock {
        &self.context.clock
    }

    /// Who waits for what.
    pub fn waiters(&self) -> &Waiters {
        &self.context.waiters
    }

    /// Whose answers are still owed to a held connection.
    pub fn orphans(&self) -> &Orphans {
        &self.context.orphans
    }

    /// Idempotency keys of calls that are being accepted.
    pub fn keys(&self) -> &IdempotencyKeys {
        &self.context.keys
    }

    /// What a provider's batch API takes; none: no such provider.
    pub fn capability(&self, provider: &str) -> Option<&Capability> {
        self.context.providers.get(provider).map(|provider| provider.capability())
    }

    /// An id for a new request.
    pub fn new_request_id(&self) -> RequestId {
        self.context.ids.request_id(self.context.now(), random())
    }

    /// Requests that wait for a batch.
    pub fn queued_requests(&self) -> u64 {
        self.context.queued.load(Ordering::Relaxed)
    }

    /// Whether new deferrals are refused because the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.context.is_draining()
    }

    /// From now on no new batch is started; what is submitted goes on.
    pub fn drain(&self) {
        self.context.draining.store(true, Ordering::Relaxed);
    }

    /// Keeps an upstream credential, once, before the first request that needs it is accepted.
    pub async fn keep_account(&self, account: Account) -> Result<(), StoreError> {
        self.context.accounts.keep(&self.context.store, account).await
    }

    /// Whether a credential is kept already.
    pub fn knows_account(&self, fingerprint: Fingerprint) -> bool {
        self.context.accounts.is_known(fingerprint)
    }

    /// A request could not be made durable: whoever joined it meanwhile hears the same.
    pub fn refused(&self, id: RequestId, message: &str) {
        self.context.orphans.forget(id);
        let mut finish = cancelled(id, self.context.now(), ("store_unavailable", message));
        finish.summary.status_code = 503;
        let answer = Answer {
            state: RequestState::Failed,
            summary: finish.summary,
            finished_at: finish.at,
            batch_id: None,
            body: None,
        };
        self.context.waiters.wake(id, answer);
    }

    /// Whether a request with this id is on its way into the store.
    pub fn is_being_accepted(&self, id: RequestId) -> bool {
        self.context.keys.holds(id) || self.context.orphans.is_new(id)
    }

    /// The request is gone: nothing is owed any more.
    pub fn forget(&self, id: RequestId) {
        self.context.orphans.forget(id);
    }

    /// Queues a request that the store has accepted: only now may it enter a batch.
    pub fn enqueue(&self, request: &NewRequest) {
        self.context.orphans.stored(request.id);
        self.context.queued.fetch_add(1, Ordering::Relaxed);
        self.context.telemetry.request_accepted(request.lane.endpoint.as_str(), u64::from(request.body_len));
        self.context.announce_request(request.id, RequestState::Queued.as_str());
        self.context.watch_deadline(request);
        self.context.tell(Message::Accepted(Arc::clone(&request.lane), queued_of(&self.context, request)));
    }

    /// What it is doing now; lanes are at most a moment old.
    pub fn view(&self) -> EngineView {
        let lanes = self.context.lanes.read().clone();
        EngineView {
            queued_requests: self.queued_requests(),
            queued_bytes: lanes.iter().map(|lane| lane.queued_bytes).sum(),
            oldest_queued_at: lanes.iter().filter_map(|lane| lane.oldest_queued_at).min(),
            held_connections: self.context.waiters.count(),
            lanes,
            stopping: self.context.is_draining(),
        }
    }

    /// Live changes. Slow listeners lose the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<EngineEvent> {
        self.context.events.subscribe()
    }

    /// Where the limits of the day's budget stand, that of everything first.
    pub fn budget(&self) -> Vec<BudgetView> {
        self.context.budget.view(self.context.now())
    }

    /// The limit of the day's budget that is used up for a call with this tag, of this client key.
    pub fn used_up(&self, tag: Option<&str>, key: Option<&str>) -> Option<BudgetView> {
        self.context.budget.used_up(tag, key, self.context.now())
    }

    /// The last test flight of each template, newest first, with the number of requests that wait for it.
    pub fn flights(&self) -> Vec<(FlightRecord, u64)> {
        self.context.flights.all()
    }

    /// Lets what waits for a grounded flight go, or refuses it. When it returns the decision is durable.
    pub async fn decide_flight(&self, id: FlightId, approve: bool) -> Result<FlightDecision, StoreError> {
        flight::decide(&self.context, id, approve).await
    }

    /// Submits what is queued now: of one caller, or of all.
    pub async fn flush(&self, caller: Option<Fingerprint>) -> FlushReport {
        let (reply, report) = oneshot::channel();
        self.context.tell(Message::Flush(caller, reply));
        report.await.unwrap_or_default()
    }

    /// Withdraws a queued request. With `caller`, only that caller's.
    pub async fn cancel_request(
        &self,
        id: RequestId,
        caller: Option<Fingerprint>,
    ) -> Result<CancelOutcome, StoreError> {
        let Some(record) = self.context.store.request(id).await? else {
            return Ok(CancelOutcome::NotFound);
        };
        if caller.is_some_and(|caller| caller != record.request.caller) {
            return Ok(CancelOutcome::NotFound);
        }
        match record.state {
            RequestState::Submitted => Ok(CancelOutcome::AlreadySubmitted),
            RequestState::Completed | RequestState::Failed | RequestState::Cancelled => Ok(CancelOutcome::AlreadyEnded),
            RequestState::Queued => {
                let why = ("cancelled", "the request was cancelled before it was submitted");
                self.withdraw(&record, why).await
            }
        }
    }

    /// Withdraws a queued request that nobody waits for any more.
    pub(crate) async fn abandon(&self, id: RequestId) -> Result<CancelOutcome, StoreError> {
        let Some(record) = self.context.store.request(id).await? else {
            return Ok(CancelOutcome::NotFound);
        };
        match record.state {
            RequestState::Queued => {
                let why = (ABANDONED, "nobody waited for the request any more: send the call again");
                self.withdraw(&record, why).await
            }
            RequestState::Submitted => Ok(CancelOutcome::AlreadySubmitted),
            RequestState::Completed | RequestState::Failed | RequestState::Cancelled => Ok(CancelOutcome::AlreadyEnded),
        }
    }

    async fn withdraw(&self, record: &RequestRecord, why: (&str, &str)) -> Result<CancelOutcome, StoreError> {
        let id = record.request.id;
        let finish = cancelled(id, self.context.now(), why);
        let applied = self.context.store.finish(vec![finish.clone()]).await?;
        if !applied.first().copied().unwrap_or(false) {
            // It was submitted or ended between the look and the act.
            let state = self.context.store.request(id).await?.map(|record| record.state);
            return Ok(match state {
                Some(RequestState::Queued | RequestState::Submitted) => CancelOutcome::AlreadySubmitted,
                Some(_) => CancelOutcome::AlreadyEnded,
                None => CancelOutcome::NotFound,
            });
        }
        self.context.tell(Message::Withdrawn(Arc::clone(&record.request.lane), id));
        self.context.orphans.forget(id);
        let reason = if why.0 == ABANDONED { "no_waiter" } else { "by_caller" };
        self.context.telemetry.requests_cancelled(1, reason);
        self.context.telemetry.ended(Ended::Request(id));
        self.context.announce_request(id, RequestState::Cancelled.as_str());
        self.context.waiters.wake(
            id,
            Answer {
                state: finish.state,
                summary: finish.summary,
                finished_at: finish.at,
                batch_id: record.batch_id,
                body: None,
            },
        );
        Ok(CancelOutcome::Cancelled)
    }

    /// Asks the provider to cancel a batch; its lines that never ran are tried again. `None`: no such batch;
    /// `Some(false)`: it had ended, is not created yet, or the provider refused.
    pub async fn cancel_batch(&self, id: BatchId) -> Result<Option<bool>, StoreError> {
        let Some(batch) = self.context.store.batch(id).await? else {
            return Ok(None);
        };
        let provider_id = batch.provider.batch_id.clone().filter(|_| !batch.state.is_terminal());
        let (Some(provider_id), Some((provider, credentials))) = (provider_id, run::credentials(&self.context, &batch))
        else {
            return Ok(Some(false));
        };
        match provider.cancel(&credentials, &provider_id).await {
            Ok(_cancelling) => Ok(Some(true)),
            Err(error) => {
                self.context.telemetry.provider_error("cancel", &error, None);
                Ok(Some(false))
            }
        }
    }
}

/// The error code of a queued request that was withdrawn because nobody waited for it any more.
pub const ABANDONED: &str = "abandoned";

fn cancelled(id: RequestId, at: crate::domain::clock::Micros, (code, message): (&str, &str)) -> Finish {
    Finish {
        id,
        state: RequestState::Cancelled,
        at,
        summary: OutcomeSummary {
            status_code: 410,
            service: None,
            provider_request_id: None,
            error: Some((code.to_owned(), message.to_owned())),
            usage_json: None,
            cost_nanos: None,
            saved_nanos: None,
        },
        body: None,
        charge: None,
    }
}

/// Unguessable bits for ids. Callers see only their own requests; this makes probing pointless as well.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_unspecified) => fastrand::u64(..),
    }
}

#[cfg(test)]
mod tests;
