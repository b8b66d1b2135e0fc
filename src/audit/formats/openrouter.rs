//! OpenRouter's activity: the CSV that its Activity and Logs pages export, one row per generation
//! (<https://openrouter.ai/docs/guides/features/activity>), and rows per day and model as its activity API has them
//! (<https://openrouter.ai/docs/agent-sdk/typescript/models/activityitem>).
//!
//! `cost_total` is what was charged. A row per day stands for many calls and says nothing of the hour.

use super::openai::checked;
use crate::audit::call::{Call, Format, Reading};
use crate::audit::shape::{Scalar, Shape};
use crate::domain::service::Service;
use crate::domain::usage::Usage;

/// The record, if it is a row of these.
pub(super) fn read(shape: &Shape) -> Option<Reading> {
    let per_day = shape.date.is_there() && shape.requests.is_there() && shape.model.is_there();
    if !(shape.generation_id.is_there() || shape.model_permaslug.is_there() || per_day) {
        return None;
    }
    let mut call = Call::new(Format::OpenRouter);
    call.at = super::first_time([&shape.created_at, &shape.date]);
    call.model = super::first_text([&shape.model_permaslug, &shape.model]);
    let prompt = super::first_count([&shape.tokens_prompt, &shape.prompt_tokens]);
    let output = super::first_count([&shape.tokens_completion, &shape.completion_tokens]);
    let usage = Usage {
        input: prompt.unwrap_or(0),
        cached: shape.tokens_cached.count().unwrap_or(0),
        cache_written: 0,
        cache_written_1h: 0,
        output: output.unwrap_or(0),
        reasoning: super::first_count([&shape.tokens_reasoning, &shape.reasoning_tokens]).unwrap_or(0),
    };
    let found = checked(prompt.is_some() || output.is_some(), usage, None, false);
    (call.usage, call.inconsistent) = (found.usage, found.inconsistent);
    let charged = shape.usage.number.map_or(Scalar::Nothing, Scalar::Number);
    call.cost = super::amount([&shape.cost_total, &charged]);
    call.count = if per_day { shape.requests.count().unwrap_or(1).max(1) } else { 1 };
    call.tag = shape.app_name.text().map(ToOwned::to_owned);
    call.stream = shape.streamed.flag();
    if shape.variant.text() == Some("batch") {
        call.service = Some(Service::Batch);
    }
    super::call(call)
}
