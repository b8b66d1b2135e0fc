//! OpenAI's chat completions served by Anthropic's Messages, and back (providers.md, section 3).
//!
//! Pure: bytes in, bytes out. Invariants: what has no counterpart and would change the answer is refused with the name
//! of its field, never left out in silence; JSON that only passes through (tool schemas, tool arguments) keeps its bytes
//! and with them the order of its keys. Called by the intake for calls that `[[routes]]` sends to another API shape.

mod answer;
mod errors;
mod fields;
mod parts;
mod request;
mod schema;
mod stream;
mod tools;
mod turns;
mod usage;

pub use answer::{AnswerError, chat_completion};
pub use errors::{chat_error, chat_status};
pub use request::{Translated, messages_request};
pub use stream::ChatStream;

/// A call that cannot be told in the other shape, and the field at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Refused {
    /// Such as `messages[2].content[0].type`.
    pub field: String,
    /// Why, and what to do, for people.
    pub message: String,
}

impl Refused {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

#[cfg(test)]
mod tests;
