//! Message Batches: created inline, read, listed, cancelled, deleted (providers.md, sections 2.2, 2.3 and 2.5).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sim::anthropic::{Answer, Refusal, Stop, life};
use crate::sim::faults::Fault;
use crate::sim::reply;
use crate::sim::server::Query;
use crate::sim::state::{Account, State};

/// Seconds from creation to expiry.
const WINDOW: i64 = 86_400;

/// Where a batch is: there is one end for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Canceling,
    Ended,
}

/// One line: id and parameters.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) custom_id: String,
    pub(super) params: Box<RawValue>,
}

/// A batch.
#[derive(Debug)]
pub(in crate::sim) struct MessageBatch {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) account: Account,
    pub(super) version: usize,
    pub(super) created_at: i64,
    pub(super) started: Instant,
    pub(super) lines: Vec<Line>,
    pub(super) progress: Mutex<Progress>,
    pub(super) cancel: CancellationToken,
    pub(super) forget: CancellationToken,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) status: Status,
    pub(super) counts: Counts,
    pub(super) results: Option<Vec<Bytes>>,
    pub(super) ended_at: Option<i64>,
    pub(super) cancel_initiated_at: Option<i64>,
}

/// How the lines ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) succeeded: usize,
    pub(super) errored: usize,
    pub(super) canceled: usize,
    pub(super) expired: usize,
}

/// All of them, in order of creation.
#[derive(Debug, Default)]
pub(in crate::sim) struct MessageBatches(RwLock<Vec<Arc<MessageBatch>>>);

impl MessageBatches {
    pub(super) fn find(&self, account: &Account, id: &str) -> Result<Arc<MessageBatch>, Refusal> {
        let found = self.0.read().iter().find(|batch| batch.id == id && batch.account == *account).map(Arc::clone);
        found.ok_or_else(|| Refusal::new("not_found_error", format!("Batch {id} not found")))
    }

    /// All batches of all keys as they are read, newest first.
    pub(in crate::sim) fn views(&self) -> Vec<Value> {
        self.0.read().iter().rev().map(|batch| batch.view("")).collect()
    }

    /// Forgets and stops all of them.
    pub(in crate::sim) fn clear(&self) {
        for batch in std::mem::take(&mut *self.0.write()) {
            batch.forget.cancel();
        }
    }
}

impl MessageBatch {
    /// As it is read. While it runs everything is processing.
    fn view(&self, host: &str) -> Value {
        let progress = self.progress.lock();
        let counts = progress.counts;
        let processing = if progress.status == Status::Ended { 0 } else { self.lines.len() };
        let status = match progress.status {
            Status::InProgress => "in_progress",
            Status::Canceling => "canceling",
            Status::Ended => "ended",
        };
        let results_url =
            progress.results.as_ref().map(|_| format!("http://{host}/v1/messages/batches/{}/results", self.id));
        json!({
            "id": self.id, "type": "message_batch", "processing_status": status,
            "request_counts": {
                "processing": processing, "succeeded": counts.succeeded, "errored": counts.errored,
                "canceled": counts.canceled, "expired": counts.expired,
            },
            "created_at": rfc3339(self.created_at), "expires_at": rfc3339(self.created_at + WINDOW),
            "ended_at": progress.ended_at.map(rfc3339), "archived_at": null,
            "cancel_initiated_at": progress.cancel_initiated_at.map(rfc3339), "results_url": results_url,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    requests: Vec<OrderLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderLine {
    custom_id: String,
    params: Box<RawValue>,
}

/// Only the envelope is checked: parameters are the business of each line.
fn lines_of(state: &State, body: &[u8]) -> Result<Vec<Line>, Refusal> {
    let order: Order = serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("requests: {error}")))?;
    if order.requests.is_empty() {
        return Err(Refusal::invalid("requests: at least one request is required"));
    }
    let most = state.message_limits.max_requests;
    if order.requests.len() > most {
        return Err(Refusal::invalid(format!("requests: at most {most} requests are allowed")));
    }
    let mut seen = HashSet::new();
    let fits = |id: &str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    for (at, line) in order.requests.iter().enumerate() {
        if !fits(&line.custom_id) {
            let rule = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'";
            return Err(Refusal::invalid(format!("requests.{at}.custom_id: {rule}")));
        }
        if !seen.insert(&line.custom_id) {
            return Err(Refusal::invalid(format!("requests.{at}.custom_id: duplicate custom_id")));
        }
        if !line.params.get().starts_with('{') {
            return Err(Refusal::invalid(format!("requests.{at}.params: Input should be an object")));
        }
    }
    Ok(order.requests.into_iter().map(|line| Line { custom_id: line.custom_id, params: line.params }).collect())
}

pub(super) fn create(state: &Arc<State>, account: &Account, version: usize, body: &Bytes) -> Answer {
    if body.len() as u64 > state.message_limits.max_bytes {
        return Err(Refusal::new("request_too_large", "Request exceeds the maximum size").into());
    }
    let lines = lines_of(state, body)?;
    if state.faults.take(Fault::Create500) {
        return Err(Refusal::server().into());
    }
    if state.faults.take(Fault::Create429) {
        return Err(Refusal::rate_limit(2).into());
    }
    if state.faults.take(Fault::Billing) {
        let message = "Your credit balance is too low to access the API.";
        return Err(Refusal::invalid(message).into());
    }
    let progress = Progress {
        status: Status::InProgress,
        counts: Counts::default(),
        results: None,
        ended_at: None,
        cancel_initiated_at: None,
    };
    let batch = Arc::new(MessageBatch {
        id: state.ids.long("msgbatch_"),
        number: state.ids.number(),
        account: account.clone(),
        version,
        created_at: state.clock.unix_now(),
        started: Instant::now(),
        lines,
        progress: Mutex::new(progress),
        cancel: CancellationToken::new(),
        forget: CancellationToken::new(),
    });
    state.messages.0.write().push(Arc::clone(&batch));
    state.counters.batch_created();
    let answer = batch.view("");
    state.tasks.spawn("sim-message-batch", life::run(Arc::clone(state), batch));
    if state.faults.take(Fault::CreateLost) {
        return Err(Stop::Cut);
    }
    if state.faults.take(Fault::Create500After) {
        return Err(Refusal::server().into());
    }
    Ok(reply::ok(&answer))
}

fn host(parts: &Parts) -> &str {
    parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1")
}

pub(super) fn get(state: &State, parts: &Parts, account: &Account, id: &str) -> Answer {
    let batch = state.messages.find(account, id)?;
    if state.faults.take(Fault::Poll500) {
        return Err(Refusal::server().into());
    }
    if state.faults.take(Fault::Poll404) {
        return Err(Refusal::new("not_found_error", format!("Batch {id} not found")).into());
    }
    if state.faults.take(Fault::PollCut) {
        return Err(Stop::Cut);
    }
    let mut view = batch.view(host(parts));
    let is_ended = batch.progress.lock().status == Status::Ended;
    if is_ended && state.faults.take(Fault::NullFileIds) {
        view = with(view, "results_url", Value::Null);
    }
    if state.faults.take(Fault::StatusUnknown) {
        view = with(view, "processing_status", json!("rebalancing"));
    }
    Ok(reply::ok(&view))
}

fn with(mut view: Value, name: &str, value: Value) -> Value {
    if let Some(slot) = view.get_mut(name) {
        *slot = value;
    }
    view
}

pub(super) fn list(state: &State, parts: &Parts, account: &Account, query: &Query) -> Answer {
    let limit = query
        .number("limit", 1..=1_000, 20)
        .map_err(|_out_of_range| Refusal::invalid("limit: Input should be between 1 and 1000"))?;
    if state.faults.take(Fault::List500) {
        return Err(Refusal::server().into());
    }
    let all = state.messages.0.read();
    let mut batches: Vec<&Arc<MessageBatch>> = all.iter().rev().filter(|batch| batch.account == *account).collect();
    if !batches.is_empty() && state.faults.take(Fault::ListStale) {
        batches.remove(0);
    }
    let place = |id: &str| {
        let at = batches.iter().position(|batch| batch.id == id);
        at.ok_or_else(|| Refusal::new("not_found_error", format!("Batch {id} not found")))
    };
    let range = match (query.get("after_id"), query.get("before_id")) {
        (Some(after), _) => place(after)? + 1..batches.len(),
        (None, Some(before)) => 0..place(before)?,
        (None, None) => 0..batches.len(),
    };
    let rest = batches.get(range).unwrap_or_default();
    let page: Vec<Value> = rest.iter().take(limit).map(|batch| batch.view(host(parts))).collect();
    let id = |view: Option<&Value>| view.and_then(|view| view.get("id")).cloned();
    Ok(reply::ok(&json!({
        "data": page, "has_more": rest.len() > limit, "first_id": id(page.first()), "last_id": id(page.last()),
    })))
}

pub(super) fn cancel(state: &State, parts: &Parts, account: &Account, id: &str) -> Answer {
    let batch = state.messages.find(account, id)?;
    if state.faults.take(Fault::Cancel500) {
        return Err(Refusal::server().into());
    }
    {
        let mut progress = batch.progress.lock();
        if progress.status == Status::InProgress {
            progress.status = Status::Canceling;
            progress.cancel_initiated_at = Some(state.clock.unix_now());
            batch.cancel.cancel();
            state.counters.batch_cancelled();
        }
    }
    Ok(reply::ok(&batch.view(host(parts))))
}

pub(super) fn delete(state: &State, account: &Account, id: &str) -> Answer {
    let batch = state.messages.find(account, id)?;
    if batch.progress.lock().status != Status::Ended {
        return Err(Refusal::invalid(format!("Batch {id} is still being processed and cannot be deleted")).into());
    }
    state.messages.0.write().retain(|known| known.id != id);
    Ok(reply::ok(&json!({"id": id, "type": "message_batch_deleted"})))
}

fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|at| format!("{at:.6}"))
}
