//! Callbacks: whoever asked for it is called when a request has ended.
//!
//! What is due is in the store, since the transaction that ended the request. This one task looks there, sends, and writes
//! down what came of it; a crash in between sends once more, under the same `webhook-id`. Nothing waits for it: it is told
//! to look by `Callbacks::look`. Attempts go on for 72 hours, or until the request itself is deleted, or a 410.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::config::{CallbacksConfig, Config};
use crate::crash;
use crate::domain::backoff::backoff;
use crate::domain::clock::Micros;
use crate::domain::ids::{CallbackId, RequestId};
use crate::domain::webhook::Signer;
use crate::engine::Engine;
use crate::engine::context::Context;
use crate::engine::object::RequestObject;
use crate::store::{Callback, CallbackAttempt, CallbackState, CallbackUpdate, NewCallback, StoreError};
use crate::upstream::callback::{CallbackClient, CallbackError, Target};

/// At the same time at most.
const ROOM: usize = 32;
/// The first pause between two attempts; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// After so long the next failure is the last.
const GIVE_UP_AFTER: Duration = Duration::from_secs(72 * 3600);
/// Requests end in groups: one look serves many.
const GATHER: Duration = Duration::from_millis(50);
/// How long a look waits for nothing, or for a store that fails.
const IDLE: Duration = Duration::from_secs(60);
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// The receiver wants no more of them (Standard Webhooks).
const GONE: u16 = 410;

/// What the engine knows of callbacks beside the store.
#[derive(Debug)]
pub(crate) struct Callbacks {
    policy: RwLock<Arc<CallbacksConfig>>,
    client: CallbackClient,
    wake: Notify,
    /// Whether there can be any in the store: without, it is not asked at every end of a request.
    expected: AtomicBool,
}

impl Callbacks {
    /// For this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            policy: RwLock::new(Arc::new(config.callbacks.clone())),
            client: CallbackClient::new(config.upstream.tls_roots.clone()),
            wake: Notify::new(),
            expected: AtomicBool::new(true),
        }
    }

    /// A request may have ended.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }

    fn policy(&self) -> Arc<CallbacksConfig> {
        Arc::clone(&self.policy.read())
    }
}

impl Engine {
    /// Where callbacks may go, and what signs them.
    pub fn callback_policy(&self) -> Arc<CallbacksConfig> {
        self.context.callbacks.policy()
    }

    /// Takes another configuration of callbacks from now on.
    pub(crate) fn set_callback_policy(&self, policy: CallbacksConfig) {
        *self.context.callbacks.policy.write() = Arc::new(policy);
        self.context.callbacks.look();
    }

    /// Writes down that `url` is called when the request has ended; the same again is no change.
    pub async fn keep_callback(&self, request: RequestId, url: &str) -> Result<(), StoreError> {
        let id = self.store().fingerprint(&[b"callback", request.as_bytes(), url.as_bytes()]);
        let new =
            NewCallback { id: CallbackId::from_bytes(id.0), request, url: url.to_owned(), at: self.context.now() };
        self.store().add_callback(new).await?;
        self.context.callbacks.expected.store(true, Ordering::Relaxed);
        self.context.callbacks.look();
        Ok(())
    }

    /// Has a callback delivered once more, now. None: there is no such callback; `false`: its request has not ended.
    pub async fn redeliver_callback(&self, id: CallbackId) -> Result<Option<bool>, StoreError> {
        let found = self.store().redeliver_callback(id, self.context.now()).await?;
        self.context.callbacks.expected.store(true, Ordering::Relaxed);
        self.context.callbacks.look();
        Ok(found)
    }
}

/// Runs until the process stops. What is on its way then is sent again by the next start.
pub(crate) async fn run(context: Arc<Context>) {
    let callbacks = &context.callbacks;
    let mut flying = FuturesUnordered::new();
    let mut in_flight: HashSet<CallbackId> = HashSet::new();
    loop {
        let policy = callbacks.policy();
        let pause = match look(&context, &in_flight).await {
            Ok((due, next)) if let Some(signer) = &policy.signer => {
                let room = ROOM.saturating_sub(in_flight.len());
                for callback in due.into_iter().take(room) {
                    in_flight.insert(callback.id);
                    flying.push(deliver(Arc::clone(&context), Arc::clone(&policy), signer.clone(), callback));
                }
                next
            }
            // Without a secret they wait for one.
            Ok(_) => IDLE,
            Err(error) => {
                context.telemetry.store_failed(&error);
                STORE_PAUSE
            }
        };
        tokio::select! {
            () = context.tasks.stop_token().cancelled() => return,
            Some(id) = flying.next(), if !flying.is_empty() => {
                in_flight.remove(&id);
            }
            () = callbacks.wake.notified() => {
                if !context.sleep(GATHER).await {
                    return;
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Those that are due and not on their way, and how long until the next of the others is.
async fn look(context: &Context, in_flight: &HashSet<CallbackId>) -> Result<(Vec<Callback>, Duration), StoreError> {
    // Before the look: whoever adds one during it sets it again.
    let expected = context.callbacks.expected.swap(false, Ordering::Relaxed);
    if !expected && in_flight.is_empty() {
        return Ok((Vec::new(), IDLE));
    }
    let any = context.store.callbacks(None, None, 1).await;
    if !any.as_ref().is_ok_and(Vec::is_empty) {
        context.callbacks.expected.store(true, Ordering::Relaxed);
    }
    any?;
    let kept = context.store.due_callbacks(in_flight.len() + 2 * ROOM).await?;
    let now = context.now();
    let later = |callback: &Callback| callback.due_at.is_some_and(|at| at > now);
    let free = kept.into_iter().filter(|callback| !in_flight.contains(&callback.id));
    let (later, due): (Vec<_>, Vec<_>) = free.partition(later);
    let next = later.first().and_then(|callback| callback.due_at).map_or(IDLE, |at| at.since(now));
    Ok((due, next.min(IDLE)))
}

/// One attempt, written down.
async fn deliver(
    context: Arc<Context>,
    policy: Arc<CallbacksConfig>,
    signer: Signer,
    callback: Callback,
) -> CallbackId {
    let id = callback.id;
    let at = context.now();
    let outcome = match context.store.request(callback.request).await {
        Ok(Some(record)) => {
            let body = Bytes::from(RequestObject::new(&record, context.retention, None).to_json());
            Some(post(&context, &policy, &signer, &callback, body, at).await)
        }
        Ok(None) => None,
        Err(error) => {
            context.telemetry.store_failed(&error);
            context.sleep(STORE_PAUSE).await;
            return id;
        }
    };
    crash::point("callback-sent");
    let update = judge(&callback, outcome, at, context.now(), fastrand::f64());
    context.telemetry.callback_tried(id, callback.request, callback.attempts.len() + 1, word(&update));
    if let Err(error) = context.store.record_callback(update).await {
        context.telemetry.store_failed(&error);
        context.sleep(STORE_PAUSE).await;
    }
    id
}

async fn post(
    context: &Context,
    policy: &CallbacksConfig,
    signer: &Signer,
    callback: &Callback,
    body: Bytes,
    at: Micros,
) -> Result<u16, CallbackError> {
    let target = Target::new(&callback.url, policy)?;
    let id = callback.id.to_string();
    let timestamp = at.unix_seconds();
    let mut headers = HeaderMap::new();
    let signature = signer.sign(&id, timestamp, &body);
    for (name, value) in
        [("webhook-id", id), ("webhook-timestamp", timestamp.to_string()), ("webhook-signature", signature)]
    {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    context.callbacks.client.post(&target, policy, headers, body).await
}

/// What an attempt that began `at` makes of a callback. No outcome: its request is gone.
fn judge(
    callback: &Callback,
    outcome: Option<Result<u16, CallbackError>>,
    at: Micros,
    now: Micros,
    jitter: f64,
) -> CallbackUpdate {
    let since = callback.since.unwrap_or(at);
    let is_late = now.since(since) >= GIVE_UP_AFTER;
    let (status, error, ends) = match outcome {
        Some(Ok(status @ 200..=299)) => (Some(status), None, Some(CallbackState::Delivered)),
        Some(Ok(status)) => (Some(status), None, (status == GONE || is_late).then_some(CallbackState::Failed)),
        Some(Err(error)) => (None, Some(error.to_string()), is_late.then_some(CallbackState::Failed)),
        None => {
            let message = "the request is older than the retention and was deleted".to_owned();
            (None, Some(message), Some(CallbackState::Failed))
        }
    };
    let tried = callback.attempts.iter().filter(|attempt| attempt.at >= since.0).count();
    let pause = backoff(u32::try_from(tried).unwrap_or(u32::MAX), FIRST_PAUSE, LONGEST_PAUSE, jitter);
    CallbackUpdate {
        id: callback.id,
        attempt: CallbackAttempt { at: at.0, status, error },
        state: ends.unwrap_or(CallbackState::Pending),
        due_at: ends.is_none().then(|| now.plus(pause)),
    }
}

/// What came of an attempt, in the metric's words.
fn word(update: &CallbackUpdate) -> &'static str {
    match update.state {
        CallbackState::Delivered => "delivered",
        CallbackState::Failed if update.attempt.status == Some(GONE) => "gone",
        CallbackState::Failed => "given_up",
        CallbackState::Waiting | CallbackState::Pending => "retried",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros::from_unix_seconds(1_795_420_800);

    fn callback(tries: usize, since: Micros) -> Callback {
        let attempt = CallbackAttempt { at: since.0, status: Some(500), error: None };
        Callback {
            id: CallbackId::from_bytes([1; 16]),
            request: RequestId::from_bytes([2; 16]),
            url: String::new(),
            state: CallbackState::Pending,
            created_at: since,
            since: Some(since),
            due_at: Some(NOW),
            attempts: vec![attempt; tries],
        }
    }

    #[test]
    fn an_answer_of_the_2xx_or_a_410_ends_it_and_all_else_is_tried_again_later() {
        let judged = |outcome, tries| {
            let update = judge(&callback(tries, NOW), outcome, NOW, NOW, 0.0);
            (update.state, update.due_at.map(|at| at.since(NOW).as_secs()))
        };
        assert_eq!(judged(Some(Ok(204)), 0), (CallbackState::Delivered, None));
        assert_eq!(judged(Some(Ok(410)), 0), (CallbackState::Failed, None));
        assert_eq!(judged(None, 0), (CallbackState::Failed, None));
        for status in [100, 302, 400, 404, 429, 500] {
            assert_eq!(judged(Some(Ok(status)), 0), (CallbackState::Pending, Some(1)), "{status}");
        }
        assert_eq!(judged(Some(Err(CallbackError::TimedOut)), 3), (CallbackState::Pending, Some(8)));
        assert_eq!(judged(Some(Ok(500)), 60), (CallbackState::Pending, Some(6 * 3600)));
    }

    #[test]
    fn after_three_days_the_next_failure_is_the_last_and_a_redelivery_starts_anew() {
        let after = |hours: u64| {
            let now = NOW.plus(Duration::from_secs(hours * 3600));
            judge(&callback(20, NOW), Some(Ok(500)), now, now, 0.0).state
        };
        assert_eq!([after(71), after(72)], [CallbackState::Pending, CallbackState::Failed]);
        let mut again = callback(20, NOW);
        again.since = Some(NOW.plus(Duration::from_secs(1)));
        let update = judge(&again, Some(Ok(500)), NOW, NOW, 0.0);
        assert_eq!(update.due_at.map(|at| at.since(NOW).as_secs()), Some(1));
    }
}
