//! The request object of the contract (section 6), made from what the store keeps.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::clock::Micros;
use crate::domain::forecast::Expected;
use crate::store::{RequestOptions, RequestRecord};

/// `nightbus.request`: times are Unix seconds or null, money is US dollars or null where the price is unknown.
#[derive(Debug, Serialize)]
pub struct RequestObject<'a> {
    id: String,
    object: &'static str,
    state: &'static str,
    endpoint: &'static str,
    model: &'a str,
    tag: Option<&'a str>,
    created_at: i64,
    submitted_at: Option<i64>,
    finished_at: Option<i64>,
    deadline_at: Option<i64>,
    expires_at: Option<i64>,
    expected_at: Option<i64>,
    expected_by: Option<i64>,
    batch_id: Option<String>,
    service: Option<&'a str>,
    /// `none` where the provider has no batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    discount: Option<&'static str>,
    attempts: u32,
    status_code: Option<u16>,
    error: Option<ErrorObject<'a>>,
    result_url: String,
    usage: Option<Box<RawValue>>,
    cost_usd: Option<f64>,
    saved_usd: Option<f64>,
    /// While it waits for a decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    flight: Option<GroundedObject>,
}

/// The test flight whose verdict holds a request up.
#[derive(Debug, Serialize)]
pub(crate) struct GroundedObject {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) reasons: Vec<String>,
    /// When it is refused unless somebody decides, in Unix seconds.
    pub(crate) decide_by: i64,
}

#[derive(Debug, Serialize)]
struct ErrorObject<'a> {
    code: &'a str,
    message: &'a str,
}

impl<'a> RequestObject<'a> {
    /// Of one stored request. `retention` decides `expires_at` once it has ended; `expected`: until then, its forecast.
    pub(crate) fn new(record: &'a RequestRecord, retention: std::time::Duration, expected: Option<Expected>) -> Self {
        let outcome = record.outcome.as_ref();
        let seconds = |at: Option<Micros>| at.map(Micros::unix_seconds);
        Self {
            id: record.request.id.to_string(),
            object: "nightbus.request",
            state: record.state.as_str(),
            endpoint: record.request.called().as_str(),
            model: &record.request.lane.model,
            tag: record.request.tag.as_deref(),
            created_at: record.request.created_at.unix_seconds(),
            submitted_at: seconds(record.submitted_at),
            finished_at: seconds(record.finished_at),
            deadline_at: seconds(record.request.deadline_at),
            expires_at: seconds(record.finished_at.map(|at| at.plus(retention))),
            expected_at: expected.map(|expected| expected.at.unix_seconds()),
            expected_by: expected.map(|expected| expected.by.unix_seconds()),
            batch_id: record.batch_id.map(|id| id.to_string()),
            service: outcome.and_then(|outcome| outcome.service.as_deref()),
            discount: record.request.options.has(RequestOptions::NO_DISCOUNT).then_some("none"),
            attempts: record.attempts,
            status_code: outcome.map(|outcome| outcome.status_code),
            error: outcome
                .and_then(|outcome| outcome.error.as_ref())
                .map(|(code, message)| ErrorObject { code, message }),
            result_url: result_path(record.request.id),
            usage: outcome
                .and_then(|outcome| outcome.usage_json.clone())
                .and_then(|json| RawValue::from_string(json).ok()),
            cost_usd: outcome.and_then(|outcome| outcome.cost_nanos).map(nanos_to_usd),
            saved_usd: outcome.and_then(|outcome| outcome.saved_nanos).map(nanos_to_usd),
            flight: None,
        }
    }

    /// Held up by this test flight.
    pub(crate) fn held_by(mut self, flight: Option<GroundedObject>) -> Self {
        self.flight = flight;
        self
    }

    /// When its answer is expected, in Unix seconds; none: it has ended, or nothing is known.
    pub const fn expected_at(&self) -> Option<i64> {
        self.expected_at
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Where the answer of a request is fetched.
pub fn result_path(id: crate::domain::ids::RequestId) -> String {
    format!("/nightbus/v1/requests/{id}/result")
}

#[expect(clippy::cast_precision_loss, reason = "amounts of one request are far below 2^53 nano-dollars")]
fn nanos_to_usd(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
