//! The admin listener: health, metrics, the admin API (contract, section 10) and the dashboard.
//!
//! Invariants: reading never changes anything; callers appear only as fingerprints and bodies not at all; what changes
//! state needs a same-origin proof, and everything but the health checks and the page's own files needs the token where one is configured.
//! Started by `app`; the command line is its first user.

mod assets;
mod batches;
mod callbacks;
mod events;
mod flights;
mod guard;
mod health;
mod query;
mod reply;
mod requests;
mod routes;
mod savings;
mod status;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::ServerConfig;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::config::InForce;
use crate::domain::clock::Micros;
use crate::engine::Engine;
use crate::intake::listener::{ConnectionInfo, Listener};
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;

/// Further reasons why the process is not ready (none: it is), asked for at each `/readyz`.
pub type ReadyCheck = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Reads the configuration again, and takes of it what it can; with a mistake, nothing.
pub type Reload = Arc<dyn Fn() -> Result<ReloadReport, ReloadError> + Send + Sync>;

/// Why nothing was taken: mistakes in the configuration, a certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(pub Box<dyn std::error::Error + Send + Sync>);

/// What a reload did.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadReport {
    /// Keys that changed and are in force.
    pub taken: Vec<String>,
    /// Keys that changed and are in force after the next start.
    pub needs_restart: Vec<String>,
}

/// What the admin listener shows and acts on.
#[derive(Clone)]
pub struct AdminState {
    /// The running engine, and its store.
    pub engine: Engine,
    /// The configuration in force.
    pub config: InForce,
    /// Where calls are taken: with port 0 in the configuration, the port that the system gave.
    pub main_addr: SocketAddr,
    /// The numbers.
    pub telemetry: Telemetry,
    /// When the process started.
    pub started_at: Micros,
    /// What is running.
    pub version: &'static str,
    /// What else `/readyz` depends on.
    pub ready: ReadyCheck,
    /// Reads the configuration again; none: there is nothing to read it from.
    pub reload: Option<Reload>,
    /// Ends the event streams.
    pub stop: CancellationToken,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Serves until `tasks` are asked to stop; then open answers have the configured grace to finish.
pub async fn serve(listener: Listener, state: AdminState, tls: Option<Arc<ServerConfig>>, tasks: Tasks) {
    let grace = state.config.get().shutdown.grace;
    let service = move |request: Request<Incoming>, _connection: ConnectionInfo| {
        let state = state.clone();
        async move { state.answer(request).await }
    };
    listener.serve(service, tls, tasks, grace).await;
}

impl AdminState {
    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let (parts, _unread) = request.into_parts();
        routes::answer(self, &parts).await
    }
}
