//! What an answer consumed, in one convention, whichever API it came from.

use crate::domain::lane::Api;
use crate::wire::openai::usage::Consumption;
use crate::wire::{anthropic, openai};

/// Reads a finished body. What cannot be read counts as absent.
pub fn consumption(api: Api, body: &[u8]) -> Consumption {
    let consumed = openai::usage::consumption(body);
    match api {
        Api::OpenAi => consumed,
        // The members have the same names, the counts do not.
        Api::Anthropic => {
            Consumption { usage: consumed.usage_json.as_deref().and_then(anthropic::usage::usage), ..consumed }
        }
    }
}
