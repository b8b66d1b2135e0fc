//! Company proxies between nightbus and the provider, and the test authority for TLS.

use std::path::PathBuf;
use std::sync::Arc;

use nightbus::config::TlsRoots;
use nightbus::upstream::outbound_proxy::OutboundProxy;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::origin::{Origin, Peer, within};
use crate::{Setup, error_of};

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A certificate authority and a server certificate for `localhost`, as PEM texts.
pub(crate) struct Authority {
    pub(crate) ca: String,
    pub(crate) chain: String,
    pub(crate) key: String,
    directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self { ca, chain: leaf.pem(), key: key.serialize_pem(), directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn write(&self, name: &str, pem: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The TLS side of an origin.
    pub(crate) async fn accept(&self, peer: Peer) -> Peer<TlsStream<TcpStream>> {
        Peer::new(within(self.acceptor().accept(peer.stream)).await.unwrap())
    }

    /// A client that does not trust this authority breaks the handshake off.
    pub(crate) async fn refused(&self, peer: Peer) {
        assert!(within(self.acceptor().accept(peer.stream)).await.is_err());
    }
}

#[tokio::test]
async fn https_goes_through_a_connect_tunnel() {
    let authority = Authority::new();
    let company = Origin::start().await;
    let mut setup = Setup::new("https://localhost:9443/v1");
    setup.upstream.tls_roots = TlsRoots::File(authority.write("ca.pem", &authority.ca));
    setup.outbound = OutboundProxy::explicit("", &format!("http://me:secret@{}", company.addr()), "");
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut tunnel = company.accept().await;
    let head = tunnel.head().await;
    assert_eq!(head.first_line, "CONNECT localhost:9443 HTTP/1.1");
    assert_eq!(head.get("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
    tunnel.send("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let mut upstream = authority.accept(tunnel).await;
    let head = upstream.head().await;
    assert_eq!(head.first_line, "GET /v1/models HTTP/1.1");
    assert_eq!(head.lines(), [("host", "localhost:9443")], "the proxy's credential must stay outside");
    upstream.send(OK).await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_as_the_cause() {
    let company = Origin::start().await;
    let mut setup = Setup::new("https://localhost:9443/v1");
    setup.outbound = OutboundProxy::explicit("", &format!("http://me:secret@{}", company.addr()), "");
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut tunnel = company.accept().await;
    tunnel.head().await;
    tunnel.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.first_line, "HTTP/1.1 502 Bad Gateway");
    let length = head.get("content-length").unwrap().parse().unwrap();
    let message = error_of(&client.body(length).await)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("outbound proxy"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test]
async fn http_is_asked_for_in_absolute_form() {
    let company = Origin::start().await;
    let mut setup = Setup::new("http://gateway.example:8000/v1");
    setup.outbound = OutboundProxy::explicit(&format!("http://me:secret@{}", company.addr()), "", "");
    let proxy = setup.start().await;
    let mut client = Peer::connect(proxy.addr).await;
    client.send(GET).await;
    let mut upstream = company.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.first_line, "GET http://gateway.example:8000/v1/models HTTP/1.1");
    assert_eq!(head.lines(), [("host", "gateway.example:8000"), ("proxy-authorization", "Basic bWU6c2VjcmV0")]);
    upstream.send(OK).await;
    assert_eq!(client.head().await.first_line, "HTTP/1.1 200 OK");
}

/// The environment is read once per process, so this one runs itself again in a child that has it.
#[tokio::test]
async fn the_environments_proxy_is_used() {
    const ROLE: &str = "NIGHTBUS_TEST_PROXY_CHILD";
    if std::env::var_os(ROLE).is_some() {
        let client = nightbus::upstream::client::UpstreamClient::new(&Setup::new("http://x").upstream).unwrap();
        let request = http::Request::get("http://gateway.example/v1").body(nightbus::body::empty()).unwrap();
        assert_eq!(within(client.send(request)).await.unwrap().status(), 299);
        return;
    }
    let company = Origin::start().await;
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "proxies::the_environments_proxy_is_used"])
        .env(ROLE, "1")
        .env("HTTP_PROXY", format!("http://{}", company.addr()))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut upstream = company.accept().await;
    assert_eq!(upstream.head().await.first_line, "GET http://gateway.example/v1 HTTP/1.1");
    upstream.send("HTTP/1.1 299 Seen\r\ncontent-length: 0\r\n\r\n").await;
    assert!(within(child.wait()).await.unwrap().success());
}
