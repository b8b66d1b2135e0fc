//! Providers that are not there, fall silent or break off; clients that leave.

use std::time::Duration;

use crate::origin::{Origin, Peer, dead_address};
use crate::{Setup, error_of};

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";

async fn error_answer(client: &mut Peer) -> serde_json::Value {
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(head.get("content-type"), Some("application/json"));
    assert_eq!(head.get("x-should-retry"), Some("true"));
    let length = head.get("content-length").unwrap().parse().unwrap();
    let error = error_of(&client.body(length).await);
    assert_eq!(error["code"], "upstream_unreachable");
    error
}

#[tokio::test]
async fn a_dead_provider_is_named_with_the_cause() {
    let proxy = Setup::to(dead_address().await).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let message = error_answer(&mut client).await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"openai\" cannot be reached"), "{message}");
    assert!(message.contains("refused"), "{message}");
    client.send(GET).await;
    error_answer(&mut client).await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    let proxy = Setup::new("http://nightbus-test.invalid/v1").start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let message = error_answer(&mut client).await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("cannot be resolved"), "{message}");
}

#[tokio::test]
async fn a_provider_that_closes_without_an_answer() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.body(2).await;
    drop(upstream);
    let message = error_answer(&mut client).await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"openai\" did not answer"), "{message}");
}

#[tokio::test]
async fn a_provider_that_never_answers_runs_into_the_first_byte_limit() {
    let origin = Origin::start().await;
    let mut setup = Setup::to(origin.addr());
    setup.upstream.first_byte_timeout = Duration::from_secs(2);
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    let message = error_answer(&mut client).await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("first byte"), "{message}");
    upstream.expect_end().await;
}

#[tokio::test]
async fn a_body_that_falls_silent_is_cut_not_ended() {
    let origin = Origin::start().await;
    let mut setup = Setup::to(origin.addr());
    setup.upstream.idle_timeout = Duration::from_millis(100);
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    client.head().await;
    assert_eq!(client.chunk().await, b"part");
    client.expect_end().await;
    upstream.expect_end().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_cut_not_ended() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    client.head().await;
    assert_eq!(client.chunk().await, b"part");
    drop(upstream);
    client.expect_end().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_call() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.body(2).await;
    drop(client);
    upstream.expect_end().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_it_upstream() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    client.head().await;
    assert_eq!(client.chunk().await, b"part");
    drop(client);
    // Nothing more is sent: the provider learns it from the connection alone.
    upstream.expect_end().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_upload_ends_it_upstream() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nbegin").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.body(5).await;
    drop(client);
    upstream.expect_end().await;
}
