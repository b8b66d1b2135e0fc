//! What the store keeps of callbacks: who is to be told of a request's end, and what every attempt came to.

use serde::{Deserialize, Serialize};

use crate::domain::clock::Micros;
use crate::domain::ids::{CallbackId, RequestId};

/// A callback as it is asked for.
#[derive(Clone)]
pub struct NewCallback {
    /// Its id: the same for the same request and URL, so that asking twice is asking once.
    pub id: CallbackId,
    /// Whose end is told.
    pub request: RequestId,
    /// Where to. Sealed at rest: a URL may hold a secret.
    pub url: String,
    /// When it was asked for.
    pub at: Micros,
}

/// Where a callback stands. Numbers are on disk: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackState {
    /// Its request has not ended.
    Waiting = 0,
    /// To be delivered.
    Pending = 1,
    /// The receiver has answered 2xx.
    Delivered = 2,
    /// Given up: the time is over, or the receiver wants no more.
    Failed = 3,
}

impl CallbackState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Pending, Self::Delivered, Self::Failed];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackAttempt {
    /// When it began, in microseconds since 1970.
    pub at: i64,
    /// The receiver's status; none: there was no answer.
    pub status: Option<u16>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// A callback as it is stored.
#[derive(Clone)]
pub struct Callback {
    /// Its id.
    pub id: CallbackId,
    /// Whose end is told.
    pub request: RequestId,
    /// Where to.
    pub url: String,
    /// Where it stands.
    pub state: CallbackState,
    /// When it was asked for.
    pub created_at: Micros,
    /// Since when it is to be delivered; none: its request has not ended.
    pub since: Option<Micros>,
    /// When the next attempt is due.
    pub due_at: Option<Micros>,
    /// All attempts, the oldest first.
    pub attempts: Vec<CallbackAttempt>,
}

/// What an attempt came to.
#[derive(Clone, Debug)]
pub struct CallbackUpdate {
    /// Of which.
    pub id: CallbackId,
    /// The attempt.
    pub attempt: CallbackAttempt,
    /// Where it stands now.
    pub state: CallbackState,
    /// When the next attempt is due; none: there is none.
    pub due_at: Option<Micros>,
}

impl std::fmt::Debug for NewCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCallback").field("id", &self.id).field("request", &self.request).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callback").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}
