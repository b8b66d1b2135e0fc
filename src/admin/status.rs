//! `GET /api/status`: what nightbus is doing.
//!
//! Today's money is the ledger's; the sums since the start are those of telemetry, over deferred requests alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::AdminState;
use super::reply::{self, Reply};
use super::savings;
use crate::config::{BudgetScope, DeferralMode, StoreKind};
use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;
use crate::domain::request::RequestState;
use crate::engine::{BudgetView, EngineView, HeldBack, LaneView};
use crate::store::{StoreError, StoreStats};
use crate::telemetry::Sums;

/// Open batches that are looked at to count states.
const COUNTED_BATCHES: usize = 10_000;

#[derive(Serialize)]
struct Status {
    object: &'static str,
    version: &'static str,
    started_at: i64,
    uptime_seconds: u64,
    stopping: bool,
    deferral: &'static str,
    listen: String,
    queue: Queue,
    held_connections: u64,
    lanes: Vec<Lane>,
    requests: BTreeMap<&'static str, u64>,
    batches: BTreeMap<&'static str, u64>,
    services: BTreeMap<&'static str, u64>,
    today: savings::Money,
    budget: Option<Budget>,
    budget_limits: Vec<Budget>,
    since_start: Money,
    store: StoreStatus,
}

#[derive(Serialize)]
struct Queue {
    requests: u64,
    bytes: u64,
    oldest_age_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Lane {
    lane: String,
    provider: String,
    endpoint: &'static str,
    model: String,
    credential: String,
    queued_requests: u64,
    queued_bytes: u64,
    oldest_age_seconds: Option<u64>,
    open_batches: u64,
    held_back: Option<&'static str>,
    token_ceiling: Option<u64>,
}

/// The day's budget, or that of a tag or client key, in US dollars.
#[derive(Serialize)]
struct Budget {
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<String>,
    daily_usd: f64,
    spent_usd: f64,
    reserved_usd: f64,
    used_up: bool,
    resets_at: i64,
}

impl Budget {
    fn new(view: BudgetView) -> Self {
        let (tag, client_key) = match view.scope {
            None => (None, None),
            Some(BudgetScope::Tag(tag)) => (Some(tag), None),
            Some(BudgetScope::ClientKey(name)) => (None, Some(name)),
        };
        Self {
            tag,
            client_key,
            daily_usd: dollars(view.limit_nanos),
            spent_usd: dollars(view.spent_nanos),
            reserved_usd: dollars(view.reserved_nanos),
            used_up: view.is_used_up,
            resets_at: view.resets_at.unix_seconds(),
        }
    }
}

#[derive(Serialize)]
struct StoreStatus {
    kind: &'static str,
    bytes: u64,
}

/// Sums of money in US dollars, over the requests whose price is known.
#[derive(Serialize)]
struct Money {
    requests: u64,
    priced_requests: u64,
    paid_usd: f64,
    live_usd: f64,
    saved_usd: f64,
}

/// Everything at a glance.
pub(super) async fn status(state: &AdminState) -> Reply {
    let store = state.engine.store();
    let stats = store.stats().await.map_err(|error| reply::store_trouble(&error))?;
    let open = open_batches(state).await.map_err(|error| reply::store_trouble(&error))?;
    let today = savings::today(state).await.map_err(|error| reply::store_trouble(&error))?;
    reply::ok(&compose(state, &state.engine.view(), &stats, open, today))
}

fn compose(
    state: &AdminState,
    view: &EngineView,
    stats: &StoreStats,
    open: Vec<(&'static str, u64)>,
    today: savings::Money,
) -> Status {
    let (now, config) = (state.telemetry.now(), state.config.get());
    let totals = state.telemetry.totals();
    let (total, limits): (Vec<_>, Vec<_>) = state.engine.budget().into_iter().partition(|view| view.scope.is_none());
    Status {
        object: "nightbus.status",
        version: state.version,
        started_at: state.started_at.unix_seconds(),
        uptime_seconds: now.since(state.started_at).as_secs(),
        stopping: view.stopping,
        deferral: match config.deferral.mode {
            DeferralMode::On => "on",
            DeferralMode::Observe => "observe",
            DeferralMode::Off => "off",
        },
        listen: state.main_addr.to_string(),
        queue: Queue {
            requests: view.queued_requests,
            bytes: view.queued_bytes,
            oldest_age_seconds: age(now, view.oldest_queued_at),
        },
        held_connections: view.held_connections,
        lanes: view.lanes.iter().map(|lane| Lane::new(now, lane)).collect(),
        requests: RequestState::ALL.iter().map(|state| state.as_str()).zip(stats.requests).collect(),
        batches: open.into_iter().chain(state.telemetry.batches_ended()).collect(),
        services: totals.requests.clone(),
        today,
        budget: total.into_iter().next().map(Budget::new),
        budget_limits: limits.into_iter().map(Budget::new).collect(),
        since_start: Money::new(&totals),
        store: StoreStatus {
            kind: match config.store {
                StoreKind::Sqlite => "sqlite",
                StoreKind::Memory => "memory",
            },
            bytes: stats.bytes,
        },
    }
}

fn age(now: Micros, at: Option<Micros>) -> Option<u64> {
    at.map(|at| now.since(at).as_secs())
}

impl Lane {
    fn new(now: Micros, view: &LaneView) -> Self {
        Self {
            lane: view.lane.to_string(),
            provider: view.lane.provider.to_string(),
            endpoint: view.lane.endpoint.as_str(),
            model: view.lane.model.to_string(),
            credential: view.lane.account.to_string(),
            queued_requests: view.queued_requests,
            queued_bytes: view.queued_bytes,
            oldest_age_seconds: age(now, view.oldest_queued_at),
            open_batches: view.open_batches,
            held_back: view.held_back.map(HeldBack::as_str),
            token_ceiling: view.token_ceiling,
        }
    }
}

impl Money {
    fn new(sums: &Sums) -> Self {
        Self {
            requests: sums.finished(),
            priced_requests: sums.priced,
            paid_usd: dollars(sums.paid_nanos),
            live_usd: dollars(sums.paid_nanos.saturating_add(sums.saved_nanos)),
            saved_usd: dollars(sums.saved_nanos),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people; 2^53 nano-dollars are nine million dollars")]
fn dollars(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// How many batches stand in each state that is not an end.
pub(super) async fn open_batches(state: &AdminState) -> Result<Vec<(&'static str, u64)>, StoreError> {
    let open = state.engine.store().batches(true, None, COUNTED_BATCHES).await?;
    let mut counts: Vec<(&'static str, u64)> =
        BatchState::ALL.into_iter().filter(|state| !state.is_terminal()).map(|state| (state.as_str(), 0)).collect();
    for batch in open {
        if let Some((_, count)) = counts.iter_mut().find(|(name, _)| *name == batch.state.as_str()) {
            *count += 1;
        }
    }
    Ok(counts)
}
