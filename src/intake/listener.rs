//! A listening socket: accepts connections and gives each one to a task of its own.
//!
//! Invariants: no failed `accept` ends the listener or makes it spin; a stop closes the socket at once, lets
//! what is being answered finish within the grace, and closes what is idle. Used for the main and the admin listener.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::body::Body;
use crate::engine::line::Carrier;
use crate::intake::connection::{ConnectionContext, Protocols};
use crate::intake::interim::InterimSender;
use crate::tasks::Tasks;

/// Connections that may wait to be accepted: thousands of callers start at once.
pub const DEFAULT_BACKLOG: u32 = 8_192;

/// Pause after an `accept` that failed for want of resources, so that running calls can give some back.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// What is known about the connection a request came on, and its way to signs of life.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address it called.
    pub local: SocketAddr,
    /// Whether TLS protects it.
    pub encrypted: bool,
    /// Sends `102 Processing` for this call; none on HTTP/1.0 and HTTP/2.
    pub interim: Option<InterimSender>,
    /// The connection that it came on.
    pub(crate) carrier: Option<Carrier>,
}

/// A bound socket that serves when told to.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// Binds `address` with room for `backlog` connections not yet accepted (the system may cap it).
    ///
    /// # Errors
    /// The address is taken or not ours.
    #[expect(
        clippy::unused_async,
        reason = "registering the socket needs a runtime, which only an async fn makes sure of"
    )]
    pub async fn bind(address: SocketAddr, backlog: u32) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(backlog)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// The bound address, with the port the system chose.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `tasks` are asked to stop, then returns; the connections, which `tasks` own, have `grace` to finish.
    ///
    /// `service` answers one request. Its future is dropped when the client goes away; if it panics, the call is
    /// answered 500 and the connection closed.
    pub async fn serve<S, F>(self, service: S, tls: Option<Arc<ServerConfig>>, tasks: Tasks, grace: Duration)
    where
        S: Fn(Request<Incoming>, ConnectionInfo) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let protocols = Arc::new(Protocols::new(&tasks));
        let tls = tls.map(TlsAcceptor::from);
        let stop = tasks.stop_token().clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                    continue;
                }
            };
            let info = ConnectionInfo {
                peer,
                local: local_of(&stream, self.local),
                encrypted: tls.is_some(),
                interim: None,
                carrier: None,
            };
            let context = ConnectionContext {
                service: service.clone(),
                info,
                protocols: Arc::clone(&protocols),
                tasks: tasks.clone(),
                grace,
            };
            tasks.spawn("handshake", Box::pin(context.serve(stream, tls.clone())));
        }
    }
}

/// Small answers and stream chunks must not wait for more; a socket without the option still works.
fn local_of(stream: &TcpStream, fallback: SocketAddr) -> SocketAddr {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    stream.local_addr().unwrap_or(fallback)
}

/// The client went away before it was accepted: the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
