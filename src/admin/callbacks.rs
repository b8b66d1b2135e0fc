//! `/api/callbacks`: who is told of requests' ends, what every attempt came to, and delivering once more.
//! Of a URL only scheme, host and path are shown: what follows may be a secret.

use serde::Serialize;

use super::AdminState;
use super::query::{List, Query};
use super::reply::{self, Reply, store_trouble};
use crate::domain::clock::Micros;
use crate::domain::ids::CallbackId;
use crate::store::{Callback, CallbackState};
use crate::wire::api_error::ApiError;

/// A callback; times are Unix seconds or null.
#[derive(Serialize)]
struct CallbackObject<'a> {
    id: String,
    object: &'static str,
    request_id: String,
    state: &'static str,
    url: &'a str,
    created_at: i64,
    ended_at: Option<i64>,
    next_attempt_at: Option<i64>,
    attempts: Vec<Attempt<'a>>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    at: i64,
    status_code: Option<u16>,
    error: Option<&'a str>,
}

impl<'a> CallbackObject<'a> {
    fn new(callback: &'a Callback) -> Self {
        Self {
            id: callback.id.to_string(),
            object: "nightbus.callback",
            request_id: callback.request.to_string(),
            state: callback.state.as_str(),
            url: callback.url.split('?').next().unwrap_or_default(),
            created_at: callback.created_at.unix_seconds(),
            ended_at: callback.since.map(Micros::unix_seconds),
            next_attempt_at: callback.due_at.map(Micros::unix_seconds),
            attempts: callback
                .attempts
                .iter()
                .map(|attempt| Attempt {
                    at: Micros(attempt.at).unix_seconds(),
                    status_code: attempt.status,
                    error: attempt.error.as_deref(),
                })
                .collect(),
        }
    }
}

/// Those of the newest requests first; `state`, `limit`, `after`.
pub(super) async fn list(state: &AdminState, query: Option<&str>) -> Reply {
    let query = Query::parse(query, &["state", "limit", "after"])?;
    let limit = query.limit()?;
    let wanted = query.get("state").map(parse_state).transpose()?;
    let after = query.parsed::<CallbackId>("after")?;
    let found =
        state.engine.store().callbacks(wanted, after, limit + 1).await.map_err(|error| store_trouble(&error))?;
    let page = List::page(found.iter().collect(), limit, |callback: &&Callback| callback.id.to_string());
    reply::ok(&page.map(CallbackObject::new))
}

fn parse_state(name: &str) -> Result<CallbackState, ApiError> {
    CallbackState::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
        let names = CallbackState::ALL.map(CallbackState::as_str).join(", ");
        ApiError::invalid_request(format!("state={name}: callbacks are {names}.")).about("state")
    })
}

#[derive(Serialize)]
struct Redelivered {
    object: &'static str,
    id: String,
    message: &'static str,
}

/// Delivers it once more, whatever came of it before.
pub(super) async fn redeliver(state: &AdminState, id: &str) -> Reply {
    let unknown =
        || ApiError::not_found(format!("There is no callback {id:?}. GET /api/callbacks lists those that are kept."));
    let id: CallbackId = id.parse().map_err(|_invalid| unknown())?;
    if state.engine.callback_policy().signer.is_none() {
        return Err(ApiError::invalid_request("Nothing signs callbacks: set callbacks.secret_env in proxy.toml."));
    }
    match state.engine.redeliver_callback(id).await.map_err(|error| store_trouble(&error))? {
        None => Err(unknown()),
        Some(false) => Err(ApiError::invalid_request("The request has not ended: its callback is sent when it has.")),
        Some(true) => reply::ok(&Redelivered {
            object: "nightbus.redelivery",
            id: id.to_string(),
            message: "It is being sent, under the same webhook-id; GET /api/callbacks shows what came of it.",
        }),
    }
}
