//! `/sim/…`: what tests ask the simulator, and how they steer it. Not part of the provider's API; needs no key.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /sim/counters` | totals |
//! | `GET /sim/executions`, `?probe=X`, `?custom_id=X` | executions by marker |
//! | `GET /sim/bill` | executions and tokens that are billed, by model and service |
//! | `GET /sim/batches` | all batches of all keys, newest first, Message Batches last |
//! | `GET /sim/requests?limit=&path=` | the last calls: method, path, headers, body |
//! | `GET`, `POST`, `DELETE /sim/faults` | the armed faults; replace by `{"faults":["name:count"]}`; none |
//! | `POST /sim/settings` | any of `batch_seconds`, `live_latency_ms`, `fail_rate`, `enqueued_token_limit` |
//! | `POST /sim/reset` | forget files, batches, faults, counters |

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::sim::background;
use crate::sim::faults::TABLE;
use crate::sim::reply::{self, Failure, Outcome, bad_request};
use crate::sim::server::Query;
use crate::sim::state::{State, checked_seconds, checked_share};
use crate::sim::view;

/// Answers `/sim/{route}`.
pub(super) fn handle(state: &State, method: &Method, route: &str, query: &Query, body: &[u8]) -> Outcome {
    background::settle(state);
    let answer = match (method.as_str(), route) {
        ("GET", "counters") => counters_json(state),
        ("GET", "executions") => executions(state, query),
        ("GET", "bill") => state.counters.bill(),
        ("GET", "batches") => {
            let batches = state.batches.newest_first();
            let mut views: Vec<Value> = batches.iter().map(|batch| view::object(state, batch)).collect();
            views.extend(state.messages.views());
            json!({"object": "list", "data": views})
        }
        ("GET", "requests") => {
            let limit = query.number("limit", 1..=1_000, 100)?;
            json!({"object": "list", "data": state.requests.json(limit, query.get("path").unwrap_or("/"))})
        }
        ("GET", "faults") => faults_json(state),
        ("POST", "faults") => {
            let faults = parse(body)?.get("faults").cloned().unwrap_or_default();
            let faults: Vec<String> = serde_json::from_value(faults).map_err(|error| {
                bad_request("invalid_type", "faults", format!("'faults' must be a list of names: {error}"))
            })?;
            state.faults.replace(&faults).map_err(|error| bad_request("invalid_value", "faults", error))?;
            faults_json(state)
        }
        ("DELETE", "faults") => {
            state.faults.replace(&[]).map_err(|error| bad_request("invalid_value", "faults", error))?;
            faults_json(state)
        }
        ("POST", "settings") => change_settings(state, &parse(body)?)?,
        ("POST", "reset") => {
            state.reset();
            json!({"reset": true})
        }
        _ => return Err(reply::not_found(None, format!("No such route: {method} /sim/{route}"))),
    };
    Ok(reply::ok(&answer))
}

/// All totals, the enqueued tokens, and the faults that fired.
pub(super) fn counters_json(state: &State) -> Value {
    background::settle(state);
    let mut counters = state.counters.json();
    let (files, bytes) = state.files.totals();
    let more = [
        ("faults_fired", state.faults.fired()),
        ("enqueued_tokens", state.pool.enqueued().into()),
        ("files_stored", files.into()),
        ("bytes_stored", bytes.into()),
    ];
    if let Some(counters) = counters.as_object_mut() {
        counters.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    counters
}

fn executions(state: &State, query: &Query) -> Value {
    if let Some(probe) = query.get("probe") {
        return json!({"probe": probe, "executions": state.counters.of_probe(probe)});
    }
    if let Some(custom_id) = query.get("custom_id") {
        return json!({"custom_id": custom_id, "executions": state.counters.of_custom_id(custom_id)});
    }
    state.counters.by_probe()
}

fn faults_json(state: &State) -> Value {
    let known: serde_json::Map<String, Value> =
        TABLE.iter().map(|(name, meaning)| ((*name).to_owned(), Value::from(*meaning))).collect();
    json!({"armed": state.faults.armed(), "fired": state.faults.fired(), "known": known})
}

fn change_settings(state: &State, wanted: &Value) -> Result<Value, Failure> {
    let mut settings = state.settings();
    for (name, value) in wanted.as_object().into_iter().flatten() {
        let wrong = |error: String| bad_request("invalid_value", name, error);
        let number = || value.as_f64().ok_or_else(|| wrong(format!("'{name}' must be a number")));
        match name.as_str() {
            "batch_seconds" => settings.batch_seconds = checked_seconds(number()?).map_err(wrong)?,
            "fail_rate" => settings.fail_rate = checked_share(number()?).map_err(wrong)?,
            "live_latency_ms" => {
                settings.live_latency = Duration::try_from_secs_f64(number()? / 1_000.0)
                    .map_err(|error| wrong(format!("'{name}': {error}")))?;
            }
            "enqueued_token_limit" if value.is_null() || value.is_u64() => {
                settings.enqueued_token_limit = value.as_u64();
            }
            _ => return Err(wrong(format!("'{name}' is no setting, or its value is of the wrong type"))),
        }
    }
    state.settings.send_replace(settings);
    Ok(json!({
        "batch_seconds": settings.batch_seconds, "live_latency_ms": settings.live_latency.as_secs_f64() * 1_000.0,
        "fail_rate": settings.fail_rate, "enqueued_token_limit": settings.enqueued_token_limit,
    }))
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| bad_request("invalid_json", "body", format!("The body is not JSON: {error}")))
}
