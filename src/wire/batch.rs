//! What a provider says of a batch, in one form for all kinds. Each kind's module reads its own objects into it; the
//! engine acts on nothing else.

use serde_json::Value;

/// What nightbus needs of a provider's batch object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchObject {
    /// The provider's id.
    pub id: String,
    /// Where it stands.
    pub status: BatchStatus,
    /// The status as the provider wrote it.
    pub status_text: String,
    /// Where the results are; empty ids count as none.
    pub output_file_id: Option<String>,
    /// Where the errors are, for providers that keep them apart; empty ids count as none.
    pub error_file_id: Option<String>,
    /// Lines answered with 2xx.
    pub completed: Option<u32>,
    /// Lines that got an error.
    pub failed: Option<u32>,
    /// Faults of the whole file.
    pub errors: Vec<BatchFault>,
    /// Ended by its status, but without the results that its counts promise: they are still being written.
    pub results_pending: bool,
    /// How many requests it holds, where the provider says so.
    pub total: Option<u32>,
    /// `metadata.nightbus_batch`, where the provider keeps metadata.
    pub nightbus_batch: Option<String>,
    /// The file it was made of, where the provider says so.
    pub input_file_id: Option<String>,
    /// Unix seconds, if it can be read.
    pub created_at: Option<i64>,
}

impl BatchObject {
    /// As it was read, with what follows from the rest: empty ids are none, and one that has ended without the files that its
    /// counts promise is still being written (providers.md, section 8, `results`).
    pub(in crate::wire) fn settled(mut self) -> Self {
        self.output_file_id = self.output_file_id.filter(|id| !id.is_empty());
        self.error_file_id = self.error_file_id.filter(|id| !id.is_empty());
        let promises = |count: Option<u32>| count.is_some_and(|count| count > 0);
        let (no_output, no_errors) = (self.output_file_id.is_none(), self.error_file_id.is_none());
        self.results_pending = match self.status {
            BatchStatus::Running | BatchStatus::Failed => false,
            BatchStatus::Completed if no_output && no_errors => true,
            BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => {
                (promises(self.completed) && no_output) || (promises(self.failed) && no_errors)
            }
        };
        self
    }
}

impl BatchFault {
    /// Of a batch as a whole, by the message alone.
    pub(in crate::wire) const fn whole(message: String) -> Self {
        Self { code: String::new(), message, param: None, line: None }
    }
}

/// A time as providers write it: Unix seconds, or RFC 3339 text (section 4.1).
pub(in crate::wire) fn unix_seconds(value: &Value) -> Option<i64> {
    let text = || value.as_str()?.parse().ok().map(jiff::Timestamp::as_second);
    value.as_i64().or_else(text)
}

/// The provider's states (providers.md, section 1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchStatus {
    /// Validating, in progress, finalizing, cancelling, or a word we do not know: not at its end.
    #[default]
    Running,
    /// Ended; says nothing about single lines.
    Completed,
    /// Refused as a whole: nothing was executed, nothing billed.
    Failed,
    /// The window passed; finished lines are in the files and billed.
    Expired,
    /// Cancelled; finished lines are in the files and billed.
    Cancelled,
}

/// One entry of `errors.data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFault {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// Field of the line at fault.
    pub param: Option<String>,
    /// 1-based; none: the whole file.
    pub line: Option<usize>,
}
