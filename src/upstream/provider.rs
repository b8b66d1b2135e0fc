//! What the engine needs of a provider's batch API. One file per provider kind implements it.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;

use crate::body::Body;
use crate::domain::clock::Micros;
use crate::domain::ids::BatchId;
use crate::domain::lane::Endpoint;
use crate::upstream::capability::Capability;
use crate::wire::batch::BatchObject;
use crate::wire::openai::response::BackgroundResponse;

/// What a provider call returns.
pub type ProviderFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// The headers that authenticate a call: key, organisation, project. Never printed.
#[derive(Clone, Default)]
pub struct Credentials(pub HeaderMap);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A batch input file on its way up.
#[derive(Debug)]
pub struct InputFile {
    /// File name.
    pub name: String,
    /// Its exact length in bytes.
    pub length: u64,
    /// Its bytes, streamed.
    pub content: Body,
}

/// What a batch is made of.
#[derive(Debug)]
pub struct CreateBatch {
    /// Stamped on the batch (metadata, or the lines' own ids), so that it can be found again.
    pub id: BatchId,
    /// Its lines.
    pub input: BatchInput,
    /// The endpoint of all lines.
    pub endpoint: Endpoint,
    /// The model of all lines.
    pub model: Arc<str>,
}

/// A live call, as nightbus makes it for a request that it has accepted.
#[derive(Clone, Debug)]
pub struct LiveRequest {
    /// Where to.
    pub endpoint: Endpoint,
    /// The body, not streaming.
    pub body: Bytes,
    /// The longest time until the whole answer is there.
    pub bound: Duration,
}

/// The answer of a live call, 2xx.
#[derive(Clone, Debug)]
pub struct LiveAnswer {
    /// HTTP status.
    pub status: u16,
    /// The provider's id of the exchange (`x-request-id`).
    pub request_id: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

/// How the lines reach the provider.
#[derive(Debug)]
pub enum BatchInput {
    /// In a file that was uploaded before.
    Uploaded(String),
    /// In the call that creates the batch ([`Capability::inline`]).
    Inline {
        /// Exact length in bytes.
        length: u64,
        /// The whole body of the call, streamed.
        content: Body,
    },
}

impl BatchInput {
    /// The uploaded file, for kinds that take their lines in one.
    ///
    /// # Errors
    /// [`ProviderError::Unreadable`] when the lines come inline.
    pub fn file(&self) -> Result<&str, ProviderError> {
        match self {
            Self::Uploaded(file) => Ok(file),
            Self::Inline { .. } => Err(ProviderError::Unreadable {
                operation: "create",
                cause: "this kind of provider takes its lines in a file".to_owned(),
            }),
        }
    }
}

/// A batch that may or may not exist at the provider.
#[derive(Clone, Debug)]
pub struct Sought {
    /// Whose stamp it carries.
    pub id: BatchId,
    /// When its intent was written; the provider's clock may differ by an hour.
    pub since: Micros,
    /// The file it was to be made of: no other batch has it.
    pub input_file: Option<String>,
    /// How many lines it has: some may have ended before it was created.
    pub lines: RangeInclusive<u32>,
    /// The provider's ids of batches that are known to be others. Only filled for providers without a place for a
    /// stamp on the batch itself ([`Capability::inline`]).
    pub others: HashSet<String>,
}

impl Sought {
    /// Whether a batch carries our stamp, or was made of our file.
    pub fn is(&self, batch: &BatchObject) -> bool {
        let file = self.input_file.as_ref();
        batch.nightbus_batch.as_ref().is_some_and(|stamp| *stamp == self.id.to_string())
            || (file.is_some() && batch.input_file_id.as_ref() == file)
    }

    /// The earliest time at which it can have been created, by a clock that differs by an hour at most; Unix seconds.
    pub const fn oldest(&self) -> i64 {
        self.since.unix_seconds() - CLOCK_TOLERANCE_SECONDS
    }

    /// The same as RFC 3339 text.
    pub fn not_before(&self) -> String {
        jiff::Timestamp::from_second(self.oldest()).map_or_else(|_out_of_range| String::new(), |at| at.to_string())
    }
}

/// How far the provider's clock may be off when batches are looked up by time.
const CLOCK_TOLERANCE_SECONDS: i64 = 3600;

/// What stands on a batch, where the provider keeps such a thing.
#[derive(Debug, Serialize)]
pub struct Metadata {
    nightbus_batch: String,
}

impl Metadata {
    /// Of one of ours.
    pub fn of(id: BatchId) -> Self {
        Self { nightbus_batch: id.to_string() }
    }
}

/// Results of a batch that may still be running.
#[derive(Debug)]
pub struct PartialResults {
    /// The lines after those that were read before.
    pub body: Body,
    /// How many lines there are, those before included.
    pub lines: u64,
    /// There will be no more.
    pub ends: bool,
}

/// A provider's batch API, and its live one.
pub trait BatchProvider: Send + Sync + fmt::Debug {
    /// What it takes.
    fn capability(&self) -> &Capability;

    /// Uploads an input file; the file's id. Never asked of a provider that takes its lines inline.
    fn upload<'a>(&'a self, _credentials: &'a Credentials, _file: InputFile) -> ProviderFuture<'a, String> {
        let cause = "this kind of provider takes no files".to_owned();
        Box::pin(std::future::ready(Err(ProviderError::Unreadable { operation: UPLOAD, cause })))
    }

    /// Creates a batch. The call is not idempotent: see [`ProviderError::may_have_taken_effect`].
    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject>;

    /// Looks for a batch whose creation got no answer. An error while it cannot be told whether it is there.
    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>>;

    /// Reads a batch.
    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject>;

    /// Asks for a cancellation; the batch as it is then.
    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject>;

    /// Opens a result file as a stream.
    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body>;

    /// Opens what a running batch has written after its first `lines` lines ([`Capability::partial_results`]).
    fn download_from<'a>(
        &'a self,
        _credentials: &'a Credentials,
        _file: &'a str,
        _lines: u64,
    ) -> ProviderFuture<'a, PartialResults> {
        let cause = "this kind of provider shows no results before the end".to_owned();
        Box::pin(std::future::ready(Err(ProviderError::Unreadable { operation: "download", cause })))
    }

    /// Makes a live call. Not idempotent: an error that [`ProviderError::is_unsettled`] may have been executed and billed.
    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer>;

    /// Reads a background response ([`Capability::windows`]).
    fn response<'a>(&'a self, _credentials: &'a Credentials, _id: &'a str) -> ProviderFuture<'a, BackgroundResponse> {
        Box::pin(std::future::ready(Err(no_background())))
    }

    /// Asks for a background response's cancellation; the response as it is then.
    fn cancel_response<'a>(
        &'a self,
        _credentials: &'a Credentials,
        _id: &'a str,
    ) -> ProviderFuture<'a, BackgroundResponse> {
        Box::pin(std::future::ready(Err(no_background())))
    }

    /// Deletes a file. Deleting one that is gone is a success, as is doing nothing where there are no files.
    fn delete_file<'a>(&'a self, _credentials: &'a Credentials, _file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn no_background() -> ProviderError {
    let cause = "this kind of provider has no background responses".to_owned();
    ProviderError::Unreadable { operation: "background response", cause }
}

/// The operation that a batch begins with, as it stands in errors.
pub const UPLOAD: &str = "upload";
/// The same where the lines are in the call that creates the batch.
pub const SUBMIT: &str = "submit";

/// A provider call that gave no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// Nothing came back: no connection, a cut, a time-out.
    #[error("{operation}: {cause}")]
    NoAnswer {
        /// `upload`, `create`, …
        operation: &'static str,
        /// For people; no secrets.
        cause: String,
        /// Whether the provider may have acted on the call.
        may_have_taken_effect: bool,
    },
    /// The provider answered with an error status.
    #[error("{operation}: the provider answered {status}: {message}")]
    Refused {
        /// `upload`, `create`, …
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// `error.code` or `error.type`, empty if there was none.
        code: String,
        /// `error.message`, shortened.
        message: String,
        /// The whole body, for the callers.
        body: Bytes,
        /// What the provider asked for.
        retry_after: Option<Duration>,
    },
    /// The answer cannot be understood. The call may have taken effect.
    #[error("{operation}: unreadable answer: {cause}")]
    Unreadable {
        /// `upload`, `create`, …
        operation: &'static str,
        /// For people.
        cause: String,
    },
}

impl ProviderError {
    /// Whether the provider may have acted on the call. Decides whether a batch is looked up before it is created again.
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::NoAnswer { may_have_taken_effect, .. } => *may_have_taken_effect,
            // A gateway's 408 or 5xx says nothing about what happened behind it.
            Self::Refused { status, .. } => *status >= 500 || *status == 408,
            Self::Unreadable { .. } => true,
        }
    }

    /// Whether a live call may still be executed behind this error: nothing came back, or a gateway spoke in the
    /// provider's place (408, 502, 504, and 520 to 527 of content networks). Any other status is the provider's word that it is over.
    pub fn is_unsettled(&self) -> bool {
        match self {
            Self::NoAnswer { may_have_taken_effect, .. } => *may_have_taken_effect,
            Self::Refused { status, .. } => matches!(status, 408 | 502 | 504 | 520..=527),
            Self::Unreadable { .. } => false,
        }
    }

    /// Whether the same call can never succeed: bad key, no permission, no money, a malformed call, no batch API.
    pub fn is_lasting(&self) -> bool {
        match self {
            _ if self.has_no_batch_api() => true,
            Self::Refused { status: 429, code, .. } => {
                matches!(code.as_str(), "insufficient_quota" | "billing_hard_limit_reached")
            }
            Self::Refused { status, .. } => (400..500).contains(status) && !matches!(status, 404 | 408 | 409 | 425),
            Self::NoAnswer { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// Whether the provider has no Batch API at all: the first call names nothing that could be missing, so its route is.
    pub fn has_no_batch_api(&self) -> bool {
        matches!(self, Self::Refused { operation: UPLOAD | SUBMIT, status: 404 | 405 | 501, .. })
    }

    /// Whether the call's body is larger than what the provider, or something on the way to it, takes.
    pub const fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused { status: 413, .. })
    }

    /// Whether the thing asked for is not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// How long the provider asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::NoAnswer { .. } | Self::Unreadable { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: &'static str, status: u16) -> ProviderError {
        let (code, message) = (String::new(), String::new());
        ProviderError::Refused { operation, status, code, message, body: Bytes::new(), retry_after: None }
    }

    #[test]
    fn only_the_providers_own_word_settles_a_live_call() {
        for status in [408, 502, 504, 524] {
            assert!(refused("live call", status).is_unsettled(), "{status}");
        }
        for status in [400, 429, 500, 503, 529] {
            assert!(!refused("live call", status).is_unsettled(), "{status}");
        }
        let cut = |sent| ProviderError::NoAnswer {
            operation: "live call",
            cause: String::new(),
            may_have_taken_effect: sent,
        };
        assert!(cut(true).is_unsettled() && !cut(false).is_unsettled());
    }

    #[test]
    fn an_upload_without_a_route_is_lasting_and_a_missing_batch_is_not() {
        for status in [404, 405, 501] {
            assert!(refused("upload", status).is_lasting(), "{status}");
        }
        for (operation, status) in
            [("upload", 409), ("upload", 500), ("poll", 404), ("create", 404), ("download", 404), ("create", 425)]
        {
            assert!(!refused(operation, status).is_lasting(), "{operation} {status}");
        }
    }
}
