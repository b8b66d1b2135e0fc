//! `/api/requests`: the request objects of the contract, section 6, over all callers, who show only as fingerprints.

use serde::Serialize;

use super::AdminState;
use super::query::{List, Query};
use super::reply::{self, Reply, store_trouble};
use crate::domain::ids::RequestId;
use crate::domain::request::RequestState;
use crate::engine::CancelOutcome;
use crate::engine::object::RequestObject;
use crate::store::{ListFilter, RequestRecord};
use crate::wire::api_error::ApiError;

/// A request object and whose it is.
#[derive(Serialize)]
struct AdminRequest<'a> {
    #[serde(flatten)]
    object: RequestObject<'a>,
    credential: String,
}

impl<'a> AdminRequest<'a> {
    fn new(state: &AdminState, record: &'a RequestRecord) -> Self {
        Self { object: state.engine.object(record), credential: record.request.caller.to_string() }
    }
}

/// Newest first; `state`, `tag`, `limit`, `after`.
pub(super) async fn list(state: &AdminState, query: Option<&str>) -> Reply {
    let query = Query::parse(query, &["state", "tag", "limit", "after"])?;
    let limit = query.limit()?;
    let filter = ListFilter {
        caller: None,
        state: query.parsed::<RequestState>("state")?,
        tag: query.get("tag").map(ToOwned::to_owned),
        after: query.parsed::<RequestId>("after")?,
        limit: limit + 1,
    };
    let found = state.engine.store().list(filter).await.map_err(|error| store_trouble(&error))?;
    let page = List::page(found.iter().collect(), limit, |record: &&RequestRecord| record.request.id.to_string());
    reply::ok(&page.map(|record| AdminRequest::new(state, record)))
}

/// One.
pub(super) async fn one(state: &AdminState, id: &str) -> Reply {
    let id = parse(id)?;
    let found = state.engine.store().request(id).await.map_err(|error| store_trouble(&error))?;
    let record = found.ok_or_else(|| unknown(&id.to_string()))?;
    reply::ok(&AdminRequest::new(state, &record))
}

/// Withdraws a queued one; the answer is the request as it is now.
pub(super) async fn cancel(state: &AdminState, id: &str) -> Reply {
    let id = parse(id)?;
    match state.engine.cancel_request(id, None).await.map_err(|error| store_trouble(&error))? {
        CancelOutcome::Cancelled => one(state, &id.to_string()).await,
        CancelOutcome::AlreadySubmitted => Err(ApiError::already_submitted(format!(
            "{id} is in a provider batch already and may be billed. Cancel the whole batch, or let it finish."
        ))),
        CancelOutcome::AlreadyEnded => Err(reply::already_ended(format!("{id} has ended; nothing is left to cancel."))),
        CancelOutcome::NotFound => Err(unknown(&id.to_string())),
    }
}

fn parse(id: &str) -> Result<RequestId, ApiError> {
    id.parse().map_err(|_invalid| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("There is no request {id:?}. GET /api/requests lists those that are kept."))
}
