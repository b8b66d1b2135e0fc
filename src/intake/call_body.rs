//! Bodies of calls that may have to be deferred: read into memory up to a limit, and passed on whole otherwise.

use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::Request;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Frame;

use crate::body::{Body, BoxError};
use crate::wire::api_error::ApiError;
use crate::wire::edit;
use crate::wire::peek::without_batch_suffix;

/// How long nothing may come of a body that has not ended: a caller that stops in the middle must not hold memory and
/// a connection for ever.
const IDLE: Duration = Duration::from_secs(60);

/// What was read.
pub(crate) enum CallBody {
    /// All of it.
    Whole(WholeBody),
    /// It is longer than the limit.
    TooLong {
        /// What was read: more than the limit by less than a chunk.
        prefix: Bytes,
        /// All of it, from the first byte: what was read, and the rest as it comes.
        body: Body,
    },
}

/// A body in memory, with its trailers.
#[derive(Debug)]
pub(crate) struct WholeBody {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl WholeBody {
    /// Of bytes that nightbus made.
    pub(crate) const fn of(bytes: Bytes) -> Self {
        Self { bytes, trailers: None }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// As it came.
    pub(crate) fn into_body(self) -> Body {
        match self.trailers {
            None => crate::body::full(self.bytes),
            Some(trailers) => {
                let frames = [Ok(Frame::data(self.bytes)), Ok(Frame::trailers(trailers))];
                StreamBody::new(stream::iter(frames)).boxed_unsync()
            }
        }
    }
}

/// Reads up to `limit` bytes.
///
/// # Errors
/// 400 when the body breaks off, or nothing of it comes for [`IDLE`].
pub(crate) async fn read<B>(mut body: B, limit: u64) -> Result<CallBody, ApiError>
where
    B: hyper::body::Body<Data = Bytes, Error: Display + Into<BoxError>> + Send + Unpin + 'static,
{
    let mut chunks = Chunks::default();
    let mut trailers = None;
    while let Some(frame) = next(&mut body).await? {
        let frame = frame.map_err(|error| ApiError::invalid_request(format!("the body broke off: {error}")))?;
        match frame.into_data() {
            Ok(data) => chunks.push(data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if chunks.length > limit {
            let prefix = chunks.join();
            let read = stream::iter([Ok(Frame::data(prefix.clone()))]);
            let rest = BodyStream::new(body).map(|frame| frame.map_err(Into::into));
            return Ok(CallBody::TooLong { prefix, body: StreamBody::new(read.chain(rest)).boxed_unsync() });
        }
    }
    Ok(CallBody::Whole(WholeBody { bytes: chunks.join(), trailers }))
}

async fn next<B>(body: &mut B) -> Result<Option<Result<Frame<Bytes>, B::Error>>, ApiError>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    tokio::time::timeout(IDLE, body.frame()).await.map_err(|_elapsed| {
        ApiError::invalid_request(format!("the body did not arrive: nothing came for {} s", IDLE.as_secs()))
    })
}

/// Most bodies come in one chunk and are not copied.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    more: BytesMut,
    length: u64,
}

impl Chunks {
    fn push(&mut self, data: Bytes) {
        self.length += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.more.extend_from_slice(&data);
    }

    fn join(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

/// A live call with another body.
pub(crate) fn with_body(mut parts: http::request::Parts, body: Bytes) -> Request<Body> {
    if parts.headers.contains_key(CONTENT_LENGTH) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Request::from_parts(parts, crate::body::full(body))
}

/// A live call whose model carries the mark: the provider must not see it.
pub(crate) fn without_suffix(parts: http::request::Parts, body: &Bytes) -> Request<Body> {
    #[derive(serde::Deserialize)]
    struct Model {
        model: String,
    }
    let model = serde_json::from_slice::<Model>(body).map(|body| body.model).unwrap_or_default();
    let body = match without_batch_suffix(&model) {
        Some(model) => Bytes::from(edit::with_model(body, model)),
        None => body.clone(),
    };
    with_body(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk after each pause, then silence.
    fn slow(pauses: &'static [u64]) -> impl hyper::body::Body<Data = Bytes, Error = BoxError> + Send + Unpin {
        let chunks = stream::iter(pauses).then(|pause| async move {
            tokio::time::sleep(Duration::from_secs(*pause)).await;
            Ok(Frame::data(Bytes::from_static(b"12345")))
        });
        StreamBody::new(Box::pin(chunks.chain(stream::pending())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_in_the_middle_is_not_waited_for_for_ever() {
        let started = tokio::time::Instant::now();
        let Err(error) = read(slow(&[59, 59]), 100).await else { panic!("it never ended") };
        assert_eq!((error.status, error.code), (400, "invalid_request"));
        assert_eq!(error.message, "the body did not arrive: nothing came for 60 s");
        assert_eq!(started.elapsed().as_secs(), 59 + 59 + 60, "slow is not silent");
    }

    #[tokio::test]
    async fn a_body_above_the_limit_comes_whole_with_what_was_read_of_it() {
        let body =
            StreamBody::new(stream::iter(["ab", "cd", "ef"].map(|text| Ok::<_, BoxError>(Frame::data(text.into())))));
        let Ok(CallBody::TooLong { prefix, body }) = read(body, 3).await else { panic!("not too long") };
        assert_eq!(prefix, "abcd");
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdef");
    }
}
