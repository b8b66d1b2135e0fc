//! xAI's batches (providers.md, section 4.9), over the same life as OpenAI's: a name instead of metadata, counts instead of a status,
//! and results in pages.
//!
//! A batch takes its lines from the file while it is running: at first it has half of them, and those are done. Who takes that for
//! the end loses the rest.

use serde_json::{Map, Value, json};

use crate::sim::batches;
use crate::sim::dialect::{Dialect, at, rfc3339};
use crate::sim::faults::Fault;
use crate::sim::order::{Order, required};
use crate::sim::reply::{self, ApiFailure, Failure, Outcome, bad_request};
use crate::sim::server::Query;
use crate::sim::state::{Account, State};
use crate::sim::view;

/// The body of `POST /batches`. Lines name their endpoints; the simulator knows one of them.
pub(super) fn order(fields: &Map<String, Value>) -> Result<Order, Failure> {
    const KNOWN: [&str; 2] = ["name", "input_file_id"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(bad_request("invalid_argument", unknown, format!("unknown field `{unknown}`")));
    }
    let name = json!({"name": required(fields, "name")?});
    Order::new(Dialect::Xai, "/v1/chat/completions", required(fields, "input_file_id")?, Some(&name))
}

/// A batch without its status.
pub(super) fn job(batch: &Value) -> Value {
    let time = |name: &str| batch[name].as_i64().and_then(rfc3339);
    let count = |name: &str| at(batch, &format!("/request_counts/{name}")).as_u64().unwrap_or(0);
    let status = batch["status"].as_str().unwrap_or_default();
    let (mut total, mut success, error) = (count("total"), count("completed"), count("failed"));
    let mut pending = total.saturating_sub(success + error);
    let mut cancelled = 0;
    match status {
        // All of it ran, and counts lag.
        "completed" => pending = 0,
        "cancelled" => (pending, cancelled) = (0, pending),
        "in_progress" if success < total / 4 => (total, success, pending) = (total / 2, total / 2, 0),
        "finalizing" => pending = pending.max(1),
        _ => {}
    }
    let refused = at(batch, "/errors/data/0/message");
    let cancel_time = time("cancelling_at").or_else(|| time("failed_at"));
    // A day passes in no time here.
    let created = batch["created_at"].as_i64().unwrap_or_default();
    let expires = if status == "expired" { created - 7_200 } else { created + 86_400 };
    json!({
        "batch_id": batch["id"], "name": at(batch, "/metadata/name"), "create_time": time("created_at"),
        "expire_time": rfc3339(expires), "cancel_time": cancel_time, "cancel_by_xai_message": refused,
        "state": {
            "num_requests": total, "num_pending": pending, "num_success": success, "num_error": error,
            "num_cancelled": cancelled,
        },
        "cost_breakdown": {"total_cost_usd_ticks": 0},
    })
}

/// `GET /batches`.
pub(super) fn list(state: &State, account: &Account, query: &Query) -> Outcome {
    let limit = query.number("limit", 1..=100, 20)?;
    let skipped = query.number("pagination_token", 0..=usize::MAX, 0)?;
    let batches = batches::listed(state, account)?;
    let page: Vec<Value> = batches.iter().skip(skipped).take(limit).map(|batch| view::object(state, batch)).collect();
    let next = skipped.saturating_add(limit);
    let token = (next < batches.len()).then(|| next.to_string());
    Ok(reply::ok(&json!({"batches": page, "pagination_token": token})))
}

/// `GET /batches/{id}/results`: pages of at most three, so that there are some.
pub(super) fn results(state: &State, account: &Account, id: &str, query: &Query) -> Outcome {
    const MOST: usize = 3;
    let batch = batches::find(state, account, id)?;
    if state.faults.take(Fault::Content404) {
        return Err(reply::not_found(None, "no such batch"));
    }
    if state.faults.take(Fault::Content500) {
        return Err(ApiFailure::server().into());
    }
    let limit = query.number("limit", 1..=100, 100)?.min(MOST);
    let skipped = query.number("pagination_token", 0..=usize::MAX, 0)?;
    let files = {
        let progress = batch.progress.lock();
        [progress.output_file_id.clone(), progress.error_file_id.clone()]
    };
    let files = files.into_iter().flatten().filter_map(|file| state.files.get(state, account, &file));
    let text: Vec<u8> = files.flat_map(|file| file.pieces.concat()).collect();
    let all: Vec<Value> = text.split(|byte| *byte == b'\n').filter_map(result).collect();
    let next = skipped.saturating_add(limit);
    if skipped > 0 && state.faults.take(Fault::ContentCut) {
        return Err(Failure::Cut);
    }
    let page: Vec<&Value> = all.iter().skip(skipped).take(limit).collect();
    let token = (next < all.len()).then(|| next.to_string());
    Ok(reply::ok(&json!({"results": page, "pagination_token": token})))
}

/// A line of OpenAI's as a result; none: no line, or one that did not run.
fn result(line: &[u8]) -> Option<Value> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let (response, error) = (at(&line, "/response"), at(&line, "/error"));
    let code = error["code"].as_str().unwrap_or_default();
    if matches!(code, "batch_expired" | "batch_cancelled") {
        return None;
    }
    let result = match response["status_code"].as_u64() {
        Some(200) => json!({"response": {"chat_get_completion": response["body"]}}),
        // gRPC's codes.
        Some(status) => {
            let code = if status == 429 {
                8
            } else if status < 500 {
                3
            } else {
                13
            };
            json!({"error": {"code": code, "message": at(response, "/body/error/message")}})
        }
        None if error.is_null() => json!({}),
        None => json!({"error": {"code": 4, "message": error["message"]}}),
    };
    Some(json!({"batch_request_id": at(&line, "/custom_id"), "batch_result": result}))
}
