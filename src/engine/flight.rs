//! Test flights: the first requests of a new template are called live and judged before the rest is bought (contract,
//! section 1).
//!
//! One task conducts a flight from its pilots to the decision. A flight is durable before its pilots are called, and they
//! are marked as live calls before they are sent, so a death at any point leaves either no flight or one that goes on:
//! [`resume`] takes up what [`Flights::load`] found. A verdict is durable before the dispatcher hears of it; what waits is
//! the dispatcher's (`dispatch::gate`), and a rejected flight goes on refusing what was accepted before its rejection.

mod judge;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::domain::backoff::backoff;
use crate::domain::clock::Micros;
use crate::domain::ids::{FlightId, RequestId};
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::domain::request::RequestState;
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::engine::dispatch::Message;
use crate::engine::live;
use crate::engine::random;
use crate::engine::settle::{self, Refusal};
use crate::engine::view::EngineEvent;
use crate::store::flights::{FlightRecord, FlightState, TRUSTED_FOR};
use crate::store::{LiveCall, RequestRecord, SharedStore, StoreError, StoreFuture};

/// The store is asked this often even if nothing is heard of the pilots; the wall clock may be set, too.
const LOOK: Duration = Duration::from_secs(5);
/// Requests are refused in groups.
const GROUP: usize = 1_000;

/// How a template stands with a request of it.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Nothing is known: it may have to fly.
    Unproven,
    /// It flew well.
    Trusted,
    /// It flies, or is grounded: its requests wait.
    Waits,
    /// The request is refused.
    Refused(Box<FlightRecord>),
}

/// All flights that are known, the last one of each template.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    known: RwLock<HashMap<Fingerprint, FlightRecord>>,
    /// Requests that wait for each template; written by the dispatcher.
    waiting: RwLock<HashMap<Fingerprint, u64>>,
}

impl Flights {
    /// Reads what earlier runs left.
    pub(crate) async fn load(&self, store: &SharedStore) -> Result<(), StoreError> {
        let found = store.flights().await?;
        self.known.write().extend(found.into_iter().map(|flight| (flight.template, flight)));
        Ok(())
    }

    /// How a template stands with a request that was accepted then.
    pub(crate) fn standing(&self, template: Fingerprint, accepted_at: Micros, now: Micros) -> Standing {
        match self.known.read().get(&template) {
            Some(flight) if flight.state.is_open() => Standing::Waits,
            Some(flight) if flight.is_trusted(now) => Standing::Trusted,
            Some(flight) if flight.refuses(accepted_at) => Standing::Refused(Box::new(flight.clone())),
            Some(_) | None => Standing::Unproven,
        }
    }

    /// The flight of a template whose requests wait for a decision.
    pub(crate) fn grounded(&self, template: Fingerprint) -> Option<FlightRecord> {
        let known = self.known.read();
        known.get(&template).filter(|flight| flight.state == FlightState::Grounded).cloned()
    }

    /// Whether a request is in a flight that is under way: its conductor calls it, nobody else.
    pub(crate) fn has_pilot(&self, template: Option<Fingerprint>, id: RequestId) -> bool {
        let known = self.known.read();
        let flight = template.and_then(|template| known.get(&template));
        flight.is_some_and(|flight| flight.state == FlightState::Flying && flight.pilots.contains(&id))
    }

    /// All of them with the number of requests that wait, newest first.
    pub(crate) fn all(&self) -> Vec<(FlightRecord, u64)> {
        let waiting = self.waiting.read();
        let mut all: Vec<_> = self
            .known
            .read()
            .values()
            .map(|flight| (flight.clone(), waiting.get(&flight.template).copied().unwrap_or(0)))
            .collect();
        all.sort_by_key(|(flight, _)| std::cmp::Reverse((flight.created_at, flight.id)));
        all
    }

    /// What waits now.
    pub(crate) fn publish(&self, waiting: HashMap<Fingerprint, u64>) {
        *self.waiting.write() = waiting;
    }

    /// A flight begins, or what was known of it changes.
    fn put(&self, flight: FlightRecord) {
        self.known.write().insert(flight.template, flight);
    }

    /// Changes a flight that stands at `from`; none: it does not, somebody was quicker.
    fn turn(&self, id: FlightId, from: FlightState, change: impl FnOnce(&mut FlightRecord)) -> Option<FlightRecord> {
        let mut known = self.known.write();
        let flight = known.values_mut().find(|flight| flight.id == id && flight.state == from)?;
        change(flight);
        Some(flight.clone())
    }

    fn forget(&self, before: Micros) {
        self.known.write().retain(|_, flight| flight.decided_at.is_none_or(|at| at >= before));
    }
}

/// The process stops; everything needed is durable.
pub(crate) struct Stopping;

/// Begins a flight with pilots that are in no queue any more: from now on the rest of their template waits.
pub(crate) fn begin(context: &Arc<Context>, lane: &LaneKey, template: Fingerprint, pilots: Vec<RequestId>) {
    let now = context.now();
    let flight = FlightRecord {
        id: context.ids.flight_id(now, random()),
        template,
        state: FlightState::Flying,
        provider: Arc::clone(&lane.provider),
        account: lane.account,
        endpoint: lane.endpoint,
        model: Arc::clone(&lane.model),
        tag: None,
        created_at: now,
        landed_at: None,
        decided_at: None,
        pilots,
        reasons: Vec::new(),
        shared_prefix: None,
    };
    context.flights.put(flight.clone());
    context.telemetry.flight_begun(flight.id, lane, flight.pilots.len());
    let shared = Arc::clone(context);
    context.tasks.spawn("test flight", async move {
        let Stopping = match take_off(&shared, flight).await {
            Ok(flight) => match conduct(&shared, flight).await {
                Ok(()) => return,
                Err(stopping) => stopping,
            },
            Err(stopping) => stopping,
        };
    });
}

/// Takes up the flights that an earlier run left. Runs after the requests' live calls were taken up.
pub(crate) fn resume(context: &Arc<Context>) {
    for (flight, _) in context.flights.all().into_iter().filter(|(flight, _)| flight.state.is_open()) {
        let shared = Arc::clone(context);
        context.tasks.spawn("test flight", async move {
            if conduct(&shared, flight).await.is_err() {
                tracing::debug!("a test flight goes on after the next start");
            }
        });
    }
}

/// Writes the flight down.
async fn take_off(context: &Arc<Context>, mut flight: FlightRecord) -> Result<FlightRecord, Stopping> {
    let pilots = again(context, || context.store.records(flight.pilots.clone())).await?;
    flight.tag = pilots.iter().find_map(|record| record.request.tag.clone());
    keep(context, &flight).await?;
    context.flights.put(flight.clone());
    crate::crash::point("flight-begun");
    Ok(flight)
}

/// From a durable flight to the decision.
async fn conduct(context: &Arc<Context>, mut flight: FlightRecord) -> Result<(), Stopping> {
    if flight.state == FlightState::Flying {
        call_pilots(context, &flight).await?;
        let landed = landing(context, &flight.pilots).await?;
        let judged = judge::judge(context, flight.endpoint, &landed).await?;
        let now = context.now();
        let turned = context.flights.turn(flight.id, FlightState::Flying, |flight| {
            flight.landed_at = Some(now);
            flight.state = match judged {
                None => FlightState::Aborted,
                Some(judged) => {
                    flight.shared_prefix = judged.shared_prefix;
                    flight.reasons = judged.reasons;
                    if flight.reasons.is_empty() { FlightState::Cleared } else { FlightState::Grounded }
                }
            };
            flight.decided_at = (flight.state != FlightState::Grounded).then_some(now);
        });
        let Some(turned) = turned else { return Ok(()) };
        flight = turned;
        tell(context, &flight).await?;
    }
    if flight.state != FlightState::Grounded {
        return Ok(());
    }
    let until = flight.landed_at.unwrap_or(flight.created_at).plus(context.flight.ground_timeout);
    loop {
        let left = until.since(context.now());
        if left.is_zero() {
            break;
        }
        if !context.sleep(left.min(LOOK)).await {
            return Err(Stopping);
        }
        if context.flights.turn(flight.id, FlightState::Grounded, |_same| {}).is_none() {
            return Ok(());
        }
    }
    match close(context, flight.id, FlightState::Expired) {
        Some(flight) => tell(context, &flight).await,
        None => Ok(()),
    }
}

/// Ends a grounded flight; none: it is not grounded any more.
fn close(context: &Context, id: FlightId, state: FlightState) -> Option<FlightRecord> {
    let now = context.now();
    context.flights.turn(id, FlightState::Grounded, |flight| {
        flight.state = state;
        flight.decided_at = Some(now);
    })
}

/// What came of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlightDecision {
    /// It stands.
    Done(Box<FlightRecord>),
    /// There was nothing to decide; where the flight stands.
    TooLate(FlightState),
    /// There is no such flight.
    NotFound,
}

/// Decides over a grounded flight. When it returns the decision is durable.
pub(crate) async fn decide(context: &Context, id: FlightId, approve: bool) -> Result<FlightDecision, StoreError> {
    let state = if approve { FlightState::Approved } else { FlightState::Rejected };
    let Some(flight) = close(context, id, state) else {
        let found = context.flights.all().into_iter().find(|(flight, _)| flight.id == id);
        return Ok(found.map_or(FlightDecision::NotFound, |(flight, _)| FlightDecision::TooLate(flight.state)));
    };
    if let Err(error) = context.store.keep_flight(flight.clone(), forget_before(context)).await {
        // Its conductor goes on waiting, and so does everything else.
        context.flights.turn(id, state, |flight| {
            flight.state = FlightState::Grounded;
            flight.decided_at = None;
        });
        return Err(error);
    }
    announce(context, &flight);
    Ok(FlightDecision::Done(Box::new(flight)))
}

/// A change is durable first, then it acts.
async fn tell(context: &Context, flight: &FlightRecord) -> Result<(), Stopping> {
    keep(context, flight).await?;
    crate::crash::point("flight-judged");
    announce(context, flight);
    Ok(())
}

fn announce(context: &Context, flight: &FlightRecord) {
    context.telemetry.flight_turned(flight.id, flight.state.as_str(), &flight.reasons);
    context.tell(Message::Flight(flight.template));
}

async fn keep(context: &Context, flight: &FlightRecord) -> Result<(), Stopping> {
    let forget = forget_before(context);
    context.flights.forget(forget);
    again(context, || context.store.keep_flight(flight.clone(), forget)).await
}

fn forget_before(context: &Context) -> Micros {
    let age = context.retention.max(TRUSTED_FOR);
    Micros(context.now().0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)))
}

/// Calls those pilots that are not called yet. What is marked already was taken up by whoever marked it, or by recovery.
async fn call_pilots(context: &Arc<Context>, flight: &FlightRecord) -> Result<(), Stopping> {
    let records = again(context, || context.store.records(flight.pilots.clone())).await?;
    let waiting = records.into_iter().filter(|record| record.state == RequestState::Queued);
    let (lanes, ids): (Vec<Arc<LaneKey>>, Vec<RequestId>) =
        waiting.map(|record| (record.request.lane, record.request.id)).unzip();
    let Some(lane) = lanes.first() else { return Ok(()) };
    let call = LiveCall { service: Service::Sync, since: context.now(), sent_at: None };
    // Durable before it is sent, and certain before it is begun: a second attempt marks the same ones.
    let marked = again(context, || context.store.mark_live(ids.clone(), call)).await?;
    crate::crash::point("flight-called");
    marked.iter().for_each(|id| context.announce_request(*id, RequestState::Submitted.as_str()));
    live::start(context, lane, marked, false);
    Ok(())
}

/// Waits until all pilots have ended.
async fn landing(context: &Context, pilots: &[RequestId]) -> Result<Vec<RequestRecord>, Stopping> {
    // Before the first look: an end in between is heard.
    let mut events = context.events.subscribe();
    loop {
        let records = again(context, || context.store.records(pilots.to_vec())).await?;
        if records.iter().all(|record| record.state.is_terminal()) {
            return Ok(records);
        }
        tokio::select! {
            biased;
            () = context.tasks.stop_token().cancelled() => return Err(Stopping),
            () = heard_of(&mut events, pilots) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn heard_of(events: &mut broadcast::Receiver<EngineEvent>, pilots: &[RequestId]) {
    loop {
        match events.recv().await {
            Ok(EngineEvent::Request { id, .. }) if pilots.contains(&id) => return,
            Ok(EngineEvent::Request { .. } | EngineEvent::Batch { .. }) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Asks the store until it answers.
pub(crate) async fn again<'s, T>(
    context: &Context,
    mut ask: impl FnMut() -> StoreFuture<'s, T>,
) -> Result<T, Stopping> {
    for failures in 0.. {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => context.telemetry.store_failed(&error),
        }
        if !context.sleep(backoff(failures, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64())).await {
            break;
        }
    }
    Err(Stopping)
}

/// Answers requests of a rejected flight, which are in no queue any more: 422, nothing was bought.
pub(crate) fn refuse(context: &Arc<Context>, flight: &FlightRecord, ids: Vec<RequestId>) {
    let refusal = Refusal {
        status: 422,
        code: "flight_grounded".to_owned(),
        message: format!(
            "the test flight {} of this template went wrong and it was {}: {}. Nothing was bought for this request: look at the sample, change the template, or send the call with x-nightbus-flight: off",
            flight.id,
            if flight.state == FlightState::Rejected { "rejected" } else { "not approved in time" },
            flight.reasons.join("; "),
        ),
        ..Refusal::own("")
    };
    let (shared, began) = (Arc::clone(context), flight.created_at);
    context.tasks.spawn("refused by a test flight", async move {
        for group in ids.chunks(GROUP) {
            for failures in 0.. {
                let finished = group.iter().map(|id| refusal.finish(&shared, *id)).collect();
                if settle::finish(&shared, began, None, finished).await.is_ok() {
                    break;
                }
                // After a restart the same is done again: the flight's end is durable.
                let pause = backoff(failures, Duration::from_secs(1), Duration::from_secs(60), fastrand::f64());
                if !shared.sleep(pause).await {
                    return;
                }
            }
        }
    });
}
