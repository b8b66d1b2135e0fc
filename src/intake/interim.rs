//! `102 Processing` on HTTP/1.1 connections that are being held: a sign of life that commits to no status.
//!
//! hyper's server cannot send interim responses (providers.md, section 6.3 item 11), so the connection's IO is
//! wrapped, and the wrapper writes them itself. Three facts keep the byte stream in order:
//! - hyper flushes its IO at every turn of the connection, and only when it has nothing of its own left to write.
//!   An interim response begins nowhere else, so it never cuts into an earlier response or a `100 Continue`.
//! - Handler, hyper and wrapper run in one task. A call is open from its service call to the end of its handler,
//!   and a head is written only after that end, so an open call has no byte of a head written.
//! - Bytes of an interim response that the socket did not take go out before anything of hyper's.
//!
//! Who asks must have read the request's body to its end. Used by `intake::connection`, asked by `intake::hold`.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 2518, section 10.1; httpx reads past any number of them.
const PROCESSING: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// No call.
const NONE: u64 = 0;

/// What the connection and its calls share.
#[derive(Debug, Default)]
struct Shared {
    /// The call whose handler is pending. Calls of a connection are numbered from 1.
    open: AtomicU64,
    /// The call that wants an interim response.
    wanted: AtomicU64,
    /// The connection's task.
    connection: AtomicWaker,
    /// Whether `flushed` holds anything; spares every other flush the lock.
    has_flushed: AtomicBool,
    /// What to call when everything written so far is with the socket.
    flushed: Mutex<Vec<AfterFlush>>,
}

/// Called once, when all that was written before is with the socket.
struct AfterFlush(Box<dyn FnOnce() + Send>);

impl fmt::Debug for AfterFlush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterFlush")
    }
}

/// Asks for interim responses to one call. Harmless after the call ended. Clones ask for the same call.
#[derive(Clone, Debug)]
pub struct InterimSender {
    shared: Arc<Shared>,
    call: u64,
}

impl InterimSender {
    /// Asks for one `102 Processing`; false when the handler has ended and its response is on its way.
    ///
    /// Asking again before the last one is written changes nothing. Call it only after the request's body was
    /// read to its end, and only for clients known to read past interim responses.
    pub fn send(&self) -> bool {
        if self.shared.open.load(Ordering::Acquire) != self.call {
            return false;
        }
        self.shared.wanted.store(self.call, Ordering::Release);
        self.shared.connection.wake();
        true
    }

    /// Calls `done` when everything that hyper was given so far is with the socket; never, if the connection breaks
    /// before. To be called by a response's body when it has given its last frame.
    pub(super) fn after_flush(&self, done: impl FnOnce() + Send + 'static) {
        self.shared.flushed.lock().push(AfterFlush(Box::new(done)));
        self.shared.has_flushed.store(true, Ordering::Release);
    }
}

/// Opens the calls of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    shared: Arc<Shared>,
    last: AtomicU64,
}

impl Calls {
    /// A new call, open until the returned guard is dropped. hyper serves one call at a time.
    pub(super) fn open(&self) -> (InterimSender, OpenCall) {
        let call = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.open.store(call, Ordering::Release);
        let sender = InterimSender { shared: Arc::clone(&self.shared), call };
        (sender.clone(), OpenCall(sender))
    }
}

/// Lives as long as the handler of a call.
#[derive(Debug)]
pub(super) struct OpenCall(InterimSender);

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Self(InterimSender { shared, call }) = self;
        // A newer call is not ours to close.
        let closed = shared.open.compare_exchange(*call, NONE, Ordering::AcqRel, Ordering::Relaxed);
        debug_assert!(closed.is_ok(), "calls of one connection do not overlap");
    }
}

/// The IO of a connection on which interim responses can be written.
#[derive(Debug)]
pub(super) struct InterimIo<T> {
    io: T,
    shared: Arc<Shared>,
    /// What the socket did not yet take of an interim response.
    unsent: &'static [u8],
}

/// Wraps `io`; every call on the connection must be opened through the returned [`Calls`].
pub(super) fn wrap<T>(io: T) -> (InterimIo<T>, Calls) {
    let shared = Arc::new(Shared::default());
    (InterimIo { io, shared: Arc::clone(&shared), unsent: &[] }, Calls { shared, last: AtomicU64::new(NONE) })
}

impl<T: AsyncWrite + Unpin> InterimIo<T> {
    /// Takes up what the open call wants. To be called only when hyper has nothing to write.
    fn begin(&mut self, cx: &Context<'_>) {
        let open = self.shared.open.load(Ordering::Acquire);
        if open == NONE {
            return;
        }
        // First listen, then look: a wish between the two wakes this task again.
        self.shared.connection.register(cx.waker());
        if self.shared.wanted.swap(NONE, Ordering::AcqRel) == open && self.unsent.is_empty() {
            self.unsent = PROCESSING;
        }
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.unsent))?;
            self.unsent = match self.unsent.split_at_checked(written) {
                Some((_written, rest)) if written > 0 => rest,
                _ => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for InterimIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for InterimIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin(cx);
        ready!(self.poll_unsent(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        if self.shared.has_flushed.swap(false, Ordering::AcqRel) {
            let flushed = std::mem::take(&mut *self.shared.flushed.lock());
            flushed.into_iter().for_each(|AfterFlush(done)| done());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
