//! What one result line means for its request: final or to be tried again, and what it cost.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::RequestId;
use crate::domain::lane::LaneKey;
use crate::domain::pricing::PriceTable;
use crate::domain::request::RequestState;
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::store::{Finish, OutcomeSummary};
use crate::wire::openai::output_line::LineOutcome;
use crate::wire::openai::usage::{consumption, usage};

/// Whether a line's outcome stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the caller's answer.
    Final,
    /// Another batch may do better.
    Again,
}

/// Lines that ended expired, 429 or 5xx are tried again; every other answer stands (contract, section 7).
pub(crate) const fn judge(outcome: &LineOutcome) -> Verdict {
    match outcome {
        LineOutcome::Answered { status: 429 | 500.., .. } | LineOutcome::NotExecuted { .. } => Verdict::Again,
        LineOutcome::Answered { .. } => Verdict::Final,
    }
}

/// The end of a request by its line's outcome.
/// `asked`: the service it was asked of; what served it in truth is the answer's word.
pub(crate) fn finish_of(
    context: &Context,
    lane: &LaneKey,
    asked: Service,
    id: RequestId,
    outcome: LineOutcome,
) -> Finish {
    match outcome {
        LineOutcome::Answered { status, provider_request_id, body } => {
            let tier = if asked == Service::Batch { None } else { consumption(&body).service_tier };
            let served = asked.priced_as(tier.as_deref());
            let priced = price(context, lane, served, status, &body);
            Finish {
                id,
                state: RequestState::Completed,
                at: context.now(),
                summary: OutcomeSummary {
                    status_code: status,
                    service: Some(served.unwrap_or(asked).as_str().to_owned()),
                    provider_request_id,
                    error: None,
                    usage_json: priced.usage_json,
                    cost_nanos: priced.cost_nanos,
                    saved_nanos: priced.saved_nanos,
                },
                body: Some(body),
            }
        }
        LineOutcome::NotExecuted { code, message } => Finish {
            id,
            state: RequestState::Failed,
            at: context.now(),
            summary: OutcomeSummary {
                status_code: 502,
                service: None,
                provider_request_id: None,
                error: Some((
                    "batch_failed".to_owned(),
                    format!("the batch did not execute this request ({code}): {message}"),
                )),
                usage_json: None,
                cost_nanos: None,
                saved_nanos: None,
            },
            body: None,
        },
    }
}

#[derive(Default)]
struct Priced {
    usage_json: Option<String>,
    cost_nanos: Option<i64>,
    saved_nanos: Option<i64>,
}

#[derive(Deserialize)]
struct WithUsage<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

const PICOS_PER_NANO: i64 = 1_000;

/// Usage as the provider wrote it, and its price by `service` (none: by one without a known price). An unknown price
/// stays unknown.
fn price(context: &Context, lane: &LaneKey, service: Option<Service>, status: u16, body: &Bytes) -> Priced {
    let raw = serde_json::from_slice::<WithUsage<'_>>(body).ok().and_then(|body| body.usage);
    let Some(raw) = raw.filter(|raw| (200..300).contains(&status) && raw.get() != "null") else {
        return Priced::default();
    };
    let mut priced = Priced { usage_json: Some(raw.get().to_owned()), ..Priced::default() };
    let kind = context.provider_configs.get(&*lane.provider).map_or("", |config| config.kind.as_str());
    if let Some(usage) = usage(raw.get())
        && let Some(service) = service
        && let Some(model) = PriceTable::builtin().find(&lane.provider, kind, &lane.model)
    {
        let nanos = |money: crate::domain::money::Money| money.picos() / PICOS_PER_NANO;
        priced.cost_nanos = model.cost(service, &usage).map(nanos);
        priced.saved_nanos = model.saved(service, &usage).map(nanos);
    }
    priced
}
