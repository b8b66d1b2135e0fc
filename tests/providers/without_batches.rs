//! A server of one's own, without batches: marked calls wait for a place, run live, and say that they cost what they cost.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nightbus::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::common::client::{ASYNC, Client, DEFER, chat, eventually};
use super::common::proxy::{Proxy, toml};

/// How many calls it may have at a time in these tests.
const MOST: usize = 2;
const CHAT: &str = "/local/v1/chat/completions";

/// A model server that answers nobody before its gate is open.
struct Server {
    addr: SocketAddr,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    gate: watch::Sender<bool>,
}

impl Server {
    async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (gate, open) = watch::channel(false);
        let counted = (Arc::clone(&running), Arc::clone(&most));
        let shared = tasks.clone();
        tasks.spawn("model server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (open, counted) = (open.clone(), counted.clone());
                let service = service_fn(move |_request| answer(open.clone(), counted.clone()));
                shared.spawn("model server's connection", async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { addr, running, most, gate }
    }

    async fn until_running(&self, count: usize) {
        eventually("calls run", || async { (self.running.load(Ordering::SeqCst) == count).then_some(()) }).await;
    }
}

async fn answer(
    mut open: watch::Receiver<bool>,
    (running, most): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) -> Result<Response<Full<Bytes>>, Infallible> {
    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    drop(open.wait_for(|open| *open).await);
    // Time for others to come, if anybody lets them.
    tokio::task::yield_now().await;
    running.fetch_sub(1, Ordering::SeqCst);
    let body = r#"{"id":"c","object":"chat.completion","created":1,"model":"own","choices":[{"index":0,"message":
        {"role":"assistant","content":"hi"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    let response = Response::builder().header("content-type", "application/json").body(Full::new(Bytes::from(body)));
    Ok(response.unwrap())
}

async fn proxy(server: &Server, more: &str) -> Proxy {
    let base = format!("http://{}/v1", server.addr);
    let local = format!("[providers.local]\nkind = \"vllm\"\nbase_url = \"{base}\"\nmax_live_calls = {MOST}\n{more}");
    Proxy::from_toml(&toml(&base, "store = \"memory\"", &local)).await
}

async fn accepted(client: &Client, text: &str) -> String {
    let reply = client.post(CHAT, &[DEFER, ASYNC], chat(text).to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn marked_calls_run_live_so_many_at_a_time_and_say_that_there_is_no_discount() {
    let tasks = Tasks::new();
    let server = Server::start(&tasks).await;
    let proxy = proxy(&server, "").await;
    let mut ids = Vec::new();
    for at in 0..6 {
        ids.push(accepted(&proxy.client, &format!("call {at}")).await);
    }
    server.until_running(MOST).await;
    server.gate.send_replace(true);
    for id in &ids {
        let reply = proxy.client.result(id).await;
        assert_eq!(reply.text(), "hi");
        assert_eq!((reply.header("x-nightbus-service"), reply.header("x-nightbus-discount")), ("sync", "none"));
        let object = proxy.client.object(id).await;
        assert_eq!((object["service"].as_str(), object["discount"].as_str()), (Some("sync"), Some("none")), "{object}");
    }
    assert_eq!(server.most.load(Ordering::SeqCst), MOST);
    let held = proxy.client.post(CHAT, &[DEFER, ("x-nightbus-fallback", "none")], chat("held").to_string()).await;
    assert_eq!((held.text().as_str(), held.header("x-nightbus-discount")), ("hi", "none"));
}

#[tokio::test]
async fn the_queue_for_a_place_is_bounded() {
    let tasks = Tasks::new();
    let server = Server::start(&tasks).await;
    let proxy = proxy(&server, "[limits]\nmax_queued_requests = 3\n").await;
    let mut ids = Vec::new();
    for at in 0..MOST {
        ids.push(accepted(&proxy.client, &format!("first {at}")).await);
    }
    server.until_running(MOST).await;
    for at in 0..3 {
        ids.push(accepted(&proxy.client, &format!("waiting {at}")).await);
    }
    let refused = proxy.client.post(CHAT, &[DEFER, ASYNC], chat("too many").to_string()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "queue_full"));
    server.gate.send_replace(true);
    for id in &ids {
        assert_eq!(proxy.client.result(id).await.status, 200);
    }
}

#[tokio::test]
async fn without_a_number_they_go_live_at_once_and_say_why() {
    let tasks = Tasks::new();
    let server = Server::start(&tasks).await;
    server.gate.send_replace(true);
    let base = format!("http://{}/v1", server.addr);
    let local = format!("[providers.local]\nkind = \"vllm\"\nbase_url = \"{base}\"\n");
    let proxy = Proxy::from_toml(&toml(&base, "store = \"memory\"", &local)).await;
    let reply = proxy.client.post(CHAT, &[DEFER], chat("now").to_string()).await;
    assert_eq!((reply.text().as_str(), reply.header("x-nightbus-passthrough")), ("hi", "provider-has-no-batch"));
}
