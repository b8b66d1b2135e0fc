//! What the simulated models answer: deterministic, made from the request, so that a test can prove that each
//! caller got its own answer.
//!
//! A text answer is `[HASH] TEXT`: the first eight hexadecimal digits of the SHA-256 of the request body as it
//! arrived, and the text of the last user message (or of the input). Words in the request steer the answer:
//!
//! | word | effect |
//! | --- | --- |
//! | `fail-400`, `fail-429`, `fail-500` | that HTTP error, in a batch line and live |
//! | `sim-sleep=MS` | a live call takes that long |
//! | `sim-chunk-ms=MS` | pause between two chunks of a live stream |
//! | `sim-reply-bytes=N` | the answer is padded to N bytes (up to 32 MB) |
//! | `sim-length` | the answer ends for its length |
//! | `sim-refuse` | the model refuses (chat, responses) |
//! | `sim-flag` | flagged by moderation |
//! | `use the tool` | calls the first tool, as `tool_choice` does |

mod call;
pub(super) mod chat;
pub(super) mod completions;
mod embeddings;
mod moderations;
mod refuse;
pub(super) mod responses;
mod sample;
mod text;

use std::fmt::Write as _;

use crate::sim::reply::ApiFailure;

pub(super) use crate::sim::answers::call::Call;
pub(super) use crate::sim::answers::text::number_after;

/// The endpoints that are answered, live and in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Moderations,
    Responses,
}

impl Endpoint {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Chat, Self::Completions, Self::Embeddings, Self::Moderations, Self::Responses];

    /// Its path, with `/v1`.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Moderations => "/v1/moderations",
            Self::Responses => "/v1/responses",
        }
    }

    /// The endpoint with that path.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// The parameter that holds what the model is asked.
    fn content_name(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completions => "prompt",
            Self::Embeddings | Self::Moderations | Self::Responses => "input",
        }
    }
}

/// What one execution is given beside the call: everything in it that is not the request's own.
#[derive(Debug)]
pub(super) struct Run {
    /// Source of the ids in the answer.
    pub(super) rng: fastrand::Rng,
    /// Unix seconds.
    pub(super) now: i64,
    /// SHA-256 of the body.
    pub(super) digest: [u8; 32],
    /// `service_tier` of the answer.
    pub(super) tier: &'static str,
}

impl Run {
    /// `prefix` and 24 hexadecimal digits.
    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:08x}", self.rng.u64(..), self.rng.u32(..))
    }

    /// The first eight hexadecimal digits of the digest.
    fn short_hash(&self) -> String {
        self.digest.iter().take(4).fold(String::with_capacity(8), |mut text, byte| {
            // Writing to a String cannot fail.
            if write!(text, "{byte:02x}").is_err() {
                text.clear();
            }
            text
        })
    }
}

/// Tokens billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Usage {
    /// Adds `other`.
    pub(super) fn add(&mut self, other: Self) {
        self.input += other.input;
        self.output += other.output;
    }
}

/// A finished answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The response body, one line of JSON.
    pub(super) body: Vec<u8>,
    /// Zero where nothing is billed.
    pub(super) usage: Usage,
}

impl Answer {
    /// An error of the provider.
    pub(super) fn refused(failure: &ApiFailure) -> Self {
        Self { status: failure.status, body: failure.envelope().to_string().into_bytes(), usage: Usage::default() }
    }

    /// 200 with `body`.
    fn new(body: &impl serde::Serialize, usage: Usage) -> Self {
        // Only maps with keys that are no texts fail to serialize; there are none here.
        Self { status: 200, body: serde_json::to_vec(body).unwrap_or_default(), usage }
    }
}

/// Runs the call.
pub(super) fn answer(call: &Call<'_>, run: &mut Run) -> Answer {
    if let Some(refusal) = call.refusal() {
        return Answer::refused(&refusal);
    }
    match call.endpoint {
        Endpoint::Chat => chat::answer(call, run),
        Endpoint::Completions => completions::answer(call, run),
        Endpoint::Embeddings => embeddings::answer(call, run),
        Endpoint::Moderations => moderations::answer(call, run),
        Endpoint::Responses => responses::answer(call, run),
    }
}

/// Tokens of a text of that many bytes.
fn tokens(bytes: usize) -> u64 {
    (bytes as u64 / 4).max(1)
}
