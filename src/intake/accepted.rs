//! A deferred request that is durable, from there to its caller's answer: at once, after a while, or when it has ended.
//!
//! What waits is as small as can be: held calls are many. Made by `defer`, answered by `service`.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::engine::Engine;
use crate::engine::object::result_path;
use crate::engine::orphans::Attachment;
use crate::engine::waiters::{Answer, Waiter};
use crate::intake::answer::{self, Asked};
use crate::intake::client::Client;
use crate::intake::defer::{Desk, POLL_SECONDS, unavailable};
use crate::intake::delivery::{self, Delivery};
use crate::intake::hold::{self, Held, Told};
use crate::intake::interim::InterimSender;
use crate::intake::marks::Marks;
use crate::intake::respond::{error_response, json_response};
use crate::store::RequestRecord;
use crate::wire::api_error::ApiError;

/// A request that is durable, and the caller's claim on its answer.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(in crate::intake) asked: Asked,
    /// For the `202`.
    pub(in crate::intake) pending: Option<RequestRecord>,
    pub(in crate::intake) waiter: Option<Waiter>,
    pub(in crate::intake) attachment: Option<Attachment>,
    /// It had ended already.
    pub(in crate::intake) answer: Option<Answer>,
}

impl Accepted {
    /// Answers: at once, after a while, or when the request has ended. What waits is as small as can be: held calls are
    /// many, and an `async fn` would keep room for all that it was given.
    pub(crate) fn answer(self, desk: Arc<Desk>, marks: &Marks, client: Client) -> BoxFuture<'static, Response<Body>> {
        let Self { asked, pending, waiter, attachment, answer } = self;
        let preference = Preference { respond_async: marks.respond_async, wait: marks.wait };
        match (answer, waiter) {
            (Some(answer), _) => {
                let told = Told::Answer(answer::respond(&asked, &answer));
                Box::pin(ready(tracked(told, attachment, client.connection)))
            }
            (None, Some(waiter)) => {
                let held = Held::new(asked, waiter, desk.tasks.stop_token().clone(), desk.engine.clone());
                Box::pin(async move {
                    let waiting = Box::pin(wait(&desk, held, preference, &client));
                    let told = match &attachment {
                        Some(attachment) => {
                            attachment.line().set_carrier(client.carrier.clone());
                            attachment.line().hold(waiting).await
                        }
                        None => waiting.await,
                    };
                    tracked(told, attachment, client.connection)
                })
            }
            (None, None) => Box::pin(async move {
                let told = Told::Answer(accepted(pending, asked, &desk, preference).await);
                tracked(told, attachment, client.connection)
            }),
        }
    }
}

/// `Prefer`
#[derive(Clone, Copy, Debug)]
struct Preference {
    respond_async: bool,
    wait: Option<Duration>,
}

/// An answer counts as delivered when it is with the socket.
fn tracked(told: Told, attachment: Option<Attachment>, connection: Option<InterimSender>) -> Response<Body> {
    match (told, attachment) {
        (Told::Answer(response), Some(attachment)) => delivery::track(response, Delivery { attachment, connection }),
        (Told::Answer(response) | Told::Stopping(response), _) => response,
    }
}

async fn wait(desk: &Desk, held: Held, preference: Preference, client: &Client) -> Told {
    let asked = held.asked;
    let Some(wait) = preference.wait else {
        return hold::until_answered(held, client).await;
    };
    match hold::for_at_most(held, wait, client).await {
        Ok(told) => told,
        Err(held) => {
            drop(held);
            Told::Answer(accepted(None, asked, desk, preference).await)
        }
    }
}

/// `202` with where to find the result, and the request object.
async fn accepted(record: Option<RequestRecord>, asked: Asked, desk: &Desk, preference: Preference) -> Response<Body> {
    let api = asked.endpoint.api();
    let record = match record {
        Some(record) => Ok(Some(record)),
        None => desk.engine.store().request(asked.id).await,
    };
    let mut response = match record {
        Ok(Some(record)) => pending(&desk.engine, &record),
        Ok(None) => {
            return error_response(api, &ApiError::internal("the request is gone: send the call again"));
        }
        Err(error) => return error_response(api, &unavailable(&error)),
    };
    let respond_async = preference.respond_async.then(|| "respond-async".to_owned());
    let waited = preference.wait.map(|wait| format!("wait={}", wait.as_secs()));
    let applied: Vec<String> = respond_async.into_iter().chain(waited).collect();
    if let Ok(value) = HeaderValue::try_from(applied.join(", ")) {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), value);
    }
    response
}

/// `202`: not ended yet.
pub(crate) fn pending(engine: &Engine, record: &RequestRecord) -> Response<Body> {
    let object = engine.object(record);
    let mut response = json_response(StatusCode::ACCEPTED, object.to_json());
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(result_path(record.request.id)) {
        headers.insert(LOCATION, location);
    }
    headers.insert(RETRY_AFTER, HeaderValue::from(POLL_SECONDS));
    answer::set_pending_headers(headers, record.request.id, record.state);
    answer::set_expected(headers, object.expected_at());
    response
}
