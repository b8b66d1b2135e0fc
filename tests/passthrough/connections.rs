//! Keep-alive, pools, upgrades, HTTP/2, TLS, panics and stops.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nightbus::config::{TlsConfig, TlsRoots};
use nightbus::intake::listener::{ConnectionInfo, DEFAULT_BACKLOG, Listener};
use nightbus::intake::tls::Certificate;
use nightbus::tasks::Tasks;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::origin::{DEADLINE, Origin, Peer, within};
use crate::proxies::Authority;
use crate::{Proxy, Setup, error_of};

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn expect_ok(client: &mut Peer) {
    assert_eq!(client.head().await.first_line, "HTTP/1.1 200 OK");
    assert_eq!(client.body(2).await, b"ok");
}

#[tokio::test]
async fn connections_on_both_sides_are_used_again() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    for _round in 0..3 {
        upstream.head().await;
        upstream.send(OK).await;
        expect_ok(&mut client).await;
        client.send(GET).await;
    }
    upstream.head().await;
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_not_the_callers_problem() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    for _round in 0..20 {
        client.send("POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.body(2).await;
        upstream.send(OK).await;
        drop(upstream);
        expect_ok(&mut client).await;
    }
}

#[tokio::test]
async fn a_websocket_is_relayed_both_ways() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client
        .send(
            "GET /v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: a2V5\r\n\r\n",
        )
        .await;
    let mut upstream = origin.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.first_line, "GET /v1/realtime?model=m HTTP/1.1");
    assert_eq!(head.get("connection"), Some("Upgrade"));
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("sec-websocket-key"), Some("a2V5"));
    // The first frame comes in the same packet as the head.
    upstream
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: x\r\n\r\nhello",
        )
        .await;
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.get("connection"), Some("Upgrade"));
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("sec-websocket-accept"), Some("x"));
    assert_eq!(client.body(5).await, b"hello");
    for frame in [&b"\x81\x02hi"[..], &[0xff; 100_000]] {
        let (echoed, ()) = tokio::join!(upstream.body(frame.len()), client.send(frame));
        assert_eq!(echoed, frame);
        let (back, ()) = tokio::join!(client.body(frame.len()), upstream.send(&echoed));
        assert_eq!(back, frame);
    }
    drop(client);
    upstream.expect_end().await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno").await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 401 Unauthorized");
    assert_eq!(client.body(2).await, b"no");
    client.send(GET).await;
    assert_eq!(upstream.head().await.first_line, "GET /v1/models HTTP/1.1");
}

async fn over_http2<T>(io: T, origin: &Origin, proxy: &Proxy)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    proxy.tasks.spawn("http2 client", connection);
    let request = Request::post("http://127.0.0.1:5050/v1/embeddings?x=1")
        .version(Version::HTTP_2)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let (response, ()) = tokio::join!(within(sender.send_request(request)), async {
        let mut upstream = origin.accept().await;
        let head = upstream.head().await;
        assert_eq!(head.first_line, "POST /v1/embeddings?x=1 HTTP/1.1");
        let host = origin.addr().to_string();
        assert_eq!(head.lines(), [("content-length", "2"), ("cookie", "a=1; b=2"), ("host", host.as_str())]);
        assert_eq!(upstream.body(2).await, b"{}");
        upstream
            .send("HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    assert_eq!(within(response.into_body().collect()).await.unwrap().to_bytes(), "ok");

    // A client that resets its stream ends the call upstream.
    let request = Request::get("http://x/v1/models").body(Full::default()).unwrap();
    let call = sender.send_request(request);
    let mut upstream = tokio::select! {
        _ = call => panic!("nobody answered"),
        upstream = async {
            let mut upstream = origin.accept().await;
            upstream.head().await;
            upstream
        } => upstream,
    };
    upstream.expect_end().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_reaches_an_http1_provider() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    over_http2(TcpStream::connect(proxy.addr).await.unwrap(), &origin, &proxy).await;
}

#[tokio::test]
async fn a_tls_listener_speaks_both_protocols() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let mut setup = Setup::to(origin.addr());
    let files = TlsConfig {
        cert: authority.write("cert.pem", &authority.chain),
        key: authority.write("key.pem", &authority.key),
    };
    setup.tls = Some(Certificate::load(&files).unwrap().server_config().unwrap());
    let proxy = setup.start().await;
    for protocol in ["h2", "http/1.1"] {
        let mut config = authority.client_config();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let io = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), TcpStream::connect(proxy.addr).await.unwrap())
            .await
            .unwrap();
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        if protocol == "h2" {
            over_http2(io, &origin, &proxy).await;
        } else {
            let mut client = Peer::new(io);
            client.send(GET).await;
            let mut upstream = origin.accept().await;
            upstream.head().await;
            upstream.send(OK).await;
            assert_eq!(client.head().await.first_line, "HTTP/1.1 200 OK");
            assert_eq!(client.body(2).await, b"ok");
        }
    }
}

#[tokio::test]
async fn a_panic_costs_its_caller_a_500_and_nobody_else_anything() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut other = Peer::connect(proxy.addr).await;
    other.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("GET /v1/panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.1 500 Internal Server Error");
    assert_eq!(head.get("connection"), Some("close"));
    assert_eq!(error_of(&client.rest().await)["code"], "internal_error");
    upstream.send(OK).await;
    expect_ok(&mut other).await;
}

#[tokio::test]
async fn a_stop_closes_what_is_idle_and_lets_the_rest_finish() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut fresh = Peer::connect(proxy.addr).await;
    let mut idle = Peer::connect(proxy.addr).await;
    idle.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    expect_ok(&mut idle).await;
    let mut busy = Peer::connect(proxy.addr).await;
    busy.send(GET).await;
    upstream.head().await;
    let stopped = proxy.tasks.shutdown(DEADLINE);
    let (ended, ()) = tokio::join!(stopped, async {
        idle.expect_end().await;
        fresh.expect_end().await;
        upstream.send(OK).await;
        expect_ok(&mut busy).await;
        busy.expect_end().await;
    });
    assert!(ended, "all tasks end once the last response is out");
    assert!(TcpStream::connect(proxy.addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_finish_within_the_grace() {
    let origin = Origin::start().await;
    let mut setup = Setup::to(origin.addr());
    setup.grace = std::time::Duration::from_millis(50);
    let proxy = setup.start().await;
    let mut busy = Peer::connect(proxy.addr).await;
    busy.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.head().await;
    assert!(proxy.tasks.shutdown(DEADLINE).await);
    busy.expect_end().await;
    upstream.expect_end().await;
}

#[tokio::test]
async fn connect_is_refused() {
    let origin = Origin::start().await;
    let proxy = Setup::to(origin.addr()).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n").await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 400 Bad Request");
}

#[tokio::test]
async fn a_tls_provider_is_reached_with_the_configured_authority() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let mut setup = Setup::new(format!("https://localhost:{}/v1", origin.addr().port()));
    setup.upstream.tls_roots = TlsRoots::File(authority.write("ca.pem", &authority.ca));
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = authority.accept(origin.accept().await).await;
    let host = format!("localhost:{}", origin.addr().port());
    assert_eq!(upstream.head().await.lines(), [("host", host.as_str())]);
    upstream.send(OK).await;
    expect_ok(&mut client).await;
}

#[tokio::test]
async fn a_tls_provider_of_an_unknown_authority_is_not_trusted() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let proxy = Setup::new(format!("https://localhost:{}/v1", origin.addr().port())).start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let (head, ()) = tokio::join!(client.head(), authority.refused(origin.accept().await));
    assert_eq!(head.first_line, "HTTP/1.1 502 Bad Gateway");
    let length = head.get("content-length").unwrap().parse().unwrap();
    let error = error_of(&client.body(length).await);
    assert!(error["message"].as_str().unwrap().contains("TLS"), "{error}");
}

/// Whether a call could send signs of life, told to the client after one was sent.
async fn held_service(info: ConnectionInfo) -> http::Response<nightbus::body::Body> {
    let answer = info.interim.as_ref().map_or("none", |interim| if interim.send() { "sent" } else { "ended" });
    tokio::task::yield_now().await;
    http::Response::new(nightbus::body::full(answer))
}

#[tokio::test]
async fn held_calls_get_signs_of_life_on_http11_alone() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), DEFAULT_BACKLOG).await.unwrap();
    let addr = listener.local_addr();
    let tasks = Tasks::new();
    tasks.spawn("listener", listener.serve(|_request, info| held_service(info), None, tasks.clone(), DEADLINE));

    let mut client = Peer::connect(addr).await;
    for _call in 0..2 {
        client.send(GET).await;
        assert_eq!(client.head().await.first_line, "HTTP/1.1 102 Processing");
        assert_eq!(client.head().await.first_line, "HTTP/1.1 200 OK");
        assert_eq!(client.body(4).await, b"sent");
    }
    let mut old = Peer::connect(addr).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.head().await.first_line, "HTTP/1.0 200 OK");
    assert_eq!(old.rest().await, b"none");

    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tasks.spawn("http2 client", connection);
    let request = Request::get("http://x/").body(Full::<Bytes>::default()).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    assert_eq!(within(response.into_body().collect()).await.unwrap().to_bytes(), "none");
}
