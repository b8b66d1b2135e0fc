//! The composition root: configuration -> store -> providers -> engine -> listeners, and the ordered stop.

mod reload;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::time::Instant;

use crate::admin::{self, AdminState, Reload, ReloadError, ReloadReport};
use crate::app::reload::Reloader;
use crate::config::{BatchWire, BatchingConfig, Config, ConfigErrors, InForce, ProviderConfig, TlsConfig};
use crate::domain::clock::SystemClock;
use crate::engine::{Engine, EngineParts};
use crate::intake::listener::{DEFAULT_BACKLOG, Listener};
use crate::intake::service::Intake;
use crate::intake::tls::{Certificate, TlsError};
#[cfg(feature = "otel")]
use crate::otel;
use crate::store::observer::CommitObserver;
use crate::store::{self, SharedStore, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::upstream::anthropic::AnthropicProvider;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::error::UpstreamError;
use crate::upstream::gemini::GeminiProvider;
use crate::upstream::mistral::MistralProvider;
use crate::upstream::openai::OpenAiProvider;
use crate::upstream::openrouter::OpenRouterProvider;
use crate::upstream::provider::BatchProvider;
use crate::upstream::together::TogetherProvider;
use crate::upstream::xai::XaiProvider;

/// A running nightbus.
pub struct App {
    main_addr: SocketAddr,
    admin_addr: SocketAddr,
    engine: Engine,
    store: SharedStore,
    tasks: Tasks,
    grace: Duration,
    reload: Option<Reload>,
}

/// Reads the configuration again.
pub type Loader = Arc<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("main_addr", &self.main_addr).finish_non_exhaustive()
    }
}

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The HTTP client cannot be made.
    #[error("upstream: {0}")]
    Upstream(#[from] UpstreamError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Spans cannot be sent as the configuration says.
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Collector(#[from] otel::CollectorError),
}

/// Starts everything; when it returns both listeners answer.
pub async fn start(config: Config, tasks: Tasks) -> Result<App, StartError> {
    start_reloadable(config, None, tasks).await
}

/// The same, with a way to read the configuration again while it runs.
pub async fn start_reloadable(config: Config, loader: Option<Loader>, tasks: Tasks) -> Result<App, StartError> {
    raise_open_files(config.limits.max_held_connections);
    let config = Arc::new(config);
    let telemetry = Telemetry::new();
    let store = open_store(&config, &telemetry).await?;
    let client = UpstreamClient::new(&config.upstream)?;
    let parts = EngineParts {
        store: Arc::clone(&store),
        clock: Arc::new(SystemClock),
        tasks: tasks.clone(),
        telemetry: telemetry.clone(),
        providers: providers(&config, &client),
    };
    let main = bind("listen", config.listen).await?;
    let admin_listener = bind("admin_listen", config.admin_listen).await?;
    let tls = certificate(config.tls.as_ref(), &tasks)?;
    let admin_tls = certificate(config.admin.tls.as_ref(), &tasks)?;
    let (main_server, admin_server) = (server(tls.as_ref())?, server(admin_tls.as_ref())?);
    // Before the engine, which goes on with what an earlier run left.
    send_spans(&config, &store, &telemetry, &tasks, &client)?;
    let engine = Engine::start(&config, parts).await?;
    let intake = Intake::new(Arc::clone(&config), engine.clone(), tasks.clone(), client);
    let intake = Arc::new(RwLock::new(intake));
    let in_force = InForce::new(Arc::clone(&config));
    let reload = loader.map(|loader| {
        let (in_force, intake, engine) = (in_force.clone(), Arc::clone(&intake), engine.clone());
        Reloader { loader, in_force, intake, engine, certificate: tls.clone(), admin_certificate: admin_tls.clone() }
            .into_reload()
    });
    let main_addr = main.local_addr();
    let app = App {
        reload: reload.clone(),
        main_addr,
        admin_addr: admin_listener.local_addr(),
        engine: engine.clone(),
        store,
        tasks: tasks.clone(),
        grace: config.shutdown.grace,
    };
    let service = move |request, info| {
        let intake = intake.read().clone();
        intake.handle(request, info)
    };
    tasks.spawn("main listener", main.serve(service, main_server, tasks.clone(), config.shutdown.grace));
    let draining = engine.clone();
    let state =
        AdminState {
            engine,
            main_addr,
            started_at: telemetry.started_at(),
            telemetry,
            version: env!("CARGO_PKG_VERSION"),
            ready: Arc::new(move || {
                if draining.is_draining() { vec!["the process is stopping".to_owned()] } else { Vec::new() }
            }),
            stop: tasks.stop_token().clone(),
            reload,
            config: in_force,
        };
    tasks.spawn("admin listener", admin::serve(admin_listener, state, admin_server, tasks.clone()));
    Ok(app)
}

/// Has spans sent, where a collector is named.
#[cfg(feature = "otel")]
fn send_spans(
    config: &Config,
    store: &SharedStore,
    telemetry: &Telemetry,
    tasks: &Tasks,
    client: &UpstreamClient,
) -> Result<(), StartError> {
    let Some(otel) = &config.otel else { return Ok(()) };
    let (store, telemetry) = (Arc::clone(store), telemetry.clone());
    let parts = otel::OtelParts { store, telemetry, tasks: tasks.clone(), client: client.clone() };
    Ok(otel::start(otel, parts)?)
}

/// The keys of `[otel]` are refused by this build; the standard variables may be meant for others, too.
#[cfg(not(feature = "otel"))]
fn send_spans(
    config: &Config,
    _store: &SharedStore,
    _telemetry: &Telemetry,
    _tasks: &Tasks,
    _client: &UpstreamClient,
) -> Result<(), StartError> {
    if config.otel.is_some() {
        tracing::info!("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this build sends no spans (feature `otel`)");
    }
    Ok(())
}

/// A listener's certificate, which is renewed while it runs; none: plain TCP.
fn certificate(config: Option<&TlsConfig>, tasks: &Tasks) -> Result<Option<Arc<Certificate>>, StartError> {
    let Some(config) = config else { return Ok(None) };
    let certificate = Certificate::load(config)?;
    tasks.spawn("certificate", Arc::clone(&certificate).reload_when_changed(tasks.stop_token().clone()));
    Ok(Some(certificate))
}

fn server(certificate: Option<&Arc<Certificate>>) -> Result<Option<Arc<ServerConfig>>, StartError> {
    Ok(certificate.map(Certificate::server_config).transpose()?)
}

impl App {
    /// Where calls are taken.
    pub const fn main_addr(&self) -> SocketAddr {
        self.main_addr
    }

    /// Where the admin API is.
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Reads the configuration again; none: it was started without a way to.
    pub fn reload(&self) -> Option<Result<ReloadReport, ReloadError>> {
        self.reload.as_ref().map(|reload| reload())
    }

    /// The running engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The ordered stop (contract, section 7): no new deferrals and no new batches; what finishes within the grace is
    /// still answered; nothing submitted is cancelled; everything is on disk.
    pub async fn shutdown(mut self) {
        // It holds the intake, and with it the way in to a task that ends when nothing can come any more.
        self.reload = None;
        let until = Instant::now() + self.grace;
        self.engine.drain();
        while self.engine.waiters().count() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rest = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(500));
        if !self.tasks.shutdown(rest).await {
            tracing::info!("some connections did not end within shutdown.grace");
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

async fn open_store(config: &Arc<Config>, telemetry: &Telemetry) -> Result<SharedStore, StoreError> {
    let (config, observer) = (Arc::clone(config), Arc::new(Observed(telemetry.clone())));
    let open = move || store::open(config.store, &config.data_dir, config.master_key.as_ref(), observer);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(panicked) => Err(StoreError::Unreadable(panicked.to_string())),
    }
}

/// The batch API of a configured provider.
pub(crate) fn batch_provider(
    provider: &ProviderConfig,
    batching: &BatchingConfig,
    client: &UpstreamClient,
) -> Arc<dyn BatchProvider> {
    let capability = Capability::of(provider, batching);
    match provider.kind.batch_wire() {
        BatchWire::Anthropic => Arc::new(AnthropicProvider::new(client.clone(), &provider.base_url, capability)),
        BatchWire::Mistral => Arc::new(MistralProvider::new(client.clone(), &provider.base_url, capability)),
        BatchWire::Gemini => Arc::new(GeminiProvider::new(client.clone(), &provider.base_url, capability)),
        BatchWire::Xai => Arc::new(XaiProvider::new(client.clone(), &provider.base_url, capability)),
        BatchWire::OpenRouter => {
            let prefix = provider.endpoint_prefix.as_deref().unwrap_or("/api/v1");
            Arc::new(OpenRouterProvider::new(client.clone(), &provider.base_url, prefix, capability))
        }
        BatchWire::Together => Arc::new(TogetherProvider::new(client.clone(), &provider.base_url, capability)),
        // One without batches is asked for live calls alone.
        BatchWire::OpenAi | BatchWire::None => {
            let version = provider.api_version.as_deref();
            Arc::new(OpenAiProvider::new(client.clone(), &provider.base_url, version, capability))
        }
    }
}

/// The batch APIs by provider name.
fn providers(config: &Config, client: &UpstreamClient) -> HashMap<String, Arc<dyn BatchProvider>> {
    let provider = |own: &ProviderConfig| batch_provider(own, &config.batching, client);
    config.providers.iter().map(|(name, own)| (name.clone(), provider(own))).collect()
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<Listener, StartError> {
    Listener::bind(address, DEFAULT_BACKLOG).await.map_err(|error| StartError::Listen { key, address, error })
}

/// Every held connection is an open file. What the system gives is taken; too little is said at once.
fn raise_open_files(held_connections: u64) {
    const OTHER_FILES: u64 = 256;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < held_connections.saturating_add(OTHER_FILES) => tracing::warn!(
            limit,
            held_connections,
            "fewer files may be open than connections may be held (limits.max_held_connections): raise `ulimit -n` for more"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files is unknown"),
    }
}

/// Counts the store's commits.
#[derive(Debug)]
struct Observed(Telemetry);

impl CommitObserver for Observed {
    fn commit(&self, rows: usize, seconds: f64) {
        self.0.store_commit(rows, seconds);
    }
}
