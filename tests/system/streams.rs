//! What a stream carries while it waits, byte by byte, in the hours that tests do not have: on paused time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::common::client::{CHAT, chat};
use super::common::provider::Provider;
use super::common::proxy::{KEY, Proxy};

const WAIT: Duration = Duration::from_secs(600);
const PYTHON: &str = "user-agent: AsyncOpenAI/Python 3.54.0\r\nconnection: keep-alive\r\naccept-encoding: gzip\r\n";

async fn hours() -> (Provider, Proxy) {
    let provider = Provider::quick().await;
    provider.batch_seconds(WAIT.as_secs_f64()).await;
    let proxy = Proxy::with(&provider, "[batching]\nidle = \"60ms\"\nmax_age = \"5s\"\npoll = \"10s\"\n").await;
    (provider, proxy)
}

async fn send(on: &mut TcpStream, headers: &str, path: &str, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-nightbus-defer: true\r\n{headers}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    on.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

/// All reads until `end` has come, each with its time.
async fn read_until(on: &mut TcpStream, end: &str) -> Vec<(Instant, String)> {
    let mut reads: Vec<(Instant, String)> = Vec::new();
    let mut tail = String::new();
    while !tail.contains(end) {
        let mut bytes = vec![0; 64 * 1024];
        let count = on.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the connection ended after {reads:?}");
        let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
        tail.push_str(&text);
        reads.push((Instant::now(), text));
    }
    reads
}

fn all(reads: &[(Instant, String)]) -> String {
    reads.iter().map(|(_, text)| text.as_str()).collect()
}

fn streamed(text: &str) -> Value {
    let mut body = chat(text);
    body["stream"] = json!(true);
    body
}

#[tokio::test(start_paused = true)]
async fn a_client_that_times_chunks_gets_one_each_minute() {
    let (_provider, proxy) = hours().await;
    let mut stream = TcpStream::connect(proxy.client.to).await.unwrap();
    let began = Instant::now();
    send(&mut stream, PYTHON, CHAT, &streamed("probe-chunks")).await;
    let reads = read_until(&mut stream, "data: [DONE]").await;
    let mut last = began;
    let mut empty = 0;
    for (at, text) in &reads {
        if text.contains("data: ") {
            assert!(at.duration_since(last) <= Duration::from_secs(61), "{text}");
            last = *at;
        }
        empty += text.matches("\"choices\":[]}").count();
    }
    assert!(last.duration_since(began) >= WAIT && empty >= 9, "{empty}");
    assert!(all(&reads).matches(": nightbus queued").count() >= 3 * empty, "comments in between");
    assert!(all(&reads).contains("probe-chunks"), "and the answer");
    proxy.stop().await;
}

#[tokio::test(start_paused = true)]
async fn others_get_comments_alone() {
    let (_provider, proxy) = hours().await;
    let announced = format!("{PYTHON}x-stainless-read-timeout: 600\r\n");
    let responses = json!({"model": "gpt-6-luna", "input": "x", "stream": true});
    for (headers, path, body, end) in [
        (&*announced, CHAT, streamed("x"), "data: [DONE]"),
        (PYTHON, "/v1/responses", responses, "event: response.completed"),
        ("user-agent: OpenAI/Python 3.54.0\r\n", CHAT, streamed("y"), "data: [DONE]"),
    ] {
        let mut stream = TcpStream::connect(proxy.client.to).await.unwrap();
        send(&mut stream, headers, path, &body).await;
        let text = all(&read_until(&mut stream, end).await);
        assert!(text.contains(": nightbus queued") && !text.contains("\"choices\":[]"), "{text}");
    }
    proxy.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_interim_response_is_written_into_a_stream() {
    let (_provider, proxy) = hours().await;
    let headers = format!("{PYTHON}x-stainless-read-timeout: 30\r\n");
    let mut stream = TcpStream::connect(proxy.client.to).await.unwrap();
    // On one connection, whose interim responses to another call must not go on.
    send(&mut stream, &headers, CHAT, &chat("probe-plain")).await;
    let plain = all(&read_until(&mut stream, "probe-plain").await);
    assert!(plain.starts_with("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102"), "{plain}");
    for (path, body, end) in [
        (CHAT, streamed("x"), "data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("/v1/responses", json!({"model": "gpt-6-luna", "input": "x", "stream": true}), "\n\n\r\n0\r\n\r\n"),
    ] {
        send(&mut stream, &headers, path, &body).await;
        let text = all(&read_until(&mut stream, end).await);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(!text.contains("102 Processing"), "{text}");
        assert!(text.matches(": nightbus queued").count() > 50, "at a third of the time-out: {text}");
    }
    proxy.stop().await;
}
