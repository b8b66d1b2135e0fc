//! Callbacks as their receivers meet them: signed, at least once, under one id, and never to where they must not go.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use nightbus::domain::webhook::Signer;
use nightbus::tasks::Tasks;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::common::client::{ASYNC, CHAT, Client, DEFER, chat, eventually};
use super::common::process::Home;
use super::common::provider::{Provider, quick};
use super::common::proxy::Proxy;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The points of `src` at which a process dies below.
pub(super) const TESTED: &[&str] = &["callback-sent"];

fn tables(more: &str) -> String {
    format!("[callbacks]\nsecret = \"{SECRET}\"\n{more}\n")
}

/// One delivery as it arrived.
#[derive(Clone, Debug)]
struct Hook {
    id: String,
    body: Value,
    first_line: String,
}

/// Takes callbacks, and answers as it is told; 204 when it is told nothing.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Hook>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().copied().collect())),
        };
        let serving = receiver.clone();
        Tasks::new().spawn("receiver", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let hook = loop {
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break None;
                    }
                    if let Some(hook) = hook(&String::from_utf8_lossy(&bytes)) {
                        break Some(hook);
                    }
                };
                let Some(hook) = hook else { continue };
                serving.got.lock().push(hook);
                let status = serving.answers.lock().pop_front().unwrap_or(204);
                let location = format!("http://{}/elsewhere", serving.address);
                let head = format!("HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
                let _left = stream.write_all(head.as_bytes()).await;
            }
        });
        receiver
    }

    fn url(&self) -> String {
        format!("http://{}/hook?token=t", self.address)
    }

    async fn until(&self, count: usize) -> Vec<Hook> {
        eventually(&format!("{count} callbacks"), || async {
            let got = self.got.lock().clone();
            (got.len() >= count).then_some(got)
        })
        .await
    }
}

/// Reads and verifies one; none while it is not complete.
fn hook(text: &str) -> Option<Hook> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        let line =
            head.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.to_owned())
    };
    let length: usize = header("content-length")?.parse().unwrap();
    if body.len() < length {
        return None;
    }
    let (id, at) = (header("webhook-id").unwrap(), header("webhook-timestamp").unwrap());
    let signed = Signer::new(SECRET).unwrap().sign(&id, at.parse().unwrap(), body.as_bytes());
    assert_eq!(header("webhook-signature").unwrap(), signed);
    assert_eq!(header("content-type").unwrap(), "application/json");
    Some(Hook { id, body: serde_json::from_str(body).unwrap(), first_line: head.lines().next().unwrap().to_owned() })
}

async fn sent(client: &Client, text: &str, url: &str) -> String {
    let headers = [DEFER, ASYNC, ("x-nightbus-callback", url)];
    let reply = client.post(CHAT, &headers, chat(text).to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

/// The only callback of the log, once it is in `state`.
async fn logged(admin: &Client, state: &str) -> Value {
    eventually(&format!("a callback that is {state}"), || async {
        let list = admin.get(&format!("/api/callbacks?state={state}")).await.json();
        list["data"].get(0).cloned()
    })
    .await
}

/// Whether the metrics page says so of attempts with this outcome.
async fn counted(admin: &Client, outcome: &str, count: u64) -> bool {
    let page = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    page.contains(&format!("nightbus_callbacks_total{{outcome=\"{outcome}\"}} {count}\n"))
}

#[tokio::test]
async fn the_end_of_a_request_is_told_signed_and_tried_again_under_the_same_id() {
    let provider = Provider::start(quick()).await;
    let proxy = Proxy::with(&provider, &tables("allow = [\"127.0.0.0/8\"]")).await;
    let receiver = Receiver::start(&[500, 302]).await;
    let id = sent(&proxy.client, "probe-told", &receiver.url()).await;
    let hooks = receiver.until(3).await;
    assert!(hooks.iter().all(|hook| hook.id == hooks[0].id && hook.id.starts_with("cb_")), "{hooks:?}");
    assert!(hooks.iter().all(|hook| hook.first_line == "POST /hook?token=t HTTP/1.1"), "redirects are not followed");
    assert_eq!(hooks[0].body, proxy.client.object(&id).await, "the request object, without its answer");
    assert_eq!((&hooks[0].body["id"], &hooks[0].body["state"]), (&json!(id), &json!("completed")));
    let kept = logged(&proxy.admin(), "delivered").await;
    let statuses: Vec<_> = kept["attempts"].as_array().unwrap().iter().map(|one| one["status_code"].clone()).collect();
    assert_eq!(statuses, [json!(500), json!(302), json!(204)]);
    assert!(counted(&proxy.admin(), "retried", 2).await && counted(&proxy.admin(), "delivered", 1).await);
    assert_eq!((&kept["request_id"], &kept["url"]), (&json!(id), &json!(format!("http://{}/hook", receiver.address))));
    let path = format!("/api/callbacks/{}/redeliver", hooks[0].id);
    assert_eq!(proxy.admin().post(&path, &[], "").await.status, 200);
    assert_eq!(receiver.until(4).await[3].id, hooks[0].id);
    let unknown = proxy.admin().post("/api/callbacks/cb_0/redeliver", &[], "").await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "not_found".to_owned()));
    proxy.stop().await;
}

#[tokio::test]
async fn cancelled_and_failed_requests_are_told_too_and_a_410_ends_it() {
    let provider = Provider::start(quick()).await;
    let tables = format!("{}[batching]\nidle = \"10m\"\nmax_age = \"10m\"", tables("allow_private = true"));
    let proxy = Proxy::with(&provider, &tables).await;
    let receiver = Receiver::start(&[410]).await;
    let id = sent(&proxy.client, "probe-gone", &receiver.url()).await;
    assert!(receiver.got.lock().is_empty());
    assert_eq!(proxy.client.delete(&format!("/nightbus/v1/requests/{id}")).await.status, 200);
    let hooks = receiver.until(1).await;
    assert_eq!(hooks[0].body["state"], "cancelled");
    let kept = logged(&proxy.admin(), "failed").await;
    assert_eq!((&kept["next_attempt_at"], &kept["attempts"][0]["status_code"]), (&Value::Null, &json!(410)));
    assert!(counted(&proxy.admin(), "gone", 1).await && !counted(&proxy.admin(), "given_up", 1).await);
    proxy.stop().await;
}

#[tokio::test]
async fn where_they_must_not_go_they_do_not() {
    let provider = Provider::start(quick()).await;
    let proxy = Proxy::with(&provider, &tables("")).await;
    let receiver = Receiver::start(&[]).await;
    let port = receiver.address.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        "soon".to_owned(),
    ] {
        let headers = [DEFER, ASYNC, ("x-nightbus-callback", url.as_str())];
        let reply = proxy.client.post(CHAT, &headers, chat("probe-refused").to_string()).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "invalid_request".to_owned()), "{url}");
        assert_eq!(reply.json()["error"]["param"], "x-nightbus-callback");
    }
    // A name is only known when it is looked up.
    sent(&proxy.client, "probe-name", &format!("https://localhost:{port}/")).await;
    let kept = eventually("a refused attempt", || async {
        let list = proxy.admin().get("/api/callbacks?state=pending").await.json();
        list["data"].get(0).filter(|one| one["attempts"][0].is_object()).cloned()
    })
    .await;
    let error = kept["attempts"][0]["error"].as_str().unwrap();
    assert!(error.contains("callbacks.allow"), "{error}");
    assert!(receiver.got.lock().is_empty());
    proxy.stop().await;
    let without = Proxy::over(&provider).await;
    let headers = [DEFER, ASYNC, ("x-nightbus-callback", "https://example.org/hook")];
    let reply = without.client.post(CHAT, &headers, chat("probe-refused").to_string()).await;
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("callbacks.secret"), "{reply:?}");
    without.stop().await;
    assert_eq!(provider.executions_of("probe-refused").await, 0);
}

/// Dies at `point` with a callback under way; the next run delivers it.
async fn survives(point: &str, at_least: usize) {
    let provider = Provider::start(quick()).await;
    let home = Home::new(&provider, &tables("allow_private = true"));
    let receiver = Receiver::start(&[]).await;
    let mut dying = home.start_to_die_at(point).await.unwrap();
    let id = sent(&dying.client, "probe-dies", &receiver.url()).await;
    assert!(!dying.ended().await.success());
    let running = home.start().await;
    let hooks = receiver.until(at_least).await;
    assert!(hooks.iter().all(|hook| hook.id == hooks[0].id && hook.body["id"] == json!(id)), "{hooks:?}");
    assert_eq!(hooks.last().unwrap().body["state"], "completed");
    running.kill().await;
    let kept = home.store().callbacks(None, None, 9).await.unwrap();
    assert_eq!((kept.len(), kept[0].request.to_string()), (1, id));
}

#[tokio::test]
async fn a_death_between_the_end_and_its_callback_loses_nothing() {
    survives("results-recorded:1", 1).await;
}

#[tokio::test]
async fn a_death_after_a_callback_sends_it_again() {
    survives("callback-sent:1", 2).await;
}
