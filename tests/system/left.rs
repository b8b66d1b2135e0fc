//! A caller that leaves and calls again at once, with nothing that marks the second call as a retry: the server may
//! get to the new call before it has seen the old one's end.

use std::io::Write as _;
use std::net::TcpStream;

use futures_util::future::join_all;

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

/// An HTTP/2 connection of which every frame goes out when it is told to: a client library keeps a reset and a new call in
/// two queues, and may send the call first.
struct Http2(TcpStream);

impl Http2 {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn open(proxy: &Proxy) -> Self {
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        first.extend(Self::frame(Self::SETTINGS, 0, 0, &[]));
        let connection = Self(warm(proxy));
        connection.send(&first);
        connection
    }

    fn send(&self, mut frames: &[u8]) {
        std::io::copy(&mut frames, &mut &self.0).unwrap();
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn call(stream: u32, tag: &str) -> Vec<u8> {
        let body = chat(&format!("left {tag}")).to_string();
        let authorization = format!("Bearer {KEY}");
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "x"),
            (":path", CHAT),
            ("authorization", &authorization),
            ("content-type", "application/json"),
            ("x-nightbus-defer", "true"),
            ("x-nightbus-tag", tag),
        ];
        // Literal fields with literal names (RFC 7541, section 6.2.2); all lengths fit seven bits.
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let block: Vec<u8> =
            head.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
        let mut frames = Self::frame(Self::HEADERS, Self::END_HEADERS, stream, &block);
        frames.extend(Self::frame(Self::DATA, Self::END_STREAM, stream, body.as_bytes()));
        frames
    }

    /// `CANCEL` (RFC 9113, section 7).
    fn reset(stream: u32) -> Vec<u8> {
        Self::frame(Self::RESET, 0, stream, &8_u32.to_be_bytes())
    }
}

/// How a client leaves an HTTP/2 call, and where it calls again.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    ResetAndStay,
    ResetAndMove,
    CloseAndMove,
}

async fn leaves_and_calls_again_on_http_2(leaving: Leaving) {
    let provider = Provider::quick().await;
    let proxy = Proxy::with(&provider, PATIENT).await;
    for round in 0..ROUNDS {
        let tag = format!("http2-{round}");
        let (old, new) = (Http2::open(&proxy), Http2::open(&proxy));
        old.send(&Http2::call(1, &tag));
        until_requests(&proxy, &tag, 1).await;
        until_held(&proxy, 1).await;
        let kept = match leaving {
            Leaving::ResetAndStay => {
                old.send(&[Http2::reset(1), Http2::call(3, &tag)].concat());
                Some(old)
            }
            Leaving::ResetAndMove => {
                old.send(&Http2::reset(1));
                new.send(&Http2::call(1, &tag));
                Some(old)
            }
            Leaving::CloseAndMove => {
                drop(old);
                new.send(&Http2::call(1, &tag));
                None
            }
        };
        // The first is counted no more, and the second has arrived.
        let other = format!("after-{round}");
        let last = warm(&proxy);
        call(&last, &other);
        until_requests(&proxy, &other, 1).await;
        until_held(&proxy, 2).await;
        assert_eq!(requests(&proxy, &tag).await, 1, "round {round}");
        drop((kept, new, last));
        until_held(&proxy, 0).await;
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_follows_a_reset_on_http_2_is_the_same_request() {
    leaves_and_calls_again_on_http_2(Leaving::ResetAndStay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_follows_a_reset_on_another_http_2_connection_is_the_same_request() {
    leaves_and_calls_again_on_http_2(Leaving::ResetAndMove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_follows_the_end_of_an_http_2_connection_is_the_same_request() {
    leaves_and_calls_again_on_http_2(Leaving::CloseAndMove).await;
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
