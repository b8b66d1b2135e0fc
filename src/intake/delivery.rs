//! Knows when an answer has reached the socket: until then it is owed, and a retry finds it (contract, section 5).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BoxError};
use crate::engine::orphans::Attachment;
use crate::intake::interim::InterimSender;

/// A claim on an answer, and how to learn that what was written is with the socket (HTTP/1.1; elsewhere the end of the
/// body is all there is to know).
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) attachment: Attachment,
    pub(crate) connection: Option<InterimSender>,
}

impl Delivery {
    /// All was given to the connection.
    fn written(self) {
        let Self { attachment, connection } = self;
        match connection {
            Some(connection) => connection.after_flush(move || attachment.delivered()),
            None => attachment.delivered(),
        }
    }
}

/// Counts `response` as delivered when its last byte is written and flushed. Dropped before, it stays owed.
pub(crate) fn track(response: Response<Body>, delivery: Delivery) -> Response<Body> {
    response.map(|body| {
        let mut tracked = Tracked { body, delivery: Some(delivery) };
        tracked.note_end();
        tracked.boxed_unsync()
    })
}

struct Tracked {
    body: Body,
    delivery: Option<Delivery>,
}

impl Tracked {
    fn note_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(delivery) = self.delivery.take()
        {
            delivery.written();
        }
    }
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(delivery) = &self.delivery {
            delivery.attachment.line().turn(cx);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => {
                if let Some(delivery) = self.delivery.take() {
                    delivery.written();
                }
            }
            Poll::Ready(Some(Ok(_))) => self.note_end(),
            // A body that breaks off delivered nothing.
            Poll::Ready(Some(Err(_))) => drop(self.delivery.take()),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
