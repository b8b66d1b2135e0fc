//! The nightbus that has the calls, as a run sees it: hand in a call, fetch its end. Patient where waiting helps, and
//! never a second purchase: every call has its own `Idempotency-Key`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::grounded::{self, Grounded};
use super::lines::{Ended, Kind};
use crate::cli::http::{Answer, HttpClient, HttpError};
use crate::config::{ProviderKind, TlsRoots};
use crate::domain::backoff::backoff;
use crate::domain::ids::RequestId;
use crate::domain::lane::{Api, Endpoint};

/// Below every `hold.commit_after` that makes sense: the status of an answer is always its own.
const LONG_POLL: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// A nightbus that is restarted is back long before.
const GIVE_UP: Duration = Duration::from_secs(600);
const PROBE: Duration = Duration::from_secs(3);
/// What the price table and the wire formats were written for (providers.md, section 2.1).
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Where calls go, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Without a slash at its end.
    pub(super) base: String,
    pub(super) roots: TlsRoots,
    pub(super) provider: Option<String>,
    pub(super) key: Option<String>,
}

/// What goes with every call.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) tag: Option<String>,
    pub(super) deadline: Option<String>,
    pub(super) fallback: Option<String>,
}

/// A nightbus.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    http: HttpClient,
    address: Address,
    endpoint: Endpoint,
    wishes: Wishes,
    /// Unix seconds at which the last call that was asked for is expected to end; 0: not known.
    expected: Arc<AtomicI64>,
    /// The test flights that were told of; none: somebody else tells.
    told: Option<Arc<Mutex<BTreeSet<String>>>>,
}

/// What became of a call that was handed in.
#[derive(Clone, Debug)]
pub(super) enum HandedIn {
    Accepted(RequestId),
    /// It can never be accepted.
    Refused(Box<Ended>),
}

/// A call that was certainly not taken, for a reason that holds for all others.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotTaken(String);

/// What an answer of `…/result` says.
enum Fetched {
    Ended(Ended),
    /// When it is expected to end, in Unix seconds, where nightbus has learned how long such calls take; and the test
    /// flight that it waits for.
    Pending(Option<i64>, Option<Grounded>),
    /// It may be better later, after so long.
    Later(Option<Duration>, String),
}

impl Desk {
    /// # Errors
    /// Certificates that cannot be used.
    pub(super) fn new(address: Address, endpoint: Endpoint, wishes: Wishes) -> anyhow::Result<Self> {
        let http = HttpClient::new(address.roots.clone())?;
        Ok(Self { http, address, endpoint, wishes, expected: Arc::default(), told: None })
    }

    /// Says when a test flight is grounded that a call waits for: nobody else tells of one at a nightbus that runs already.
    pub(super) fn telling_of_flights(mut self) -> Self {
        self.told = Some(Arc::default());
        self
    }

    /// Whether a nightbus answers there that knows this key; none: nobody answers like one.
    ///
    /// # Errors
    /// It is there and refuses the key.
    pub(super) async fn probe(&self) -> anyhow::Result<bool> {
        let uri: Uri = format!("{}/nightbus/v1/requests?limit=1", self.address.base).parse()?;
        let Ok(answer) = self.send(Method::GET, uri, &[], Bytes::new(), PROBE).await else { return Ok(false) };
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == StatusCode::OK {
            return Ok(body.get("object").and_then(Value::as_str) == Some("list"));
        }
        let own = body.pointer("/error/type").and_then(Value::as_str) == Some("nightbus_error");
        if own && answer.status == StatusCode::UNAUTHORIZED {
            bail!("{} refuses the key: {}", self.address.base, message(&answer));
        }
        Ok(own)
    }

    /// Hands in one call under `key`; the same call under the same key is the same request.
    ///
    /// # Errors
    /// [`NotTaken`]: no deferral there, a refused key. Else nobody was there for long.
    pub(super) async fn hand_in(&self, body: &[u8], key: &str) -> anyhow::Result<HandedIn> {
        let provider = self.address.provider.as_ref().map_or_else(String::new, |name| format!("/{name}"));
        let uri: Uri = format!("{}{provider}{}", self.address.base, self.endpoint).parse()?;
        let body = Bytes::copy_from_slice(body);
        let mut headers = vec![("x-nightbus-defer", "true"), ("prefer", "respond-async"), ("idempotency-key", key)];
        for (name, value) in [
            ("x-nightbus-tag", &self.wishes.tag),
            ("x-nightbus-deadline", &self.wishes.deadline),
            ("x-nightbus-fallback", &self.wishes.fallback),
        ] {
            headers.extend(value.as_deref().map(|value| (name, value)));
        }
        let mut trying = Trying::default();
        loop {
            let sent = self.send(Method::POST, uri.clone(), &headers, body.clone(), PATIENCE).await;
            let answer = match sent {
                Ok(answer) => answer,
                Err(error) => {
                    trying.again(None, &error.to_string()).await?;
                    continue;
                }
            };
            // It may have ended long ago: its answer is fetched like all others.
            if let Some(id) = header(&answer, "x-nightbus-request-id").and_then(|id| id.parse().ok()) {
                return Ok(HandedIn::Accepted(id));
            }
            match answer.status.as_u16() {
                429 => trying.full(retry_after(&answer)).await,
                503 | 502 | 500 => trying.again(retry_after(&answer), &message(&answer)).await?,
                400 | 413 => return Ok(HandedIn::Refused(Box::new(ended(&answer, Kind::Failed)))),
                200..=299 => return Err(NotTaken(format!(
                    "{} answered live and does not defer ({}): the run stops before more is bought at full price. Look at deferral.mode and at the provider's endpoints.",
                    self.address.base,
                    header(&answer, "x-nightbus-passthrough").unwrap_or("deferral is off"),
                )).into()),
                status => {
                    let why = message(&answer);
                    return Err(NotTaken(format!("{} answered {status}: {why}", self.address.base)).into());
                }
            }
        }
    }

    /// Waits for the end of a request.
    ///
    /// # Errors
    /// A refused key, nobody there for long.
    pub(super) async fn fetch(&self, id: RequestId) -> anyhow::Result<Ended> {
        let uri: Uri = format!("{}/nightbus/v1/requests/{id}/result?wait={LONG_POLL}", self.address.base).parse()?;
        let mut trying = Trying::default();
        loop {
            let fetched = match self.send(Method::GET, uri.clone(), &[], Bytes::new(), PATIENCE).await {
                Ok(answer) => read(&answer)?,
                Err(error) => Fetched::Later(None, error.to_string()),
            };
            match fetched {
                Fetched::Ended(mut ended) => {
                    ended.id = id.to_string();
                    return Ok(ended);
                }
                Fetched::Pending(expected, flight) => {
                    self.tell_of(flight);
                    self.expected.store(expected.unwrap_or(0), Ordering::Relaxed);
                    trying = Trying::default();
                }
                Fetched::Later(after, why) => trying.again(after, &why).await?,
            }
        }
    }

    fn tell_of(&self, flight: Option<Grounded>) {
        if let (Some(told), Some(flight)) = (&self.told, flight)
            && told.lock().insert(flight.id.clone())
        {
            grounded::tell(&flight, None);
        }
    }

    /// When the calls that are waited for are expected to end, in Unix seconds; none: nobody knows.
    pub(super) fn expected(&self) -> Option<i64> {
        Some(self.expected.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Asks that what is queued with this key leaves now. A wish: the lane's own clock does it otherwise.
    pub(super) async fn flush(&self) -> anyhow::Result<()> {
        let uri: Uri = format!("{}/nightbus/v1/flush", self.address.base).parse()?;
        self.send(Method::POST, uri, &[], Bytes::new(), PATIENCE).await?;
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: &[(&'static str, &str)],
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, HttpError> {
        let key = self.address.key.as_deref();
        let mut headers = headers.to_vec();
        match self.endpoint.api() {
            Api::OpenAi => self.http.send(method, uri, key, &headers, body, patience).await,
            Api::Anthropic => {
                headers.push((ProviderKind::ANTHROPIC_VERSION, ANTHROPIC_VERSION));
                headers.extend(key.map(|key| ("x-api-key", key)));
                self.http.send(method, uri, None, &headers, body, patience).await
            }
        }
    }
}

/// What an answer of `…/result` is.
fn read(answer: &Answer) -> anyhow::Result<Fetched> {
    match (header(answer, "x-nightbus-state"), answer.status) {
        (Some("completed"), _) => Ok(Fetched::Ended(ended(answer, Kind::Answered))),
        (Some("failed"), _) => Ok(Fetched::Ended(ended(answer, Kind::Failed))),
        (Some("cancelled"), _) => Ok(Fetched::Ended(ended(answer, Kind::Cancelled))),
        (_, StatusCode::ACCEPTED) => {
            let request: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let expected = request.get("expected_at").and_then(Value::as_i64);
            Ok(Fetched::Pending(expected, request.get("flight").and_then(Grounded::read)))
        }
        // It was there once: its result has been kept for as long as `retention` says.
        (_, StatusCode::NOT_FOUND) => Ok(Fetched::Ended(ended(answer, Kind::Failed))),
        (_, status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Ok(Fetched::Later(retry_after(answer), message(answer)))
        }
        (_, status) => bail!("the result cannot be fetched: {status}: {}", message(answer)),
    }
}

fn ended(answer: &Answer, kind: Kind) -> Ended {
    let exchange = header(answer, "x-request-id").or_else(|| header(answer, "request-id")).unwrap_or_default();
    Ended {
        id: String::new(),
        kind,
        status: answer.status.as_u16(),
        exchange: exchange.to_owned(),
        body: answer.body.to_vec(),
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok()
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    answer.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// The error's own words.
fn message(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = body.pointer("/error/message").and_then(Value::as_str);
    message.map_or_else(|| answer.status.to_string(), ToOwned::to_owned)
}

/// How long something has not gone well.
#[derive(Debug, Default)]
struct Trying {
    since: Option<Instant>,
    attempts: u32,
}

impl Trying {
    const FIRST: Duration = Duration::from_millis(250);
    const MOST: Duration = Duration::from_secs(15);

    /// Waits before the next attempt; an error when that has been going on for too long.
    async fn again(&mut self, after: Option<Duration>, why: &str) -> anyhow::Result<()> {
        if self.since.get_or_insert_with(Instant::now).elapsed() > GIVE_UP {
            return Err(anyhow!("nightbus has not answered for {} min: {why}", GIVE_UP.as_secs() / 60));
        }
        self.pause(after).await;
        Ok(())
    }

    /// Waits for room, for as long as it takes: batches end and make it.
    async fn full(&mut self, after: Option<Duration>) {
        self.since = None;
        self.pause(after).await;
    }

    async fn pause(&mut self, after: Option<Duration>) {
        let own = backoff(self.attempts, Self::FIRST, Self::MOST, fastrand::f64());
        self.attempts = self.attempts.saturating_add(1);
        tokio::time::sleep(after.unwrap_or(own).min(Duration::from_secs(60))).await;
    }
}
