//! Bodies and trailers: as they arrive, both ways, no faster than they are read.

use tokio::io::AsyncWriteExt as _;

use crate::Setup;
use crate::origin::{Origin, Peer, within};

const LARGE: usize = 64 << 20;

#[tokio::test]
async fn stream_chunks_arrive_one_by_one() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.lines(), [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]);
    for number in 0..5 {
        // The next event is sent only after the client has this one: a proxy that holds back would hang here.
        let event = format!("data: {{\"n\":{number}}}\n\n");
        upstream.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        assert_eq!(client.chunk().await, event.as_bytes());
    }
    upstream.send("0\r\n\r\n").await;
    assert!(client.chunk().await.is_empty());
}

#[tokio::test]
async fn upload_chunks_arrive_one_by_one_with_trailers() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.get("transfer-encoding"), Some("chunked"));
    assert_eq!(head.get("trailer"), Some("x-sum"));
    for part in ["first", "second"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        assert_eq!(upstream.chunk().await, part.as_bytes());
    }
    client.send("0\r\nx-sum: 42\r\n\r\n").await;
    assert!(upstream.chunk().await.is_empty());
    assert_eq!(upstream.trailers().await, ["x-sum: 42"]);
}

#[tokio::test]
async fn response_trailers_reach_a_client_that_takes_them() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/x HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.get("te"), Some("trailers"));
    upstream
        .send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             2\r\nok\r\n0\r\nx-sum: 42\r\n\r\n",
        )
        .await;
    client.head().await;
    assert_eq!(client.chunk().await, b"ok");
    assert!(client.chunk().await.is_empty());
    assert_eq!(client.trailers().await, ["x-sum: 42"]);
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    drop(upstream);
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.1 200 OK");
    assert_eq!(client.chunk().await, b"until the end");
    assert!(client.chunk().await.is_empty());
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/files HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.get("expect"), Some("100-continue"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 100 Continue");
    client.send("hello").await;
    assert_eq!(upstream.body(5).await, b"hello");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 200 OK");
    assert_eq!(client.body(2).await, b"ok");
}

#[tokio::test]
async fn a_refusal_before_the_upload_ends_reaches_the_client() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbegin").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    assert_eq!(upstream.body(5).await, b"begin");
    upstream.send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig").await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 413 Too Large");
    assert_eq!(client.body(3).await, b"big");
}

/// Writes until the other side takes no more, and returns how much it took.
async fn fill(peer: &mut Peer, limit: usize) -> usize {
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < limit {
        let now = block.len().min(limit - sent);
        let patience = std::time::Duration::from_millis(700);
        match tokio::time::timeout(patience, peer.stream.write(&block[..now])).await {
            Ok(count) => sent += count.unwrap(),
            Err(_stalled) => break,
        }
    }
    sent
}

async fn count(peer: &mut Peer, length: usize) {
    let mut left = length;
    while left > 0 {
        let part = peer.body(left.min(1 << 20)).await;
        assert!(part.iter().all(|byte| *byte == b'x'));
        left -= part.len();
    }
}

#[tokio::test]
async fn a_large_download_waits_for_a_client_that_does_not_read() {
    let origin = Origin::start_narrow();
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect_narrow(proxy.addr).await;
    client.send("GET /v1/files/f/content HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    let sent = fill(&mut upstream, LARGE).await;
    assert!(sent < LARGE / 2, "{sent} bytes were taken although nobody reads");
    let (_sent, ()) =
        tokio::join!(async { within(upstream.stream.write_all(&vec![b'x'; LARGE - sent])).await.unwrap() }, async {
            assert_eq!(client.head().await.get("content-length"), Some(LARGE.to_string().as_str()));
            count(&mut client, LARGE).await;
        });
}

#[tokio::test]
async fn a_large_upload_waits_for_a_provider_that_does_not_read() {
    let origin = Origin::start_narrow();
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect_narrow(proxy.addr).await;
    client
        .send(format!(
            "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n\
             content-length: {LARGE}\r\n\r\n"
        ))
        .await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.get("content-length"), Some(LARGE.to_string().as_str()));
    let sent = fill(&mut client, LARGE).await;
    assert!(sent < LARGE / 2, "{sent} bytes were taken although nobody reads");
    tokio::join!(
        async { within(client.stream.write_all(&vec![b'x'; LARGE - sent])).await.unwrap() },
        count(&mut upstream, LARGE)
    );
}
