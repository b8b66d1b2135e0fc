//! Makes the provider's own stream out of a finished body, for callers who asked `stream: true` and were answered from
//! a batch (contract, section 4; providers.md, section 1.14).
//!
//! Nothing is re-printed: strings are cut in their escaped form and all other values are copied as they stand, so
//! numbers, escapes and fields unknown to us reach the caller untouched. The plan holds slices of the body; events
//! are written as they are asked for, so a large body costs little more than itself. Called by the waiters that
//! write streams; the errors and signs of life of such streams are here, too.

mod chat;
mod events;
mod json;
mod messages;
mod responses;

use bytes::Bytes;

use crate::domain::lane::Api;

pub use events::{empty_chat_chunk, error_event, error_event_from_body, heartbeat_event};

use self::json::PIECE_BYTES;

/// Which API's stream is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayEndpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
}

impl ReplayEndpoint {
    /// The API whose stream it is.
    pub const fn api(self) -> Api {
        match self {
            Self::Chat | Self::Completions | Self::Responses => Api::OpenAi,
            Self::Messages => Api::Anthropic,
        }
    }

    /// From the path of a call; none where the API does not stream.
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completions),
            "/v1/responses" => Some(Self::Responses),
            "/v1/messages" => Some(Self::Messages),
            _ => None,
        }
    }
}

/// A body that no stream can be made of: the provider's answer is not what its API promises. Nothing was sent yet, so
/// the caller can still be given the body as it is, or an error event.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Not a JSON object, or not JSON at all.
    #[error("the answer is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// A field without which there is no stream.
    #[error("the answer has no usable {0:?}")]
    Missing(&'static str),
    /// A response that the provider has not ended yet.
    #[error("the answer is not finished")]
    NotFinished,
}

/// The stream of one finished body: an iterator over its bytes, in pieces of several events each.
#[derive(Debug)]
pub struct Replay {
    plan: Plan,
    steps: std::vec::IntoIter<Step>,
    current: Option<Step>,
    sequence: u64,
    ended: bool,
}

/// Plans the stream that the live call would have answered with. `include_usage` is the caller's
/// `stream_options.include_usage`; Responses and Messages streams carry their usage always.
///
/// # Errors
/// [`ReplayError`]: the upstream is at fault, and asking again makes no difference.
pub fn replay(endpoint: ReplayEndpoint, body: &Bytes, include_usage: bool) -> Result<Replay, ReplayError> {
    let body = json::on_one_line(body);
    let plan = match endpoint {
        ReplayEndpoint::Chat => chat::plan_chat(&body, include_usage)?,
        ReplayEndpoint::Completions => chat::plan_completions(&body, include_usage)?,
        ReplayEndpoint::Responses => responses::plan(&body)?,
        ReplayEndpoint::Messages => messages::plan(&body)?,
    };
    Ok(Replay::new(plan))
}

/// What is to be written: the steps, and what chunks have in common.
#[derive(Debug, Default)]
struct Plan {
    /// The first fields of every chunk, each followed by a comma. Empty for Responses.
    head: Bytes,
    /// Further fields of the first chunk alone.
    first: Bytes,
    steps: Vec<Step>,
    /// Ends with `data: [DONE]`.
    done: bool,
    /// Events carry a `sequence_number`.
    numbered: bool,
}

/// One event, or as many as its text has pieces.
#[derive(Debug)]
struct Step {
    /// The event's name and `type`; empty in chunks.
    kind: &'static str,
    before: Bytes,
    middle: Bytes,
    after: Bytes,
    /// `middle` is the inside of a JSON string, and may be spread over several events; when it is empty, there is none.
    split: bool,
}

impl Step {
    const fn whole(kind: &'static str, before: Bytes, middle: Bytes, after: Bytes) -> Self {
        Self { kind, before, middle, after, split: false }
    }

    const fn text(kind: &'static str, before: Bytes, text: Bytes, after: Bytes) -> Self {
        Self { kind, before, middle: text, after, split: true }
    }

    /// The next piece of the text, or everything.
    fn take_piece(&mut self) -> Bytes {
        let length = if self.split { json::piece_length(&self.middle, PIECE_BYTES) } else { self.middle.len() };
        self.middle.split_to(length.min(self.middle.len()))
    }
}

/// How many bytes one item of the iterator has at least, as long as there are that many.
const FRAME_BYTES: usize = 8 * 1024;

impl Replay {
    fn new(mut plan: Plan) -> Self {
        let steps = std::mem::take(&mut plan.steps).into_iter();
        Self { plan, steps, current: None, sequence: 0, ended: false }
    }

    /// Writes one event; false when there are no more.
    fn write_event(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(mut step) = self.current.take().or_else(|| self.steps.next()) else { return false };
        if step.split && step.middle.is_empty() {
            return true;
        }
        let piece = step.take_piece();
        if step.kind.is_empty() {
            out.extend_from_slice(b"data: {");
            out.extend_from_slice(&self.plan.head);
            out.extend_from_slice(&std::mem::take(&mut self.plan.first));
        } else {
            let kind = step.kind;
            out.extend_from_slice(format!("event: {kind}\ndata: {{\"type\":\"{kind}\"").as_bytes());
            if self.plan.numbered {
                out.extend_from_slice(format!(",\"sequence_number\":{}", self.sequence).as_bytes());
                self.sequence = self.sequence.saturating_add(1);
            }
            if !(step.before.is_empty() && piece.is_empty()) {
                out.push(b',');
            }
        }
        for part in [&step.before, &piece, &step.after] {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b"}\n\n");
        if step.split {
            self.current = Some(step);
        }
        true
    }
}

impl Iterator for Replay {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while !self.ended && out.len() < FRAME_BYTES {
            if !self.write_event(&mut out) {
                self.ended = true;
                if self.plan.done {
                    out.extend_from_slice(b"data: [DONE]\n\n");
                }
            }
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

#[cfg(test)]
mod tests;
