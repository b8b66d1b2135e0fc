//! Reads what an answer consumed from a body of chat/completions, completions, responses, embeddings, or from one
//! event of their streams (providers.md, section 1.13).
//!
//! Lenient: a missing or strange count is zero, an answer without any count has no usage. Walks over the choices without
//! looking into them. Called where results are collected and where live streams are metered.

use serde_json::value::RawValue;

use crate::domain::usage::Usage;
use crate::wire::members::members;

/// What the ledger needs to know of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumption {
    /// Tokens; none when the answer does not say (moderations, errors, most stream events).
    pub usage: Option<Usage>,
    /// The usage as the provider wrote it, whether it can be read or not; none for null.
    pub usage_json: Option<String>,
    /// The tier that was used, in the provider's word.
    pub service_tier: Option<String>,
    /// The model that answered, usually a dated version.
    pub model: Option<String>,
}

/// Reads a finished body or the data of one stream event. What cannot be read counts as absent.
pub fn consumption(body: &[u8]) -> Consumption {
    let outer = Outer::of(body);
    // The events of a Responses stream carry the whole response object.
    let outer = outer.response.filter(|response| is_object(response)).map_or(outer, Outer::of);
    let usage_json = outer.usage.and_then(|raw| std::str::from_utf8(raw).ok()).filter(|json| *json != "null");
    Consumption {
        usage: usage_json.and_then(usage),
        usage_json: usage_json.map(str::to_owned),
        service_tier: outer.service_tier.and_then(text),
        model: outer.model.and_then(text),
    }
}

/// Reads the end of a long body or of an event stream, whose beginning is gone: the last usage and tier in it. Inside a
/// JSON string a quote is escaped, so a caller's or model's text is never taken for a member.
pub fn consumption_of_tail(tail: &[u8]) -> Consumption {
    let usage_json = last_member(tail, "\"usage\"", |value| usage(value).map(|_counts| value.to_owned()));
    Consumption {
        usage: usage_json.as_deref().and_then(usage),
        usage_json,
        service_tier: last_member(tail, "\"service_tier\"", |value| serde_json::from_str(value).ok()),
        model: last_member(tail, "\"model\"", |value| serde_json::from_str(value).ok()),
    }
}

/// The last member with this quoted name whose value `read` understands.
pub(in crate::wire) fn last_member<T>(tail: &[u8], name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    memchr::memmem::rfind_iter(tail, name).find_map(|at| {
        let after = tail.get(at + name.len()..)?.trim_ascii_start().strip_prefix(b":")?;
        let mut values = serde_json::Deserializer::from_slice(after).into_iter::<&RawValue>();
        read(values.next()?.ok()?.get())
    })
}

/// Reads a `usage` object in the spelling of either API.
pub fn usage(json: &str) -> Option<Usage> {
    let json = json.as_bytes();
    let (mut input, mut output) = (None, None);
    let mut usage = Usage::default();
    for (name, value) in named(json) {
        match name {
            b"prompt_tokens" | b"input_tokens" => input = count(value),
            b"completion_tokens" | b"output_tokens" => output = count(value),
            b"prompt_tokens_details" | b"input_tokens_details" => {
                usage.cached = detail(value, b"cached_tokens");
                usage.cache_written = detail(value, b"cache_write_tokens");
            }
            b"completion_tokens_details" | b"output_tokens_details" => {
                usage.reasoning = detail(value, b"reasoning_tokens");
            }
            _ => {}
        }
    }
    if input.is_none() && output.is_none() {
        return None;
    }
    Some(Usage { input: input.unwrap_or(0), output: output.unwrap_or(0), ..usage })
}

/// The members of an answer that are looked at, as written.
#[derive(Clone, Copy, Default)]
struct Outer<'a> {
    usage: Option<&'a [u8]>,
    service_tier: Option<&'a [u8]>,
    model: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
}

impl<'a> Outer<'a> {
    fn of(body: &'a [u8]) -> Self {
        let mut outer = Self::default();
        for (name, value) in named(body) {
            match name {
                b"usage" => outer.usage = Some(value),
                b"service_tier" => outer.service_tier = Some(value),
                b"model" => outer.model = Some(value),
                b"response" => outer.response = Some(value),
                _ => {}
            }
        }
        outer
    }
}

/// The members of an object with their names; none where it is something else. An array's elements are no fields.
fn named(json: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let json = if is_object(json) { json } else { &[] };
    members(json).filter_map(|member| Some((json.get(member.key)?, json.get(member.value)?)))
}

fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

fn text(raw: &[u8]) -> Option<String> {
    serde_json::from_slice::<Option<String>>(raw).ok()?
}

/// A whole number; anything else counts as absent.
fn count(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

fn detail(details: &[u8], name: &[u8]) -> u64 {
    named(details).find(|(found, _)| *found == name).and_then(|(_, value)| count(value)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_chat_completion() {
        let body = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-6-luna-2026-08-01",
            "choices":[{"index":0,"message":{"role":"assistant","content":"usage"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":90,"completion_tokens":20,"total_tokens":110,
                "prompt_tokens_details":{"cached_tokens":64,"audio_tokens":0,"cache_write_tokens":16},
                "completion_tokens_details":{"reasoning_tokens":12,"audio_tokens":0}},
            "service_tier":"default","system_fingerprint":null}"#;
        let read = consumption(body);
        assert_eq!(
            read.usage,
            Some(Usage { input: 90, cached: 64, cache_written: 16, output: 20, reasoning: 12, ..Usage::default() })
        );
        assert_eq!(read.service_tier.as_deref(), Some("default"));
        assert_eq!(read.model.as_deref(), Some("gpt-6-luna-2026-08-01"));
    }

    #[test]
    fn reads_a_response_and_its_stream_event() {
        let body = r#"{"id":"resp_1","object":"response","model":"gpt-6-luna","service_tier":"flex","usage":{"input_tokens":9,
            "input_tokens_details":{"cached_tokens":1,"cache_write_tokens":2},"output_tokens":2,
            "output_tokens_details":{"reasoning_tokens":1},"total_tokens":11}}"#;
        let expected =
            Some(Usage { input: 9, cached: 1, cache_written: 2, output: 2, reasoning: 1, ..Usage::default() });
        assert_eq!(consumption(body.as_bytes()).usage, expected);
        let event = format!(r#"{{"type":"response.completed","sequence_number":9,"response":{body}}}"#);
        assert_eq!(consumption(event.as_bytes()), consumption(body.as_bytes()));
    }

    #[test]
    fn the_end_of_a_stream_tells_the_usage() {
        let chat = b"s\",\"x\":1}]}\n\ndata: {\"choices\":[],\"usage\":null,\"service_tier\":\"default\"}\n\n\
            data: {\"model\":\"m\",\"choices\":[],\"usage\": {\"prompt_tokens\":5,\"completion_tokens\":2},\"service_tier\":\"flex\"}\n\n\
            data: [DONE]\n\n";
        let read = consumption_of_tail(chat);
        assert_eq!(read.usage, Some(Usage { input: 5, output: 2, ..Usage::default() }));
        assert_eq!((read.service_tier.as_deref(), read.model.as_deref()), (Some("flex"), Some("m")));
        let without = b"data: {\"choices\":[],\"usage\":null}\n\ndata: [DONE]\n\n";
        assert_eq!(consumption_of_tail(without), Consumption::default());
        let quoted = br#"{"content":"say \"usage\":{\"prompt_tokens\":9}","usage":{"prompt_tokens":1}}"#;
        assert_eq!(consumption_of_tail(quoted).usage, Some(Usage { input: 1, ..Usage::default() }));
        let only_quoted = br#"{"content":"\"usage\":{\"prompt_tokens\":9}","usage":"#;
        assert_eq!(consumption_of_tail(only_quoted).usage, None, "cut off");
    }

    #[test]
    fn embeddings_have_a_prompt_only() {
        let body = br#"{"object":"list","data":[],"model":"m","usage":{"prompt_tokens":5,"total_tokens":5}}"#;
        assert_eq!(consumption(body).usage, Some(Usage { input: 5, ..Usage::default() }));
    }

    #[test]
    fn what_is_absent_or_strange_is_not_guessed() {
        for body in [
            "",
            "nonsense",
            "[]",
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":{"prompt_tokens":"9"}}"#,
            r#"{"usage":[1]}"#,
            r#"{"usage":{"prompt_tokens":-1}}"#,
            r#"{"error":{"message":"x"}}"#,
        ] {
            assert_eq!(consumption(body.as_bytes()).usage, None, "{body}");
        }
        let odd = br#"{"model":7,"service_tier":null,"usage":{"prompt_tokens":5,"prompt_tokens_details":null,
            "completion_tokens":null,"completion_tokens_details":[3]}}"#;
        let read = consumption(odd);
        assert_eq!(read.usage, Some(Usage { input: 5, ..Usage::default() }));
        assert_eq!((read.model, read.service_tier), (None, None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = (consumption(&body), consumption_of_tail(&body));
        }
    }
}
