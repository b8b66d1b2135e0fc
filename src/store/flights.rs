//! Test flights as they are kept: the last one of each template, so that a restart neither flies twice nor forgets that a
//! template is grounded.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::clock::Micros;
use crate::domain::ids::{FlightId, RequestId};
use crate::domain::lane::{Endpoint, Fingerprint};

/// How long a template is trusted after a good flight (contract, section 1).
pub const TRUSTED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Where a flight stands. The numbers are on disk: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlightState {
    /// Its pilots are called; the rest waits for the verdict.
    Flying,
    /// The answers look right: the rest was submitted.
    Cleared,
    /// They do not: the rest waits for a decision.
    Grounded,
    /// Somebody let the rest go.
    Approved,
    /// Somebody refused the rest.
    Rejected,
    /// Nobody decided in time: the rest was refused.
    Expired,
    /// No pilot gave an answer, because all were cancelled: nothing was learned.
    Aborted,
}

impl FlightState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Flying, Self::Cleared, Self::Grounded, Self::Approved, Self::Rejected, Self::Expired, Self::Aborted];

    /// Its word in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flying => "flying",
            Self::Cleared => "cleared",
            Self::Grounded => "grounded",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Aborted => "aborted",
        }
    }

    /// Whether requests of the template wait.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Flying | Self::Grounded)
    }

    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Flying => 0,
            Self::Cleared => 1,
            Self::Grounded => 2,
            Self::Approved => 3,
            Self::Rejected => 4,
            Self::Expired => 5,
            Self::Aborted => 6,
        }
    }
}

/// A test flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightRecord {
    /// Its id.
    pub id: FlightId,
    /// What its requests have in common.
    pub template: Fingerprint,
    /// Where it stands.
    pub state: FlightState,
    /// Provider name.
    pub provider: Arc<str>,
    /// The credential that paid.
    pub account: Fingerprint,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The model.
    pub model: Arc<str>,
    /// The tag of its first pilot.
    pub tag: Option<String>,
    /// When it was begun.
    pub created_at: Micros,
    /// When its last pilot's answer was judged.
    pub landed_at: Option<Micros>,
    /// When it was cleared, or somebody decided, or the time for that was over.
    pub decided_at: Option<Micros>,
    /// The requests that flew.
    pub pilots: Vec<RequestId>,
    /// What was wrong, for people; empty: nothing.
    pub reasons: Vec<String>,
    /// How many characters the pilots' user messages have in common at their beginning; none: they have not landed, or
    /// there are no two of them.
    pub shared_prefix: Option<u32>,
}

impl FlightRecord {
    /// Whether requests of its template may ride unseen at `now`.
    pub fn is_trusted(&self, now: Micros) -> bool {
        matches!(self.state, FlightState::Cleared | FlightState::Approved)
            && self.decided_at.is_some_and(|at| now < at.plus(TRUSTED_FOR))
    }

    /// Whether a request of its template that was accepted then is to be refused.
    pub fn refuses(&self, accepted_at: Micros) -> bool {
        matches!(self.state, FlightState::Rejected | FlightState::Expired)
            && self.decided_at.is_some_and(|at| accepted_at <= at)
    }
}
