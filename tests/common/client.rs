//! A plain HTTP client for the tests of the whole system: no retries, no SDK, every answer whole.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Long enough for a busy machine; only a test that fails anyway waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Looks again and again until there is a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// A caller with one credential.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) to: SocketAddr,
    key: String,
    http: Http<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// An empty `key` sends none.
    pub(crate) fn new(to: SocketAddr, key: &str) -> Self {
        let mut builder = Http::builder(TokioExecutor::new());
        // A process that was killed must not be called on a connection of its predecessor.
        builder.pool_max_idle_per_host(0);
        Self { to, key: key.to_owned(), http: builder.build_http() }
    }

    /// The same place for another caller.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { to: self.to, key: key.to_owned(), http: self.http.clone() }
    }

    /// Sends a call; the error is a connection that ended before the answer was whole.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let body = body.into();
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.to));
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let exchange = async {
            let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
            let response = self.http.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], "").await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], "").await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, path, headers, body).await.unwrap()
    }

    /// A marked call on the line until it is answered.
    pub(crate) async fn held(&self, path: &str, body: &Value) -> Reply {
        self.post(path, &[DEFER], body.to_string()).await
    }

    /// A marked call that is answered 202 at once; its id.
    pub(crate) async fn accepted(&self, path: &str, body: &Value) -> String {
        let reply = self.post(path, &[DEFER, ASYNC], body.to_string()).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// The result route's answer, once it is not 202 any more.
    pub(crate) async fn result(&self, id: &str) -> Reply {
        let path = format!("/nightbus/v1/requests/{id}/result?wait=20");
        eventually(&format!("a result of {id}"), || async {
            let reply = self.send(Method::GET, &path, &[], "").await.ok()?;
            (reply.status != 202).then_some(reply)
        })
        .await
    }

    pub(crate) async fn object(&self, id: &str) -> Value {
        self.get(&format!("/nightbus/v1/requests/{id}")).await.json()
    }

    /// Polls until the request has one of `states`.
    pub(crate) async fn until_state(&self, id: &str, states: &[&str]) -> Value {
        eventually(&format!("{id} becomes one of {states:?}"), || async {
            let object = self.object(id).await;
            states.contains(&object["state"].as_str().unwrap_or_default()).then_some(object)
        })
        .await
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    /// The code of an error in OpenAI's envelope, all four members of which must be there.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        for name in ["message", "type", "param", "code"] {
            assert!(error.contains_key(name), "{name} is missing: {body}");
        }
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The text of a chat completion.
    pub(crate) fn text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }
}

pub(crate) const DEFER: (&str, &str) = ("x-nightbus-defer", "true");
pub(crate) const ASYNC: (&str, &str) = ("prefer", "respond-async");
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A chat call; a marker `probe-…` in `text` is counted by the simulator and comes back in the answer.
pub(crate) fn chat(text: &str) -> Value {
    json!({"model": "gpt-6-luna", "messages": [{"role": "user", "content": text}]})
}

/// A marker of this test run.
pub(crate) fn probe(at: usize) -> String {
    format!("probe-{at}x")
}
