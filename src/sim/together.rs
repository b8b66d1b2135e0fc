//! Together's batches (providers.md, section 4.7), over the same life as OpenAI's: a job inside its answer, states in capitals, no
//! metadata, no counts, and lists without pages.

use serde_json::{Map, Value, json};

use crate::sim::dialect::{Dialect, at, rfc3339};
use crate::sim::order::{Order, required};
use crate::sim::reply::{Failure, bad_request};

/// The body of `POST /batches`.
pub(super) fn order(fields: &Map<String, Value>) -> Result<Order, Failure> {
    const KNOWN: [&str; 5] = ["input_file_id", "endpoint", "completion_window", "model_id", "priority"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(bad_request("unknown_parameter", unknown, format!("Unknown parameter: '{unknown}'.")));
    }
    if fields.get("completion_window").is_some_and(|window| window != "24h") {
        return Err(bad_request("invalid_value", "completion_window", "Supported values are: '24h'."));
    }
    Order::new(Dialect::Together, required(fields, "endpoint")?, required(fields, "input_file_id")?, None)
}

/// A batch as a job.
pub(super) fn job(batch: &Value) -> Value {
    let time = |name: &str| batch[name].as_i64().and_then(rfc3339);
    let status = match batch["status"].as_str().unwrap_or_default() {
        status @ ("validating" | "completed" | "failed" | "expired" | "cancelled") => status.to_ascii_uppercase(),
        _ => "IN_PROGRESS".to_owned(),
    };
    let total = at(batch, "/request_counts/total").as_f64().unwrap_or(0.0);
    let done = at(batch, "/request_counts/completed").as_f64().unwrap_or(0.0);
    let messages: Vec<&str> = at(batch, "/errors/data")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|error| error["message"].as_str())
        .collect();
    json!({
        "id": batch["id"], "user_id": "user-simulator", "input_file_id": batch["input_file_id"], "file_size_bytes": 0,
        "status": status, "job_deadline": time("expires_at"), "created_at": time("created_at"),
        "endpoint": batch["endpoint"], "progress": if total > 0.0 { 100.0 * done / total } else { 0.0 },
        "model_id": batch["model"], "output_file_id": batch["output_file_id"],
        "error_file_id": batch["error_file_id"], "error": messages.first(), "completed_at": time("completed_at"),
    })
}
