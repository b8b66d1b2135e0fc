//! Mistral's batch jobs (providers.md, section 4.5), over the same life as OpenAI's batches: another call to create them, other
//! words for their states, one model for the whole job.

use serde_json::{Map, Value, json};

use crate::sim::dialect::{Dialect, at};
use crate::sim::order::{Order, required};
use crate::sim::reply::{Failure, bad_request};

/// Hours that a job may have; more than seven days are refused.
const HOURS: std::ops::RangeInclusive<u64> = 1..=168;

/// The body of `POST /batch/jobs`.
pub(super) fn order(fields: &Map<String, Value>) -> Result<Order, Failure> {
    const KNOWN: [&str; 5] = ["endpoint", "model", "input_files", "timeout_hours", "metadata"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(bad_request("extra_forbidden", unknown, "Extra inputs are not permitted"));
    }
    let files = fields.get("input_files").and_then(Value::as_array).map(Vec::as_slice);
    let Some([Value::String(file)]) = files else {
        return Err(bad_request("missing", "input_files", "expected a list with one id of a file"));
    };
    if fields.get("timeout_hours").is_some_and(|hours| !hours.as_u64().is_some_and(|hours| HOURS.contains(&hours))) {
        return Err(bad_request("out_of_range", "timeout_hours", "expected 1 to 168 hours"));
    }
    let model = required(fields, "model")?;
    let order = Order::new(Dialect::Mistral, required(fields, "endpoint")?, file, fields.get("metadata"))?;
    Ok(order.with_model(model))
}

/// A batch as a job.
pub(super) fn job(batch: &Value) -> Value {
    let field = |name: &str| batch.get(name).cloned().unwrap_or_default();
    let status = match batch["status"].as_str().unwrap_or_default() {
        "validating" => "QUEUED",
        "completed" => "SUCCESS",
        "failed" => "FAILED",
        "expired" => "TIMEOUT_EXCEEDED",
        "cancelling" => "CANCELLATION_REQUESTED",
        "cancelled" => "CANCELLED",
        _ => "RUNNING",
    };
    let (completed, failed) = (at(batch, "/request_counts/completed"), at(batch, "/request_counts/failed"));
    let sum = completed.as_u64().unwrap_or(0) + failed.as_u64().unwrap_or(0);
    let errors: Vec<Value> = at(batch, "/errors/data")
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| json!({"message": error["message"], "count": 1}))
        .collect();
    json!({
        "id": field("id"), "object": "batch", "input_files": [field("input_file_id")], "endpoint": field("endpoint"),
        "model": field("model"), "agent_id": null, "metadata": field("metadata"), "status": status, "errors": errors,
        "output_file": field("output_file_id"), "error_file": field("error_file_id"), "outputs": null,
        "created_at": field("created_at"), "started_at": field("in_progress_at"), "completed_at": field("completed_at"),
        "total_requests": at(batch, "/request_counts/total"), "completed_requests": sum,
        "succeeded_requests": completed, "failed_requests": failed,
    })
}
