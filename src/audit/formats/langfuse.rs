//! Langfuse's observations: from the interface's export (JSON, CSV) and the public API, in camel case
//! (<https://langfuse.com/docs/api-and-data-platform/features/export-from-ui>), and from the blob storage export in snake
//! case (<https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields>).
//!
//! Only observations with a model or tokens are calls: spans, events, traces and scores are not. Keys of `usageDetails`
//! are the integrations' own; Langfuse itself adds up those with `input` and those with `output`, and so does this.

use super::openai::{checked, tokens};
use crate::audit::call::{Call, Format, Problem, Reading};
use crate::audit::shape::{Shape, Sums};
use crate::domain::usage::Usage;

/// The record, if it is one of Langfuse's.
pub(super) fn read(shape: &Shape) -> Option<Reading> {
    let traced = shape.trace_id.is_there() || shape.trace_id_camel.is_there();
    let timed = shape.start_time.is_there() || shape.start_time_camel.is_there();
    let counted = shape.usage_details.get().is_some() || shape.usage_details_camel.get().is_some();
    let named = shape.provided_model_name.is_there() || shape.provided_model_name_camel.is_there();
    // A log of one's own may have the same names around whole requests and answers.
    let exchange = shape.request.get().is_some() || shape.response.get().is_some();
    if exchange || !(counted || named || traced && (timed || shape.kind.is_there())) {
        return None;
    }
    let sums = [&shape.usage_details, &shape.usage_details_camel].into_iter().filter_map(|sums| sums.get());
    let sums = sums.into_iter().find(|sums| sums.any);
    let model = super::first_text([&shape.provided_model_name, &shape.provided_model_name_camel, &shape.model]);
    if model.is_none() && sums.is_none() {
        return Some(Reading::Skip(Problem::NotACall));
    }
    let mut call = Call::new(Format::Langfuse);
    call.at = super::first_time([&shape.start_time, &shape.start_time_camel, &shape.timestamp]);
    call.model = model;
    let found = match (sums, shape.usage.get()) {
        (Some(sums), _) => summed(sums),
        (None, Some(counts)) => tokens(counts),
        (None, None) => checked(false, Usage::default(), None, false),
    };
    (call.usage, call.inconsistent) = (found.usage, found.inconsistent);
    call.cost = super::amount([&shape.total_cost, &shape.total_cost_camel]);
    let labels = [&shape.tags, &shape.trace_name, &shape.trace_name_camel, &shape.name];
    call.tag = labels.into_iter().find_map(|label| label.text()).map(ToOwned::to_owned);
    call.agent = shape.metadata.get().and_then(|marks| marks.user_agent.text()).map(ToOwned::to_owned);
    call.template = super::openai::template(shape);
    call.failed = shape.level.text() == Some("ERROR");
    super::call(call)
}

fn summed(sums: &Sums) -> super::openai::Tokens {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sums of finite counts; casts saturate"
    )]
    let whole = |number: f64| number as u64;
    let usage = Usage {
        input: whole(sums.input),
        cached: whole(sums.cached),
        cache_written: whole(sums.written),
        cache_written_1h: 0,
        output: whole(sums.output),
        reasoning: whole(sums.reasoning),
    };
    checked(true, usage, None, false)
}
