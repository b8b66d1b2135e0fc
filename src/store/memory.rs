//! The store that forgets: plain maps behind one lock. For tests, demonstrations, and callers who can do without durability.
//!
//! It keeps every promise of the trait except that it survives the process, and answers at once, so that it runs under
//! paused time. It is also the model against which the other stores are tested: it is meant to be read.

mod book;
mod callbacks;

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;
use secrecy::SecretString;

use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;
use crate::domain::ids::{self, BatchId, CallbackId, RequestId};
use crate::domain::lane::Fingerprint;
use crate::domain::request::{RequestEvent, RequestState};
use crate::store::flights::FlightRecord;
use crate::store::keys::{self, Keys};
use crate::store::ledger::{Asker, Dimension, LedgerReport, LedgerRow, PassedCalls};
use crate::store::memory::book::Book;
use crate::store::memory::callbacks::Callbacks;
use crate::store::rules::{self, BatchProgress};
use crate::store::{
    Account, BatchRecord, BatchUpdate, Callback, CallbackState, CallbackUpdate, Finish, LearnedCeiling,
    LearnedDurations, Limited, ListFilter, LiveCall, NewBatch, NewCallback, NewRequest, ProviderBatch, RequestOptions,
    RequestRecord, Store, StoreError, StoreFuture, StoreStats, StoredResult,
};

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    keys: Keys,
    /// None once closed.
    state: Mutex<Option<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: BTreeMap<i64, StoredRequest>,
    batches: BTreeMap<i64, StoredBatch>,
    accounts: BTreeMap<(Fingerprint, String), Account>,
    durations: BTreeMap<(String, Fingerprint, String, u32), LearnedDurations>,
    ceilings: BTreeMap<(String, Fingerprint, Limited), LearnedCeiling>,
    flights: BTreeMap<Fingerprint, FlightRecord>,
    book: Book,
    callbacks: Callbacks,
    last_sequence: i64,
}

#[derive(Debug)]
struct StoredRequest {
    record: RequestRecord,
    body: Bytes,
    answer: Option<Bytes>,
}

#[derive(Debug)]
struct StoredBatch {
    record: BatchRecord,
    lines: Vec<RequestId>,
}

impl MemoryStore {
    /// An empty store. Without a master key its fingerprints are its own.
    pub fn new(master_key: Option<&SecretString>) -> Result<Self, StoreError> {
        let root = master_key.map_or_else(keys::random_root, keys::root_of_master_key)?;
        Ok(Self { keys: Keys::derive(&root)?, state: Mutex::new(Some(State::default())) })
    }

    fn run<'a, T: Send + 'a>(
        &'a self,
        action: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move { self.state.lock().as_mut().ok_or(StoreError::Closed).and_then(action) })
    }
}

impl Store for MemoryStore {
    fn accept(&self, request: NewRequest, body: Bytes) -> StoreFuture<'_, ()> {
        self.run(move |state| state.accept(request, &body))
    }

    fn save_account(&self, account: Account) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            state.accounts.insert((account.fingerprint, account.provider.clone()), account);
            Ok(())
        })
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<Account>> {
        self.run(|state| Ok(state.accounts.values().cloned().collect()))
    }

    fn create_batch(&self, batch: NewBatch) -> StoreFuture<'_, Vec<RequestId>> {
        self.run(move |state| state.create_batch(batch))
    }

    fn update_batch(&self, update: BatchUpdate) -> StoreFuture<'_, bool> {
        self.run(move |state| Ok(state.batch_mut(update.id).is_some_and(|batch| batch.update(&update))))
    }

    fn batch(&self, id: BatchId) -> StoreFuture<'_, Option<BatchRecord>> {
        self.run(move |state| Ok(state.batch_mut(id).map(|batch| batch.record.clone())))
    }

    fn batches(&self, open: bool, after: Option<BatchId>, limit: usize) -> StoreFuture<'_, Vec<BatchRecord>> {
        self.run(move |state| {
            let older = state.batches.range((Bound::Unbounded, before(after.map(|id| id.sequence()))));
            let wanted =
                older.rev().map(|(_, batch)| &batch.record).filter(|batch| !(open && batch.state.is_terminal()));
            Ok(wanted.take(limit).cloned().collect())
        })
    }

    fn batch_lines(&self, id: BatchId) -> StoreFuture<'_, Vec<RequestId>> {
        self.run(move |state| Ok(state.batch_mut(id).map(|batch| batch.lines.clone()).unwrap_or_default()))
    }

    fn bodies(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<(RequestId, Bytes)>> {
        self.run(move |state| {
            Ok(ids.into_iter().filter_map(|id| state.get(id).map(|stored| (id, stored.body.clone()))).collect())
        })
    }

    fn finish(&self, finished: Vec<Finish>) -> StoreFuture<'_, Vec<bool>> {
        self.run(move |state| Ok(finished.into_iter().map(|finish| state.finish(finish)).collect()))
    }

    fn requeue(&self, batch: BatchId, ids: Vec<RequestId>, counts: bool) -> StoreFuture<'_, Vec<RequestId>> {
        self.run(move |state| Ok(ids.into_iter().filter(|id| state.requeue(batch, *id, counts)).collect()))
    }

    fn keep_response(&self, id: RequestId, response: String) -> StoreFuture<'_, bool> {
        self.run(move |state| Ok(state.keep_response(id, response)))
    }

    fn mark_live(&self, ids: Vec<RequestId>, call: LiveCall) -> StoreFuture<'_, Vec<RequestId>> {
        self.run(move |state| Ok(ids.into_iter().filter(|id| state.mark_live(*id, call)).collect()))
    }

    fn keep_durations(&self, learned: LearnedDurations) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            let of = (learned.provider.clone(), learned.account, learned.model.clone(), learned.size_class);
            state.durations.insert(of, learned);
            Ok(())
        })
    }

    fn durations(&self) -> StoreFuture<'_, Vec<LearnedDurations>> {
        self.run(|state| Ok(state.durations.values().cloned().collect()))
    }

    fn keep_ceiling(&self, learned: LearnedCeiling, forget: Micros) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            state.ceilings.retain(|_, kept| kept.at >= forget);
            let of = (learned.provider.clone(), learned.account, learned.limited.clone());
            state.ceilings.insert(of, learned);
            Ok(())
        })
    }

    fn ceilings(&self) -> StoreFuture<'_, Vec<LearnedCeiling>> {
        self.run(|state| Ok(state.ceilings.values().cloned().collect()))
    }

    fn keep_flight(&self, flight: FlightRecord, forget: Micros) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            state.flights.retain(|_, kept| kept.decided_at.is_none_or(|at| at >= forget));
            state.flights.insert(flight.template, flight);
            Ok(())
        })
    }

    fn flights(&self) -> StoreFuture<'_, Vec<FlightRecord>> {
        self.run(|state| Ok(state.flights.values().cloned().collect()))
    }

    fn set_options(&self, ids: Vec<RequestId>, bits: i64) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            for id in ids {
                if let Some(stored) = state.get_mut(id) {
                    stored.record.request.options = stored.record.request.options.with(bits);
                }
            }
            Ok(())
        })
    }

    fn request(&self, id: RequestId) -> StoreFuture<'_, Option<RequestRecord>> {
        self.run(move |state| Ok(state.get(id).map(|stored| stored.record.clone())))
    }

    fn find_idempotent(&self, key: Fingerprint) -> StoreFuture<'_, Option<RequestRecord>> {
        self.run(move |state| {
            let newest = state.requests.values().rev().find(|stored| stored.record.request.idempotency == Some(key));
            Ok(newest.map(|stored| stored.record.clone()))
        })
    }

    fn result(&self, id: RequestId) -> StoreFuture<'_, Option<StoredResult>> {
        self.run(move |state| {
            Ok(state.get(id).map(|stored| StoredResult { record: stored.record.clone(), body: stored.answer.clone() }))
        })
    }

    fn list(&self, filter: ListFilter) -> StoreFuture<'_, Vec<RequestRecord>> {
        self.run(move |state| {
            let older = state.requests.range((Bound::Unbounded, before(filter.after.map(|id| id.sequence()))));
            let wanted = older.rev().map(|(_, stored)| &stored.record).filter(|record| {
                filter.caller.is_none_or(|caller| record.request.caller == caller)
                    && filter.state.is_none_or(|state| record.state == state)
                    && (filter.tag.is_none() || record.request.tag == filter.tag)
            });
            Ok(wanted.take(filter.limit).cloned().collect())
        })
    }

    fn unfinished(&self, after: Option<RequestId>, limit: usize) -> StoreFuture<'_, Vec<RequestRecord>> {
        self.run(move |state| {
            let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.sequence()));
            let newer = state.requests.range((from, Bound::Unbounded)).map(|(_, stored)| &stored.record);
            let wanted = newer
                .filter(|record| !record.state.is_terminal() || !record.request.options.has(RequestOptions::DELIVERED));
            Ok(wanted.take(limit).cloned().collect())
        })
    }

    fn expire(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize> {
        self.run(move |state| Ok(state.expire(before, limit)))
    }

    fn record_calls(&self, calls: Vec<PassedCalls>) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            calls.into_iter().for_each(|calls| state.book.add(calls));
            Ok(())
        })
    }

    fn ledger(&self, since: Micros, by: Option<Dimension>) -> StoreFuture<'_, LedgerReport> {
        self.run(move |state| Ok(state.book.report(since, by)))
    }

    fn charges(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<LedgerRow>> {
        self.run(move |state| Ok(ids.iter().flat_map(|id| state.book.rows_of(id.sequence())).collect()))
    }

    fn expire_ledger(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize> {
        self.run(move |state| {
            let requests = &state.requests;
            Ok(state.book.expire(ids::first_sequence(before), limit, |request| requests.contains_key(&request)))
        })
    }

    fn add_callback(&self, callback: NewCallback) -> StoreFuture<'_, ()> {
        self.run(move |state| {
            let ended = state.get(callback.request).is_some_and(|stored| stored.record.state.is_terminal());
            state.callbacks.add(callback, ended);
            Ok(())
        })
    }

    fn due_callbacks(&self, limit: usize) -> StoreFuture<'_, Vec<Callback>> {
        self.run(move |state| Ok(state.callbacks.due(limit)))
    }

    fn record_callback(&self, update: CallbackUpdate) -> StoreFuture<'_, bool> {
        self.run(move |state| Ok(state.callbacks.record(update)))
    }

    fn redeliver_callback(&self, id: CallbackId, at: Micros) -> StoreFuture<'_, Option<bool>> {
        self.run(move |state| Ok(state.callbacks.redeliver(id, at)))
    }

    fn callbacks(
        &self,
        state: Option<CallbackState>,
        after: Option<CallbackId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Callback>> {
        self.run(move |kept| Ok(kept.callbacks.list(state, after, limit)))
    }

    fn last_sequence(&self) -> StoreFuture<'_, i64> {
        self.run(|state| Ok(state.last_sequence))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.run(|state| Ok(state.stats()))
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        self.run(|_state| Ok(()))
    }

    fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        self.keys.fingerprint(parts)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            *self.state.lock() = None;
            Ok(())
        })
    }
}

impl State {
    fn get(&self, id: RequestId) -> Option<&StoredRequest> {
        self.requests.get(&id.sequence()).filter(|stored| stored.record.request.id == id)
    }

    fn get_mut(&mut self, id: RequestId) -> Option<&mut StoredRequest> {
        self.requests.get_mut(&id.sequence()).filter(|stored| stored.record.request.id == id)
    }

    fn batch_mut(&mut self, id: BatchId) -> Option<&mut StoredBatch> {
        self.batches.get_mut(&id.sequence()).filter(|batch| batch.record.id == id)
    }

    fn accept(&mut self, request: NewRequest, body: &[u8]) -> Result<(), StoreError> {
        let sequence = request.id.sequence();
        if self.requests.contains_key(&sequence) {
            return Err(rules::taken(&request.id));
        }
        let record = RequestRecord {
            request,
            state: RequestState::Queued,
            submitted_at: None,
            finished_at: None,
            batch_id: None,
            attempts: 0,
            live: None,
            response: None,
            outcome: None,
        };
        // Copied: the caller's bytes may be a small part of a large buffer that they would keep alive.
        self.requests.insert(sequence, StoredRequest { record, body: Bytes::copy_from_slice(body), answer: None });
        self.last_sequence = self.last_sequence.max(sequence);
        Ok(())
    }

    fn create_batch(&mut self, batch: NewBatch) -> Result<Vec<RequestId>, StoreError> {
        let sequence = batch.id.sequence();
        if self.batches.contains_key(&sequence) {
            return Err(rules::taken(&batch.id));
        }
        let lines: Vec<_> =
            batch.lines.iter().copied().filter(|id| self.submit(*id, batch.id, batch.created_at)).collect();
        if lines.is_empty() {
            return Ok(lines);
        }
        let record = BatchRecord {
            id: batch.id,
            lane: batch.lane,
            state: BatchState::Prepared,
            line_count: u32::try_from(lines.len()).unwrap_or(u32::MAX),
            created_at: batch.created_at,
            submitted_at: None,
            ended_at: None,
            provider: ProviderBatch::default(),
        };
        self.batches.insert(sequence, StoredBatch { record, lines: lines.clone() });
        self.last_sequence = self.last_sequence.max(sequence);
        Ok(lines)
    }

    fn submit(&mut self, id: RequestId, batch: BatchId, at: Micros) -> bool {
        self.get_mut(id).is_some_and(|stored| {
            let Ok(next) = stored.record.state.next(RequestEvent::Submit) else { return false };
            stored.record.state = next;
            stored.record.batch_id = Some(batch);
            stored.record.submitted_at = Some(at);
            stored.record.attempts = stored.record.attempts.saturating_add(1);
            true
        })
    }

    fn requeue(&mut self, batch: BatchId, id: RequestId, counts: bool) -> bool {
        let rides = |record: &RequestRecord| record.batch_id == Some(batch) && record.live.is_none();
        self.get_mut(id).filter(|stored| rides(&stored.record)).is_some_and(|stored| {
            let Ok(next) = stored.record.state.next(RequestEvent::Requeue) else { return false };
            stored.record.state = next;
            stored.record.attempts = stored.record.attempts.saturating_sub(u32::from(!counts));
            true
        })
    }

    fn mark_live(&mut self, id: RequestId, call: LiveCall) -> bool {
        self.get_mut(id).filter(|stored| !stored.record.state.is_terminal()).is_some_and(|stored| {
            let record = &mut stored.record;
            if let Ok(next) = record.state.next(RequestEvent::Submit) {
                record.state = next;
                record.submitted_at = Some(call.since);
            }
            let since = record.live.map_or(call.since, |live| live.since);
            record.live = Some(LiveCall { since, ..call });
            record.response = None;
            true
        })
    }

    fn keep_response(&mut self, id: RequestId, response: String) -> bool {
        self.get_mut(id).filter(|stored| !stored.record.state.is_terminal()).is_some_and(|stored| {
            let is_out = stored.record.live.is_some_and(|live| live.sent_at.is_some());
            if is_out {
                stored.record.response = Some(response);
            }
            is_out
        })
    }

    fn finish(&mut self, finish: Finish) -> bool {
        let standing = self.get_mut(finish.id);
        let ends = standing.as_ref().is_some_and(|stored| rules::may_end(stored.record.state, finish.state));
        let asker = standing.as_ref().map(|stored| Asker::of(&stored.record.request)).unwrap_or_default();
        if let Some(stored) = standing.filter(|_| ends) {
            stored.record.state = finish.state;
            stored.record.finished_at = Some(finish.at);
            stored.record.outcome = Some(finish.summary);
            stored.answer = finish.body.map(|body| Bytes::copy_from_slice(&body));
            self.callbacks.ended(finish.id, finish.at);
        }
        let stands = ends && finish.state == RequestState::Completed;
        if let Some(charge) = &finish.charge {
            self.last_sequence = self.last_sequence.max(finish.id.sequence());
            self.book.enter(LedgerRow::of_charge(finish.id, finish.at, charge, asker, !stands));
        }
        ends
    }

    fn expire(&mut self, before: Micros, limit: usize) -> usize {
        let mut old: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(sequence, stored)| stored.record.finished_at.map(|at| (at, *sequence)))
            .filter(|(at, _)| *at < before)
            .collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, sequence) in &old {
            self.requests.remove(sequence);
        }
        let requests = &self.requests;
        self.callbacks.expire(before, |request| requests.contains_key(&request.sequence()));
        self.batches.retain(|_, batch| {
            !batch.record.state.is_terminal()
                || batch.record.created_at >= before
                || batch.lines.iter().any(|id| requests.contains_key(&id.sequence()))
        });
        old.len()
    }

    fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::default();
        for (state, count) in RequestState::ALL.iter().zip(&mut stats.requests) {
            *count = self.requests.values().filter(|stored| stored.record.state == *state).count() as u64;
        }
        stats.bytes = self
            .requests
            .values()
            .map(|stored| (stored.body.len() + stored.answer.as_ref().map_or(0, Bytes::len)) as u64)
            .sum();
        stats
    }
}

impl StoredBatch {
    fn update(&mut self, update: &BatchUpdate) -> bool {
        let record = &mut self.record;
        let mut progress = BatchProgress {
            state: record.state,
            submitted_at: record.submitted_at,
            ended_at: record.ended_at,
            provider: record.provider.clone(),
        };
        let legal = progress.apply(update);
        record.state = progress.state;
        record.submitted_at = progress.submitted_at;
        record.ended_at = progress.ended_at;
        record.provider = progress.provider;
        if let Some(lines) = update.lines.as_ref().filter(|_| legal) {
            record.line_count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
            self.lines.clone_from(lines);
        }
        legal
    }
}

fn before(sequence: Option<i64>) -> Bound<i64> {
    sequence.map_or(Bound::Unbounded, Bound::Excluded)
}
