//! The way of a callback: which address it may go to, and one POST over a connection of its own.
//!
//! Invariants: the addresses of a host are looked up and checked at every attempt, and the connection goes to an address
//! that was checked, so a name cannot be changed in between; no proxy of the environment is used, which would look names
//! up itself; redirects are not followed; of the answer only the status is read. URLs are never logged: they may hold secrets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{AllowedTarget, CallbacksConfig, TlsRoots};
use crate::domain::network::is_public;
use crate::upstream::error::chain;
use crate::upstream::tls::LazyTls;

/// From the look-up of the name to the answer's head.
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_URL: usize = 2_048;

/// Why a callback cannot go to a URL. Does not repeat the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It cannot be parsed, or has parts that a callback's URL has not.
    #[error("not a URL such as https://example.com/hook (at most 2,048 characters, no user name, no fragment)")]
    Url,
    /// Plain http.
    #[error("only https:// may be called, unless callbacks.allow lists the host")]
    Plain,
    /// A private address.
    #[error("the address is not public: list its host or network in callbacks.allow to permit it")]
    Private,
}

/// Why an attempt had no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    /// It may not go there.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The host has no address, cannot be reached, or does not answer as it should.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer within 15 s")]
    TimedOut,
}

/// A URL that callbacks may go to, as far as can be told without looking its host up.
#[derive(Debug)]
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    is_encrypted: bool,
}

impl Target {
    /// Checks a URL by its text.
    ///
    /// # Errors
    /// See [`TargetError`]; a host that is an address is checked as one.
    pub fn new(url: &str, policy: &CallbacksConfig) -> Result<Self, TargetError> {
        let uri: Uri =
            Some(url).filter(|url| url.len() <= MAX_URL).and_then(|url| url.parse().ok()).ok_or(TargetError::Url)?;
        let is_encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(TargetError::Url),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(TargetError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase();
        if host.is_empty() || url.contains('#') {
            return Err(TargetError::Url);
        }
        let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        let target = Self { host, port, is_encrypted, uri };
        match target.host.parse::<IpAddr>() {
            Ok(address) => {
                target.check(address, policy)?;
                if !is_encrypted && !target.is_listed(Some(address), policy) {
                    return Err(TargetError::Plain);
                }
            }
            // A host in one of the listed networks is only known as such when it is looked up.
            Err(_name) if !is_encrypted && !target.is_listed(None, policy) && !lists_networks(policy) => {
                return Err(TargetError::Plain);
            }
            Err(_name) => {}
        }
        Ok(target)
    }

    /// Whether the configuration lets callbacks go there whatever it is.
    fn is_listed(&self, address: Option<IpAddr>, policy: &CallbacksConfig) -> bool {
        policy.allow_private
            || policy.allow.iter().any(|allowed| match allowed {
                AllowedTarget::Host(host) => *host == self.host,
                AllowedTarget::Network(network) => address.is_some_and(|address| network.contains(address)),
            })
    }

    fn check(&self, address: IpAddr, policy: &CallbacksConfig) -> Result<(), TargetError> {
        if self.is_listed(Some(address), policy) {
            return Ok(());
        }
        if !is_public(address) {
            return Err(TargetError::Private);
        }
        if self.is_encrypted { Ok(()) } else { Err(TargetError::Plain) }
    }

    /// The host's addresses that may be called.
    async fn addresses(&self, policy: &CallbacksConfig) -> Result<Vec<SocketAddr>, CallbackError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found =
            found.map_err(|error| CallbackError::Unreachable(format!("the host cannot be looked up: {error}")))?;
        let (mut allowed, mut refused) = (Vec::new(), None);
        for address in found {
            match self.check(address.ip(), policy) {
                Ok(()) => allowed.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(error)) => Err(error.into()),
            (true, None) => Err(CallbackError::Unreachable("the host has no address".to_owned())),
        }
    }
}

fn lists_networks(policy: &CallbacksConfig) -> bool {
    policy.allow.iter().any(|allowed| matches!(allowed, AllowedTarget::Network(_)))
}

/// Sends callbacks.
#[derive(Debug)]
pub struct CallbackClient {
    tls: LazyTls,
}

impl CallbackClient {
    /// Trusts the same authorities as the providers' client, which has checked them.
    pub fn new(roots: TlsRoots) -> Self {
        Self { tls: LazyTls::of_checked(roots) }
    }

    /// One POST; gives the status of the answer.
    ///
    /// # Errors
    /// See [`CallbackError`].
    pub async fn post(
        &self,
        target: &Target,
        policy: &CallbacksConfig,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<u16, CallbackError> {
        tokio::time::timeout(TIMEOUT, self.send(target, policy, headers, body))
            .await
            .unwrap_or(Err(CallbackError::TimedOut))
    }

    async fn send(
        &self,
        target: &Target,
        policy: &CallbacksConfig,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<u16, CallbackError> {
        let addresses = target.addresses(policy).await?;
        let tcp = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|error| CallbackError::Unreachable(format!("no connection: {error}")))?;
        if !target.is_encrypted {
            return exchange(tcp, request(target, headers, body)?).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_invalid| TargetError::Url)?;
        let config = self.tls.get().await.map_err(|error| CallbackError::Unreachable(error.cause()))?;
        let stream = TlsConnector::from(Arc::clone(&config))
            .connect(name, tcp)
            .await
            .map_err(|error| CallbackError::Unreachable(format!("TLS: {}", chain(&error))))?;
        exchange(stream, request(target, headers, body)?).await
    }
}

fn request(target: &Target, headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, CallbackError> {
    let path = target.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = target.uri.authority().map_or("", http::uri::Authority::as_str);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_invalid| TargetError::Url)?;
    *request.headers_mut() = headers;
    let fixed = [
        (CONTENT_TYPE, "application/json"),
        (USER_AGENT, concat!("nightbus/", env!("CARGO_PKG_VERSION"))),
        (HOST, host),
    ];
    for (name, value) in fixed {
        request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|_invalid| TargetError::Url)?);
    }
    Ok(request)
}

/// The connection lives as long as this future: who waits no longer closes it.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<u16, CallbackError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| CallbackError::Unreachable(format!("no answer: {}", chain(&error)));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answer => answer.map(|answer| answer.status().as_u16()).map_err(broken),
        ended = &mut connection => {
            ended.map_err(broken)?;
            answer.await.map(|answer| answer.status().as_u16()).map_err(broken)
        }
    }
}

#[cfg(test)]
mod tests;
