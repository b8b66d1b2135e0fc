//! `GET /api/events`: changes of state as server-sent events, for as long as the listener reads.
//!
//! A listener that is too slow loses the oldest events and is told how many (`event: missed`); it then reads the lists
//! again. The stream ends when the process stops, so that no open dashboard delays a shutdown.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use super::AdminState;
use super::reply::{self, Reply};
use crate::engine::EngineEvent;

/// Between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that go out in one chunk at most.
const BURST: usize = 256;

struct Feed {
    events: Receiver<EngineEvent>,
    stop: CancellationToken,
    greeted: bool,
}

/// The stream. It begins with a comment at once, so that a client knows it is connected.
pub(super) fn stream(state: &AdminState) -> Reply {
    let feed = Feed { events: state.engine.subscribe(), stop: state.stop.clone(), greeted: false };
    let chunks = stream::unfold(feed, |mut feed| async move {
        let chunk = feed.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))), feed))
    });
    let body = StreamBody::new(chunks).map_err(|never| match never {}).boxed_unsync();
    Ok(reply::with_body(StatusCode::OK, "text/event-stream", body))
}

impl Feed {
    /// The next chunk; none at the end.
    async fn next(&mut self) -> Option<String> {
        if !self.greeted {
            self.greeted = true;
            return Some(": nightbus events\n\n".to_owned());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            event = self.events.recv() => self.chunk(event),
            () = tokio::time::sleep(KEEP_ALIVE) => Some(": keep-alive\n\n".to_owned()),
        }
    }

    /// One event and those that wait behind it.
    fn chunk(&mut self, first: Result<EngineEvent, RecvError>) -> Option<String> {
        let mut text = match first {
            Ok(event) => describe(&event),
            Err(RecvError::Lagged(missed)) => told_missed(missed),
            Err(RecvError::Closed) => return None,
        };
        for _ in 1..BURST {
            match self.events.try_recv() {
                Ok(event) => text.push_str(&describe(&event)),
                Err(TryRecvError::Lagged(missed)) => text.push_str(&told_missed(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(text)
    }
}

#[derive(Serialize)]
struct Change<'a> {
    id: String,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_status: Option<&'a str>,
}

fn describe(event: &EngineEvent) -> String {
    let (name, change) = match event {
        EngineEvent::Request { id, state } => ("request", Change { id: id.to_string(), state, provider_status: None }),
        EngineEvent::Batch { id, state, provider_status } => {
            ("batch", Change { id: id.to_string(), state, provider_status: provider_status.as_deref() })
        }
    };
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(&change).unwrap_or_default())
}

fn told_missed(missed: u64) -> String {
    format!("event: missed\ndata: {{\"count\":{missed}}}\n\n")
}
