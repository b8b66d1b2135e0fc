//! A deferred request's life. [`RequestState::next`] is the only place where a transition is legal.
//!
//! ```text
//!            submit              complete
//!  queued ───────────▶ submitted ───────────▶ completed
//!    │  ◀───────────────  │  │ fail
//!    │       requeue      │  └──────────────▶ failed
//!    └── cancel ──▶ cancelled
//! ```

use std::fmt;
use std::str::FromStr;

/// The states of the contract, section 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestState {
    /// Durable here, in no provider batch.
    Queued,
    /// In a batch whose intent is durable; may be executed and billed.
    Submitted,
    /// Answered by the provider, whatever the status.
    Completed,
    /// nightbus could not obtain an answer.
    Failed,
    /// Withdrawn before submission.
    Cancelled,
}

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestEvent {
    /// It became a line of a batch.
    Submit,
    /// Its line certainly never ran, or ended in a way that may be tried again.
    Requeue,
    /// The provider answered.
    Complete,
    /// No answer can be had.
    Fail,
    /// The caller withdrew it, or nobody waits for it any more.
    Cancel,
}

/// A transition that the machine does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {from} request cannot {event:?}")]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: RequestState,
    /// What was tried.
    pub event: RequestEvent,
}

impl RequestState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Submitted, Self::Completed, Self::Failed, Self::Cancelled];

    /// The state after `event`. A queued request may complete or fail directly: by the fallback, or by a refusal of its own.
    pub const fn next(self, event: RequestEvent) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (Self::Queued, RequestEvent::Submit) => Ok(Self::Submitted),
            (Self::Submitted, RequestEvent::Requeue) => Ok(Self::Queued),
            (Self::Queued | Self::Submitted, RequestEvent::Complete) => Ok(Self::Completed),
            (Self::Queued | Self::Submitted, RequestEvent::Fail) => Ok(Self::Failed),
            (Self::Queued, RequestEvent::Cancel) => Ok(Self::Cancelled),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }

    /// Whether nothing can change any more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Submitted => "submitted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RequestState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("unknown state {text:?}: use queued, submitted, completed, failed or cancelled"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [RequestEvent; 5] =
        [RequestEvent::Submit, RequestEvent::Requeue, RequestEvent::Complete, RequestEvent::Fail, RequestEvent::Cancel];

    #[test]
    fn terminal_states_are_immutable_and_all_others_can_end() {
        for state in RequestState::ALL {
            let legal = EVENTS.into_iter().filter(|event| state.next(*event).is_ok()).count();
            assert_eq!(legal == 0, state.is_terminal(), "{state}");
        }
    }

    #[test]
    fn a_submitted_request_cannot_be_cancelled_because_it_may_be_billed() {
        assert!(RequestState::Submitted.next(RequestEvent::Cancel).is_err());
    }

    #[test]
    fn names_parse_back() {
        for state in RequestState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("done".parse::<RequestState>().is_err());
    }
}
