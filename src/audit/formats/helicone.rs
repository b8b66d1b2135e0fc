//! Helicone's exports: objects of its request query API (<https://docs.helicone.ai/rest/request/post-v1requestquery-clickhouse>)
//! as JSON or JSONL, and the CSV of its export tool (<https://docs.helicone.ai/tools/export>).
//!
//! Both name the times `request_created_at` and `response_created_at`. `prompt_tokens` is taken as the whole prompt.

use super::openai::{checked, template, tokens};
use crate::audit::call::{Call, Format, Reading};
use crate::audit::shape::{Marks, Shape};
use crate::domain::usage::Usage;

/// The record, if it is one of Helicone's.
pub(super) fn read(shape: &Shape) -> Option<Reading> {
    if !shape.request_created_at.is_there() {
        return None;
    }
    let mut call = Call::new(Format::Helicone);
    call.at = super::first_time([&shape.request_created_at]);
    let body = shape.request_body.get();
    call.model = super::first_text([&shape.model, &shape.request_model, &shape.response_model])
        .or_else(|| super::first_text([&body?.model]));
    call.provider = super::first_text([&shape.provider]).map(|provider| provider.to_ascii_lowercase());
    let (prompt, output) = (shape.prompt_tokens.count(), shape.completion_tokens.count());
    let usage = Usage {
        input: prompt.unwrap_or(0),
        cached: shape.prompt_cache_read_tokens.count().unwrap_or(0),
        cache_written: shape.prompt_cache_write_tokens.count().unwrap_or(0),
        cache_written_1h: 0,
        output: output.unwrap_or(0),
        reasoning: 0,
    };
    let found = if prompt.is_some() || output.is_some() {
        checked(true, usage, shape.total_tokens.count(), false)
    } else {
        let answered = shape.response_body.get().and_then(|answer| answer.usage.get());
        answered.map_or_else(|| checked(false, usage, None, false), tokens)
    };
    (call.usage, call.inconsistent) = (found.usage, found.inconsistent);
    call.cost = super::amount([&shape.cost_usd, &shape.cost]);
    let properties = shape.request_properties.get().or_else(|| shape.properties.get());
    call.tag = properties.and_then(Marks::label).map(ToOwned::to_owned);
    call.agent = properties.and_then(|marks| marks.user_agent.text()).map(ToOwned::to_owned);
    call.stream = body.map(|body| body.stream.flag().unwrap_or(false));
    call.template = body.and_then(template);
    call.failed = super::is_failure(&shape.response_status);
    super::call(call)
}
