//! A request's end as an HTTP response: exactly what the live call would have given, plus nightbus's headers
//! (contract, section 4).

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::body::{self, Body};
use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::{Api, Endpoint};
use crate::domain::request::RequestState;
use crate::engine::waiters::Answer;
use crate::intake::respond::{error_response, json_response};
use crate::store::{OutcomeSummary, RequestOptions, RequestRecord};
use crate::wire::api_error::ApiError;
use crate::wire::replay::{Replay, ReplayEndpoint, error_event, error_event_from_body, replay};
use crate::wire::translate::{chat_completion, chat_error, chat_status};

/// What a response needs to know of the call it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    /// The one that was called, and whose shape the answer has.
    pub(crate) endpoint: Endpoint,
    pub(crate) options: RequestOptions,
    pub(crate) created_at: Micros,
}

impl Asked {
    /// By a stored request.
    pub(crate) fn of(record: &RequestRecord) -> Self {
        Self {
            id: record.request.id,
            endpoint: record.request.called(),
            options: record.request.options,
            created_at: record.request.created_at,
        }
    }

    /// The caller wanted a stream, and the endpoint has one.
    pub(crate) fn stream(&self) -> Option<ReplayEndpoint> {
        self.options.has(RequestOptions::STREAM).then(|| ReplayEndpoint::of_path(self.endpoint.as_str())).flatten()
    }
}

/// The end that the store keeps, as a waiter would have got it; none: it has not ended.
pub(crate) fn stored(record: &RequestRecord, body: Option<Bytes>) -> Option<Answer> {
    Some(Answer {
        state: record.state,
        summary: record.outcome.clone()?,
        finished_at: record.finished_at?,
        batch_id: record.batch_id,
        body,
    })
}

/// The whole response, with its true status.
pub(crate) fn respond(asked: &Asked, answer: &Answer) -> Response<Body> {
    let mut response = match asked.stream() {
        Some(endpoint) if is_success(answer) => match replayed(asked, endpoint, answer) {
            Ok(replay) => event_stream(stream::iter(replay.map(|event| Ok(Frame::data(event))))),
            Err(error) => error_response(asked.endpoint.api(), &error),
        },
        _ => plain(asked, answer),
    };
    set_headers(response.headers_mut(), asked, answer);
    response
}

fn plain(asked: &Asked, answer: &Answer) -> Response<Body> {
    let status = answer.summary.status_code;
    let status = if is_translated(asked) { chat_status(status) } else { status };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let body = match told(asked, answer) {
        Ok(body) => body,
        Err(error) => return error_response(asked.endpoint.api(), &error),
    };
    if let Some(body) = body {
        let mut response = json_response(status, body);
        if !status.is_success() {
            // It was tried as often as it may be.
            response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        return response;
    }
    error_response(asked.endpoint.api(), &own_error(&answer.summary, answer.state))
}

/// nightbus's own error for a request that has no answer.
pub(crate) fn own_error(summary: &OutcomeSummary, state: RequestState) -> ApiError {
    let (code, message) = summary.error.as_ref().map_or(("", ""), |(code, message)| (code, message));
    match (state, code) {
        (RequestState::Cancelled, _) => ApiError::cancelled(message),
        (_, "deadline_exceeded") => ApiError::deadline_exceeded(message),
        (_, "flight_grounded") => ApiError::flight_grounded(message),
        (_, "store_unavailable") => ApiError::store_unavailable(message),
        _ => ApiError::batch_failed(message),
    }
}

/// Whether the body may follow a `200`.
pub(crate) fn is_success(answer: &Answer) -> bool {
    answer.summary.status_code == 200 && answer.body.is_some()
}

const fn is_translated(asked: &Asked) -> bool {
    asked.options.has(RequestOptions::FROM_CHAT)
}

/// The body in the shape of the API that was called; the store keeps what the provider gave. None: there is none.
pub(crate) fn told(asked: &Asked, answer: &Answer) -> Result<Option<Bytes>, ApiError> {
    let Some(body) = &answer.body else { return Ok(None) };
    if !is_translated(asked) {
        return Ok(Some(body.clone()));
    }
    let status = answer.summary.status_code;
    if !(200..300).contains(&status) {
        return Ok(Some(Bytes::from(chat_error(status, body))));
    }
    chat_completion(body, answer.finished_at.unix_seconds())
        .map(|body| Some(Bytes::from(body)))
        .map_err(|error| ApiError::batch_failed(error.to_string()))
}

/// The stream of the API that was called, made from the finished body.
pub(crate) fn replayed(asked: &Asked, endpoint: ReplayEndpoint, answer: &Answer) -> Result<Replay, ApiError> {
    let body = told(asked, answer)?.unwrap_or_default();
    replay(endpoint, &body, asked.options.has(RequestOptions::INCLUDE_USAGE))
        .map_err(|error| ApiError::batch_failed(format!("the answer cannot be told as a stream: {error}")))
}

/// A failure inside a stream that has begun: the API's own error event.
pub(crate) fn failure_event(asked: &Asked, endpoint: ReplayEndpoint, answer: &Answer) -> Bytes {
    let own = || {
        let error = own_error(&answer.summary, answer.state);
        error_event(endpoint, &error.message, error.code, error.kind(endpoint.api()))
    };
    let body = told(asked, answer).ok().flatten();
    body.and_then(|body| error_event_from_body(endpoint, &body)).unwrap_or_else(own)
}

/// An event stream that no intermediary should keep back or store.
pub(crate) fn event_stream<S>(events: S) -> Response<Body>
where
    S: stream::Stream<Item = Result<Frame<Bytes>, body::BoxError>> + Send + 'static,
{
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    unbuffered(response.headers_mut());
    response
}

/// Signs of life must arrive when they are sent.
pub(crate) fn unbuffered(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// The headers on every answer to a deferred request, before it has ended.
pub(crate) fn set_pending_headers(headers: &mut HeaderMap, id: RequestId, state: RequestState) {
    set(headers, "x-nightbus-request-id", id.to_string());
    headers.insert(HeaderName::from_static("x-nightbus-state"), HeaderValue::from_static(state.as_str()));
}

/// When the answer is expected, in Unix seconds like `expected_at` of the request object; left out where nothing is known.
pub(crate) fn set_expected(headers: &mut HeaderMap, expected: Option<i64>) {
    if let Some(seconds) = expected {
        headers.insert(HeaderName::from_static("x-nightbus-expected-at"), HeaderValue::from(seconds));
    }
}

fn set_headers(headers: &mut HeaderMap, asked: &Asked, answer: &Answer) {
    set_pending_headers(headers, asked.id, answer.state);
    let summary = &answer.summary;
    let batch_id = answer.batch_id.map(|id: BatchId| id.to_string());
    let optional = [
        ("x-nightbus-service", summary.service.clone()),
        ("x-nightbus-batch-id", batch_id),
        (DISCOUNT, asked.options.has(RequestOptions::NO_DISCOUNT).then(|| "none".to_owned())),
        ("x-nightbus-cost-usd", summary.cost_nanos.map(usd)),
        ("x-nightbus-saved-usd", summary.saved_nanos.map(usd)),
        (request_id_header(asked.endpoint.api()), summary.provider_request_id.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            set(headers, name, value);
        }
    }
    set(headers, "x-nightbus-wait-ms", answer.finished_at.since(asked.created_at).as_millis().to_string());
}

/// Where each API puts the id of the exchange (providers.md, sections 1.1 and 2.1).
const fn request_id_header(api: Api) -> &'static str {
    match api {
        Api::OpenAi => "x-request-id",
        Api::Anthropic => "request-id",
    }
}

/// Nano-dollars as a plain decimal number of dollars.
fn usd(nanos: i64) -> String {
    crate::domain::money::Money::from_picos(nanos.saturating_mul(1_000)).to_string()
}

fn set(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// `none`: the provider has no batches, and the call costs what any live call costs.
const DISCOUNT: &str = "x-nightbus-discount";

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
