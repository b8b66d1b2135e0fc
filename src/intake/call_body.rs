//! Bodies of calls that may have to be deferred: read into memory up to a limit, and passed on whole otherwise.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::body::{Body, BoxError};
use crate::wire::api_error::ApiError;

/// What was read.
pub(crate) enum CallBody {
    /// All of it.
    Whole(WholeBody),
    /// It is longer than the limit: what was read, and the rest as it comes.
    TooLong(Body),
}

/// A body in memory, with its trailers.
#[derive(Debug)]
pub(crate) struct WholeBody {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl WholeBody {
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
pub(crate) async fn read(mut body: Incoming, limit: u64) -> Result<CallBody, ApiError> {
    let mut chunks = Chunks::default();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::invalid_request(format!("the body broke off: {error}")))?;
        match frame.into_data() {
            Ok(data) => chunks.push(data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if chunks.length > limit {
            let read = stream::once(async move { Ok(Frame::data(chunks.join())) });
            let rest = http_body_util::BodyStream::new(body).map(|frame| frame.map_err(BoxError::from));
            return Ok(CallBody::TooLong(StreamBody::new(read.chain(rest)).boxed_unsync()));
        }
    }
    Ok(CallBody::Whole(WholeBody { bytes: chunks.join(), trailers }))
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
