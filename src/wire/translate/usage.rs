//! What was consumed, as chat completions count it: OpenAI's `prompt_tokens` include what was read from the cache,
//! Anthropic's `input_tokens` do not (providers.md, section 3.2).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Anthropic's counts; those of a stream come in two parts, of which the later one counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    input: u64,
    written: u64,
    read: u64,
    output: u64,
    thought: u64,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    output_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, alias = "reasoning_tokens")]
    thinking_tokens: Option<u64>,
}

/// The `usage` of a chat completion.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl Tally {
    /// Nothing was consumed.
    pub(super) const NONE: Self = Self { input: 0, written: 0, read: 0, output: 0, thought: 0 };

    /// Takes over what a `usage` object says; what it does not say stays.
    pub(super) fn update(&mut self, usage: Option<&RawValue>) {
        let Some(counts) = usage.and_then(|raw| serde_json::from_str::<Counts>(raw.get()).ok()) else { return };
        let thought = counts.output_tokens_details.and_then(|details| details.thinking_tokens);
        for (kept, said) in [
            (&mut self.input, counts.input_tokens),
            (&mut self.written, counts.cache_creation_input_tokens),
            (&mut self.read, counts.cache_read_input_tokens),
            (&mut self.output, counts.output_tokens),
            (&mut self.thought, thought),
        ] {
            *kept = said.unwrap_or(*kept);
        }
    }

    /// As chat completions tell it.
    pub(super) const fn told(&self) -> Usage {
        let prompt_tokens = self.input.saturating_add(self.written).saturating_add(self.read);
        Usage {
            prompt_tokens,
            completion_tokens: self.output,
            total_tokens: prompt_tokens.saturating_add(self.output),
            prompt_tokens_details: PromptDetails { cached_tokens: self.read, cache_write_tokens: self.written },
            completion_tokens_details: CompletionDetails { reasoning_tokens: self.thought },
        }
    }
}
