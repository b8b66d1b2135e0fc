//! A caller that leaves and calls again at once, with nothing that marks the second call as a retry: the server may
//! get to the new call before it has seen the old one's end.

use std::io::Write as _;
use std::net::TcpStream;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nightbus::tasks::Tasks;

use super::common::client::{CHAT, chat, eventually, probe};
use super::common::provider::Provider;
use super::common::proxy::{KEY, Proxy};

/// Each round is one chance for the wrong order.
const ROUNDS: usize = 25;
/// A lane leaves when all is said.
const PATIENT: &str = "[batching]\nidle = \"10m\"\nmax_age = \"10m\"\npoll = \"100ms\"\n";

async fn requests(proxy: &Proxy, tag: &str) -> usize {
    let list = proxy.client.get(&format!("/nightbus/v1/requests?tag={tag}")).await.json();
    list["data"].as_array().map_or(0, Vec::len)
}

async fn until_requests(proxy: &Proxy, tag: &str, count: usize) {
    eventually("so many requests", || async { (requests(proxy, tag).await >= count).then_some(()) }).await;
}

async fn until_held(proxy: &Proxy, count: u64) {
    let held = || proxy.app().engine().waiters().count();
    eventually("so many calls are held", || async move { (held() == count).then_some(()) }).await;
}

/// Made beforehand, so that nothing is left to do when its call is sent.
fn warm(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.client.to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn call(mut on: &TcpStream, tag: &str) {
    let body = chat(&format!("left {tag}")).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-nightbus-defer: true\r\n\
         x-nightbus-tag: {tag}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    on.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_follows_a_close_on_http_1_is_the_same_request() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    for round in 0..ROUNDS {
        let tag = format!("http1-{round}");
        let (old, new) = (warm(&proxy), warm(&proxy));
        call(&old, &tag);
        until_requests(&proxy, &tag, 1).await;
        until_held(&proxy, 1).await;
        drop(old);
        call(&new, &tag);
        // The first is counted no more, and the second has arrived.
        let other = format!("after-{round}");
        let last = warm(&proxy);
        call(&last, &other);
        until_requests(&proxy, &other, 1).await;
        until_held(&proxy, 2).await;
        assert_eq!(requests(&proxy, &tag).await, 1, "round {round}");
        drop((new, last));
        until_held(&proxy, 0).await;
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_follows_a_reset_on_http_2_is_the_same_request() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    let io = TokioIo::new(tokio::net::TcpStream::connect(proxy.client.to).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let tasks = Tasks::new();
    tasks.spawn("http2 client", connection);
    let mut found = 0;
    for round in 0..ROUNDS {
        let tag = format!("http2-{round}");
        // The new call's head is sent early: then it has found its request.
        let request = |timeout: &str| {
            Request::post(format!("http://{}{CHAT}", proxy.client.to))
                .header("authorization", format!("Bearer {KEY}"))
                .header("x-nightbus-defer", "true")
                .header("x-nightbus-tag", &tag)
                .header("x-stainless-timeout", timeout)
                .body(Full::new(Bytes::from(chat(&format!("left {tag}")).to_string())))
                .unwrap()
        };
        sender.ready().await.unwrap();
        let mut old = Box::pin(sender.send_request(request("600")));
        tokio::select! {
            answer = &mut old => panic!("too early: {answer:?}"),
            () = until_requests(&proxy, &tag, 1) => {}
        }
        until_held(&proxy, 1).await;
        drop(old);
        let new = sender.send_request(request("0.1")).await.unwrap();
        assert_eq!(new.status(), 200, "round {round}");
        found += usize::from(requests(&proxy, &tag).await == 1);
        drop(new);
        until_held(&proxy, 0).await;
    }
    // The client's own side may send the new call before it says that it left the old one.
    assert!(found * 10 >= ROUNDS * 8, "{found} of {ROUNDS}");
    drop(sender);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_calls_at_once_stay_requests_of_their_own() {
    let provider = Provider::quick().await;
    let proxy = Proxy::over(&provider).await;
    let body = chat(&probe(0));
    let replies = join_all((0..100).map(|_| proxy.client.held(CHAT, &body))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    let mut ids: Vec<_> = replies.iter().map(|reply| reply.header("x-nightbus-request-id").to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    proxy.stop().await;
}

/// Over the network a connection that is closed and one that only sends no more look the same until something is sent to
/// it. That nobody is there any more must be known before that: an equal call of who comes back finds its request only then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_connection_counts_as_left_and_its_request_is_found_again() {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    let (old, new) = (warm(&proxy), warm(&proxy));
    call(&old, "half");
    until_requests(&proxy, "half", 1).await;
    until_held(&proxy, 1).await;
    old.shutdown(std::net::Shutdown::Write).unwrap();
    until_held(&proxy, 0).await;
    call(&new, "half");
    until_held(&proxy, 1).await;
    assert_eq!(requests(&proxy, "half").await, 1);
    proxy.stop().await;
}
