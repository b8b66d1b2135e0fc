//! How Anthropic counts tokens (providers.md, section 3.2): `input_tokens` is only what was neither read from nor written
//! to the prompt cache; writes are told apart by how long they live.

use serde::Deserialize;

use crate::domain::usage::Usage;

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
}

#[derive(Default, Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default)]
    ephemeral_1h_input_tokens: Option<u64>,
}

/// Reads a `usage` object; none where it does not count.
pub(in crate::wire) fn usage(json: &str) -> Option<Usage> {
    let counts: Counts = serde_json::from_str(json).ok()?;
    if counts.input_tokens.is_none() && counts.output_tokens.is_none() {
        return None;
    }
    let creation = counts.cache_creation.unwrap_or_default();
    let hour = creation.ephemeral_1h_input_tokens.unwrap_or(0);
    let by_age = creation.ephemeral_5m_input_tokens.unwrap_or(0).saturating_add(hour);
    // The sum and its parts should agree; where one is left out the other counts.
    let written = counts.cache_creation_input_tokens.unwrap_or(by_age).max(by_age);
    let cached = counts.cache_read_input_tokens.unwrap_or(0);
    Some(Usage {
        input: counts.input_tokens.unwrap_or(0).saturating_add(written).saturating_add(cached),
        cached,
        cache_written: written,
        cache_written_1h: hour,
        output: counts.output_tokens.unwrap_or(0),
        reasoning: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_the_sum_of_its_parts() {
        let read = usage(
            r#"{"input_tokens":9,"cache_creation_input_tokens":30,"cache_read_input_tokens":100,"output_tokens":4,
                "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"service_tier":"batch"}"#,
        );
        let expected =
            Usage { input: 139, cached: 100, cache_written: 30, cache_written_1h: 20, output: 4, reasoning: 0 };
        assert_eq!(read, Some(expected));
        assert_eq!(expected.plain_input(), 9);
    }

    #[test]
    fn what_is_left_out_is_zero_and_nonsense_is_nothing() {
        let read = usage(r#"{"input_tokens":9,"cache_creation_input_tokens":null,"output_tokens":4}"#).unwrap();
        assert_eq!((read.input, read.cache_written, read.output), (9, 0, 4));
        assert_eq!(usage("{}"), None);
        assert_eq!(usage("[]"), None);
    }
}
