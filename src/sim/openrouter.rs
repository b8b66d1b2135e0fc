//! OpenRouter's batches (providers.md, section 4.12), over the same life as OpenAI's: lines in the creation, results in the batch object.
//!
//! The creation is read as it comes: what follows `requests` is not seen. There are no files, no list and no way to cancel; the
//! button of the web site, which tests press, is [`BY_HAND`]. A batch is not shown for a moment after its creation.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::sim::batches::{self, Status};
use crate::sim::dialect::{Dialect, at};
use crate::sim::faults::Fault;
use crate::sim::files::StoredFile;
use crate::sim::order::Order;
use crate::sim::peek;
use crate::sim::reply::{self, ApiFailure, Failure, Outcome, bad_request};
use crate::sim::state::{Account, State};

/// `…/BY_HAND/ID` cancels a batch; no client of the API can.
pub(super) const BY_HAND: &str = "/by-hand/";
/// Longer ids of lines are refused.
const MAX_ID: usize = 64;
/// A new batch is not shown for this share of a batch's time.
const UNSEEN: f64 = 0.05;

/// The body of `POST /batches`, with its lines kept as if they had been in a file.
pub(super) fn order(state: &State, account: &Account, body: &[u8]) -> Result<Order, Failure> {
    const KNOWN: [&str; 6] = ["endpoint", "model", "completion_window", "callback_url", "provider", "requests"];
    let invalid = |name: &str, message: String| bad_request("invalid_value", name, message);
    let text = str::from_utf8(body).unwrap_or_default();
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)
        .map_err(|error| ApiFailure::invalid(400, None, None, format!("The body cannot be read: {error}")))?;
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_ref())) {
        return Err(invalid(unknown, format!("Unknown parameter: '{unknown}'.")));
    }
    let requests = fields.get("requests").ok_or_else(|| invalid("requests", "'requests' is missing.".to_owned()))?;
    // Both lie in one body: whose text begins earlier was sent earlier.
    let comes_first = |name: &&str| {
        fields.get(*name).is_none_or(|value| value.get().as_ptr().addr() < requests.get().as_ptr().addr())
    };
    if let Some(late) = ["endpoint", "model", "callback_url"].iter().find(|name| !comes_first(name)) {
        return Err(invalid(late, format!("'{late}' must come before 'requests'.")));
    }
    let named = |name: &str| {
        let value = fields.get(name).and_then(|value| peek::text(value));
        value.filter(|value| !value.is_empty()).ok_or_else(|| invalid(name, format!("'{name}' is missing.")))
    };
    let (endpoint, model) = (named("endpoint")?, named("model")?);
    if fields.contains_key("completion_window") && named("completion_window")? != "24h" {
        return Err(invalid("completion_window", "Supported values are: '24h'.".to_owned()));
    }
    let Some(canonical) = endpoint.strip_prefix("/api") else {
        return Err(invalid("endpoint", format!("Unknown endpoint '{endpoint}'.")));
    };
    let file = keep(state, account, &lines(requests)?);
    Ok(Order::new(Dialect::OpenRouter, canonical, &file, None)?.with_model(&model))
}

/// The lines, one below the other.
fn lines(requests: &RawValue) -> Result<Vec<u8>, Failure> {
    let refused = |message: String| bad_request("invalid_value", "requests", message);
    let list: Vec<&RawValue> = serde_json::from_str(requests.get()).map_err(|error| refused(error.to_string()))?;
    let mut text = Vec::with_capacity(requests.get().len());
    for line in list {
        let id = peek::members(line.get(), &["custom_id"]).ok().and_then(|[id]| peek::text(id?));
        if id.is_none_or(|id| id.is_empty() || id.len() > MAX_ID) {
            return Err(refused(format!("Each request needs a custom_id of at most {MAX_ID} characters.")));
        }
        text.extend(line.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        text.push(b'\n');
    }
    Ok(text)
}

/// The id of the file that is none to its owner.
fn keep(state: &State, account: &Account, lines: &[u8]) -> String {
    let file = StoredFile {
        id: state.ids.long("inline_"),
        account: account.clone(),
        filename: "inline.jsonl".to_owned(),
        purpose: account.dialect.rules().purpose.to_owned(),
        created_at: state.clock.unix_now(),
        expires_at: None,
        pieces: vec![Bytes::copy_from_slice(lines)],
        uploaded: None,
        incomplete: false,
    };
    state.files.insert(state, file).id.clone()
}

/// A batch without its results.
pub(super) fn job(batch: &Value) -> Value {
    let errors: Vec<Value> = at(batch, "/errors/data")
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| json!({"code": error["code"], "message": error["message"]}))
        .collect();
    json!({
        "id": batch["id"], "object": "batch", "status": batch["status"], "endpoint": batch["endpoint"],
        "model": batch["model"], "created_at": batch["created_at"], "in_progress_at": batch["in_progress_at"],
        "request_counts": batch["request_counts"], "is_byok": false, "usage": {"cost": 0},
        "errors": if errors.is_empty() { Value::Null } else { json!({"data": errors}) },
    })
}

/// `GET /batches/{id}`: with the results, once it has ended.
pub(super) fn get(state: &State, account: &Account, id: &str) -> Outcome {
    let unseen = Duration::try_from_secs_f64(state.settings().batch_seconds * UNSEEN).unwrap_or_default();
    let batch = batches::find(state, account, id)?;
    if batch.started.elapsed() < unseen {
        return Err(reply::not_found(None, "Batch not found"));
    }
    let (status, files) = {
        let progress = batch.progress.lock();
        (progress.status, [progress.output_file_id.clone(), progress.error_file_id.clone()])
    };
    let mut object = batches::shown(state, account, id)?;
    if !matches!(status, Status::Completed | Status::Cancelled | Status::Expired) {
        return Ok(reply::ok(&object));
    }
    if state.faults.take(Fault::Content404) {
        return Err(reply::not_found(None, "Batch not found"));
    }
    if state.faults.take(Fault::Content500) {
        return Err(ApiFailure::server().into());
    }
    if state.faults.take(Fault::ContentCut) {
        return Err(Failure::Cut);
    }
    if state.faults.take(Fault::NullFileIds) {
        return Ok(reply::ok(&object));
    }
    let files = files.into_iter().flatten().filter_map(|file| state.files.get(state, account, &file));
    let text: Vec<u8> = files.flat_map(|file| file.pieces.concat()).collect();
    let results: Vec<Value> =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("results".to_owned(), Value::Array(results));
    }
    Ok(reply::ok(&object))
}
