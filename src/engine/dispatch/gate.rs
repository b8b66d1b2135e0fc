//! The dispatcher's side of test flights and budgets: which requests enter a lane's queue, which wait for a verdict, and when a
//! template takes off.
//!
//! What waits is in its lane's second queue (`parked`), in which it can be cancelled, and from which it leaves for a live
//! call when its deadline comes near, as from the first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::domain::ids::RequestId;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::engine::budget;
use crate::engine::dispatch::{Dispatcher, Lane};
use crate::engine::flight::{self, Standing};
use crate::engine::plan::{LaneQueue, Queued};
use crate::engine::view::HeldBack;

impl Lane {
    /// All that waits, wherever it does.
    pub(super) const fn queues(&self) -> [&LaneQueue; 3] {
        [&self.queue, &self.parked, &self.unpaid]
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queues().iter().map(|queue| queue.len()).sum()
    }

    /// Takes one out; whether it was here.
    pub(super) fn withdraw(&mut self, id: RequestId) -> bool {
        self.queue.withdraw(id) || self.parked.withdraw(id) || self.unpaid.withdraw(id)
    }

    /// When to call [`Self::take_late`]; none: nobody has to leave.
    pub(super) fn leave_by(&self) -> Option<Instant> {
        self.queues().iter().filter_map(|queue| queue.leave_by()).min()
    }

    /// Takes out those that must not wait any longer.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Queued> {
        let queues = [&mut self.queue, &mut self.parked, &mut self.unpaid];
        queues.into_iter().flat_map(|queue| queue.take_late(now)).collect()
    }

    /// What all of its requests wait for; none: some may leave.
    pub(super) fn waits_for(&self) -> Option<HeldBack> {
        match (self.queue.len(), self.unpaid.len(), self.parked.len()) {
            (0, 1.., _) => Some(HeldBack::Budget),
            (0, 0, 1..) => Some(HeldBack::Flight),
            _ => None,
        }
    }
}

impl Dispatcher {
    /// Sorts a request that waits for a batch: into the queue, or behind its template's flight.
    pub(super) fn enter(&mut self, key: Arc<LaneKey>, queued: Queued) {
        let template = queued.template;
        match self.standing(&queued) {
            Standing::Refused(flight) => {
                self.uncount(1);
                flight::refuse(&self.context, &flight, vec![queued.id]);
            }
            Standing::Waits => self.lanes.entry(key).or_default().parked.push(queued),
            Standing::Trusted => self.lanes.entry(key).or_default().queue.push(queued),
            Standing::Unproven => {
                self.lanes.entry(Arc::clone(&key)).or_default().queue.push(queued);
                if let Some(template) = template {
                    self.consider_flight(&key, template);
                }
            }
        }
    }

    /// Of requests that come back, those that may ride again; the others wait.
    pub(super) fn cleared(&mut self, key: &Arc<LaneKey>, returned: Vec<Queued>) -> Vec<Queued> {
        let (waits, free): (Vec<_>, Vec<_>) =
            returned.into_iter().partition(|queued| matches!(self.standing(queued), Standing::Waits));
        if !waits.is_empty() {
            self.lanes.entry(Arc::clone(key)).or_default().parked.push_front(waits);
        }
        free
    }

    fn standing(&self, queued: &Queued) -> Standing {
        let flies = self.context.flight.enabled;
        queued.template.filter(|_| flies).map_or(Standing::Trusted, |template| {
            self.context.flights.standing(template, queued.accepted_at, self.context.now())
        })
    }

    /// Begins a flight when enough of an unproven template wait. A lane that must meet its deadlines by batch alone has
    /// no time for one.
    fn consider_flight(&mut self, key: &Arc<LaneKey>, template: Fingerprint) {
        let config = &self.context.flight;
        let Some(lane) = self.lanes.get_mut(key).filter(|_| key.deadline_class >= 0) else { return };
        let enough = usize::try_from(config.min_requests).unwrap_or(usize::MAX).max(1);
        if lane.queue.count_of(template) < enough || self.context.is_draining() {
            return;
        }
        let mut all = lane.queue.extract(|queued| queued.template == Some(template));
        let rest = all.split_off(all.len().min(usize::try_from(config.size).unwrap_or(usize::MAX).max(1)));
        rest.into_iter().for_each(|queued| lane.parked.push(queued));
        self.uncount(all.len());
        let pilots: Vec<RequestId> = all.iter().map(|queued| queued.id).collect();
        flight::begin(&self.context, key, template, pilots);
    }

    /// A flight has changed: what waits for it goes, is refused, or goes on waiting.
    pub(super) fn flight_turned(&mut self, template: Fingerprint) {
        let keys: Vec<Arc<LaneKey>> = self.lanes.keys().cloned().collect();
        for key in keys {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            let waiting = lane.parked.extract(|queued| queued.template == Some(template));
            let Some(first) = waiting.first() else { continue };
            match self.standing(first) {
                Standing::Waits => self.lanes.entry(key).or_default().parked.push_front(waiting),
                Standing::Refused(flight) => {
                    // Some may have come after the decision: they are as new.
                    let (refused, new): (Vec<_>, Vec<_>) =
                        waiting.into_iter().partition(|queued| flight.refuses(queued.accepted_at));
                    self.uncount(refused.len());
                    flight::refuse(&self.context, &flight, refused.iter().map(|queued| queued.id).collect());
                    new.into_iter().for_each(|queued| self.enter(Arc::clone(&key), queued));
                }
                Standing::Trusted => self.lanes.entry(key).or_default().queue.release(waiting),
                Standing::Unproven => waiting.into_iter().for_each(|queued| self.enter(Arc::clone(&key), queued)),
            }
        }
    }

    /// A lane whose next request is more than is left of the day's budget waits for that.
    pub(super) fn hold_for_budget(&mut self, key: &Arc<LaneKey>, now: Instant) {
        let Some(left) = self.context.budget.left() else { return };
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.queue.next_estimate().is_some_and(|next| next > left) {
            // A new day, or a look at the ledger, wakes it; the time only bounds the wait.
            lane.held_back = Some((now + budget::LOOK, HeldBack::Budget));
            if self.context.budget.hold() {
                tracing::warn!(lane = %key, "the day's budget is used up: lanes wait for midnight (UTC)");
            }
        }
    }

    /// Of the `most` requests that would leave next, those whose tag's or client key's limit is used up let others pass.
    pub(super) fn set_aside(&mut self, key: &Arc<LaneKey>, most: usize) {
        if !self.context.budget.has_limits() {
            return;
        }
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let aside = lane.queue.set_aside(most, self.context.budget.room());
        for scope in self.context.budget.hold_aside(&aside) {
            let (of, name) = scope.named();
            tracing::warn!(lane = %key, of, name, "a limit of the day's budget is used up: its calls wait for midnight (UTC)");
        }
        aside.into_iter().for_each(|queued| lane.unpaid.push(queued));
    }

    /// The ledger was asked, or it is a new day: what has room goes back to its place, in front.
    pub(super) fn more_may_be_spent(&mut self) {
        let mut room = self.context.budget.room();
        let mut back = Vec::new();
        for (key, lane) in &mut self.lanes {
            lane.held_back.take_if(|(_, reason)| *reason == HeldBack::Budget);
            if lane.unpaid.len() > 0 {
                back.push((Arc::clone(key), lane.unpaid.extract(|queued| room.pays(queued))));
            }
        }
        for (key, requests) in back {
            let (mut free, mut unproven) = (Vec::new(), BTreeSet::new());
            for queued in requests {
                // A flight may have begun, or ended, meanwhile.
                match self.standing(&queued) {
                    Standing::Waits | Standing::Refused(_) => {
                        self.enter(Arc::clone(&key), queued);
                        continue;
                    }
                    Standing::Unproven => unproven.extend(queued.template),
                    Standing::Trusted => {}
                }
                free.push(queued);
            }
            self.lanes.entry(Arc::clone(&key)).or_default().queue.push_front(free);
            unproven.into_iter().for_each(|template| self.consider_flight(&key, template));
        }
    }

    /// They are queued no more.
    fn uncount(&self, requests: usize) {
        self.context.queued.fetch_sub(u64::try_from(requests).unwrap_or(0), Ordering::Relaxed);
    }

    /// How many wait for each template, for the admin API.
    pub(super) fn waiting(&self) -> HashMap<Fingerprint, u64> {
        let mut waiting = HashMap::new();
        for (template, count) in self.lanes.values().flat_map(|lane| lane.parked.templates()) {
            *waiting.entry(template).or_insert(0) += u64::try_from(count).unwrap_or(0);
        }
        waiting
    }
}
