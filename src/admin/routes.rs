//! Which path and method is what. Every request passes the guard first; every refusal is counted.

use http::request::Parts;
use http::{Method, Response};

use super::reply::{self, Reply};
use super::{AdminState, assets, batches, callbacks, events, flights, guard, health, requests, savings, status};
use crate::body::Body;
use crate::wire::api_error::ApiError;

/// Answers one request. Bodies of requests are not read: no route takes one.
pub(super) async fn answer(state: &AdminState, parts: &Parts) -> Response<Body> {
    let path = parts.uri.path();
    let open = matches!(path, "/healthz" | "/readyz") || assets::is_asset(path);
    let config = state.config.get();
    let reply = match guard::check(parts, &config.admin, config.admin_listen.ip(), open) {
        Ok(()) => route(state, parts, path).await,
        Err(refused) => {
            state.telemetry.request_refused(refused.code);
            Err(refused)
        }
    };
    reply.unwrap_or_else(|error| reply::error(&error))
}

async fn route(state: &AdminState, parts: &Parts, path: &str) -> Reply {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if matches!(parts.method, Method::GET | Method::HEAD) {
        read(state, &segments, parts, path).await
    } else {
        act(state, &segments, parts, path).await
    }
}

async fn read(state: &AdminState, segments: &[&str], parts: &Parts, path: &str) -> Reply {
    let query = parts.uri.query();
    match segments {
        ["healthz"] => health::alive(),
        ["readyz"] => health::ready(state).await,
        ["metrics"] => health::metrics(state).await,
        ["api", "status"] => status::status(state).await,
        ["api", "savings"] => savings::savings(state, query).await,
        ["api", "requests"] => requests::list(state, query).await,
        ["api", "requests", id] => requests::one(state, id).await,
        ["api", "batches"] => batches::list(state, query).await,
        ["api", "batches", id] => batches::one(state, id).await,
        ["api", "flights"] => flights::list(state, query),
        ["api", "callbacks"] => callbacks::list(state, query).await,
        ["api", "events"] if parts.method == Method::GET => events::stream(state),
        _ => other(segments, path, true),
    }
}

async fn act(state: &AdminState, segments: &[&str], parts: &Parts, path: &str) -> Reply {
    let posts = parts.method == Method::POST;
    match segments {
        ["api", "requests", id] if parts.method == Method::DELETE => requests::cancel(state, id).await,
        ["api", "batches", id, "cancel"] if posts => batches::cancel(state, id).await,
        ["api", "flights", id, "approve"] if posts => flights::decide(state, id, true).await,
        ["api", "flights", id, "reject"] if posts => flights::decide(state, id, false).await,
        ["api", "callbacks", id, "redeliver"] if posts => callbacks::redeliver(state, id).await,
        ["api", "flush"] if posts => batches::flush(state).await,
        ["api", "reload"] if posts => reload(state),
        _ => other(segments, path, false),
    }
}

fn reload(state: &AdminState) -> Reply {
    let Some(reload) = &state.reload else {
        return Err(ApiError::invalid_request(
            "This nightbus was started without a configuration that can be read again.",
        ));
    };
    match reload() {
        Ok(report) => reply::ok(&report),
        Err(errors) => Err(ApiError::invalid_request(format!("Nothing was changed. {errors}"))),
    }
}

/// The dashboard's files, and what there is to say about paths and methods that do not fit.
fn other(segments: &[&str], path: &str, reads: bool) -> Reply {
    if let Some(asset) = assets::find(path) {
        return Ok(if reads { asset } else { reply::method_not_allowed("GET") });
    }
    match segments {
        ["healthz" | "readyz" | "metrics"]
        | ["api", "status" | "savings" | "requests" | "batches" | "flights" | "callbacks" | "events"] => {
            Ok(reply::method_not_allowed("GET"))
        }
        ["api", "batches", _] => Ok(reply::method_not_allowed("GET")),
        ["api", "requests", _] => Ok(reply::method_not_allowed("GET, DELETE")),
        ["api", "flush" | "reload"]
        | ["api", "batches", _, "cancel"]
        | ["api", "flights", _, "approve" | "reject"]
        | ["api", "callbacks", _, "redeliver"] => Ok(reply::method_not_allowed("POST")),
        _ => Err(ApiError::not_found(format!(
            "There is no {path:?} on the admin listener. API calls go to the main listener; /api/status is a good start here."
        ))),
    }
}
