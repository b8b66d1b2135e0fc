//! The store in memory behind a wire that fails: calls take time, some fail, and at each of them the process may die,
//! before or after it took effect. Watches that nothing that has ended changes.

use std::sync::Arc;

use bytes::Bytes;
use nightbus::domain::clock::Micros;
use nightbus::domain::ids::{BatchId, CallbackId, RequestId};
use nightbus::domain::lane::Fingerprint;
use nightbus::store::flights::FlightRecord;
use nightbus::store::ledger::{Dimension, LedgerReport, LedgerRow, PassedCalls};
use nightbus::store::{
    Account, BatchRecord, BatchUpdate, Callback, CallbackState, CallbackUpdate, Finish, LearnedCeiling,
    LearnedDurations, ListFilter, LiveCall, NewBatch, NewCallback, NewRequest, RequestRecord, SharedStore, Store,
    StoreError, StoreFuture, StoreStats, StoredResult,
};

use crate::world::{End, World};

#[derive(Debug)]
pub(crate) struct Shaky {
    pub(crate) inner: SharedStore,
    pub(crate) world: Arc<World>,
}

impl Shaky {
    fn run<'a, T: Send + 'a>(&'a self, what: String, work: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            self.world.step().await;
            self.world.takes(0..3).await;
            if self.world.store_fails() {
                self.world.note(&format!("store fails: {what}"));
                return Err(StoreError::Unwritable("no space left on device".to_owned()));
            }
            let done = work.await?;
            if !what.is_empty() {
                self.world.note(&format!("store: {what}"));
            }
            self.world.step().await;
            self.world.takes(0..3).await;
            Ok(done)
        })
    }

    fn read<'a, T: Send + 'a>(&'a self, work: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            self.world.step().await;
            if self.world.store_fails() {
                self.world.note("store fails: a read");
                return Err(StoreError::Unreadable("input/output error".to_owned()));
            }
            work.await
        })
    }
}

impl Store for Shaky {
    fn accept(&self, request: NewRequest, body: Bytes) -> StoreFuture<'_, ()> {
        let what = format!("accept {}", self.world.name(&request.id));
        self.run(what, self.inner.accept(request, body))
    }

    fn save_account(&self, account: Account) -> StoreFuture<'_, ()> {
        self.run("save account".to_owned(), self.inner.save_account(account))
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<Account>> {
        self.read(self.inner.accounts())
    }

    fn create_batch(&self, batch: NewBatch) -> StoreFuture<'_, Vec<RequestId>> {
        let what = format!("create batch {}: {}", self.world.batch_name(batch.id), self.world.names(&batch.lines));
        self.run(what, self.inner.create_batch(batch))
    }

    fn update_batch(&self, update: BatchUpdate) -> StoreFuture<'_, bool> {
        let what = format!("update batch {}: {:?}", self.world.batch_name(update.id), update.event);
        self.run(what, self.inner.update_batch(update))
    }

    fn batch(&self, id: BatchId) -> StoreFuture<'_, Option<BatchRecord>> {
        self.read(self.inner.batch(id))
    }

    fn batches(&self, open: bool, after: Option<BatchId>, limit: usize) -> StoreFuture<'_, Vec<BatchRecord>> {
        self.read(self.inner.batches(open, after, limit))
    }

    fn batch_lines(&self, id: BatchId) -> StoreFuture<'_, Vec<RequestId>> {
        self.read(self.inner.batch_lines(id))
    }

    fn bodies(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<(RequestId, Bytes)>> {
        self.read(self.inner.bodies(ids))
    }

    fn finish(&self, finished: Vec<Finish>) -> StoreFuture<'_, Vec<bool>> {
        let what: Vec<String> = finished
            .iter()
            .map(|one| format!("{} {} {}", self.world.name(&one.id), one.state, one.summary.status_code))
            .collect();
        let copies = finished.clone();
        let work = async move {
            let fails = self.world.with(|state| {
                let left = state.ends_to_fail.checked_sub(1);
                state.ends_to_fail = left.unwrap_or(0);
                left.is_some()
            });
            if fails {
                return Err(StoreError::Unwritable("no space left on device".to_owned()));
            }
            let applied = self.inner.finish(finished).await?;
            for (finish, _) in copies.into_iter().zip(&applied).filter(|(_, applied)| **applied) {
                let end = End { state: finish.state, summary: finish.summary, body: finish.body };
                let before = self.world.with(|state| state.ended.insert(finish.id, end));
                if before.is_some() {
                    self.world.broke(format!("{} ended twice", self.world.name(&finish.id)));
                }
            }
            Ok(applied)
        };
        self.run(format!("finish {}", what.join(", ")), Box::pin(work))
    }

    fn requeue(&self, batch: BatchId, ids: Vec<RequestId>, counts: bool) -> StoreFuture<'_, Vec<RequestId>> {
        let what = format!("requeue of {}: {}", self.world.batch_name(batch), self.world.names(&ids));
        self.run(what, self.inner.requeue(batch, ids, counts))
    }

    fn keep_response(&self, id: RequestId, response: String) -> StoreFuture<'_, bool> {
        let what = format!("keep the response {response} of {}", self.world.names(&[id]));
        self.run(what, self.inner.keep_response(id, response))
    }

    fn mark_live(&self, ids: Vec<RequestId>, call: LiveCall) -> StoreFuture<'_, Vec<RequestId>> {
        let sent = call.sent_at.is_some();
        let what = format!("mark live {} {}, sent: {sent}", call.service, self.world.names(&ids));
        self.run(what, self.inner.mark_live(ids, call))
    }

    fn keep_durations(&self, learned: LearnedDurations) -> StoreFuture<'_, ()> {
        self.run("keep durations".to_owned(), self.inner.keep_durations(learned))
    }

    fn durations(&self) -> StoreFuture<'_, Vec<LearnedDurations>> {
        self.read(self.inner.durations())
    }

    fn keep_ceiling(&self, learned: LearnedCeiling, forget: Micros) -> StoreFuture<'_, ()> {
        self.run(format!("ceiling {}", learned.most), self.inner.keep_ceiling(learned, forget))
    }

    fn ceilings(&self) -> StoreFuture<'_, Vec<LearnedCeiling>> {
        self.read(self.inner.ceilings())
    }

    fn add_callback(&self, callback: NewCallback) -> StoreFuture<'_, ()> {
        self.run("add callback".to_owned(), self.inner.add_callback(callback))
    }

    fn due_callbacks(&self, limit: usize) -> StoreFuture<'_, Vec<Callback>> {
        self.read(self.inner.due_callbacks(limit))
    }

    fn record_callback(&self, update: CallbackUpdate) -> StoreFuture<'_, bool> {
        self.run("record callback".to_owned(), self.inner.record_callback(update))
    }

    fn redeliver_callback(&self, id: CallbackId, at: Micros) -> StoreFuture<'_, Option<bool>> {
        self.run("redeliver callback".to_owned(), self.inner.redeliver_callback(id, at))
    }

    fn callbacks(
        &self,
        state: Option<CallbackState>,
        after: Option<CallbackId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Callback>> {
        self.read(self.inner.callbacks(state, after, limit))
    }

    fn keep_flight(&self, flight: FlightRecord, forget: Micros) -> StoreFuture<'_, ()> {
        self.run("keep flight".to_owned(), self.inner.keep_flight(flight, forget))
    }

    fn flights(&self) -> StoreFuture<'_, Vec<FlightRecord>> {
        self.read(self.inner.flights())
    }

    fn set_options(&self, ids: Vec<RequestId>, bits: i64) -> StoreFuture<'_, ()> {
        self.run(format!("options {bits} {}", self.world.names(&ids)), self.inner.set_options(ids, bits))
    }

    fn request(&self, id: RequestId) -> StoreFuture<'_, Option<RequestRecord>> {
        self.read(self.inner.request(id))
    }

    fn find_idempotent(&self, key: Fingerprint) -> StoreFuture<'_, Option<RequestRecord>> {
        self.read(self.inner.find_idempotent(key))
    }

    fn result(&self, id: RequestId) -> StoreFuture<'_, Option<StoredResult>> {
        self.read(self.inner.result(id))
    }

    fn list(&self, filter: ListFilter) -> StoreFuture<'_, Vec<RequestRecord>> {
        self.read(self.inner.list(filter))
    }

    fn unfinished(&self, after: Option<RequestId>, limit: usize) -> StoreFuture<'_, Vec<RequestRecord>> {
        self.read(self.inner.unfinished(after, limit))
    }

    // Nothing is old enough to go in these runs: not worth the chance.
    fn expire(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize> {
        self.inner.expire(before, limit)
    }

    fn record_calls(&self, calls: Vec<PassedCalls>) -> StoreFuture<'_, ()> {
        self.run("calls".to_owned(), self.inner.record_calls(calls))
    }

    fn ledger(&self, since: Micros, by: Option<Dimension>) -> StoreFuture<'_, LedgerReport> {
        self.read(self.inner.ledger(since, by))
    }

    fn charges(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<LedgerRow>> {
        self.read(self.inner.charges(ids))
    }

    fn expire_ledger(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize> {
        self.inner.expire_ledger(before, limit)
    }

    fn last_sequence(&self) -> StoreFuture<'_, i64> {
        self.read(self.inner.last_sequence())
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.read(self.inner.stats())
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        self.read(self.inner.check())
    }

    fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        self.inner.fingerprint(parts)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
