//! The live API behind the proxies: one fixed answer at once, or an event stream whose chunks say when they left.
//!
//! A thread of this process, on the generator's core.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bodies;
use crate::http::whole_request;
use crate::outcome::Outcome;

/// Between two chunks of a stream.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);
/// Path of the event streams.
pub(crate) const STREAM_PATH: &str = "/v1/stream";
/// What stands before the time in a chunk.
pub(crate) const TIME_MARK: &[u8] = b"\"sent_ns\":";
/// Bytes of the fixed answer's body.
const ANSWER_BYTES: usize = 1_024;

/// Nanoseconds since the first use: one clock for sender and receiver.
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Starts it; it ends with the process.
pub(crate) fn start() -> Outcome<SocketAddr> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = listen()?;
            tell.send(listener.local_addr()?)?;
            serve(listener).await
        })
    });
    Ok(told.recv()?)
}

/// A socket with room for many connections at once.
pub(crate) fn listen() -> Outcome<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(socket.listen(8_192)?)
}

async fn serve(listener: TcpListener) -> Outcome<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_0123456789abcdef\r\n";
    let body = bodies::chat(ANSWER_BYTES);
    let mut answer = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    let answer: &'static [u8] = answer.leak();
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(connection(stream, answer));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut stream: TcpStream, answer: &'static [u8]) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        while let Some(length) = whole_request(&buffer) {
            let streams = buffer.get(5..).is_some_and(|rest| rest.starts_with(STREAM_PATH.as_bytes()));
            buffer.drain(..length);
            if streams {
                return events(stream).await;
            }
            stream.write_all(answer).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn events(mut stream: TcpStream) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let event = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"sent_ns\":{:020},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word\"}},\"finish_reason\":null}}]}}\n\n",
            now_ns()
        );
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
}
