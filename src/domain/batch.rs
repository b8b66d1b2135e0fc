//! A batch's life: "write intent, act, record", so that a death at any point is settled by reading the state.
//!
//! ```text
//!  prepared ──▶ uploaded ──▶ submitted ──▶ completed | failed | expired | cancelled
//!     │             └── the create's outcome may be unknown: look it up before anything else
//!     └── only the intent is durable: upload (again)
//! ```

use std::fmt;
use std::str::FromStr;

/// Where a batch stands. The provider's own status is kept beside it as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchState {
    /// The intent (id, lines) is durable; nothing was created at the provider, at most a file.
    Prepared,
    /// The file's id is durable; the batch may or may not exist at the provider.
    Uploaded,
    /// The provider's batch id is durable.
    Submitted,
    /// All results are durable.
    Completed,
    /// The provider executed nothing of it.
    Failed,
    /// It ran out of time; what finished is durable.
    Expired,
    /// It was cancelled; what finished is durable.
    Cancelled,
}

/// What can happen to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchEvent {
    /// The provider has the file.
    Upload,
    /// The provider has the batch, by answer or by look-up.
    Create,
    /// Every line has its result.
    Complete,
    /// The provider refused it as a whole, or it certainly does not exist.
    Fail,
    /// Its window passed.
    Expire,
    /// Somebody cancelled it.
    Cancel,
}

/// A transition that the machine does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {from} batch cannot {event:?}")]
pub struct IllegalBatchTransition {
    /// The state it is in.
    pub from: BatchState,
    /// What was tried.
    pub event: BatchEvent,
}

impl BatchState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Prepared,
        Self::Uploaded,
        Self::Submitted,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The state after `event`; the only place where a transition is legal.
    pub const fn next(self, event: BatchEvent) -> Result<Self, IllegalBatchTransition> {
        match (self, event) {
            (Self::Prepared | Self::Uploaded, BatchEvent::Upload) => Ok(Self::Uploaded),
            (Self::Uploaded, BatchEvent::Create) => Ok(Self::Submitted),
            (Self::Prepared | Self::Uploaded | Self::Submitted, BatchEvent::Fail) => Ok(Self::Failed),
            (Self::Submitted, BatchEvent::Complete) => Ok(Self::Completed),
            (Self::Submitted, BatchEvent::Expire) => Ok(Self::Expired),
            (Self::Submitted, BatchEvent::Cancel) => Ok(Self::Cancelled),
            (from, event) => Err(IllegalBatchTransition { from, event }),
        }
    }

    /// Whether nothing can change any more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// Its name in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Uploaded => "uploaded",
            Self::Submitted => "submitted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BatchState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("unknown batch state {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [BatchEvent; 6] = [
        BatchEvent::Upload,
        BatchEvent::Create,
        BatchEvent::Complete,
        BatchEvent::Fail,
        BatchEvent::Expire,
        BatchEvent::Cancel,
    ];

    #[test]
    fn terminal_states_are_immutable_and_all_others_can_end() {
        for state in BatchState::ALL {
            let legal = EVENTS.into_iter().filter(|event| state.next(*event).is_ok()).count();
            assert_eq!(legal == 0, state.is_terminal(), "{state}");
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }

    #[test]
    fn nothing_is_created_before_its_file_is_recorded() {
        assert!(BatchState::Prepared.next(BatchEvent::Create).is_err());
        assert_eq!(BatchState::Uploaded.next(BatchEvent::Create), Ok(BatchState::Submitted));
    }
}
