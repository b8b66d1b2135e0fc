//! Requests and answers of the OpenAI API (and of Anthropic's, by its usage), alone or in pairs.
//!
//! - a pair: `{"request": {…}, "response": {…}}`, also with `request_body`, or with `body` inside (an HTTP exchange);
//! - an answer: a chat completion, a completion, a response, embeddings
//!   (<https://platform.openai.com/docs/api-reference/chat/object>);
//! - a request: its body alone. It says nothing of tokens, so its price is unknown;
//! - lines of batch input and output files (<https://platform.openai.com/docs/guides/batch>): these already ride in
//!   batches.
//!
//! Times, user agents and tags are looked for beside the bodies and in `metadata` and `headers`.

use crate::audit::call::{Call, Format, Reading};
use crate::audit::shape::{Counts, Label, Nested, Parts, Scalar, Shape};
use crate::domain::service::Service;
use crate::domain::usage::Usage;

/// The record, if it is one of these.
pub(super) fn read(shape: &Shape) -> Option<Reading> {
    let is_batch_line = shape.custom_id.is_there();
    let request = request_of(shape);
    let answer = answer_of(shape);
    if request.is_none() && answer.is_none() {
        return None;
    }
    let nothing = Shape::default();
    let (asked, said) = (request.unwrap_or(&nothing), answer.unwrap_or(&nothing));
    let outer = shape.response.get().unwrap_or(&nothing);
    let sent = shape.request.get().unwrap_or(&nothing);
    let mut call = Call::new(Format::OpenAi);
    call.at = super::first_time([
        &shape.timestamp,
        &shape.time,
        &shape.ts,
        &shape.created_at,
        &shape.created_at_camel,
        &shape.start_time,
        &shape.start_time_camel,
        &shape.created,
        &sent.timestamp,
        &said.created,
        &said.created_at,
    ]);
    call.model = super::first_text([&asked.model, &said.model, &shape.model]);
    call.provider = super::first_text([&shape.provider]);
    let found = said.usage.get().or_else(|| shape.usage.get()).map_or_else(Tokens::default, tokens);
    (call.usage, call.inconsistent) = (found.usage, found.inconsistent);
    call.cost = super::amount([&shape.cost, &shape.cost_usd, &shape.total_cost]);
    call.tag = tag(shape, asked);
    call.agent = agent(shape, sent);
    call.stream = asked.stream.flag().or_else(|| request.map(|_| false));
    call.template = template(asked);
    call.failed = [&shape.status_code, &shape.status, &outer.status_code, &outer.status, &said.status]
        .into_iter()
        .any(super::is_failure)
        || (said.error.0 || shape.error.0) && call.usage.is_none();
    call.service = service(is_batch_line, &said.service_tier);
    super::call(call)
}

/// The body of a request, wherever it is.
fn request_of(shape: &Shape) -> Option<&Shape> {
    let http = shape.request.get().map(|sent| sent.body.get().unwrap_or(sent));
    [http, shape.request_body.get(), shape.body.get(), Some(shape)].into_iter().flatten().find(|body| is_request(body))
}

fn is_request(body: &Shape) -> bool {
    let asks = [body.messages, body.input, body.prompt].iter().any(|opening| opening.present);
    body.model.is_there() && asks
}

fn answer_of(shape: &Shape) -> Option<&Shape> {
    let http = shape.response.get().map(|received| received.body.get().unwrap_or(received));
    let is_answer = |body: &&Shape| {
        body.usage.get().is_some() || body.choices.0 || body.error.0 || body.object.text() == Some("response")
    };
    [http, shape.response_body.get()].into_iter().flatten().find(is_answer).or_else(|| {
        // Alone, an error is any program's; a call's answer has a model.
        let is_api = [&shape.model, &shape.object, &shape.custom_id].into_iter().any(|field| field.is_there());
        Some(shape).filter(is_answer).filter(|_| is_api)
    })
}

/// What a `usage` object says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) usage: Option<Usage>,
    pub(super) inconsistent: bool,
}

/// Reads `usage`; Anthropic's prompt count leaves out what came from its cache or went there.
pub(super) fn tokens(counts: &Counts) -> Tokens {
    let prompt = super::first_count([&counts.prompt_tokens, &counts.input_tokens, &counts.input]);
    let output = super::first_count([&counts.completion_tokens, &counts.output_tokens, &counts.output]);
    let (read, written) = (counts.cache_read_input_tokens.count(), counts.cache_creation_input_tokens.count());
    let part = |details: [&Nested<Parts>; 2], which: fn(&Parts) -> &Scalar| {
        details.into_iter().filter_map(Nested::get).find_map(|parts| which(parts).count())
    };
    let prompt_parts = [&counts.prompt_tokens_details, &counts.input_tokens_details];
    let cached = part(prompt_parts, |parts| &parts.cached_tokens);
    let output_parts = [&counts.completion_tokens_details, &counts.output_tokens_details];
    let apart = counts.prompt_tokens.count().is_none() && (read.is_some() || written.is_some());
    let extra = if apart { read.unwrap_or(0).saturating_add(written.unwrap_or(0)) } else { 0 };
    let usage = Usage {
        input: prompt.unwrap_or(0).saturating_add(extra),
        cached: cached.or(read).unwrap_or(0),
        cache_written: part(prompt_parts, |parts| &parts.cache_write_tokens).or(written).unwrap_or(0),
        cache_written_1h: 0,
        output: output.unwrap_or(0),
        reasoning: part(output_parts, |parts| &parts.reasoning_tokens).unwrap_or(0),
    };
    let nonsense = [&counts.prompt_tokens, &counts.input_tokens, &counts.completion_tokens, &counts.output_tokens]
        .into_iter()
        .any(|count| count.is_there() && count.count().is_none());
    let total = super::first_count([&counts.total_tokens, &counts.total]);
    checked(prompt.is_some() || output.is_some(), usage, total, nonsense)
}

/// Usage whose parts fit together; without it there is no price. A total that is another sum is only noted.
pub(super) fn checked(is_there: bool, usage: Usage, total: Option<u64>, nonsense: bool) -> Tokens {
    let impossible = usage.cached.saturating_add(usage.cache_written) > usage.input || nonsense;
    let other_total = is_there && total.is_some_and(|total| total != usage.total());
    Tokens {
        usage: (is_there && !impossible).then_some(usage),
        inconsistent: is_there && (impossible || other_total) || nonsense,
    }
}

fn service(is_batch_line: bool, tier: &Scalar) -> Option<Service> {
    if is_batch_line || tier.text() == Some("batch") {
        return Some(Service::Batch);
    }
    // Anthropic's word for the usual tier.
    let tier = tier.text().filter(|tier| *tier != "standard");
    Service::Sync.priced_as(tier)
}

fn tag(shape: &Shape, asked: &Shape) -> Option<String> {
    let marks =
        [&shape.metadata, &asked.metadata, &shape.properties].into_iter().filter_map(|marks| marks.get()?.label());
    [&shape.tag, &shape.tags, &shape.app_name]
        .into_iter()
        .filter_map(Label::text)
        .chain(marks)
        .next()
        .map(ToOwned::to_owned)
}

fn agent(shape: &Shape, sent: &Shape) -> Option<String> {
    let headers =
        [&shape.headers, &sent.headers].into_iter().filter_map(Nested::get).map(|headers| &headers.user_agent);
    let metadata = shape.metadata.get().map(|marks| &marks.user_agent);
    let candidates = [Some(&shape.user_agent), Some(&sent.user_agent), metadata].into_iter().flatten();
    candidates.chain(headers).find_map(Scalar::text).map(ToOwned::to_owned)
}

/// A request's template.
pub(super) fn template(body: &Shape) -> Option<u64> {
    [body.instructions, body.messages, body.prompt, body.input]
        .into_iter()
        .find_map(crate::audit::shape::Opening::template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::formats::read as read_bytes;

    fn call(json: &str) -> Call {
        let Reading::Call(call) = read_bytes(json.as_bytes()) else { panic!("no call: {json}") };
        *call
    }

    const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1795420800,"model":"gpt-5.4-mini-2026-03-17",
        "choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":90,"completion_tokens":20,"total_tokens":110,
        "prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":12}},"service_tier":"default"}"#;
    const REQUEST: &str =
        r#"{"model":"gpt-5.4-mini","messages":[{"role":"system","content":"s"}],"metadata":{"job":"nightly"}}"#;
    const USAGE: Usage =
        Usage { input: 90, cached: 64, cache_written: 0, cache_written_1h: 0, output: 20, reasoning: 12 };

    #[test]
    fn an_answer_alone() {
        let read = call(ANSWER);
        assert_eq!((read.at, read.usage, read.stream), (Some(1_795_420_800), Some(USAGE), None));
        assert_eq!((read.model.as_deref(), read.service), (Some("gpt-5.4-mini-2026-03-17"), Some(Service::Sync)));
    }

    #[test]
    fn a_request_alone_has_no_usage() {
        let read = call(REQUEST);
        assert_eq!((read.usage, read.stream, read.tag.as_deref()), (None, Some(false), Some("nightly")));
        assert!(read.template.is_some() && read.at.is_none());
    }

    #[test]
    fn pairs_in_every_wrapping() {
        for pair in [
            format!(r#"{{"timestamp":"2026-11-23T08:00:00Z","request":{REQUEST},"response":{ANSWER}}}"#),
            format!(
                r#"{{"time":1795420800000,"request":{{"url":"/v1/chat/completions","headers":{{"user-agent":"x"}},"body":{REQUEST}}},"response":{{"status_code":200,"body":{ANSWER}}}}}"#
            ),
            format!(r#"{{"ts":1795420800,"request_body":{REQUEST},"response_body":{ANSWER}}}"#),
            format!(
                r#"{{"created_at":1795420800,"request":{},"response":{}}}"#,
                serde_json::json!(REQUEST),
                serde_json::json!(ANSWER)
            ),
        ] {
            let read = call(&pair);
            assert_eq!((read.at, read.usage, read.stream), (Some(1_795_420_800), Some(USAGE), Some(false)), "{pair}");
            assert_eq!((read.model.as_deref(), read.tag.as_deref()), (Some("gpt-5.4-mini"), Some("nightly")), "{pair}");
            assert!(read.template.is_some() && !read.failed, "{pair}");
        }
    }

    #[test]
    fn batch_lines_already_ride_in_batches() {
        let output = format!(
            r#"{{"id":"batch_req_1","custom_id":"a","response":{{"status_code":200,"request_id":"r","body":{ANSWER}}},"error":null}}"#
        );
        let read = call(&output);
        assert_eq!((read.service, read.usage), (Some(Service::Batch), Some(USAGE)));
        let input = format!(r#"{{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{REQUEST}}}"#);
        assert_eq!((call(&input).service, call(&input).usage), (Some(Service::Batch), None));
    }

    #[test]
    fn anthropics_prompt_leaves_out_its_cache() {
        let answer = r#"{"type":"message","model":"claude-haiku-4-5","usage":{"input_tokens":10,"cache_read_input_tokens":5,
            "cache_creation_input_tokens":3,"output_tokens":2,"service_tier":"standard"},"service_tier":"standard"}"#;
        let read = call(answer);
        assert_eq!(
            read.usage,
            Some(Usage { input: 18, cached: 5, cache_written: 3, cache_written_1h: 0, output: 2, reasoning: 0 })
        );
        assert_eq!(read.service, Some(Service::Sync));
    }

    #[test]
    fn usage_that_contradicts_itself_is_noted_and_used_only_where_it_can_be() {
        let with = |usage: &str| {
            let read = call(&format!(r#"{{"model":"m","choices":[],"usage":{usage}}}"#));
            (read.usage.map(|usage| (usage.input, usage.output)), read.inconsistent)
        };
        assert_eq!(with(r#"{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}"#), (Some((5, 2)), false));
        assert_eq!(with(r#"{"prompt_tokens":5,"completion_tokens":2,"total_tokens":9}"#), (Some((5, 2)), true));
        assert_eq!(with(r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":6}}"#), (None, true));
        assert_eq!(with(r#"{"prompt_tokens":-5,"completion_tokens":2}"#), (None, true));
        assert_eq!(with(r#"{"prompt_tokens":"many"}"#), (None, true));
        assert_eq!(with("{}"), (None, false));
        assert_eq!(with("null"), (None, false));
    }

    #[test]
    fn failures_and_other_tiers() {
        let failed =
            format!(r#"{{"request":{REQUEST},"response":{{"status_code":429,"body":{{"error":{{"message":"x"}}}}}}}}"#);
        assert!(call(&failed).failed);
        assert_eq!(call(&ANSWER.replace("default", "priority")).service, None);
        assert_eq!(call(&ANSWER.replace("default", "flex")).service, Some(Service::Flex));
    }

    #[test]
    fn a_trace_id_beside_the_bodies_is_not_langfuses() {
        let pair =
            format!(r#"{{"trace_id":"t","start_time":1795420800,"type":"x","request":{REQUEST},"response":{ANSWER}}}"#);
        let read = call(&pair);
        assert_eq!((read.format, read.usage), (Format::OpenAi, Some(USAGE)));
    }

    #[test]
    fn other_json_is_not_taken_for_a_call() {
        for other in [r#"{"level":"info","message":"started"}"#, "{}", r#"{"error":"x"}"#, r#"{"model":"m"}"#] {
            assert!(!matches!(read_bytes(other.as_bytes()), Reading::Call(_)), "{other}");
        }
    }
}
