//! A client that costs as little as possible: prepared bytes out, answers delimited and thrown away.
//!
//! The generator shares one core with the origin; a full HTTP client there would be the bottleneck of every row.

use std::io;
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::outcome::Outcome;

/// One kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The final status.
    pub(crate) status: u16,
    /// Bytes of head and body.
    pub(crate) bytes: usize,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends without waiting for the answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// Sends, and waits for the whole final answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request).await?;
        self.answer().await
    }

    /// The next whole final answer.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(answer) = complete(&self.buffer) {
                self.buffer.drain(..answer.bytes);
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The body of the answer to a small call.
    pub(crate) async fn text(&mut self, request: &[u8]) -> Outcome<String> {
        self.send(request).await?;
        loop {
            if let Some(answer) = complete(&self.buffer) {
                let message: Vec<u8> = self.buffer.drain(..answer.bytes).collect();
                let head = memmem::find(&message, b"\r\n\r\n").ok_or("no head")?;
                return Ok(String::from_utf8_lossy(message.get(head + 4..).unwrap_or_default()).into_owned());
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection ended".into());
            }
        }
    }
}

/// `POST path` with a JSON body and further header lines, each ended by `\r\n`.
pub(crate) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-bench\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// `GET path`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-bench\r\n\r\n").into_bytes()
}

/// The length of a request that is wholly in `buffer`.
pub(crate) fn whole_request(buffer: &[u8]) -> Option<usize> {
    let head_end = memmem::find(buffer, b"\r\n\r\n")? + 4;
    let length = match framing(buffer.get(..head_end)?) {
        Framing::Length(length) => head_end + length,
        Framing::Chunked => chunked_end(buffer, head_end)?,
    };
    (buffer.len() >= length).then_some(length)
}

/// The first final answer in `buffer`, with interim responses before it, when it is all there.
fn complete(buffer: &[u8]) -> Option<Answer> {
    let mut at = 0;
    loop {
        let rest = buffer.get(at..)?;
        let head_end = at + memmem::find(rest, b"\r\n\r\n")? + 4;
        let status = rest.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())?;
        if (100..200).contains(&status) {
            at = head_end;
            continue;
        }
        let end = match framing(buffer.get(at..head_end)?) {
            Framing::Length(length) => head_end + length,
            Framing::Chunked => chunked_end(buffer, head_end)?,
        };
        return (buffer.len() >= end).then_some(Answer { status, bytes: end });
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

fn framing(head: &[u8]) -> Framing {
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value).unwrap_or_default().trim_matches([':', ' ', '\r']);
            return Framing::Length(value.parse().unwrap_or_default());
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Framing::Chunked;
        }
    }
    Framing::Length(0)
}

fn chunked_end(buffer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line_end = at + memmem::find(buffer.get(at..)?, b"\r\n")?;
        let size = std::str::from_utf8(buffer.get(at..line_end)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at = line_end + 2 + size + 2;
        if size == 0 {
            return (buffer.len() >= at).then_some(at);
        }
    }
}
