//! Background work: lanes, batches, results. Restartable at any line.

pub mod object;
pub mod view;

use tokio::sync::broadcast;

use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::Fingerprint;
use crate::store::{SharedStore, StoreError};
pub use view::{CancelOutcome, EngineEvent, EngineView, FlushReport, LaneView};

/// The handle of the running engine. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Engine {
    store: SharedStore,
    events: broadcast::Sender<EngineEvent>,
}

impl Engine {
    /// The store behind it.
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// What it is doing now.
    pub fn view(&self) -> EngineView {
        EngineView::default()
    }

    /// Live changes. Slow listeners lose the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<EngineEvent> {
        self.events.subscribe()
    }

    /// Submits what is queued now: of one caller, or of all.
    pub async fn flush(&self, _caller: Option<Fingerprint>) -> FlushReport {
        FlushReport::default()
    }

    /// Withdraws a queued request. With `caller`, only that caller's.
    pub async fn cancel_request(
        &self,
        _id: RequestId,
        _caller: Option<Fingerprint>,
    ) -> Result<CancelOutcome, StoreError> {
        Ok(CancelOutcome::NotFound)
    }

    /// Asks the provider to cancel a batch; its lines that never ran are tried again. `None`: no such batch;
    /// `Some(false)`: it had ended.
    pub async fn cancel_batch(&self, _id: BatchId) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }
}
