//! The [`Store`] trait over SQLite: what is sealed here, what is left to the writer, what to the readers.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::clock::Micros;
use crate::domain::ids::{self, BatchId, CallbackId, RequestId};
use crate::domain::lane::Fingerprint;
use crate::store::flights::FlightRecord;
use crate::store::keys::Keys;
use crate::store::ledger::{Dimension, LedgerReport, LedgerRow, PassedCalls};
use crate::store::seal::{Kind, Sealer};
use crate::store::sqlite::changes::SealedFinish;
use crate::store::sqlite::{SqliteStore, batches, callbacks, changes, expire, flights, ledger, reads, services};
use crate::store::{
    Account, BatchRecord, BatchUpdate, Callback, CallbackState, CallbackUpdate, Finish, LearnedCeiling,
    LearnedDurations, ListFilter, LiveCall, NewBatch, NewCallback, NewRequest, RequestRecord, Store, StoreError,
    StoreFuture, StoreStats, StoredResult,
};

/// In a crowd bodies up to this size are not compressed: the time is worth more than the room then.
const HASTY_BYTES: usize = 4 << 10;
/// About what a row costs beside its body.
const ROW_BYTES: usize = 256;

impl Store for SqliteStore {
    fn accept(&self, request: NewRequest, body: Bytes) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let id = request.id;
            let place = self.accepting.enter();
            let haste = place.is_crowded() && body.len() <= HASTY_BYTES;
            let seal = if haste { Sealer::seal_in_haste } else { Sealer::seal };
            let envelope =
                self.sealing(body.len(), move |keys| seal(&keys.sealer, Kind::Body, id.as_bytes(), &body)).await?;
            self.change(1, ROW_BYTES + envelope.len(), move |session| changes::accept(session, &request, &envelope))
                .await?
        })
    }

    fn save_account(&self, account: Account) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let headers = serde_json::to_vec(&account.headers)
                .map_err(|error| StoreError::Unwritable(format!("a credential cannot be stored: {error}")))?;
            let key = (account.fingerprint, account.provider.clone());
            let content = self.keys.fingerprint(&[&headers]);
            if self.saved_accounts.lock().get(&key) == Some(&content) {
                return Ok(());
            }
            let envelope = self.keys.sealer.seal(Kind::Account, &account.fingerprint.0, &headers)?;
            self.change(1, ROW_BYTES + envelope.len(), move |session| {
                changes::save_account(session, &account, &envelope)
            })
            .await?;
            self.saved_accounts.lock().insert(key, content);
            Ok(())
        })
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<Account>> {
        let keys = Arc::clone(&self.keys);
        Box::pin(async move { self.readers.run(move |connection| reads::accounts(connection, &keys)).await })
    }

    fn create_batch(&self, batch: NewBatch) -> StoreFuture<'_, Vec<RequestId>> {
        Box::pin(async move {
            let rows = batch.lines.len();
            self.change(rows, rows.saturating_mul(ROW_BYTES), move |session| batches::create(session, &batch)).await?
        })
    }

    fn update_batch(&self, update: BatchUpdate) -> StoreFuture<'_, bool> {
        Box::pin(self.change(1, ROW_BYTES, move |session| batches::update(session, &update)))
    }

    fn batch(&self, id: BatchId) -> StoreFuture<'_, Option<BatchRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| batches::get(connection, &lanes, id)))
    }

    fn batches(&self, open: bool, after: Option<BatchId>, limit: usize) -> StoreFuture<'_, Vec<BatchRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| batches::list(connection, &lanes, open, after, limit)))
    }

    fn batch_lines(&self, id: BatchId) -> StoreFuture<'_, Vec<RequestId>> {
        Box::pin(self.read(move |connection| batches::lines(connection, id)))
    }

    fn bodies(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<(RequestId, Bytes)>> {
        let keys = Arc::clone(&self.keys);
        Box::pin(async move { self.readers.run(move |connection| reads::bodies(connection, &keys, &ids)).await })
    }

    fn finish(&self, finished: Vec<Finish>) -> StoreFuture<'_, Vec<bool>> {
        Box::pin(async move {
            let plain = finished.iter().filter_map(|finish| finish.body.as_ref()).map(Bytes::len).sum();
            let sealed = self.sealing(plain, move |keys| seal_all(keys, finished)).await?;
            let content: usize = sealed.iter().filter_map(|finish| finish.body.as_ref()).map(Vec::len).sum();
            let bytes = sealed.len().saturating_mul(2 * ROW_BYTES).saturating_add(content);
            self.change(sealed.len(), bytes, move |session| changes::finish(session, &sealed)).await
        })
    }

    fn requeue(&self, batch: BatchId, ids: Vec<RequestId>, counts: bool) -> StoreFuture<'_, Vec<RequestId>> {
        let rows = ids.len();
        Box::pin(self.change(rows, rows.saturating_mul(ROW_BYTES), move |session| {
            changes::requeue(session, batch, &ids, counts)
        }))
    }

    fn mark_live(&self, ids: Vec<RequestId>, call: LiveCall) -> StoreFuture<'_, Vec<RequestId>> {
        let rows = ids.len();
        Box::pin(
            self.change(rows, rows.saturating_mul(ROW_BYTES), move |session| services::mark_live(session, &ids, &call)),
        )
    }

    fn keep_response(&self, id: RequestId, response: String) -> StoreFuture<'_, bool> {
        Box::pin(self.change(1, ROW_BYTES, move |session| services::keep_response(session, id, &response)))
    }

    fn keep_durations(&self, learned: LearnedDurations) -> StoreFuture<'_, ()> {
        Box::pin(self.change(1, ROW_BYTES, move |session| services::keep_durations(session, &learned)))
    }

    fn durations(&self) -> StoreFuture<'_, Vec<LearnedDurations>> {
        Box::pin(self.read(services::durations))
    }

    fn keep_ceiling(&self, learned: LearnedCeiling, forget: Micros) -> StoreFuture<'_, ()> {
        Box::pin(self.change(1, ROW_BYTES, move |session| services::keep_ceiling(session, &learned, forget)))
    }

    fn ceilings(&self) -> StoreFuture<'_, Vec<LearnedCeiling>> {
        Box::pin(self.read(services::ceilings))
    }

    fn keep_flight(&self, flight: FlightRecord, forget: Micros) -> StoreFuture<'_, ()> {
        let bytes = ROW_BYTES + flight.pilots.len() * 16;
        Box::pin(self.change(1, bytes, move |session| flights::keep(session, &flight, forget)))
    }

    fn flights(&self) -> StoreFuture<'_, Vec<FlightRecord>> {
        Box::pin(self.read(flights::all))
    }

    fn set_options(&self, ids: Vec<RequestId>, bits: i64) -> StoreFuture<'_, ()> {
        let rows = ids.len();
        Box::pin(
            self.change(rows, rows.saturating_mul(ROW_BYTES), move |session| changes::set_options(session, &ids, bits)),
        )
    }

    fn request(&self, id: RequestId) -> StoreFuture<'_, Option<RequestRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| reads::request(connection, &lanes, id)))
    }

    fn records(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<RequestRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| reads::records(connection, &lanes, &ids)))
    }

    fn find_idempotent(&self, key: Fingerprint) -> StoreFuture<'_, Option<RequestRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| reads::find_idempotent(connection, &lanes, key)))
    }

    fn result(&self, id: RequestId) -> StoreFuture<'_, Option<StoredResult>> {
        let (lanes, keys) = (Arc::clone(&self.lanes), Arc::clone(&self.keys));
        Box::pin(async move { self.readers.run(move |connection| reads::result(connection, &lanes, &keys, id)).await })
    }

    fn list(&self, filter: ListFilter) -> StoreFuture<'_, Vec<RequestRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| reads::list(connection, &lanes, &filter)))
    }

    fn unfinished(&self, after: Option<RequestId>, limit: usize) -> StoreFuture<'_, Vec<RequestRecord>> {
        let lanes = Arc::clone(&self.lanes);
        Box::pin(self.read(move |connection| reads::unfinished(connection, &lanes, after, limit)))
    }

    fn expire(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize> {
        Box::pin(
            self.change(limit, limit.saturating_mul(ROW_BYTES), move |session| expire::expire(session, before, limit)),
        )
    }

    fn record_calls(&self, calls: Vec<PassedCalls>) -> StoreFuture<'_, ()> {
        let rows = calls.len();
        Box::pin(
            self.change(rows, rows.saturating_mul(ROW_BYTES), move |session| ledger::record_calls(session, &calls)),
        )
    }

    fn ledger(&self, since: Micros, by: Option<Dimension>) -> StoreFuture<'_, LedgerReport> {
        Box::pin(self.read(move |connection| ledger::report(connection, since, by)))
    }

    fn charges(&self, ids: Vec<RequestId>) -> StoreFuture<'_, Vec<LedgerRow>> {
        Box::pin(self.read(move |connection| ledger::rows_of(connection, &ids)))
    }

    fn expire_ledger(&self, before: Micros, limit: usize) -> StoreFuture<'_, usize> {
        let sequence = ids::first_sequence(before);
        Box::pin(
            self.change(limit, limit.saturating_mul(ROW_BYTES), move |session| {
                ledger::expire(session, sequence, limit)
            }),
        )
    }

    fn add_callback(&self, callback: NewCallback) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let url = self.keys.sealer.seal(Kind::Callback, callback.id.as_bytes(), callback.url.as_bytes())?;
            self.change(1, ROW_BYTES + url.len(), move |session| callbacks::add(session, &callback, &url)).await
        })
    }

    fn due_callbacks(&self, limit: usize) -> StoreFuture<'_, Vec<Callback>> {
        let keys = Arc::clone(&self.keys);
        Box::pin(async move { self.readers.run(move |connection| callbacks::due(connection, &keys, limit)).await })
    }

    fn record_callback(&self, update: CallbackUpdate) -> StoreFuture<'_, bool> {
        Box::pin(self.change(1, ROW_BYTES, move |session| callbacks::record(session, &update)))
    }

    fn redeliver_callback(&self, id: CallbackId, at: Micros) -> StoreFuture<'_, Option<bool>> {
        Box::pin(self.change(1, ROW_BYTES, move |session| callbacks::redeliver(session, id, at)))
    }

    fn callbacks(
        &self,
        state: Option<CallbackState>,
        after: Option<CallbackId>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<Callback>> {
        let keys = Arc::clone(&self.keys);
        Box::pin(async move {
            self.readers.run(move |connection| callbacks::list(connection, &keys, state, after, limit)).await
        })
    }

    fn last_sequence(&self) -> StoreFuture<'_, i64> {
        Box::pin(self.read(reads::last_sequence))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        Box::pin(async move {
            if *self.ended.borrow() {
                return Err(StoreError::Closed);
            }
            Ok(StoreStats { requests: self.counts.get(), bytes: self.bytes_on_disk() })
        })
    }

    fn check(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.change(1, ROW_BYTES, |session| changes::check(session)))
    }

    fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        self.keys.fingerprint(parts)
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            self.queue.close();
            let mut ended = self.ended.clone();
            // An error: the thread is gone without having said so, which is an end as well.
            let _gone = ended.wait_for(|ended| *ended).await.is_err();
            Ok(())
        })
    }
}

fn seal_all(keys: &Keys, finished: Vec<Finish>) -> Result<Vec<SealedFinish>, StoreError> {
    finished
        .into_iter()
        .map(|finish| {
            let seal = |body: &Bytes| keys.sealer.seal(Kind::Result, finish.id.as_bytes(), body);
            let body = finish.body.as_ref().map(seal).transpose()?;
            let Finish { id, state, at, summary, charge, .. } = finish;
            Ok(SealedFinish { id, state, at, summary, body, charge })
        })
        .collect()
}
