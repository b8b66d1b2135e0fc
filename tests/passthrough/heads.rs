//! Method, path, query, headers, status: what goes on and what does not.

use crate::Setup;
use crate::origin::{Origin, Peer};

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client
        .send(
            "PROPFIND /v1/a//b/../c%2Fd/%7e;p=1?q=%20+&&x=[1]&q=2 HTTP/1.1\r\n\
             host: 127.0.0.1:5050\r\nAuthorization: Bearer sk-1\r\nx-dup: one\r\nX-Dup: two\r\nx-dup: one\r\n\
             x-nightbus-defer: false\r\nx-nightbus-tag: t\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n\
             keep-alive: timeout=5\r\nprefer: wait=3\r\nidempotency-key: k\r\naccept-encoding: gzip, br\r\n\
             content-length: 2\r\n\r\nhi",
        )
        .await;
    let mut upstream = origin.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.first_line, "PROPFIND /v1/a//b/../c%2Fd/%7e;p=1?q=%20+&&x=[1]&q=2 HTTP/1.1");
    let host = origin.addr().to_string();
    assert_eq!(
        head.lines(),
        [
            ("accept-encoding", "gzip, br"),
            ("authorization", "Bearer sk-1"),
            ("content-length", "2"),
            ("host", host.as_str()),
            ("idempotency-key", "k"),
            ("prefer", "wait=3"),
            ("x-dup", "one"),
            ("x-dup", "two"),
            ("x-dup", "one"),
        ]
    );
    assert_eq!(upstream.body(2).await, b"hi");
}

#[tokio::test]
async fn a_response_arrives_as_it_was_sent() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.lines(), [("host", origin.addr().to_string().as_str())]);
    upstream
        .send(
            "HTTP/1.1 429 Slow Down Please\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nretry-after: 7\r\n\
             x-request-id: r\r\ncontent-encoding: gzip\r\nkeep-alive: timeout=5\r\nconnection: x-hop\r\nx-hop: 1\r\n\
             content-length: 5\r\n\r\n\x1f\x0b\x08no",
        )
        .await;
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.1 429 Slow Down Please");
    assert_eq!(
        head.lines(),
        [
            ("content-encoding", "gzip"),
            ("content-length", "5"),
            ("retry-after", "7"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-request-id", "r"),
        ]
    );
    assert_eq!(client.body(5).await, b"\x1f\x0b\x08no");
}

#[tokio::test]
async fn responses_without_a_body_keep_their_headers_and_the_connection() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("HEAD /v1/files/f HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    let cases = [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 123456\r\netag: e\r\n\r\n",
            vec![("content-length", "123456"), ("etag", "e")],
        ),
        ("HTTP/1.1 304 Not Modified\r\netag: e\r\n\r\n", vec![("etag", "e")]),
        ("HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n", vec![("x-a", "b")]),
    ];
    for (response, expected) in cases {
        upstream.head().await;
        upstream.send(response).await;
        let head = client.head().await;
        assert_eq!(head.first_line, response.lines().next().unwrap());
        assert_eq!(head.lines(), expected);
        client.send("GET /v1/next HTTP/1.1\r\nhost: x\r\n\r\n").await;
    }
    assert_eq!(upstream.head().await.first_line, "GET /v1/next HTTP/1.1", "the connection must still be in step");
}

#[tokio::test]
async fn an_empty_post_stays_an_empty_post() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/batches/b/cancel HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    let head = origin.accept().await.head().await;
    assert_eq!(head.get("content-length"), Some("0"));
    assert_eq!(head.get("transfer-encoding"), None);
}

#[tokio::test]
async fn the_reason_is_told_and_the_key_replaced() {
    let origin = Origin::start().await;
    let mut setup = Setup::to(origin.addr());
    setup.reason = Some("endpoint");
    setup.replace_credential = Some("sk-ours".into());
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer client-key\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.get("authorization"), Some("Bearer sk-ours"));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.get("x-nightbus-passthrough"), Some("endpoint"));
}

#[tokio::test]
async fn old_clients_are_answered_in_their_version() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/models HTTP/1.0\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    assert_eq!(upstream.head().await.first_line, "GET /v1/models HTTP/1.1");
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.0 200 OK");
    assert_eq!(head.get("transfer-encoding"), None);
    assert_eq!(client.rest().await, b"hello");
}
