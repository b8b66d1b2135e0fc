//! What an answer consumed, in one convention, whichever API it came from.

use crate::domain::lane::Api;
use crate::domain::usage::Usage;
use crate::wire::openai::usage::Consumption;
use crate::wire::{anthropic, openai};

/// Reads the usage member of an answer, as it was cut out of it.
pub fn usage(api: Api, json: &str) -> Option<Usage> {
    match api {
        Api::OpenAi => openai::usage::usage(json),
        Api::Anthropic => anthropic::usage::usage(json),
    }
}

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

/// Reads the end of a long body or of an event stream, whose beginning may be gone. No usage where what is left does not
/// tell all of it.
pub fn consumption_of_tail(api: Api, tail: &[u8]) -> Consumption {
    match api {
        Api::OpenAi => openai::usage::consumption_of_tail(tail),
        Api::Anthropic => anthropic::usage::consumption_of_tail(tail),
    }
}
