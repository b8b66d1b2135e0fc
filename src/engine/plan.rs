//! Which queued requests form which batches now: pure, time is a parameter (contract, section 7, first bullet).
//!
//! A lane is due when nothing arrived for `idle`, when its oldest request waits for `max_age`, when it fills a batch,
//! or when somebody flushed it. Requests leave in order of arrival.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::clock::Micros;
use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::domain::service::Fallback;
use crate::engine::bisect::Apart;
use crate::engine::budget::{Purses, Room};

/// A request that waits for a batch: a reference, not a body, so that memory grows with their number only.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) id: RequestId,
    /// Bytes of its line.
    pub(crate) line_bytes: u64,
    /// Embedding inputs; 0 elsewhere.
    pub(crate) inputs: u32,
    pub(crate) caller: Fingerprint,
    pub(crate) accepted_at: Micros,
    /// The services that may take over.
    pub(crate) fallback: Fallback,
    /// Since when it waits here.
    pub(crate) since: Instant,
    /// When it leaves for another service because a batch would be too late; none: never.
    pub(crate) leave_by: Option<Instant>,
    /// It shares a batch with requests of the same part only, which leaves at once.
    pub(crate) apart: Option<Apart>,
    /// What it has in common with others; none: it takes part in no test flight.
    pub(crate) template: Option<Fingerprint>,
    /// The most output tokens it may have.
    pub(crate) most_output: Option<u32>,
    /// What it is expected to cost, in nano-dollars; 0 where no budget is kept.
    pub(crate) estimate: u64,
    /// The limits of the budget that it keeps.
    pub(crate) purses: Purses,
}

/// When lanes leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) idle: Duration,
    pub(crate) max_age: Duration,
}

/// How much one batch takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) requests: usize,
    pub(crate) bytes: u64,
    pub(crate) inputs: u32,
    /// Estimated prompt tokens.
    pub(crate) tokens: Option<u64>,
    /// A first request that has no room in `tokens` waits, and smaller ones pass it by. Otherwise it leaves alone.
    pub(crate) overtake: bool,
    /// What may still be spent today, in nano-dollars.
    pub(crate) nanos: Option<u64>,
}

/// Bytes of a line per prompt token, cautiously (providers.md, section 1.8).
const BYTES_PER_TOKEN: u64 = 3;

/// A safe estimate of the prompt tokens in lines of so many bytes.
pub(crate) const fn estimated_tokens(line_bytes: u64) -> u64 {
    line_bytes / BYTES_PER_TOKEN
}

/// One lane's queue.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    waiting: VecDeque<Queued>,
    bytes: u64,
    inputs: u64,
    last_arrival: Option<Instant>,
    /// Nobody has to leave before.
    leave_by: Option<Instant>,
    /// The first so many leave at the next look, due or not.
    flushed: usize,
    /// How many there are of each template.
    templates: HashMap<Fingerprint, usize>,
}

impl LaneQueue {
    /// A new arrival.
    pub(crate) fn push(&mut self, queued: Queued) {
        self.last_arrival = Some(self.last_arrival.map_or(queued.since, |last| last.max(queued.since)));
        self.count_in(&queued);
        self.waiting.push_back(queued);
    }

    /// Requests that come back: before all others, in their order.
    pub(crate) fn push_front(&mut self, returned: Vec<Queued>) {
        for queued in returned.into_iter().rev() {
            self.last_arrival = Some(self.last_arrival.map_or(queued.since, |last| last.max(queued.since)));
            self.count_in(&queued);
            self.waiting.push_front(queued);
        }
    }

    fn count_in(&mut self, queued: &Queued) {
        self.leave_by = [self.leave_by, queued.leave_by].into_iter().flatten().min();
        self.bytes = self.bytes.saturating_add(queued.line_bytes);
        self.inputs = self.inputs.saturating_add(u64::from(queued.inputs));
        if let Some(template) = queued.template {
            *self.templates.entry(template).or_insert(0) += 1;
        }
    }

    fn count_out(&mut self, queued: &Queued) {
        self.bytes = self.bytes.saturating_sub(queued.line_bytes);
        self.inputs = self.inputs.saturating_sub(u64::from(queued.inputs));
        if let Some(template) = queued.template
            && let Some(count) = self.templates.get_mut(&template)
        {
            *count -= 1;
            if *count == 0 {
                self.templates.remove(&template);
            }
        }
    }

    /// How many there are of a template.
    pub(crate) fn count_of(&self, template: Fingerprint) -> usize {
        self.templates.get(&template).copied().unwrap_or(0)
    }

    /// All templates with their numbers.
    pub(crate) fn templates(&self) -> impl Iterator<Item = (Fingerprint, usize)> {
        self.templates.iter().map(|(template, count)| (*template, *count))
    }

    /// Takes out what `wanted` picks, in its order.
    pub(crate) fn extract(&mut self, mut wanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let (picked, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|queued| wanted(queued));
        self.waiting = rest.into();
        picked.iter().for_each(|queued| self.count_out(queued));
        self.flushed = self.flushed.min(self.waiting.len());
        self.leave_by = self.waiting.iter().filter_map(|queued| queued.leave_by).min();
        picked
    }

    /// Of the first `most` that have room in their own limits: takes out those before and between that have none.
    pub(crate) fn set_aside(&mut self, most: usize, mut room: Room) -> Vec<Queued> {
        let (mut aside, mut stays) = (Vec::new(), Vec::new());
        while stays.len() < most
            && let Some(queued) = self.waiting.pop_front()
        {
            if room.pays(&queued) {
                stays.push(queued);
            } else {
                self.count_out(&queued);
                aside.push(queued);
            }
        }
        stays.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
        if !aside.is_empty() {
            self.flushed = self.flushed.min(self.waiting.len());
            self.leave_by = self.waiting.iter().filter_map(|queued| queued.leave_by).min();
        }
        aside
    }

    /// Requests that have waited for something else: they leave at the next look, before all others.
    pub(crate) fn release(&mut self, held: Vec<Queued>) {
        self.flushed += held.len();
        self.push_front(held);
    }

    /// Takes one out; whether it was here.
    pub(crate) fn withdraw(&mut self, id: RequestId) -> bool {
        let Some(at) = self.waiting.iter().position(|queued| queued.id == id) else {
            return false;
        };
        if let Some(queued) = self.waiting.remove(at) {
            self.count_out(&queued);
        }
        self.flushed = self.flushed.min(self.waiting.len());
        true
    }

    /// Makes what `wanted` picks leave at the next look; how many that is.
    pub(crate) fn flush(&mut self, wanted: impl Fn(&Queued) -> bool) -> u64 {
        let (picked, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|queued| wanted(queued));
        self.flushed = picked.len();
        self.waiting = picked.into_iter().chain(rest).collect();
        u64::try_from(self.flushed).unwrap_or(u64::MAX)
    }

    /// When to call [`Self::take_late`]; none: nobody has to leave.
    pub(crate) const fn leave_by(&self) -> Option<Instant> {
        self.leave_by
    }

    /// Takes out those that must not wait for a batch any longer.
    pub(crate) fn take_late(&mut self, now: Instant) -> Vec<Queued> {
        if self.leave_by.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.extract(|queued| queued.leave_by.is_some_and(|at| at <= now))
    }

    /// What the first one is expected to cost, in nano-dollars; none: it is empty.
    pub(crate) fn next_estimate(&self) -> Option<u64> {
        self.waiting.front().map(|queued| queued.estimate)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Who leaves next.
    pub(crate) fn first(&self) -> Option<&Queued> {
        self.waiting.front()
    }

    pub(crate) fn oldest_accepted_at(&self) -> Option<Micros> {
        self.waiting.front().map(|queued| queued.accepted_at)
    }

    fn fills(&self, limits: &BatchLimits) -> bool {
        self.waiting.len() >= limits.requests
            || self.bytes >= limits.bytes
            || (limits.inputs > 0 && self.inputs >= u64::from(limits.inputs))
    }

    /// When this lane is due; none: it is empty.
    pub(crate) fn due_at(&self, timing: Timing, limits: &BatchLimits) -> Option<Instant> {
        let oldest = self.waiting.front()?.since;
        if self.flushed > 0 || self.fills(limits) || self.waiting.front()?.apart.is_some() {
            return Some(oldest);
        }
        let idle_at = self.last_arrival.unwrap_or(oldest) + timing.idle;
        Some(idle_at.min(oldest + timing.max_age))
    }

    /// The next batch of a lane that is due at `now`, or nothing. Called until it returns nothing.
    pub(crate) fn take(&mut self, now: Instant, timing: Timing, limits: &BatchLimits) -> Option<Vec<Queued>> {
        if self.due_at(timing, limits)? > now {
            return None;
        }
        let mut filling = Filling::of(limits);
        if limits.overtake && self.waiting.front().is_some_and(|first| !filling.has_room(first)) {
            return self.take_smaller(filling);
        }
        while let Some(next) = self.waiting.front() {
            // A budget is kept even where that leaves nothing.
            if !filling.can_pay(next) {
                break;
            }
            // A request that is larger than a limit alone still leaves, alone: the provider decides.
            if !filling.batch.is_empty() && !filling.has_room(next) {
                break;
            }
            let Some(queued) = self.waiting.pop_front() else { break };
            self.count_out(&queued);
            filling.push(queued);
        }
        let batch = filling.batch;
        if batch.is_empty() {
            return None;
        }
        self.flushed = self.flushed.saturating_sub(batch.len());
        if self.waiting.is_empty() {
            (self.last_arrival, self.leave_by) = (None, None);
        }
        Some(batch)
    }

    /// Those behind the first one that have room, in their order.
    fn take_smaller(&mut self, mut filling: Filling<'_>) -> Option<Vec<Queued>> {
        let mut rest = VecDeque::with_capacity(self.waiting.len());
        for queued in std::mem::take(&mut self.waiting) {
            if filling.has_room(&queued) {
                filling.push(queued);
            } else {
                rest.push_back(queued);
            }
        }
        self.waiting = rest;
        filling.batch.iter().for_each(|queued| self.count_out(queued));
        self.flushed = self.flushed.min(self.waiting.len());
        Some(filling.batch).filter(|batch| !batch.is_empty())
    }
}

/// A batch in the making.
struct Filling<'a> {
    limits: &'a BatchLimits,
    batch: Vec<Queued>,
    bytes: u64,
    inputs: u64,
    nanos: u64,
}

impl<'a> Filling<'a> {
    const fn of(limits: &'a BatchLimits) -> Self {
        Self { limits, batch: Vec::new(), bytes: 0, inputs: 0, nanos: 0 }
    }

    fn can_pay(&self, next: &Queued) -> bool {
        self.limits.nanos.is_none_or(|most| self.nanos.saturating_add(next.estimate) <= most)
    }

    fn has_room(&self, next: &Queued) -> bool {
        let bytes = self.bytes.saturating_add(next.line_bytes);
        let inputs = self.inputs.saturating_add(u64::from(next.inputs));
        self.batch.len() < self.limits.requests
            && bytes <= self.limits.bytes
            && (self.limits.inputs == 0 || inputs <= u64::from(self.limits.inputs))
            && self.limits.tokens.is_none_or(|most| estimated_tokens(bytes) <= most)
            && self.batch.first().is_none_or(|first| first.apart == next.apart)
            && self.can_pay(next)
    }

    fn push(&mut self, queued: Queued) {
        self.bytes = self.bytes.saturating_add(queued.line_bytes);
        self.inputs = self.inputs.saturating_add(u64::from(queued.inputs));
        self.nanos = self.nanos.saturating_add(queued.estimate);
        self.batch.push(queued);
    }
}

#[cfg(test)]
mod tests;
