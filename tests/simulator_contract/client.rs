//! A simulator with a client for it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nightbus::sim::{self, Sim, SimOptions};
use nightbus::tasks::Tasks;
use serde_json::{Value, json};

/// Between two polls of a batch.
pub(crate) const POLL: Duration = Duration::from_millis(3);

/// A running simulator, and a key to it.
pub(crate) struct Api {
    pub(crate) sim: Sim,
    pub(crate) key: &'static str,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn error(&self) -> Value {
        let mut body = self.json();
        let keys: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "param", "type"], "the envelope has exactly these");
        body["error"].take()
    }
}

/// Options of most tests: batches end at once.
pub(crate) fn quick() -> SimOptions {
    SimOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        batch_seconds: 0.0,
        live_latency: Duration::ZERO,
        ..SimOptions::default()
    }
}

/// Options with one fault.
pub(crate) fn with_fault(fault: &str) -> SimOptions {
    SimOptions { faults: vec![fault.to_owned()], ..quick() }
}

impl Api {
    pub(crate) async fn start(options: SimOptions) -> Self {
        let sim = sim::start(options, Tasks::new()).await.unwrap();
        Self { sim, key: "sk-test", client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn quick() -> Self {
        Self::start(quick()).await
    }

    /// The same simulator with another key.
    pub(crate) fn as_key(&self, key: &'static str) -> Self {
        Self { sim: self.sim.clone(), key, client: self.client.clone() }
    }

    /// Sends a request; `Err` when the connection ends before the answer is complete.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.sim.addr()));
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.send_request(request.body(Full::new(body.into())).unwrap()).await
    }

    pub(crate) async fn send_request(&self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let response = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        if !parts.headers.contains_key("x-request-id") {
            return Err(format!("no x-request-id: {parts:?}"));
        }
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "", "").await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, "application/json", body.to_string()).await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, "", "").await.unwrap()
    }

    /// Uploads a batch file.
    pub(crate) async fn upload(&self, content: &[u8]) -> Reply {
        let form = form(&[("purpose", "batch")], "in.jsonl", content);
        self.send(Method::POST, "/v1/files", FORM, form).await.unwrap()
    }

    /// Uploads `content` and creates a batch of it.
    pub(crate) async fn submit_to(&self, endpoint: &str, content: &[u8]) -> Value {
        let file = self.upload(content).await.json();
        let order = json!({"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"});
        let reply = self.post("/v1/batches", &order).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Creates a batch of chat lines.
    pub(crate) async fn submit(&self, lines: &[Value]) -> Value {
        self.submit_to("/v1/chat/completions", &jsonl(lines)).await
    }

    pub(crate) async fn batch(&self, batch: &Value) -> Value {
        self.get(&format!("/v1/batches/{}", batch["id"].as_str().unwrap())).await.json()
    }

    /// Polls until the batch has one of `statuses`.
    pub(crate) async fn until(&self, batch: &Value, statuses: &[&str]) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        loop {
            let now = self.batch(batch).await;
            if statuses.contains(&now["status"].as_str().unwrap_or_default()) {
                return now;
            }
            assert!(tokio::time::Instant::now() < deadline, "still {now}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Polls until the batch has ended.
    pub(crate) async fn ended(&self, batch: &Value) -> Value {
        self.until(batch, &["completed", "failed", "expired", "cancelled"]).await
    }

    pub(crate) async fn content(&self, file: &Value) -> Reply {
        self.get(&format!("/v1/files/{}/content", file.as_str().unwrap())).await
    }

    /// The lines of a result file; none where the id is null.
    pub(crate) async fn lines(&self, file: &Value) -> Vec<Value> {
        if file.is_null() {
            return Vec::new();
        }
        let text = self.content(file).await.body;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

pub(crate) const FORM: &str = "multipart/form-data; boundary=XbX";

/// A multipart form with text parts first and then the file.
pub(crate) fn form(texts: &[(&str, &str)], filename: &str, content: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in texts {
        let part = format!("--XbX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(part.as_bytes());
    }
    let head = format!(
        "--XbX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\
         Content-Type: application/jsonl\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(content);
    form.extend_from_slice(b"\r\n--XbX--\r\n");
    form
}

/// A batch line for chat.
pub(crate) fn chat_line(custom_id: &str, text: &str) -> Value {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": chat(text)})
}

/// A chat call.
pub(crate) fn chat(text: &str) -> Value {
    json!({"model": "gpt-6-luna", "messages": [{"role": "user", "content": text}]})
}

/// `count` chat lines `id-0`, `id-1`…, each with a marker `probe-0`, `probe-1`….
pub(crate) fn chat_lines(count: usize) -> Vec<Value> {
    (0..count).map(|at| chat_line(&format!("id-{at}"), &format!("text {at} probe-{at}"))).collect()
}

pub(crate) fn jsonl(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// The text that a batch line was answered with.
pub(crate) fn answer_of(line: &Value) -> &str {
    line["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap()
}
