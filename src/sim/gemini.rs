//! Gemini's batches (providers.md, section 4.2): OpenAI's create and retrieve on the compatible endpoint, and beside it the native
//! Files API (resumable uploads, downloads, deletion) and the native routes that list and cancel batches.
//!
//! The native routes take the key as `x-goog-api-key` alone, the compatible ones as a bearer. What the documentation does not
//! have is not there: files, a list or a cancellation on the compatible endpoint, metadata.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, header};
use serde_json::{Map, Value, json};

use crate::sim::batches::{self, Batch};
use crate::sim::dialect::{Dialect, rfc3339};
use crate::sim::faults::Fault;
use crate::sim::order::{Order, required};
use crate::sim::reply::{self, ApiFailure, Failure, Outcome, bad_request};
use crate::sim::server::Query;
use crate::sim::state::{Account, State};
use crate::sim::{content, files, upload};

/// Where the native routes begin.
pub(super) const NATIVE: &str = "/gemini/";
/// Seconds that a file lives.
const LIFETIME: i64 = 48 * 3600;

/// The body of `POST /batches`.
pub(super) fn order(fields: &Map<String, Value>) -> Result<Order, Failure> {
    const KNOWN: [&str; 3] = ["input_file_id", "endpoint", "completion_window"];
    if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(bad_request(
            "INVALID_ARGUMENT",
            unknown,
            format!("Unknown name \"{unknown}\": Cannot find field."),
        ));
    }
    if required(fields, "completion_window")? != "24h" {
        return Err(bad_request("INVALID_ARGUMENT", "completion_window", "completion_window must be \"24h\"."));
    }
    let Some(file) = required(fields, "input_file_id")?.strip_prefix("files/") else {
        return Err(bad_request("INVALID_ARGUMENT", "input_file_id", "expected the name of a file: files/…"));
    };
    Order::new(Dialect::Gemini, required(fields, "endpoint")?, file, None)
}

/// A batch as the compatible endpoint shows it: OpenAI's, with names in Google's form.
pub(super) fn dressed(mut batch: Value) -> Value {
    for (name, collection) in
        [("id", "batches"), ("input_file_id", "files"), ("output_file_id", "files"), ("error_file_id", "files")]
    {
        if let Some(Value::String(id)) = batch.get_mut(name) {
            *id = format!("{collection}/{id}");
        }
    }
    batch
}

/// Answers a native call; `path` begins behind [`NATIVE`].
pub(super) fn handle(state: &State, parts: &Parts, path: &str, query: &Query, body: Bytes) -> Outcome {
    let account = account(state, parts)?;
    let not_found = || Failure::from(ApiFailure::invalid(404, None, None, format!("Not found: {path}")));
    if path == "upload/v1beta/files" && parts.method == Method::POST {
        return match query.get("upload_id") {
            None => begin_upload(state, parts, &body),
            Some(session) => finish_upload(state, &account, parts, session, body),
        };
    }
    if let Some(file) = path.strip_prefix("download/v1beta/files/").and_then(|file| file.strip_suffix(":download")) {
        if query.get("alt") != Some("media") {
            return Err(bad_request("INVALID_ARGUMENT", "alt", "alt=media is missing"));
        }
        return content::download(state, &account, file, query);
    }
    let path = path.strip_prefix("v1beta/").ok_or_else(not_found)?;
    match (parts.method.as_str(), path.split_once('/')) {
        ("GET", Some(("files", id))) => Ok(reply::ok(&file(&*files::find(state, &account, id)?))),
        ("DELETE", Some(("files", id))) => files::delete(state, &account, id).map(|_| reply::ok(&json!({}))),
        ("POST", Some(("batches", call))) => {
            let id = call.strip_suffix(":cancel").ok_or_else(not_found)?;
            batches::cancel(state, &account, id).map(|_| reply::ok(&json!({})))
        }
        ("GET", None) if path == "batches" => operations(state, &account, query),
        _ => Err(not_found()),
    }
}

/// The native routes know the key by its own header.
fn account(state: &State, parts: &Parts) -> Result<Account, Failure> {
    let key = parts.headers.get("x-goog-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let known = state.api_keys.as_ref().is_none_or(|keys| keys.iter().any(|known| known == key));
    if key.is_empty() || !known || parts.headers.contains_key(header::AUTHORIZATION) {
        let message = "Request had invalid authentication credentials: expected one API key in x-goog-api-key.";
        return Err(ApiFailure::invalid(401, "UNAUTHENTICATED", None, message).into());
    }
    let of_nobody = String::new;
    Ok(Account { dialect: Dialect::Gemini, key: key.to_owned(), organization: of_nobody(), project: of_nobody() })
}

fn text<'p>(parts: &'p Parts, name: &str) -> &'p str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The first half of a resumable upload. What is announced travels in the session's name.
fn begin_upload(state: &State, parts: &Parts, body: &[u8]) -> Outcome {
    let length: Option<u64> = text(parts, "x-goog-upload-header-content-length").parse().ok();
    let is_start = text(parts, "x-goog-upload-protocol") == "resumable"
        && text(parts, "x-goog-upload-command") == "start"
        && !text(parts, "x-goog-upload-header-content-type").is_empty();
    let (Some(length), true) = (length, is_start) else {
        return Err(bad_request("INVALID_ARGUMENT", "x-goog-upload-command", "expected the start of an upload"));
    };
    let named: Value = serde_json::from_slice(body).unwrap_or_default();
    if named.pointer("/file/display_name").and_then(Value::as_str).is_none() {
        return Err(bad_request("INVALID_ARGUMENT", "file", "expected {\"file\": {\"display_name\": …}}"));
    }
    if state.faults.take(Fault::Upload500) {
        return Err(ApiFailure::server().into());
    }
    let host = text(parts, header::HOST.as_str());
    let url = format!("http://{host}{NATIVE}upload/v1beta/files?upload_id={length}&upload_protocol=resumable");
    let mut answer = reply::ok(&json!({}));
    if let Ok(url) = HeaderValue::from_str(&url) {
        answer.headers_mut().insert("x-goog-upload-url", url);
    }
    Ok(answer)
}

/// The second half: all of it at once.
fn finish_upload(state: &State, account: &Account, parts: &Parts, session: &str, body: Bytes) -> Outcome {
    let is_whole = text(parts, "x-goog-upload-offset") == "0"
        && text(parts, "x-goog-upload-command") == "upload, finalize"
        && session.parse() == Ok(body.len());
    if !is_whole {
        return Err(bad_request("INVALID_ARGUMENT", "x-goog-upload-command", "expected all of the file, and its end"));
    }
    let now = state.clock.unix_now();
    let (name, purpose) = ("upload".to_owned(), "batch".to_owned());
    let stored = upload::store(state, account, (name, purpose), body, Some(now + LIFETIME))?;
    Ok(reply::ok(&json!({"file": file(&stored)})))
}

fn file(file: &files::StoredFile) -> Value {
    json!({
        "name": format!("files/{}", file.id), "displayName": file.filename, "sizeBytes": file.len().to_string(),
        "state": "ACTIVE", "createTime": rfc3339(file.created_at), "expirationTime": file.expires_at.and_then(rfc3339),
    })
}

/// `GET /v1beta/batches`.
fn operations(state: &State, account: &Account, query: &Query) -> Outcome {
    let limit = query.number("pageSize", 1..=1_000, 50)?;
    let skipped = query.number("pageToken", 0..=usize::MAX, 0)?;
    let batches = batches::listed(state, account)?;
    let page: Vec<Value> = batches.iter().skip(skipped).take(limit).map(operation).collect();
    let reached = skipped.saturating_add(limit);
    let next = (reached < batches.len()).then(|| reached.to_string());
    Ok(reply::ok(&json!({"operations": page, "nextPageToken": next})))
}

fn operation(batch: &Arc<Batch>) -> Value {
    let status = batch.progress.lock().status;
    let state = match status.name() {
        "completed" => "BATCH_STATE_SUCCEEDED",
        "failed" => "BATCH_STATE_FAILED",
        "expired" => "BATCH_STATE_EXPIRED",
        "cancelled" => "BATCH_STATE_CANCELLED",
        "validating" => "BATCH_STATE_PENDING",
        _ => "BATCH_STATE_RUNNING",
    };
    json!({
        "name": format!("batches/{}", batch.id),
        "metadata": {
            "state": state, "createTime": rfc3339(batch.created_at),
            "inputConfig": {"fileName": format!("files/{}", batch.input_file_id)},
        },
        "done": matches!(status.name(), "completed" | "failed" | "expired" | "cancelled"),
    })
}
