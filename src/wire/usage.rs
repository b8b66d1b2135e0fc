//! What an answer consumed, in one convention, whichever API it came from.

use crate::domain::lane::Api;
use crate::domain::usage::Usage;
use crate::wire::{anthropic, openai};

/// Reads the `usage` object of an answer; none where it does not count.
pub fn usage(api: Api, json: &str) -> Option<Usage> {
    match api {
        Api::OpenAi => openai::usage::usage(json),
        Api::Anthropic => anthropic::usage::usage(json),
    }
}
