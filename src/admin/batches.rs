//! `/api/batches` and `/api/flush`: what was sent to providers, and the two ways to interfere.

use serde::Serialize;

use super::AdminState;
use super::query::{List, Query};
use super::reply::{self, Reply, store_trouble};
use crate::domain::clock::Micros;
use crate::domain::ids::BatchId;
use crate::store::BatchRecord;
use crate::wire::api_error::ApiError;

/// A batch; times are Unix seconds or null, `progress` is between 0 and 1.
#[derive(Serialize)]
struct BatchObject<'a> {
    id: String,
    object: &'static str,
    state: &'static str,
    provider: &'a str,
    provider_batch_id: Option<&'a str>,
    provider_status: Option<&'a str>,
    lane: String,
    endpoint: &'static str,
    model: &'a str,
    credential: String,
    counts: Counts,
    progress: f64,
    created_at: i64,
    submitted_at: Option<i64>,
    ended_at: Option<i64>,
    expected_at: Option<i64>,
    expected_by: Option<i64>,
    input_file_id: Option<&'a str>,
    output_file_id: Option<&'a str>,
    error_file_id: Option<&'a str>,
    /// While nothing is heard of it.
    trouble: Option<TroubleObject>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct TroubleObject {
    since: i64,
    message: String,
}

#[derive(Clone, Copy, Serialize)]
struct Counts {
    total: u32,
    completed: u32,
    failed: u32,
}

impl<'a> BatchObject<'a> {
    fn new(state: &AdminState, batch: &'a BatchRecord) -> Self {
        let known = &batch.provider;
        let expected = state.engine.expected_end(batch);
        let counts = Counts {
            total: batch.line_count,
            completed: known.completed.unwrap_or(0),
            failed: known.failed.unwrap_or(0),
        };
        Self {
            id: batch.id.to_string(),
            object: "nightbus.batch",
            state: batch.state.as_str(),
            provider: &batch.lane.provider,
            provider_batch_id: known.batch_id.as_deref(),
            provider_status: known.status.as_deref(),
            lane: batch.lane.to_string(),
            endpoint: batch.lane.endpoint.as_str(),
            model: &batch.lane.model,
            credential: batch.lane.account.to_string(),
            counts,
            progress: if batch.state.is_terminal() { 1.0 } else { counts.progress() },
            created_at: batch.created_at.unix_seconds(),
            submitted_at: batch.submitted_at.map(Micros::unix_seconds),
            ended_at: batch.ended_at.map(Micros::unix_seconds),
            expected_at: expected.map(|expected| expected.at.unix_seconds()),
            expected_by: expected.map(|expected| expected.by.unix_seconds()),
            input_file_id: known.input_file_id.as_deref(),
            output_file_id: known.output_file_id.as_deref(),
            error_file_id: known.error_file_id.as_deref(),
            trouble: state
                .engine
                .trouble(batch.id)
                .map(|trouble| TroubleObject { since: trouble.since.unix_seconds(), message: trouble.message }),
            error: known.error.as_deref(),
        }
    }
}

impl Counts {
    fn progress(self) -> f64 {
        let done = f64::from(self.completed) + f64::from(self.failed);
        (done / f64::from(self.total.max(1))).clamp(0.0, 1.0)
    }
}

/// Newest first; `state=open` for those that have not ended, `limit`, `after`.
pub(super) async fn list(state: &AdminState, query: Option<&str>) -> Reply {
    let query = Query::parse(query, &["state", "limit", "after"])?;
    let limit = query.limit()?;
    let open = match query.get("state") {
        None | Some("all") => false,
        Some("open") => true,
        Some(other) => {
            let message = format!("state={other}: batches are listed with state=open or state=all.");
            return Err(ApiError::invalid_request(message).about("state"));
        }
    };
    let after = query.parsed::<BatchId>("after")?;
    let found = state.engine.store().batches(open, after, limit + 1).await.map_err(|error| store_trouble(&error))?;
    let page = List::page(found.iter().collect(), limit, |batch: &&BatchRecord| batch.id.to_string());
    reply::ok(&page.map(|batch| BatchObject::new(state, batch)))
}

/// One.
pub(super) async fn one(state: &AdminState, id: &str) -> Reply {
    let id = parse(id)?;
    let found = state.engine.store().batch(id).await.map_err(|error| store_trouble(&error))?;
    let batch = found.ok_or_else(|| unknown(&id.to_string()))?;
    reply::ok(&BatchObject::new(state, &batch))
}

/// What was done.
#[derive(Serialize)]
struct Done {
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u64>,
    message: String,
}

/// Asks the provider to cancel it.
pub(super) async fn cancel(state: &AdminState, id: &str) -> Reply {
    let id = parse(id)?;
    match state.engine.cancel_batch(id).await.map_err(|error| store_trouble(&error))? {
        None => Err(unknown(&id.to_string())),
        Some(false) => Err(reply::already_ended(format!("{id} has ended; nothing is left to cancel."))),
        Some(true) => reply::ok(&Done {
            object: "nightbus.cancel",
            id: Some(id.to_string()),
            requests: None,
            lanes: None,
            message: "The provider is asked to cancel. What it has finished is kept, the rest is queued again."
                .to_owned(),
        }),
    }
}

/// Submits all that is queued.
pub(super) async fn flush(state: &AdminState) -> Reply {
    let report = state.engine.flush(None).await;
    reply::ok(&Done {
        object: "nightbus.flush",
        id: None,
        requests: Some(report.requests),
        lanes: Some(report.lanes),
        message: if report.requests == 0 {
            "Nothing was queued.".to_owned()
        } else {
            let (are, of) =
                (plural(report.requests, "request is", "requests are"), plural(report.lanes, "lane", "lanes"));
            format!("{are} being submitted, from {of}.")
        },
    })
}

fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn parse(id: &str) -> Result<BatchId, ApiError> {
    id.parse().map_err(|_invalid| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("There is no batch {id:?}. GET /api/batches lists those that are kept."))
}
