//! Rules that all implementations of the store share, so that they cannot come to differ.
//!
//! The transitions themselves are in `domain`; here is what a stored row makes of them.

use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;
use crate::domain::request::{RequestEvent, RequestState};
use crate::store::{BatchUpdate, ProviderBatch, StoreError};

/// The event that leads to a terminal state; none for the states in which a request has not ended.
pub(crate) const fn ending_event(state: RequestState) -> Option<RequestEvent> {
    match state {
        RequestState::Completed => Some(RequestEvent::Complete),
        RequestState::Failed => Some(RequestEvent::Fail),
        RequestState::Cancelled => Some(RequestEvent::Cancel),
        RequestState::Queued | RequestState::Submitted => None,
    }
}

/// Whether a request in `from` may end in `to`.
pub(crate) fn may_end(from: RequestState, to: RequestState) -> bool {
    ending_event(to).is_some_and(|event| from.next(event).is_ok())
}

/// The changing part of a stored batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchProgress {
    /// Where it stands.
    pub(crate) state: BatchState,
    /// When the provider's id was recorded.
    pub(crate) submitted_at: Option<Micros>,
    /// When it ended.
    pub(crate) ended_at: Option<Micros>,
    /// What the provider told.
    pub(crate) provider: ProviderBatch,
}

impl BatchProgress {
    /// Applies `update`; `false` and no change when its event is illegal now.
    pub(crate) fn apply(&mut self, update: &BatchUpdate) -> bool {
        if let Some(event) = update.event {
            let Ok(next) = self.state.next(event) else { return false };
            if next == BatchState::Submitted && self.state != next {
                self.submitted_at = Some(update.at);
            }
            if next.is_terminal() {
                self.ended_at = Some(update.at);
            }
            self.state = next;
        }
        merge(&mut self.provider, &update.provider);
        true
    }
}

/// Takes over what became known; what `news` does not tell stays.
fn merge(known: &mut ProviderBatch, news: &ProviderBatch) {
    /// Overwrites when there is something new.
    fn take<T: Clone>(known: &mut Option<T>, news: Option<&T>) {
        if let Some(news) = news {
            *known = Some(news.clone());
        }
    }
    take(&mut known.input_file_id, news.input_file_id.as_ref());
    take(&mut known.batch_id, news.batch_id.as_ref());
    take(&mut known.status, news.status.as_ref());
    take(&mut known.completed, news.completed.as_ref());
    take(&mut known.failed, news.failed.as_ref());
    take(&mut known.output_file_id, news.output_file_id.as_ref());
    take(&mut known.error_file_id, news.error_file_id.as_ref());
    take(&mut known.error, news.error.as_ref());
}

/// What an id that is already in use is answered with. It cannot happen with ids of one [`crate::domain::ids::IdSource`].
pub(crate) fn taken(id: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unwritable(format!("there is already a row with the sequence number of {id}"))
}
