//! A running proxy with its simulator, and plain HTTP/1.1 by hand, so that a test decides every header.

use std::net::SocketAddr;
use std::time::Duration;

use nightbus::app::{self, App};
use nightbus::config::{self, Overrides};
use nightbus::sim::{self, Sim, SimOptions};
use nightbus::tasks::Tasks;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What callers use as their key; it must show nowhere.
pub(crate) const KEY: &str = "sk-visible-nowhere";

const DEADLINE: Duration = Duration::from_secs(120);

/// The running pair.
pub(crate) struct Stage {
    pub(crate) app: App,
    sim: Sim,
}

/// An answer, its head in one text.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Stage {
    /// Everything at its default.
    pub(crate) async fn new() -> Self {
        Self::start(None, Duration::from_millis(50)).await
    }

    /// With an admin token.
    pub(crate) async fn with_token(token: &str) -> Self {
        Self::start(Some(token), Duration::from_millis(50)).await
    }

    /// Nothing is submitted before it is flushed.
    pub(crate) async fn waiting() -> Self {
        Self::start(None, Duration::from_secs(3_600)).await
    }

    async fn start(token: Option<&str>, idle: Duration) -> Self {
        let tasks = Tasks::new();
        let options = SimOptions { listen: ([127, 0, 0, 1], 0).into(), batch_seconds: 0.0, ..SimOptions::default() };
        let sim = sim::start(options, tasks.clone()).await.unwrap();
        let any_port = || Some("127.0.0.1:0".to_owned());
        let overrides = Overrides {
            listen: any_port(),
            admin_listen: any_port(),
            upstream: Some(sim.base_url()),
            data_dir: None,
            store: Some("memory".to_owned()),
        };
        let mut config = config::parse(None, [], &overrides).unwrap();
        config.admin.token = token.map(SecretString::from);
        config.batching.idle = idle;
        config.batching.max_age = config.batching.max_age.max(idle);
        Self { app: app::start(config, tasks).await.unwrap(), sim }
    }

    /// Replaces the faults of the provider.
    pub(crate) fn faults(&self, faults: &[&str]) {
        self.sim.set_faults(&faults.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    }

    /// One exchange with the admin listener. A `host` among the headers replaces the right one.
    pub(crate) async fn admin(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        exchange(self.app.admin_addr(), method, path, headers, "").await
    }

    /// Has a call deferred; returns its id.
    pub(crate) async fn defer(&self, text: &str) -> String {
        let body = json!({"model": "gpt-6-luna", "messages": [{"role": "user", "content": text}]}).to_string();
        let key = format!("Bearer {KEY}");
        let headers = [
            ("authorization", key.as_str()),
            ("content-type", "application/json"),
            ("x-nightbus-defer", "true"),
            ("x-nightbus-tag", "admin-test"),
            ("prefer", "respond-async"),
        ];
        let reply = exchange(self.app.main_addr(), "POST", "/v1/chat/completions", &headers, &body).await;
        assert_eq!(reply.status, 202, "{}", reply.body);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// Asks again until `done`, or fails.
    pub(crate) async fn until(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let value = self.admin("GET", path, &[]).await.json();
                if done(&value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{path} did not get there"))
    }

    /// An open event stream that has begun.
    pub(crate) async fn events(&self) -> Events {
        let mut stream = TcpStream::connect(self.app.admin_addr()).await.unwrap();
        stream.write_all(b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut events = Events { stream, seen: String::new() };
        events.until(": nightbus events").await;
        assert!(events.seen.contains("content-type: text/event-stream"), "{}", events.seen);
        events
    }
}

/// An event stream as it came, chunk sizes and all.
pub(crate) struct Events {
    stream: TcpStream,
    seen: String,
}

impl Events {
    /// Reads until `text` has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.read().await > 0, "ended without {text:?}: {}", self.seen);
        }
    }

    /// Reads to the end.
    pub(crate) async fn until_closed(&mut self) {
        while self.read().await > 0 {}
        assert!(self.seen.ends_with("0\r\n\r\n"), "not ended properly: {}", self.seen);
    }

    async fn read(&mut self) -> usize {
        let mut buffer = [0; 4_096];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing came after {}", self.seen)).unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        read
    }
}

async fn exchange(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {to}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("\r\n{body}"));
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
    read.unwrap_or_else(|_| panic!("{method} {path} was not answered")).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}
