//! The held connection: the caller stays on the line until its request has ended (contract, section 4).
//!
//! A failure is never told as a success: before the `200` is out it comes with its true status, after that the
//! body breaks off unfinished, and an event stream ends with the API's own error event.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BoxError};
use crate::domain::request::RequestState;
use crate::engine::Engine;
use crate::engine::waiters::{Answer, Waiter};
use crate::intake::answer::{self, Asked};
use crate::intake::client::Client;
use crate::intake::respond::error_response;
use crate::store::RequestRecord;
use crate::wire::api_error::ApiError;
use crate::wire::replay::{self, Replay, ReplayEndpoint, heartbeat_event};

/// A connection that waits for one request. Dropping it (the client left) takes the waiter off the list.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) asked: Asked,
    pub(crate) waiter: Waiter,
    pub(crate) stop: CancellationToken,
    pub(crate) engine: Engine,
}

impl Held {
    /// Counts the connection while it is held.
    pub(crate) fn new(asked: Asked, waiter: Waiter, stop: CancellationToken, engine: Engine) -> Self {
        engine.telemetry().waiter_opened();
        Self { asked, waiter, stop, engine }
    }

    /// Where the request stands now, for a head that goes out before its end.
    async fn state(&self) -> RequestState {
        self.record().await.map_or(RequestState::Queued, |record| record.state)
    }

    /// The request as it is now; none: the store cannot say.
    async fn record(&self) -> Option<RequestRecord> {
        self.engine.store().request(self.asked.id).await.ok().flatten()
    }

    /// The answer, or none when the process stops first.
    async fn answer(&mut self) -> Option<Arc<Answer>> {
        tokio::select! {
            biased;
            answer = self.waiter.answer() => answer,
            () = self.stop.cancelled() => None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.engine.telemetry().waiter_closed();
    }
}

/// What a held connection was told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The request's end, now or at the end of the body.
    Answer(Response<Body>),
    /// That the process stops; the answer is still owed.
    Stopping(Response<Body>),
}

/// When a sign of life is due that shall come `after` this moment at the latest. All connections share their moments, 50 ms
/// apart: a thousand timers of their own would wake the process a thousand times a second, which costs more than the
/// signs themselves.
fn due(after: Duration) -> Instant {
    const APART: Duration = Duration::from_millis(50);
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let (first, due) = (*FIRST, Instant::now() + after);
    if after < 20 * APART {
        return due;
    }
    let beyond = due.saturating_duration_since(first).as_nanos() % APART.as_nanos();
    due - Duration::from_nanos(u64::try_from(beyond).unwrap_or(0))
}

/// Holds until the end of the request.
pub(crate) async fn until_answered(mut held: Held, client: &Client) -> Told {
    if let Some(endpoint) = held.asked.stream() {
        let record = held.record().await;
        let state = record.as_ref().map_or(RequestState::Queued, |record| record.state);
        let signs = Signs::of(client, endpoint, record.as_ref());
        return Told::Answer(streaming(held, endpoint, signs, state));
    }
    if let Some((interim, cadence)) = &client.interim {
        loop {
            match tokio::time::timeout_at(due(*cadence), held.answer()).await {
                Ok(answer) => return truthful(&held, answer.as_deref()).await,
                Err(_elapsed) => {
                    interim.send();
                }
            }
        }
    }
    if !client.chunked {
        // Without chunks a body that breaks off looks like one that ended: the status waits for the truth.
        let answer = held.answer().await;
        return truthful(&held, answer.as_deref()).await;
    }
    match tokio::time::timeout_at(due(client.commit_after), held.answer()).await {
        Ok(answer) => truthful(&held, answer.as_deref()).await,
        Err(_elapsed) => {
            let state = held.state().await;
            Told::Answer(committed(held, client.heartbeat, state))
        }
    }
}

/// Holds for at most `wait`, and for clients that get no interim responses not beyond half of a time-out they announced:
/// a `202` in time is better than none. Gives the connection back when the request has not ended by then.
pub(crate) async fn for_at_most(mut held: Held, wait: Duration, client: &Client) -> Result<Told, Held> {
    let bearable = client.interim.is_some().then_some(wait).or(client.bearable).unwrap_or(wait);
    let until = Instant::now() + wait.min(bearable);
    loop {
        let turn = client.interim.as_ref().map_or(until, |(_, cadence)| until.min(due(*cadence)));
        match tokio::time::timeout_at(turn, held.answer()).await {
            Ok(answer) => return Ok(truthful(&held, answer.as_deref()).await),
            Err(_elapsed) if Instant::now() >= until => return Err(held),
            Err(_elapsed) => {
                if let Some((interim, _)) = &client.interim {
                    interim.send();
                }
            }
        }
    }
}

async fn truthful(held: &Held, answer: Option<&Answer>) -> Told {
    match answer {
        Some(answer) => Told::Answer(answer::respond(&held.asked, answer)),
        None => Told::Stopping(stopping(&held.asked, held.state().await)),
    }
}

/// The process stops: the request goes on after the restart, and the same call finds it again.
fn stopping(asked: &Asked, state: RequestState) -> Response<Body> {
    let id = asked.id;
    let error = ApiError::shutting_down(format!(
        "nightbus is stopping; request {id} is kept: send the call again after the restart"
    ));
    let mut response = error_response(asked.endpoint.api(), &error);
    answer::set_pending_headers(response.headers_mut(), id, state);
    response
}

/// `200` with white space in front of the JSON: works in every client that was measured (providers.md, section 6.2).
fn committed(held: Held, heartbeat: Duration, state: RequestState) -> Response<Body> {
    let id = held.asked.id;
    let body = stream::try_unfold(Some(held), move |state| async move {
        let Some(mut held) = state else { return Ok(None) };
        let frame = match tokio::time::timeout_at(due(heartbeat), held.answer()).await {
            Err(_elapsed) => return Ok(Some((Frame::data(Bytes::from_static(b"\n")), Some(held)))),
            Ok(answer) => answer
                .filter(|answer| answer::is_success(answer))
                .and_then(|answer| answer::told(&held.asked, &answer).ok().flatten()),
        };
        match frame {
            Some(body) => Ok(Some((Frame::data(body), None))),
            // The stored outcome is given to the retry with its true status.
            None => Err(BoxError::from("the request failed after the head was sent")),
        }
    });
    let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"\n"))) });
    let mut response = Response::new(StreamBody::new(stream::StreamExt::chain(first, body)).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer::unbuffered(response.headers_mut());
    answer::set_pending_headers(response.headers_mut(), id, state);
    response
}

/// What keeps an event stream alive.
#[derive(Clone, Debug)]
struct Signs {
    heartbeat: Duration,
    /// What everybody gets.
    comment: &'static [u8],
    /// For clients whose timer ignores comments.
    chunk: Option<Bytes>,
}

impl Signs {
    /// Of how many signs one is a chunk, and the longest heartbeat beside chunks: together a minute, half of what
    /// LangChain grants by default.
    const CHUNK_EACH: u32 = 4;
    const LONGEST: Duration = Duration::from_secs(15);

    fn of(client: &Client, endpoint: ReplayEndpoint, record: Option<&RequestRecord>) -> Self {
        let chunk = record.filter(|_| client.needs_chunks && endpoint == ReplayEndpoint::Chat).map(|record| {
            let request = &record.request;
            let id = format!("chatcmpl-{}", request.id);
            replay::empty_chat_chunk(&id, &request.lane.model, request.created_at.unix_seconds())
        });
        let longest = if chunk.is_some() { Self::LONGEST } else { Duration::MAX };
        Self { heartbeat: client.heartbeat.min(longest), comment: heartbeat_event(endpoint), chunk }
    }

    /// The sign of this number.
    fn frame(&self, number: u32) -> Frame<Bytes> {
        let chunk = self.chunk.as_ref().filter(|_| number > 0 && number.is_multiple_of(Self::CHUNK_EACH));
        Frame::data(chunk.cloned().unwrap_or_else(|| Bytes::from_static(self.comment)))
    }
}

enum Stage {
    /// Until the answer, after so many signs of life.
    Waiting(Held, u32),
    Telling(Replay),
    Over,
}

/// An event stream: comments while the request waits, then its answer as the live API would have told it.
fn streaming(held: Held, endpoint: ReplayEndpoint, signs: Signs, state: RequestState) -> Response<Body> {
    let id = held.asked.id;
    let waiting = Stage::Waiting(held, 0);
    let events = stream::try_unfold(waiting, move |stage| next_event(stage, endpoint, signs.clone()));
    let mut response = answer::event_stream(events);
    answer::set_pending_headers(response.headers_mut(), id, state);
    response
}

async fn next_event(
    mut stage: Stage,
    endpoint: ReplayEndpoint,
    signs: Signs,
) -> Result<Option<(Frame<Bytes>, Stage)>, BoxError> {
    loop {
        stage = match stage {
            Stage::Waiting(held, 0) => return Ok(Some((signs.frame(0), Stage::Waiting(held, 1)))),
            Stage::Waiting(mut held, number) => {
                match tokio::time::timeout_at(due(signs.heartbeat), held.answer()).await {
                    Err(_elapsed) => {
                        return Ok(Some((signs.frame(number), Stage::Waiting(held, number.saturating_add(1)))));
                    }
                    Ok(None) => return Err(BoxError::from("the process stops")),
                    Ok(Some(answer)) if answer::is_success(&answer) => {
                        match answer::replayed(&held.asked, endpoint, &answer) {
                            Ok(replay) => Stage::Telling(replay),
                            Err(error) => return Err(BoxError::from(error.message)),
                        }
                    }
                    Ok(Some(answer)) => {
                        let event = answer::failure_event(&held.asked, endpoint, &answer);
                        return Ok(Some((Frame::data(event), Stage::Over)));
                    }
                }
            }
            Stage::Telling(mut replay) => {
                return Ok(replay.next().map(|event| (Frame::data(event), Stage::Telling(replay))));
            }
            Stage::Over => return Ok(None),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_share_their_moments_and_are_never_late() {
        let heartbeat = Duration::from_secs(15);
        let mut moments = Vec::new();
        for _ in 0..1_000 {
            let (now, due) = (Instant::now(), due(heartbeat));
            assert!(due <= now + heartbeat && due + Duration::from_millis(50) > now + heartbeat);
            moments.push(due);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        moments.dedup();
        assert!(moments.len() <= 21, "{}", moments.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_wait_is_as_long_as_it_was_asked_for() {
        due(Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(7)).await;
        for after in [Duration::ZERO, Duration::from_millis(300)] {
            assert_eq!(due(after), Instant::now() + after);
        }
    }
}
