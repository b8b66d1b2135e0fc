//! Hand-made peers: a byte-exact HTTP/1.1 origin, client and CONNECT proxy over bare TCP.
//!
//! Nothing here goes through an HTTP library, so what a test reads is what was on the wire.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Long enough for a busy machine; only a test that fails anyway waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Fails the test instead of hanging.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("took longer than the deadline")
}

/// A listening origin whose connections the test plays by hand.
pub(crate) struct Origin {
    listener: TcpListener,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// With small receive buffers, so that back-pressure shows early.
    pub(crate) fn start_narrow() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256 * 1024).unwrap();
        socket.set_send_buffer_size(256 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { listener: socket.listen(16).unwrap() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Peer::new(stream)
    }
}

/// An address nobody listens on.
pub(crate) async fn dead_address() -> SocketAddr {
    Origin::start().await.addr()
}

/// One end of a connection, read and written by hand.
pub(crate) struct Peer<T = TcpStream> {
    pub(crate) stream: T,
    ahead: Vec<u8>,
}

impl Peer {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).await.unwrap())
    }

    /// With small buffers, so that back-pressure shows early.
    pub(crate) async fn connect_narrow(to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256 * 1024).unwrap();
        socket.set_send_buffer_size(256 * 1024).unwrap();
        Self::new(socket.connect(to).await.unwrap())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    pub(crate) fn new(stream: T) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// Reads up to and including the empty line.
    pub(crate) async fn head(&mut self) -> Head {
        let end = self.find(b"\r\n\r\n").await;
        let text: Vec<u8> = self.ahead.drain(..end).collect();
        Head::parse(&String::from_utf8(text).unwrap())
    }

    pub(crate) async fn body(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            assert!(self.more().await > 0, "the connection ended inside a body");
        }
        self.ahead.drain(..length).collect()
    }

    /// One chunk of a chunked body; empty for the last one, whose trailers are left to be read.
    pub(crate) async fn chunk(&mut self) -> Vec<u8> {
        let end = self.find(b"\r\n").await;
        let line: Vec<u8> = self.ahead.drain(..end).collect();
        let length = usize::from_str_radix(String::from_utf8(line).unwrap().trim(), 16).unwrap();
        if length == 0 {
            return Vec::new();
        }
        let mut chunk = self.body(length + 2).await;
        chunk.truncate(length);
        chunk
    }

    /// The lines between the last chunk and the empty line.
    pub(crate) async fn trailers(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let end = self.find(b"\r\n").await;
            let line: Vec<u8> = self.ahead.drain(..end).collect();
            let line = String::from_utf8(line).unwrap().trim().to_owned();
            if line.is_empty() {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Everything until the connection ends, however it ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.ahead)
    }

    /// Waits for the other side to close or reset, without another byte.
    pub(crate) async fn expect_end(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    async fn find(&mut self, pattern: &[u8]) -> usize {
        loop {
            if let Some(at) = self.ahead.windows(pattern.len()).position(|window| window == pattern) {
                return at + pattern.len();
            }
            let so_far = String::from_utf8_lossy(&self.ahead).into_owned();
            assert!(self.more().await > 0, "the connection ended after {so_far:?}");
        }
    }

    async fn more(&mut self) -> usize {
        self.ahead.reserve(64 * 1024);
        within(self.stream.read_buf(&mut self.ahead)).await.unwrap_or(0)
    }
}

/// A request or response head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    /// Sorted by name, in order within a name.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.trim_end().split("\r\n");
        let first_line = lines.next().unwrap().to_owned();
        let mut headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        Self { first_line, headers }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// For comparison with a literal list.
    pub(crate) fn lines(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}
