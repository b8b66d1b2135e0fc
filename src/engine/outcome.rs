//! What one result line means for its request: final or to be tried again, and what it cost.

use crate::domain::ids::RequestId;
use crate::domain::lane::LaneKey;
use crate::domain::request::RequestState;
use crate::domain::service::Service;
use crate::engine::charge::{charge, summary};
use crate::engine::context::Context;
use crate::store::ledger::Execution;
use crate::store::{Finish, OutcomeSummary};
use crate::wire::line::LineOutcome;

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

/// The end of a request by the outcome of its line, or of its live call. `asked`: the service it was asked of; what
/// served it in truth is the answer's word.
pub(crate) fn finish_of(
    context: &Context,
    lane: &LaneKey,
    (asked, execution): (Service, Execution),
    id: RequestId,
    outcome: LineOutcome,
) -> Finish {
    match outcome {
        LineOutcome::Answered { status, provider_request_id, body } => {
            let billed = charge(context, lane, execution, asked, status, &body);
            Finish {
                id,
                state: RequestState::Completed,
                at: context.now(),
                summary: summary(status, asked, provider_request_id, billed.as_ref()),
                body: Some(body),
                charge: billed.map(|billed| billed.charge),
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
            charge: None,
        },
    }
}
