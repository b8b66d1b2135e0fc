//! HTTP/2 or HTTP/1.1 on a plain connection, by its first bytes (RFC 9113, section 3.4), without losing them.
//!
//! Called by `intake::connection` before it chooses a protocol. Costs nothing per request: once the bytes that were
//! read ahead are handed on, reads and writes go straight to the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::intake::carried::Arrived;

/// What an HTTP/2 client with prior knowledge sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Reads until the protocol is certain. An end of file counts as HTTP/1.1, which then finds an empty connection.
pub(super) async fn protocol_of<T: AsyncRead + Unpin>(mut io: T) -> io::Result<(Protocol, Rewound<T>)> {
    let mut ahead = Ahead { bytes: [0; PREFACE.len()], start: 0, end: 0 };
    let protocol = loop {
        let (read, free) = ahead.bytes.split_at_mut(ahead.end);
        if PREFACE.as_slice() == read {
            break Protocol::Http2;
        }
        if !PREFACE.starts_with(read) {
            break Protocol::Http1;
        }
        match io.read(free).await? {
            0 => break Protocol::Http1,
            count => ahead.end += count,
        }
    };
    Ok((protocol, Rewound { io, ahead }))
}

/// A connection with the bytes that were read ahead put back.
#[derive(Debug)]
pub(super) struct Rewound<T> {
    io: T,
    ahead: Ahead,
}

#[derive(Debug)]
struct Ahead {
    bytes: [u8; PREFACE.len()],
    start: usize,
    end: usize,
}

impl<T: Arrived> Arrived for Rewound<T> {
    fn has_arrived(&self) -> bool {
        self.ahead.start < self.ahead.end || self.io.has_arrived()
    }

    fn has_ended(&self) -> bool {
        self.ahead.start >= self.ahead.end && self.io.has_ended()
    }
}

impl<T> Rewound<T> {
    /// Nothing was read ahead.
    pub(super) const fn untouched(io: T) -> Self {
        Self { io, ahead: Ahead { bytes: [0; PREFACE.len()], start: 0, end: 0 } }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.ahead.bytes.get(this.ahead.start..this.ahead.end).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let (now, _later) = rest.split_at(rest.len().min(buf.remaining()));
        buf.put_slice(now);
        this.ahead.start += now.len();
        // In the same read as much as there is: after a first read of a few bytes hyper would take a buffer of
        // twice the size and keep it as long as the connection lives.
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn sniffed(parts: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let send = async move {
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let receive = async {
            let (protocol, mut io) = protocol_of(server).await.unwrap();
            let mut all = Vec::new();
            io.read_to_end(&mut all).await.unwrap();
            (protocol, all)
        };
        tokio::join!(send, receive).1
    }

    #[tokio::test]
    async fn every_byte_is_handed_on_whatever_the_protocol() {
        let cases: [(&[&[u8]], Protocol); 6] = [
            (&[b"GET / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"PR", b"OPFIND / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[PREFACE, b"frames"], Protocol::Http2),
            (&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\nframes"], Protocol::Http2),
            (&[], Protocol::Http1),
        ];
        for (parts, protocol) in cases {
            assert_eq!(sniffed(parts).await, (protocol, parts.concat()));
        }
    }

    #[tokio::test]
    async fn the_first_read_gets_all_there_is_not_only_what_was_read_ahead() {
        let request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n";
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(request).await.unwrap();
        let (_protocol, mut io) = protocol_of(server).await.unwrap();
        let mut buffer = [0; 1024];
        assert_eq!(io.read(&mut buffer).await.unwrap(), request.len());
        assert_eq!(&buffer[..request.len()], request);
    }
}
