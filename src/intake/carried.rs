//! The IO of a connection that questions after its calls can be answered on (`engine::line`): it asks the system for what
//! the runtime has not heard of yet.
//!
//! HTTP/1.1: an end that has arrived is told when somebody has asked. Where more requests were sent ahead, the end behind
//! them is not seen.
//!
//! HTTP/2: it knows when all that had arrived is read; then a stream that its client has reset is known to be. h2 asks for more bytes only when it has acted on every frame that it has. So when a read finds nothing, and the system
//! has nothing either (of which the runtime hears later), each frame that had arrived before has taken effect. Used by
//! `intake::connection`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::engine::line::{Carrier, Question};

/// Wraps the IO of one connection.
#[derive(Debug)]
pub(super) struct CarriedIo<T> {
    io: T,
    carrier: Carrier,
}

impl<T> CarriedIo<T> {
    pub(super) const fn new(io: T, carrier: Carrier) -> Self {
        Self { io, carrier }
    }
}

impl<T> Drop for CarriedIo<T> {
    fn drop(&mut self) {
        self.carrier.ended();
    }
}

/// IO of which the system may hold bytes, or the end, that the runtime has not heard of yet.
pub(super) trait Arrived {
    /// Whether it does.
    fn has_arrived(&self) -> bool;

    /// Whether the end has arrived, with nothing before it.
    fn has_ended(&self) -> bool;
}

impl Arrived for TcpStream {
    fn has_arrived(&self) -> bool {
        !matches!(peeked(self), Err(rustix::io::Errno::AGAIN))
    }

    fn has_ended(&self) -> bool {
        !matches!(peeked(self), Ok(1..) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }
}

impl Arrived for TlsStream<TcpStream> {
    fn has_arrived(&self) -> bool {
        self.get_ref().0.has_arrived()
    }

    fn has_ended(&self) -> bool {
        self.get_ref().0.has_ended()
    }
}

/// How many bytes the system has, at most one; none: the end.
fn peeked(stream: &TcpStream) -> rustix::io::Result<usize> {
    rustix::net::recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(read, _)| read)
}

impl<T: AsyncRead + Arrived + Unpin> AsyncRead for CarriedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Taken before the read: what is asked meanwhile may be about bytes that this read does not find yet.
        let asked = self.carrier.before_read(cx);
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        // A task that has used up its turn is told that there is nothing, although there may be; it is woken again.
        if read.is_pending() && self.carrier.looks_for_end() && self.io.has_ended() {
            return Poll::Ready(Ok(()));
        }
        if asked.is_empty() {
            return read;
        }
        if read.is_pending() && tokio::task::coop::has_budget_remaining() && !self.io.has_arrived() {
            asked.into_iter().for_each(Question::hand_on);
        } else {
            self.carrier.put_back(asked);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CarriedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn until(what: impl Fn() -> bool) {
        let all = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while !what() {
                tokio::task::yield_now().await;
            }
        });
        all.await.unwrap();
    }

    #[tokio::test]
    async fn what_the_system_has_is_seen_before_it_is_read_and_an_end_only_with_nothing_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut served, _) = listener.accept().await.unwrap();
        assert!(!served.has_arrived() && !served.has_ended());
        io::Write::write_all(&mut &client, b"x").unwrap();
        until(|| served.has_arrived()).await;
        client.shutdown(Shutdown::Write).unwrap();
        assert!(!served.has_ended(), "a byte is before it");
        served.read_exact(&mut [0]).await.unwrap();
        until(|| served.has_ended()).await;
        assert!(served.has_arrived());
    }
}
