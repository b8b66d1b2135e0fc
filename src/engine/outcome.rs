//! What one result line means for its request: final or to be tried again, and what it cost.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::ids::RequestId;
use crate::domain::pricing::PriceTable;
use crate::domain::request::RequestState;
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::store::{BatchRecord, Finish, OutcomeSummary};
use crate::wire::line::LineOutcome;
use crate::wire::usage::usage;

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
pub(crate) fn finish_of(context: &Context, batch: &BatchRecord, id: RequestId, outcome: LineOutcome) -> Finish {
    match outcome {
        LineOutcome::Answered { status, provider_request_id, body } => {
            let priced = price(context, batch, status, &body);
            Finish {
                id,
                state: RequestState::Completed,
                at: context.now(),
                summary: OutcomeSummary {
                    status_code: status,
                    service: Some(Service::Batch.as_str().to_owned()),
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

/// Usage as the provider wrote it, and its price in this batch. An unknown price stays unknown.
fn price(context: &Context, batch: &BatchRecord, status: u16, body: &Bytes) -> Priced {
    let raw = serde_json::from_slice::<WithUsage<'_>>(body).ok().and_then(|body| body.usage);
    let Some(raw) = raw.filter(|raw| (200..300).contains(&status) && raw.get() != "null") else {
        return Priced::default();
    };
    let mut priced = Priced { usage_json: Some(raw.get().to_owned()), ..Priced::default() };
    let kind = context.provider_configs.get(&*batch.lane.provider).map_or("", |config| config.kind.as_str());
    if let Some(usage) = usage(batch.lane.endpoint.api(), raw.get())
        && let Some(model) = PriceTable::builtin().find(&batch.lane.provider, kind, &batch.lane.model)
    {
        let nanos = |money: crate::domain::money::Money| money.picos() / PICOS_PER_NANO;
        priced.cost_nanos = model.cost(Service::Batch, &usage).map(nanos);
        priced.saved_nanos = model.saved(Service::Batch, &usage).map(nanos);
    }
    priced
}
