//! LiteLLM's spend logs: rows of its table `LiteLLM_SpendLogs`, from `/spend/logs` and `/spend/logs/v2`, or dumped as
//! JSON, JSONL or CSV (<https://docs.litellm.ai/docs/proxy/cost_tracking>; the table's columns are in its schema,
//! <https://github.com/BerriAI/litellm/blob/main/schema.prisma>).
//!
//! `spend` is what LiteLLM computed; 0 means that it knew no price, unless the answer came from its own cache.

use super::openai::{checked, template};
use crate::audit::call::{Call, Format, Reading};
use crate::audit::shape::Shape;
use crate::domain::money::Money;
use crate::domain::usage::Usage;

/// The record, if it is a row of that table.
pub(super) fn read(shape: &Shape) -> Option<Reading> {
    let ours = shape.call_type.is_there() || shape.custom_llm_provider.is_there() || shape.model_group.is_there();
    if !ours || !shape.spend.is_there() {
        return None;
    }
    let mut call = Call::new(Format::LiteLlm);
    call.at = super::first_time([&shape.start_time_camel, &shape.start_time]);
    call.model = super::first_text([&shape.model, &shape.model_group]);
    call.provider = super::first_text([&shape.custom_llm_provider]);
    let usage = Usage {
        input: shape.prompt_tokens.count().unwrap_or(0),
        output: shape.completion_tokens.count().unwrap_or(0),
        ..Usage::default()
    };
    let is_there = usage.total() > 0;
    let found = checked(is_there, usage, shape.total_tokens.count().filter(|total| *total > 0), false);
    (call.usage, call.inconsistent) = (found.usage, found.inconsistent);
    let from_cache = shape.cache_hit.flag() == Some(true);
    call.cost = if from_cache { Some(Money::ZERO) } else { super::amount([&shape.spend]) };
    let metadata = shape.metadata.get();
    let tag = shape.request_tags.text().filter(|tag| !tag.starts_with("User-Agent:"));
    call.tag = tag.or_else(|| metadata?.label()).map(ToOwned::to_owned);
    // LiteLLM records the user agent as a tag of its own, too.
    let as_tag = shape.request_tags.text().and_then(|tag| tag.strip_prefix("User-Agent:")).map(str::trim);
    call.agent = as_tag.or_else(|| metadata?.user_agent.text()).map(ToOwned::to_owned);
    call.template = template(shape);
    call.stream = shape.stream.flag();
    call.failed = super::is_failure(&shape.status);
    if shape.call_type.text().is_some_and(|kind| kind.contains("batch")) {
        call.service = Some(crate::domain::service::Service::Batch);
    }
    super::call(call)
}
