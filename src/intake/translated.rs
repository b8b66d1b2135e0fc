//! A live answer of Anthropic's as the chat completion that its caller asked for: whole, or as a stream while it comes.
//!
//! Invariant: an answer that broke off, or is not what its API promises, is never told as a success: before the head is
//! out it is a 502, after that the body breaks off unfinished.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Frame;

use crate::body::{self, Body, BoxError};
use crate::domain::lane::Api;
use crate::intake::answer::event_stream;
use crate::intake::respond::error_response;
use crate::wire::api_error::ApiError;
use crate::wire::translate::{ChatStream, chat_completion, chat_error, chat_status};

/// Longest answer that is not a stream; the longest of today's models are a hundredth of it.
const LONGEST: usize = 64 << 20;
/// Headers of the provider that mean something to an OpenAI client or a person.
const PASSED_ON: [&str; 2] = ["x-nightbus-passthrough", "x-should-retry"];
const REQUEST_ID: &str = "request-id";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Translates a provider's answer. `created` in Unix seconds.
pub(crate) async fn answer(response: Response<Body>, created: i64, include_usage: bool) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let is_stream =
        parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let mut told = if parts.headers.contains_key(CONTENT_ENCODING) {
        broken("it is compressed, although nobody asked for that")
    } else if parts.status.is_success() && is_stream {
        event_stream(chunks(body, ChatStream::new(created, include_usage)))
    } else {
        whole(parts.status, body, created).await
    };
    pass_on(&parts.headers, told.headers_mut());
    told
}

async fn whole(status: StatusCode, body: Body, created: i64) -> Response<Body> {
    let body = match read(body).await {
        Ok(body) => body,
        Err(error) => return broken(&error.to_string()),
    };
    let (status, json) = if status.is_success() {
        match chat_completion(&body, created) {
            Ok(json) => (status, json),
            Err(error) => return broken(&error.to_string()),
        }
    } else {
        let known = StatusCode::from_u16(chat_status(status.as_u16())).unwrap_or(status);
        (known, chat_error(status.as_u16(), &body))
    };
    let mut response = Response::new(body::full(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn read(mut body: Body) -> Result<BytesMut, BoxError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(bytes) = frame?.data_ref() {
            if read.len().saturating_add(bytes.len()) > LONGEST {
                return Err(BoxError::from("it is too long"));
            }
            read.extend_from_slice(bytes);
        }
    }
    Ok(read)
}

fn broken(why: &str) -> Response<Body> {
    error_response(Api::OpenAi, &ApiError::upstream_unreachable(format!("the provider's answer cannot be told: {why}")))
}

fn chunks(body: Body, chat: ChatStream) -> impl stream::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static {
    struct Reading {
        body: Body,
        chat: ChatStream,
        ready: VecDeque<Bytes>,
    }
    let reading = Reading { body, chat, ready: VecDeque::new() };
    stream::try_unfold(reading, |mut reading| async move {
        loop {
            if let Some(chunk) = reading.ready.pop_front() {
                return Ok(Some((Frame::data(chunk), reading)));
            }
            if reading.chat.has_ended() {
                return Ok(None);
            }
            match reading.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        let told = reading.chat.feed(bytes);
                        reading.ready.extend((!told.is_empty()).then(|| Bytes::from(told)));
                    }
                }
                Some(Err(error)) => return Err(error),
                None => return Err(BoxError::from("the provider's stream broke off")),
            }
        }
    })
}

fn pass_on(from: &HeaderMap, to: &mut HeaderMap) {
    for name in PASSED_ON.map(HeaderName::from_static).into_iter().chain([RETRY_AFTER]) {
        if let Some(value) = from.get(&name).filter(|_| !to.contains_key(&name)) {
            to.insert(name, value.clone());
        }
    }
    if let Some(id) = from.get(REQUEST_ID) {
        to.insert(X_REQUEST_ID, id.clone());
    }
    to.remove(CONTENT_LENGTH);
}
