//! How Anthropic counts tokens (providers.md, section 3.2): `input_tokens` is only what was neither read from nor written
//! to the prompt cache; writes are told apart by how long they live.

use serde::Deserialize;

use crate::domain::usage::Usage;
use crate::wire::openai::usage::{Consumption, last_member};

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

/// A stream says what the prompt took in `message_start` and what was generated in `message_delta`, which repeats the
/// prompt in some versions (providers.md, section 2.7). Without either nothing is told.
pub(in crate::wire) fn consumption_of_tail(tail: &[u8]) -> Consumption {
    let has_input = |json: &str| serde_json::from_str::<Counts>(json).is_ok_and(|counts| counts.input_tokens.is_some());
    let last = last_member(tail, "\"usage\"", |json| usage(json).map(|read| (read, json.to_owned())));
    let with_input = last_member(tail, "\"usage\"", |json| usage(json).filter(|_| has_input(json)));
    let read = last.zip(with_input).map(|((last, json), start)| (Usage { output: last.output, ..start }, json));
    let (usage, usage_json) = read.unzip();
    Consumption {
        usage,
        usage_json,
        service_tier: None,
        model: last_member(tail, "\"model\"", |value| serde_json::from_str(value).ok()),
    }
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

    #[test]
    fn the_end_of_a_stream_tells_only_with_the_prompt_in_it() {
        let start = r#"data: {"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":9,"cache_read_input_tokens":3,"output_tokens":1}}}"#;
        let delta = r#"data: {"type":"message_delta","usage":{"output_tokens":40}}"#;
        let whole = consumption_of_tail(format!("{start}\n\n{delta}\n\n").as_bytes());
        let usage = whole.usage.unwrap();
        assert_eq!((usage.input, usage.cached, usage.output), (12, 3, 40));
        assert_eq!(whole.model.as_deref(), Some("claude-x"));
        assert_eq!(consumption_of_tail(delta.as_bytes()).usage, None);
        let repeated = r#"data: {"type":"message_delta","usage":{"input_tokens":9,"output_tokens":40}}"#;
        assert_eq!(consumption_of_tail(repeated.as_bytes()).usage.unwrap().input, 9);
    }

    #[test]
    fn what_was_written_is_the_larger_of_the_sum_and_its_parts() {
        let written = |sum: &str| {
            let parts = r#""cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}"#;
            let read = usage(&format!(r#"{{"input_tokens":1,{sum}{parts}}}"#)).unwrap();
            (read.input, read.cache_written, read.cache_written_1h)
        };
        assert_eq!(written(""), (31, 30, 20));
        assert_eq!(written(r#""cache_creation_input_tokens":5,"#), (31, 30, 20));
        assert_eq!(written(r#""cache_creation_input_tokens":40,"#), (41, 40, 20));
    }

    #[test]
    fn a_count_that_is_left_out_is_nothing() {
        let read = |json: &str| usage(json).map(|usage| (usage.input, usage.output));
        assert_eq!(read(r#"{"input_tokens":4}"#), Some((4, 0)));
        assert_eq!(read(r#"{"output_tokens":4}"#), Some((0, 4)));
        assert_eq!(read("{}"), None);
    }
}
