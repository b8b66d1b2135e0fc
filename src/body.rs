//! The one body type of both HTTP sides, and the few ways to make one.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};

/// An error with its source chain, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request or response body: streamed, in chunks as they arrive, with trailers.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is wholly in memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
