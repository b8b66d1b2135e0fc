//! The dispatcher: one task that owns all lane queues, decides when batches leave, and starts a task for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::domain::ids::RequestId;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::engine::deadline::Schedule;
use crate::engine::live;
use crate::engine::plan::{BatchLimits, LaneQueue, Queued, Timing, estimated_tokens};
use crate::engine::run;
use crate::engine::view::{FlushReport, LaneView};

/// What the dispatcher is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A new request is durable.
    Accepted(Arc<LaneKey>, Queued),
    /// Requests are queued again; they go first. With a reason the lane waits before its next batch.
    Returned { lane: Arc<LaneKey>, requests: Vec<Queued>, hold_back: Option<(Duration, String)> },
    /// A request was cancelled.
    Withdrawn(Arc<LaneKey>, RequestId),
    /// Submit now what one caller, or everybody, has queued.
    Flush(Option<Fingerprint>, oneshot::Sender<FlushReport>),
    /// An open batch was found at start.
    Resumed { lane: Arc<LaneKey>, tokens: u64 },
    /// A batch ended. `made_room`: it had been in the provider's queue, which has room for another now.
    Ended { lane: Arc<LaneKey>, tokens: u64, made_room: bool },
}

#[derive(Debug, Default)]
struct Lane {
    queue: LaneQueue,
    open_batches: u64,
    tokens_in_flight: u64,
    held_back: Option<(Instant, String)>,
}

struct Dispatcher {
    context: Arc<Context>,
    timing: Timing,
    /// Ordered, so that the same calls give the same batches (`tests/simulation.rs`).
    lanes: BTreeMap<Arc<LaneKey>, Lane>,
    /// Requests that live calls are to serve, by the first service and the reason.
    leaving: BTreeMap<(Arc<LaneKey>, Service, &'static str), Vec<RequestId>>,
}

/// How often the view for the admin API is refreshed at most.
const VIEW_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until the process stops.
pub(crate) async fn run(context: Arc<Context>, mut messages: mpsc::UnboundedReceiver<Message>) {
    let timing = Timing { idle: context.batching.idle, max_age: context.batching.max_age };
    let mut dispatcher =
        Dispatcher { context: Arc::clone(&context), timing, lanes: BTreeMap::new(), leaving: BTreeMap::new() };
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
                    self.lanes.entry(lane).or_default().queue.push(queued);
                }
            }
            Message::Returned { lane, requests, hold_back } => {
                let requests = requests.into_iter().filter_map(|queued| self.stays(&lane, queued)).collect();
                let lane = self.lanes.entry(lane).or_default();
                lane.queue.push_front(requests);
                if let Some((wait, reason)) = hold_back {
                    lane.held_back = Some((Instant::now() + wait, reason));
                }
            }
            Message::Withdrawn(lane, id) => {
                if self.lanes.get_mut(&lane).is_some_and(|lane| lane.queue.withdraw(id)) {
                    self.context.queued.fetch_sub(1, Ordering::Relaxed);
                }
            }
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
            Message::Ended { lane, tokens, made_room } => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.open_batches = lane.open_batches.saturating_sub(1);
                    lane.tokens_in_flight = lane.tokens_in_flight.saturating_sub(tokens);
                    // Try at once. A batch that was refused must not end the wait that its refusal began.
                    if made_room {
                        lane.held_back = None;
                    }
                }
                for lane in self.lanes.values_mut() {
                    // Other endpoints share the provider's queue.
                    lane.held_back.take_if(|(_, reason)| reason.as_str() == NO_ROOM);
                }
            }
        }
    }

    /// The request if it waits for a batch; none: a live call serves it.
    fn stays(&mut self, lane: &Arc<LaneKey>, mut queued: Queued) -> Option<Queued> {
        let Some(service) = queued.fallback.first() else { return Some(queued) };
        let now = self.context.now();
        let schedule = Schedule::of_class(lane.deadline_class, queued.accepted_at, 1);
        let expected = schedule.and_then(|_| {
            let waiting = self.lanes.get(lane).map_or(0, |lane| lane.queue.len());
            self.context.learned.expected(lane, u32::try_from(waiting + 1).unwrap_or(u32::MAX), now)
        });
        let has_room =
            schedule.is_none_or(|times| times.has_room(now, self.timing.idle, self.context.batching.poll, expected));
        let why = if self.context.refused.knows(lane) {
            "batch_refused_before"
        } else if has_room {
            queued.leave_by = schedule.map(|times| Instant::now() + times.cancel_at.since(now));
            return Some(queued);
        } else if expected.is_some() {
            "batch_too_slow"
        } else {
            "deadline"
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
            for queued in lane.queue.take_late(now) {
                let Some(service) = queued.fallback.first() else { continue };
                self.leaving.entry((Arc::clone(key), service, "deadline")).or_default().push(queued.id);
            }
        }
        for ((lane, service, why), ids) in std::mem::take(&mut self.leaving) {
            self.context.telemetry.fallback(service.as_str(), ids.len(), why);
            live::start(&self.context, &lane, ids, true);
        }
    }

    fn limits(&self, lane: &LaneKey) -> BatchLimits {
        self.context.provider(lane).map_or(
            BatchLimits { requests: 1, bytes: u64::MAX, inputs: 0, tokens: None },
            |provider| {
                let capability = provider.capability();
                BatchLimits {
                    requests: usize::try_from(capability.max_requests).unwrap_or(usize::MAX).max(1),
                    bytes: capability.max_bytes,
                    inputs: capability.max_embedding_inputs,
                    tokens: capability.in_flight_tokens,
                }
            },
        )
    }

    fn next_due(&self) -> Option<Instant> {
        if self.context.is_draining() {
            return None;
        }
        self.lanes
            .iter()
            .filter_map(|(key, lane)| {
                let due = lane.queue.due_at(self.timing, &self.limits(key))?;
                let due = lane.held_back.as_ref().map_or(due, |(until, _)| due.max(*until));
                Some(lane.queue.leave_by().map_or(due, |leave| leave.min(due)))
            })
            .min()
    }

    fn dispatch(&mut self) {
        if self.context.is_draining() {
            return;
        }
        let now = Instant::now();
        let keys: Vec<Arc<LaneKey>> = self.lanes.keys().cloned().collect();
        for key in keys {
            let limits = self.limits(&key);
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            if lane.held_back.as_ref().is_some_and(|(until, _)| *until > now) {
                continue;
            }
            lane.held_back = None;
            while let Some(room) = self.room(&key, &limits)
                && let Some(lane) = self.lanes.get_mut(&key)
                && let Some(batch) = lane.queue.take(now, self.timing, &room)
            {
                let tokens = estimated_tokens(batch.iter().map(|queued| queued.line_bytes).sum());
                lane.open_batches += 1;
                lane.tokens_in_flight += tokens;
                self.context.queued.fetch_sub(u64::try_from(batch.len()).unwrap_or(0), Ordering::Relaxed);
                run::start_new(&self.context, Arc::clone(&key), batch, tokens);
            }
            if self.room(&key, &limits).is_none()
                && let Some(lane) = self.lanes.get_mut(&key)
            {
                // `Ended` wakes it; the time only bounds the wait.
                lane.held_back = Some((now + Duration::from_secs(60), NO_ROOM.to_owned()));
            }
        }
        self.lanes.retain(|_, lane| lane.queue.len() > 0 || lane.open_batches > 0);
    }

    /// The limits of a lane's next batch, or none while the provider's queue has no room worth a batch. The queue is one
    /// for all endpoints of a credential and model (providers.md, section 1.8); with nothing of them in flight there is
    /// always room: the provider decides.
    fn room(&self, key: &LaneKey, limits: &BatchLimits) -> Option<BatchLimits> {
        let Some(most) = limits.tokens else { return Some(*limits) };
        let shares = |other: &LaneKey| {
            other.provider == key.provider && other.account == key.account && other.model == key.model
        };
        let sharing = self.lanes.iter().filter(|(other, _)| shares(other));
        let (open, in_flight) = sharing
            .fold((0, 0), |(open, tokens), (_, lane)| (open + lane.open_batches, tokens + lane.tokens_in_flight));
        let room = most.saturating_sub(in_flight);
        let queued = self.lanes.get(key).map_or(0, |lane| estimated_tokens(lane.queue.bytes()));
        (open == 0 || queued <= room || room >= most / 4).then_some(BatchLimits { tokens: Some(room), ..*limits })
    }

    fn publish(&self) {
        let mut lanes: Vec<LaneView> = self
            .lanes
            .iter()
            .map(|(key, lane)| LaneView {
                lane: Arc::clone(key),
                queued_requests: u64::try_from(lane.queue.len()).unwrap_or(u64::MAX),
                queued_bytes: lane.queue.bytes(),
                oldest_queued_at: lane.queue.oldest_accepted_at(),
                open_batches: lane.open_batches,
                held_back: lane.held_back.as_ref().map(|(_, reason)| reason.clone()),
            })
            .collect();
        lanes.sort_by(|left, right| left.lane.cmp(&right.lane));
        *self.context.lanes.write() = lanes;
    }
}

const NO_ROOM: &str = "in_flight_tokens is used up";
