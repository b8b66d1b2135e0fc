//! Whether a deferred call is a new request or one that is already there (contract, section 5): the same idempotency
//! key, or an equal call that nobody waits for any more.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::engine::ABANDONED;
use crate::engine::keys::Reservation;
use crate::engine::orphans::Attachment;
use crate::intake::defer::{Desk, unavailable};
use crate::store::RequestRecord;
use crate::wire::api_error::ApiError;

/// How long equal calls that are on the line may take to show that they are still there: far more than they need,
/// unless the process is overloaded, or the client of one does not take what it is sent.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a call is attached to.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing: a new request, under this id. The reservation is held until it is durable.
    New(RequestId, Option<Reservation>),
    /// A request that is there already, or is being stored right now.
    Existing(Attachment),
}

/// How a call can be recognised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// Hash of credential, endpoint and body.
    pub(crate) body: Fingerprint,
    /// Hash of credential and `Idempotency-Key`.
    pub(crate) key: Option<Fingerprint>,
    /// `x-stainless-retry-count`
    pub(crate) attempt: u32,
}

impl Identity {
    /// Under what the request is kept among those whose answer is owed: calls without a key never find one that has a key.
    pub(crate) const fn owed_as(&self) -> Fingerprint {
        match self.key {
            Some(key) => key,
            None => self.body,
        }
    }
}

impl Desk {
    /// Finds the request that this call is about.
    pub(crate) async fn find(&self, identity: &Identity) -> Result<Found, ApiError> {
        let id = self.engine.new_request_id();
        let Some(key) = identity.key else {
            let adopted = match self.engine.orphans().adopt(identity.body, identity.attempt) {
                None => self.adopt_left(identity).await,
                adopted => adopted,
            };
            return Ok(adopted.map_or(Found::New(id, None), Found::Existing));
        };
        let reservation = match self.engine.keys().reserve(key, id, identity.body) {
            Ok(reservation) => reservation,
            Err((holder, body)) => return self.same(holder, body, identity),
        };
        match self.engine.store().find_idempotent(key).await.map_err(|error| unavailable(&error))? {
            Some(record) if was_abandoned(&record) => Ok(Found::New(id, Some(reservation))),
            Some(record) => self.same(record.request.id, record.request.body_hash, identity),
            None => Ok(Found::New(id, Some(reservation))),
        }
    }

    /// Of the equal calls that are on the line, one whose client has left although that was not noticed yet. It is
    /// known to have left: all others stay requests of their own.
    async fn adopt_left(&self, identity: &Identity) -> Option<Attachment> {
        let orphans = self.engine.orphans();
        let until = Instant::now() + PATIENCE;
        for present in orphans.ask_after(identity.body) {
            if let Ok(Ok(())) = tokio::time::timeout_at(until, present).await {
                continue;
            }
            if let Some(adopted) = orphans.adopt(identity.body, identity.attempt) {
                return Some(adopted);
            }
        }
        None
    }

    fn same(&self, id: RequestId, body: Fingerprint, identity: &Identity) -> Result<Found, ApiError> {
        if body == identity.body {
            return Ok(Found::Existing(self.engine.orphans().join(id)));
        }
        Err(ApiError::idempotency_mismatch(format!(
            "this Idempotency-Key was used for another body (request {id}): use a new key for a new call"
        ))
        .about("idempotency-key"))
    }
}

/// It was withdrawn because nobody waited for it; somebody does again, so it is asked for anew.
pub(crate) fn was_abandoned(record: &RequestRecord) -> bool {
    let error = record.outcome.as_ref().and_then(|outcome| outcome.error.as_ref());
    error.is_some_and(|(code, _)| code == ABANDONED)
}
