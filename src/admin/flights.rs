//! `/api/flights`: test flights with verdict and reasons, and the decision over those that are grounded.

use serde::Serialize;

use super::AdminState;
use super::query::{List, Query};
use super::reply::{self, Reply};
use crate::domain::clock::Micros;
use crate::domain::ids::FlightId;
use crate::engine::FlightDecision;
use crate::store::flights::{FlightRecord, FlightState};
use crate::wire::api_error::ApiError;

/// A test flight; times are Unix seconds or null.
#[derive(Serialize)]
struct FlightObject {
    id: String,
    object: &'static str,
    state: &'static str,
    provider: String,
    credential: String,
    endpoint: &'static str,
    model: String,
    tag: Option<String>,
    template: String,
    pilots: Vec<String>,
    waiting_requests: u64,
    created_at: i64,
    landed_at: Option<i64>,
    decided_at: Option<i64>,
    /// When what waits is refused unless somebody decides.
    decide_by: Option<i64>,
    reasons: Vec<String>,
    /// Characters with which all pilots' user messages begin.
    shared_prefix_chars: Option<u32>,
}

impl FlightObject {
    fn new(state: &AdminState, flight: FlightRecord, waiting: u64) -> Self {
        let grounded = flight.landed_at.filter(|_| flight.state == FlightState::Grounded);
        Self {
            id: flight.id.to_string(),
            object: "nightbus.flight",
            state: flight.state.as_str(),
            provider: flight.provider.to_string(),
            credential: flight.account.to_string(),
            endpoint: flight.endpoint.as_str(),
            model: flight.model.to_string(),
            tag: flight.tag,
            template: flight.template.to_string(),
            pilots: flight.pilots.iter().map(ToString::to_string).collect(),
            waiting_requests: waiting,
            created_at: flight.created_at.unix_seconds(),
            landed_at: flight.landed_at.map(Micros::unix_seconds),
            decided_at: flight.decided_at.map(Micros::unix_seconds),
            decide_by: grounded.map(|at| at.plus(state.config.get().flight.ground_timeout).unix_seconds()),
            reasons: flight.reasons,
            shared_prefix_chars: flight.shared_prefix,
        }
    }
}

/// The last flight of each template, newest first; `limit`.
pub(super) fn list(state: &AdminState, query: Option<&str>) -> Reply {
    let limit = Query::parse(query, &["limit"])?.limit()?;
    let page = List::page(state.engine.flights(), limit, |(flight, _)| flight.id.to_string());
    reply::ok(&page.map(|(flight, waiting)| FlightObject::new(state, flight, waiting)))
}

/// What was done.
#[derive(Serialize)]
struct Done {
    object: &'static str,
    id: String,
    state: &'static str,
    requests: u64,
    message: String,
}

/// Lets what waits go, or refuses it.
pub(super) async fn decide(state: &AdminState, id: &str, approve: bool) -> Reply {
    let unknown = || ApiError::not_found(format!("There is no test flight {id:?}. GET /api/flights lists them."));
    let flight: FlightId = id.parse().map_err(|_invalid| unknown())?;
    let waiting = state.engine.flights().into_iter().find(|(found, _)| found.id == flight).map_or(0, |found| found.1);
    let decided = state.engine.decide_flight(flight, approve).await.map_err(|error| reply::store_trouble(&error))?;
    match decided {
        FlightDecision::NotFound => Err(unknown()),
        FlightDecision::TooLate(FlightState::Flying) => {
            Err(reply::already_ended(format!("{id} is still flying: its verdict comes first.")))
        }
        FlightDecision::TooLate(stands) => {
            Err(reply::already_ended(format!("{id} is {}; nothing is left to decide.", stands.as_str())))
        }
        FlightDecision::Done(flight) => reply::ok(&Done {
            object: "nightbus.flight_decision",
            id: flight.id.to_string(),
            state: flight.state.as_str(),
            requests: waiting,
            message: if approve {
                format!("{id} is approved: what waits ({waiting}) is being submitted.")
            } else {
                format!("{id} is rejected: what waits ({waiting}) is answered 422.")
            },
        }),
    }
}
