//! The dispatcher: one task that owns all lane queues, decides when batches leave, and starts a task for each.

mod gate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::domain::service::Service;
use crate::engine::choice;
use crate::engine::context::Context;
use crate::engine::deadline::Schedule;
use crate::engine::live;
use crate::engine::plan::{BatchLimits, LaneQueue, Queued, Timing, estimated_tokens};
use crate::engine::quota::{Quotas, share_pool};
use crate::engine::run::{self, Load};
use crate::engine::view::{FlushReport, HeldBack, LaneView};
use crate::store::LearnedCeiling;

/// What the dispatcher is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A new request is durable.
    Accepted(Arc<LaneKey>, Queued),
    /// Requests are queued again; they go first. With a reason the lane waits before its next batch.
    Returned { lane: Arc<LaneKey>, requests: Vec<Queued>, hold_back: Option<(Duration, HeldBack)> },
    /// A batch was refused because the provider's queue was full; `told`: its limit, where the refusal names it.
    QueueFull { lane: Arc<LaneKey>, told: Option<u64> },
    /// A file was too large; `most`: how many bytes the next ones may have.
    TooLarge { lane: Arc<LaneKey>, most: u64 },
    /// An earlier run created a batch so long ago.
    CreatedBefore { lane: Arc<LaneKey>, ago: Duration },
    /// A request was cancelled.
    Withdrawn(Arc<LaneKey>, RequestId),
    /// Submit now what one caller, or everybody, has queued.
    Flush(Option<Fingerprint>, oneshot::Sender<FlushReport>),
    /// An open batch was found at start.
    Resumed { lane: Arc<LaneKey>, tokens: u64 },
    /// A batch ended. `made_room`: it had been in the provider's queue, which has room for another now.
    Ended { lane: Arc<LaneKey>, load: Load, made_room: bool },
    /// More may be spent than before.
    Budget,
    /// The configuration was read again: what is due is due at other times.
    Settings,
    /// A test flight has changed.
    Flight(Fingerprint),
}

#[derive(Debug, Default)]
struct Lane {
    queue: LaneQueue,
    /// What waits for a test flight's verdict.
    parked: LaneQueue,
    /// What waits for the next day because of its tag's or client key's limit.
    unpaid: LaneQueue,
    open_batches: u64,
    tokens_in_flight: u64,
    held_back: Option<(Instant, HeldBack)>,
    /// Since when its first request could leave but for the room in the provider's queue.
    short_since: Option<Instant>,
}

struct Dispatcher {
    context: Arc<Context>,
    /// Ordered, so that the same calls give the same batches (`tests/simulation.rs`).
    lanes: BTreeMap<Arc<LaneKey>, Lane>,
    quotas: Quotas,
    /// What is learned of them, to be kept.
    lessons: mpsc::UnboundedSender<LearnedCeiling>,
    /// Requests that live calls are to serve, by the first service and the reason.
    leaving: BTreeMap<(Arc<LaneKey>, Service, &'static str), Vec<RequestId>>,
}

/// How often the view for the admin API is refreshed at most.
const VIEW_INTERVAL: Duration = Duration::from_millis(200);

/// How often a lane without room is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long others may leave before a request for which the provider's queue has no room yet.
const OVERTAKEN_FOR: Duration = Duration::from_secs(600);

/// Runs until the process stops. `quotas`: what earlier runs learned; `lessons`: where what is learned goes.
pub(crate) async fn run(
    context: Arc<Context>,
    mut messages: mpsc::UnboundedReceiver<Message>,
    quotas: Quotas,
    lessons: mpsc::UnboundedSender<LearnedCeiling>,
) {
    let mut dispatcher =
        Dispatcher { context: Arc::clone(&context), lanes: BTreeMap::new(), quotas, lessons, leaving: BTreeMap::new() };
    let stop = context.tasks.stop_token().clone();
    let mut publish_at: Option<Instant> = None;
    let mut buffer = Vec::with_capacity(512);
    loop {
        let wake_at = [dispatcher.next_due(), publish_at].into_iter().flatten().min();
        let due = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            received = messages.recv_many(&mut buffer, 512) => {
                if received == 0 {
                    break;
                }
            }
            () = due => {}
        }
        for message in buffer.drain(..) {
            dispatcher.handle(message);
        }
        dispatcher.call_live();
        dispatcher.dispatch();
        let now = Instant::now();
        if publish_at.is_some_and(|at| at <= now) {
            dispatcher.publish();
            publish_at = None;
        } else if publish_at.is_none() {
            publish_at = Some(now + VIEW_INTERVAL);
        }
    }
}

impl Dispatcher {
    fn handle(&mut self, message: Message) {
        match message {
            Message::Accepted(lane, queued) => {
                if let Some(queued) = self.stays(&lane, queued) {
                    self.enter(lane, queued);
                }
            }
            Message::Returned { lane, requests, hold_back } => {
                self.take_back(lane, requests, hold_back);
            }
            Message::QueueFull { lane, told } => {
                let (_, in_flight) = self.in_pool(&lane);
                let most = self.quotas.queue_full(&lane, told, in_flight, Instant::now());
                tracing::info!(%lane, told, in_flight, most, "the provider's queue was full: a ceiling was learned");
                self.keep(self.quotas.learned_tokens(&lane, Instant::now(), self.context.now()));
            }
            Message::TooLarge { lane, most } => {
                self.quotas.too_large(&lane, most);
                self.keep(self.quotas.learned_bytes(&lane, self.context.now()));
            }
            Message::CreatedBefore { lane, ago } => {
                if let Some(at) = Instant::now().checked_sub(ago) {
                    self.quotas.created(&lane, at);
                }
            }
            Message::Withdrawn(lane, id) => {
                if self.lanes.get_mut(&lane).is_some_and(|lane| lane.withdraw(id)) {
                    self.context.queued.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Message::Budget => self.more_may_be_spent(),
            // Looked up at each turn, of which this is one.
            Message::Settings => {}
            Message::Flight(template) => self.flight_turned(template),
            Message::Flush(caller, reply) => {
                let mut report = FlushReport::default();
                for lane in self.lanes.values_mut() {
                    let requests = lane.queue.flush(|queued| caller.is_none_or(|caller| queued.caller == caller));
                    report.requests += requests;
                    report.lanes += u64::from(requests > 0);
                }
                // Whoever asked may be gone.
                if reply.send(report).is_err() {
                    tracing::debug!("nobody waits for the flush any more");
                }
            }
            Message::Resumed { lane, tokens } => {
                let lane = self.lanes.entry(lane).or_default();
                lane.open_batches += 1;
                lane.tokens_in_flight += tokens;
            }
            Message::Ended { lane, load, made_room } => {
                self.context.budget.give_back(&load.reserve);
                let in_flight = self.in_pool(&lane).1;
                if made_room && self.quotas.accepted(&lane, in_flight, Instant::now()) {
                    self.keep(self.quotas.learned_tokens(&lane, Instant::now(), self.context.now()));
                }
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.open_batches = lane.open_batches.saturating_sub(1);
                    lane.tokens_in_flight = lane.tokens_in_flight.saturating_sub(load.tokens);
                    // Try at once. A batch that was refused must not end the wait that its refusal began.
                    if made_room {
                        lane.held_back = None;
                    }
                }
                for lane in self.lanes.values_mut() {
                    // Other endpoints share the provider's queue.
                    lane.held_back.take_if(|(_, reason)| *reason == HeldBack::InFlightTokens);
                }
            }
        }
    }

    /// Has a lesson written down; whoever writes has ended only when the process does.
    fn keep(&self, lesson: Option<LearnedCeiling>) {
        if lesson.is_some_and(|lesson| self.lessons.send(lesson).is_err()) {
            tracing::debug!("what is learned is not kept any more");
        }
    }

    fn take_back(&mut self, lane: Arc<LaneKey>, requests: Vec<Queued>, hold_back: Option<(Duration, HeldBack)>) {
        let requests: Vec<_> = requests.into_iter().filter_map(|queued| self.stays(&lane, queued)).collect();
        let requests = self.cleared(&lane, requests);
        let most = self.limits(&lane).tokens;
        let lane = self.lanes.entry(lane).or_default();
        if let Some((wait, reason)) = hold_back {
            lane.held_back = Some((Instant::now() + wait, reason));
        }
        match <[Queued; 1]>::try_from(requests) {
            // It seems to be larger than the whole queue: others go first, or they might never.
            Ok([alone]) if most.is_some_and(|most| estimated_tokens(alone.line_bytes) > most) => lane.queue.push(alone),
            Ok(alone) => lane.queue.push_front(alone.into()),
            Err(requests) => lane.queue.push_front(requests),
        }
    }

    /// The request if it waits for a batch; none: a live call serves it.
    fn stays(&mut self, lane: &Arc<LaneKey>, mut queued: Queued) -> Option<Queued> {
        queued.estimate = self.context.budget.estimate(&self.context, lane, &queued);
        let Some(first) = queued.fallback.first() else { return Some(queued) };
        if self.context.provider(lane).is_some_and(|provider| provider.capability().live_calls.is_some()) {
            self.leaving.entry((Arc::clone(lane), first, "provider_has_no_batch")).or_default().push(queued.id);
            return None;
        }
        let now = self.context.now();
        let deadline = (lane.deadline_class != 0).then(|| Micros::from_unix_seconds(lane.deadline_class.abs()));
        let schedule = deadline.map(|at| Schedule::new(queued.accepted_at, at, 1));
        let expected = schedule.and_then(|_| {
            let waiting = self.lanes.get(lane).map_or(0, |lane| lane.queue.len());
            self.context.learned.expected(lane, u32::try_from(waiting + 1).unwrap_or(u32::MAX), now)
        });
        let batching = &self.context.settings().batching;
        let has_room = schedule.is_none_or(|times| times.has_room(now, batching.idle, batching.poll, expected));
        let why = match self.context.refused.knows(lane, Service::Batch) {
            true => Some("batch_refused_before"),
            false if has_room => None,
            false if expected.is_some() => Some("batch_too_slow"),
            false => Some("deadline"),
        };
        let next = choice::first(&self.context, lane, queued.fallback, deadline);
        let Some((why, service)) = why.zip(next) else {
            // What nothing may rescue stays until its deadline.
            queued.leave_by =
                schedule.filter(|_| lane.deadline_class > 0).map(|times| Instant::now() + times.cancel_at.since(now));
            return Some(queued);
        };
        self.leaving.entry((Arc::clone(lane), service, why)).or_default().push(queued.id);
        None
    }

    /// Starts the live calls of those that wait for no batch, or not any longer.
    fn call_live(&mut self) {
        // After a restart the same is decided again.
        if self.context.is_draining() {
            return;
        }
        let now = Instant::now();
        for (key, lane) in &mut self.lanes {
            for queued in lane.take_late(now) {
                let deadline = Micros::from_unix_seconds(key.deadline_class);
                let service = choice::first(&self.context, key, queued.fallback, Some(deadline));
                let Some(service) = service.or_else(|| queued.fallback.first()) else { continue };
                self.leaving.entry((Arc::clone(key), service, "deadline")).or_default().push(queued.id);
            }
        }
        for ((lane, service, why), ids) in std::mem::take(&mut self.leaving) {
            self.context.telemetry.fallback(service.as_str(), ids.len(), why);
            live::start(&self.context, &lane, ids, true);
        }
    }

    fn timing(&self) -> Timing {
        let settings = self.context.settings();
        Timing { idle: settings.batching.idle, max_age: settings.batching.max_age }
    }

    fn limits(&self, lane: &LaneKey) -> BatchLimits {
        let smallest = |known: Option<u64>, learned: Option<u64>| known.into_iter().chain(learned).min();
        let overtake = false;
        self.context.provider(lane).map_or(
            BatchLimits { requests: 1, bytes: u64::MAX, inputs: 0, tokens: None, overtake, nanos: None },
            |provider| {
                let capability = provider.capability();
                BatchLimits {
                    requests: usize::try_from(capability.max_requests).unwrap_or(usize::MAX).max(1),
                    bytes: smallest(Some(capability.max_bytes), self.quotas.bytes(lane)).unwrap_or(u64::MAX),
                    inputs: capability.max_embedding_inputs,
                    tokens: smallest(capability.in_flight_tokens, self.quotas.tokens(lane)),
                    overtake,
                    nanos: None,
                }
            },
        )
    }

    fn next_due(&self) -> Option<Instant> {
        if self.context.is_draining() {
            return None;
        }
        let timing = self.timing();
        self.lanes
            .iter()
            .filter_map(|(key, lane)| {
                let due = lane.queue.due_at(timing, &self.limits(key));
                let due = due.map(|due| lane.held_back.as_ref().map_or(due, |(until, _)| due.max(*until)));
                [due, lane.leave_by()].into_iter().flatten().min()
            })
            .min()
    }

    fn dispatch(&mut self) {
        if self.context.is_draining() {
            return;
        }
        let now = Instant::now();
        // Where lanes share a limit, whoever waits longest goes first.
        let mut keys: Vec<_> =
            self.lanes.iter().map(|(key, lane)| (lane.queue.oldest_accepted_at(), Arc::clone(key))).collect();
        keys.sort_unstable_by_key(|(oldest, _)| *oldest);
        for (_, key) in keys {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            if lane.held_back.as_ref().is_some_and(|(until, _)| *until > now) {
                continue;
            }
            lane.held_back = None;
            lane.short_since.take_if(|_| lane.queue.len() == 0);
            while let Some(batch) = self.next_batch(&key, now) {
                let bytes = batch.iter().map(|queued| queued.line_bytes).sum();
                let load = Load::of(&batch);
                if let Some(lane) = self.lanes.get_mut(&key) {
                    lane.open_batches += 1;
                    lane.tokens_in_flight += load.tokens;
                }
                self.context.budget.reserve(&load.reserve);
                self.quotas.created(&key, now);
                if self.quotas.taken(&key, bytes) {
                    self.keep(self.quotas.learned_bytes(&key, self.context.now()));
                }
                self.context.queued.fetch_sub(u64::try_from(batch.len()).unwrap_or(0), Ordering::Relaxed);
                run::start_new(&self.context, Arc::clone(&key), batch, load);
            }
        }
        self.lanes.retain(|_, lane| lane.len() > 0 || lane.open_batches > 0);
    }

    /// The next batch of a lane, if it is due and the provider has room for it; otherwise notes why the lane waits.
    fn next_batch(&mut self, key: &Arc<LaneKey>, now: Instant) -> Option<Vec<Queued>> {
        let (limits, timing) = (self.limits(key), self.timing());
        self.lanes.get(key)?.queue.due_at(timing, &limits).filter(|due| *due <= now)?;
        let per_hour = self.context.provider(key).and_then(|provider| provider.capability().batches_per_hour);
        let wait = self.quotas.next_creation(key, per_hour, now);
        let room = self.room(key, &limits, now);
        self.set_aside(key, limits.requests);
        let lane = self.lanes.get_mut(key)?;
        if let Some(until) = wait {
            lane.held_back = Some((until, HeldBack::BatchesPerHour));
            return None;
        }
        let first = lane.queue.first()?.id;
        let nanos = self.context.budget.left();
        let batch = room.and_then(|room| lane.queue.take(now, timing, &BatchLimits { nanos, ..room }));
        if batch.as_ref().is_some_and(|batch| batch.iter().any(|queued| queued.id == first)) {
            lane.short_since = None;
        } else {
            lane.short_since.get_or_insert(now);
        }
        if batch.is_none() {
            // `Ended` wakes it as well; smaller ones may have come meanwhile.
            lane.held_back = Some((now + LOOK_AGAIN, HeldBack::InFlightTokens));
            self.hold_for_budget(key, now);
        }
        batch
    }

    /// Batches and estimated tokens that a lane's credential and model have at the provider. The queue there is one for all
    /// endpoints (providers.md, section 1.8).
    fn in_pool(&self, key: &LaneKey) -> (u64, u64) {
        let sharing = self.lanes.iter().filter(|(other, _)| share_pool(other, key));
        sharing.fold((0, 0), |(open, tokens), (_, lane)| (open + lane.open_batches, tokens + lane.tokens_in_flight))
    }

    /// The limits of a lane's next batch, or none while the provider's queue has no room worth a batch. With nothing of
    /// the credential and model in flight there is always room: the provider decides. Who is short of room is passed by
    /// for a while, by smaller requests and by younger lanes, and then by nobody.
    fn room(&self, key: &LaneKey, limits: &BatchLimits, now: Instant) -> Option<BatchLimits> {
        let Some(most) = limits.tokens else { return Some(*limits) };
        let starving = self
            .lanes
            .iter()
            .filter(|(other, lane)| share_pool(other, key) && lane.queue.len() > 0)
            .filter_map(|(other, lane)| Some((lane.short_since.filter(|since| *since + OVERTAKEN_FOR <= now)?, other)))
            .min();
        if starving.as_ref().is_some_and(|(_, other)| ***other != *key) {
            return None;
        }
        let (open, in_flight) = self.in_pool(key);
        let room = most.saturating_sub(in_flight);
        let queue = &self.lanes.get(key)?.queue;
        if open == 0 {
            return Some(BatchLimits { tokens: Some(room), ..*limits });
        }
        let first_fits = queue.first().is_some_and(|first| estimated_tokens(first.line_bytes) <= room);
        let is_worth_it = estimated_tokens(queue.bytes()) <= room || room >= most / 4 || starving.is_some();
        let may_leave = is_worth_it && (first_fits || starving.is_none());
        may_leave.then_some(BatchLimits { tokens: Some(room), overtake: true, ..*limits })
    }

    fn publish(&self) {
        let mut lanes: Vec<LaneView> = self
            .lanes
            .iter()
            .map(|(key, lane)| LaneView {
                lane: Arc::clone(key),
                queued_requests: u64::try_from(lane.len()).unwrap_or(u64::MAX),
                queued_bytes: lane.queues().iter().map(|queue| queue.bytes()).sum(),
                oldest_queued_at: lane.queues().iter().filter_map(|queue| queue.oldest_accepted_at()).min(),
                open_batches: lane.open_batches,
                held_back: lane.held_back.map(|(_, reason)| reason).or_else(|| lane.waits_for()),
                token_ceiling: self.limits(key).tokens,
            })
            .collect();
        lanes.sort_by(|left, right| left.lane.cmp(&right.lane));
        *self.context.lanes.write() = lanes;
        self.context.flights.publish(self.waiting());
    }
}

#[cfg(test)]
mod tests;
