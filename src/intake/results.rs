//! nightbus's own routes (contract, section 6): look, fetch, cancel, list, flush. A caller sees only what was made with its own
//! credential; everything else does not exist for it.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::body::{self, Body};
use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;
use crate::engine::CancelOutcome;
use crate::intake::accepted::pending;
use crate::intake::answer::{self, Asked};
use crate::intake::client::Client;
use crate::intake::defer::{Desk, unavailable};
use crate::intake::delivery::{self, Delivery};
use crate::intake::hold::{self, Held, Told};
use crate::intake::marks::Marks;
use crate::intake::respond::json_response;
use crate::store::{ListFilter, RequestRecord, StoredResult};
use crate::wire::api_error::ApiError;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
const MAX_WAIT_SECONDS: u64 = 24 * 3600;

/// A call of one of nightbus's own routes.
#[derive(Debug)]
pub(crate) struct OwnCall<'a> {
    pub(crate) method: &'a Method,
    /// What comes after `/nightbus/v1`.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) caller: Fingerprint,
    /// `Prefer: wait=N`
    pub(crate) wait: Option<Duration>,
}

impl Desk {
    /// Answers it.
    pub(crate) async fn own_route(&self, call: &OwnCall<'_>, client: Client) -> Result<Response<Body>, ApiError> {
        let mut segments = call.path.trim_start_matches('/').split('/');
        let place = (segments.next(), segments.next(), segments.next(), segments.next());
        match (call.method, place) {
            (&Method::GET, (Some("requests"), None, ..)) => self.list(call).await,
            (&Method::GET, (Some("requests"), Some(id), None, _)) => {
                let record = self.own_record(id, call.caller).await?.record;
                Ok(json_response(StatusCode::OK, self.engine.object(&record).to_json()))
            }
            (&Method::GET, (Some("requests"), Some(id), Some("result"), None)) => {
                self.result(id, call.caller, wait_of(call)?, client).await
            }
            (&Method::DELETE, (Some("requests"), Some(id), None, _)) => self.cancel(id, call.caller).await,
            (&Method::POST, (Some("flush"), None, ..)) => self.flush(call.caller).await,
            _ => Err(ApiError::not_found(format!(
                "{} /nightbus/v1{} is not a route: see the list of routes in the documentation",
                call.method, call.path
            ))),
        }
    }

    /// `GET /v1/chat/deferred-completion/{id}`: 202 with an empty body while pending (providers.md, section 4.9).
    pub(crate) async fn deferred_completion(&self, id: &str, caller: Fingerprint) -> Result<Response<Body>, ApiError> {
        let StoredResult { record, body } = self.own_record(id, caller).await?;
        if let Some(answer) = answer::stored(&record, body) {
            return Ok(answer::respond(&Asked::of(&record), &answer));
        }
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        answer::set_pending_headers(response.headers_mut(), record.request.id, record.state);
        answer::set_expected(response.headers_mut(), self.engine.object(&record).expected_at());
        Ok(response)
    }

    async fn own_record(&self, id: &str, caller: Fingerprint) -> Result<StoredResult, ApiError> {
        let unknown =
            || ApiError::not_found(format!("no request {id:?} was made with this credential, or it has expired"));
        let id: RequestId = id.parse().map_err(|_invalid| unknown())?;
        let found = self.engine.store().result(id).await.map_err(|error| unavailable(&error))?;
        found.filter(|found| found.record.request.caller == caller).ok_or_else(unknown)
    }

    async fn result(
        &self,
        id: &str,
        caller: Fingerprint,
        wait: Option<Duration>,
        client: Client,
    ) -> Result<Response<Body>, ApiError> {
        if wait.is_some() {
            self.may_wait(&Marks::default())?;
        }
        // Registered before the look: an answer that comes in between is not missed.
        let waiter = wait.and_then(|_| id.parse().ok()).map(|id| self.engine.waiters().register(id));
        let StoredResult { record, body } = self.own_record(id, caller).await?;
        let asked = Asked::of(&record);
        // Who fetches the answer here need not call again for it.
        let delivery =
            Delivery { attachment: self.engine.orphans().join(asked.id), connection: client.connection.clone() };
        if let Some(answer) = answer::stored(&record, body) {
            return Ok(delivery::track(answer::respond(&asked, &answer), delivery));
        }
        let (Some(waiter), Some(wait)) = (waiter, wait) else {
            return Ok(pending(&self.engine, &record));
        };
        let stop = self.tasks.stop_token().clone();
        let held = Held::new(asked, waiter, stop, self.engine.clone());
        let mut response = match hold::for_at_most(held, wait, &client).await {
            Ok(Told::Answer(response)) => delivery::track(response, delivery),
            Ok(Told::Stopping(response)) => response,
            Err(held) => {
                drop(held);
                let record = self.own_record(id, caller).await?.record;
                pending(&self.engine, &record)
            }
        };
        if let Ok(value) = HeaderValue::try_from(format!("wait={}", wait.as_secs())) {
            response.headers_mut().insert(HeaderName::from_static("preference-applied"), value);
        }
        Ok(response)
    }

    async fn cancel(&self, id: &str, caller: Fingerprint) -> Result<Response<Body>, ApiError> {
        let record = self.own_record(id, caller).await?.record;
        let id = record.request.id;
        match self.engine.cancel_request(id, Some(caller)).await.map_err(|error| unavailable(&error))? {
            CancelOutcome::NotFound => {
                Err(ApiError::not_found(format!("no request {id} was made with this credential")))
            }
            CancelOutcome::AlreadySubmitted => Err(ApiError::already_submitted(format!(
                "request {id} is in a provider batch, which is not cancelled for one request: fetch its result later"
            ))),
            CancelOutcome::Cancelled | CancelOutcome::AlreadyEnded => {
                let record = self.own_record(&id.to_string(), caller).await?.record;
                Ok(json_response(StatusCode::OK, self.engine.object(&record).to_json()))
            }
        }
    }

    async fn flush(&self, caller: Fingerprint) -> Result<Response<Body>, ApiError> {
        #[derive(Serialize)]
        struct Flushed {
            object: &'static str,
            requests: u64,
            lanes: u64,
        }
        let report = self.engine.flush(Some(caller)).await;
        let flushed = Flushed { object: "nightbus.flush", requests: report.requests, lanes: report.lanes };
        Ok(json_response(StatusCode::OK, serde_json::to_vec(&flushed).unwrap_or_default()))
    }

    async fn list(&self, call: &OwnCall<'_>) -> Result<Response<Body>, ApiError> {
        #[derive(Serialize)]
        struct List {
            object: &'static str,
            data: Vec<Box<RawValue>>,
            has_more: bool,
            next: Option<String>,
        }
        let (filter, limit) = list_filter(call)?;
        let mut records = self.engine.store().list(filter).await.map_err(|error| unavailable(&error))?;
        let has_more = records.len() > limit;
        records.truncate(limit);
        let object = |record: &RequestRecord| {
            let json = self.engine.object(record).to_json();
            RawValue::from_string(String::from_utf8(json).unwrap_or_default()).ok()
        };
        let list = List {
            object: "list",
            data: records.iter().filter_map(object).collect(),
            has_more,
            next: records.last().filter(|_| has_more).map(|record| record.request.id.to_string()),
        };
        Ok(json_response(StatusCode::OK, serde_json::to_vec(&list).unwrap_or_default()))
    }
}

/// One more than asked for is read, to know whether there are more.
fn list_filter(call: &OwnCall<'_>) -> Result<(ListFilter, usize), ApiError> {
    let mut filter = ListFilter { caller: Some(call.caller), ..ListFilter::default() };
    let mut limit = DEFAULT_LIMIT;
    for (name, value) in pairs(call.query) {
        let bad = |what: String| ApiError::invalid_request(format!("{name}: {what}")).about(name);
        match name {
            "state" => filter.state = Some(value.parse().map_err(bad)?),
            "tag" => filter.tag = Some(value.to_owned()),
            "after" => {
                filter.after = Some(value.parse().map_err(|_invalid| bad(format!("{value:?} is not a request id")))?);
            }
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                    .ok_or_else(|| bad(format!("{value:?} is not a number from 1 to {MAX_LIMIT}")))?;
            }
            _ => {}
        }
    }
    filter.limit = limit + 1;
    Ok((filter, limit))
}

fn wait_of(call: &OwnCall<'_>) -> Result<Option<Duration>, ApiError> {
    let Some((_, value)) = pairs(call.query).find(|(name, _)| *name == "wait") else {
        return Ok(call.wait);
    };
    let seconds: u64 = value.parse().map_err(|_not_a_number| {
        ApiError::invalid_request(format!("wait: {value:?} is not a number of seconds")).about("wait")
    })?;
    Ok(Some(Duration::from_secs(seconds.min(MAX_WAIT_SECONDS))))
}

/// Names and values of a query. All values we take are plain ASCII words: nothing needs decoding.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}
