//! The typed configuration: what the keys of `proxy.toml` mean (contract, section 8).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;
use secrecy::SecretString;

use super::callbacks::AllowedTarget;
use crate::domain::pricing::PriceTable;
use crate::domain::webhook::{Signer, Verifier};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Main listener.
    pub listen: SocketAddr,
    /// Admin listener.
    pub admin_listen: SocketAddr,
    /// Where the store and its key live.
    pub data_dir: PathBuf,
    /// Which store.
    pub store: StoreKind,
    /// How long results are kept after a request ended.
    pub retention: Duration,
    /// The file `prices`, if one is named.
    pub price_file: Option<PathBuf>,
    /// What calls cost: that file's prices over the built-in ones.
    pub prices: Arc<PriceTable>,
    /// The provider of `/v1/…`.
    pub default_provider: String,
    /// Listen beyond loopback although anybody can call.
    pub allow_unauthenticated: bool,
    /// By name; the name is also the path prefix (`/groq/v1/…`).
    pub providers: BTreeMap<String, ProviderConfig>,
    /// `[[routes]]`: the first whose glob fits decides.
    pub routes: Vec<RouteConfig>,
    /// `[deferral]`
    pub deferral: DeferralConfig,
    /// `[batching]`
    pub batching: BatchingConfig,
    /// `[hold]`
    pub hold: HoldConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[shutdown]`
    pub shutdown: ShutdownConfig,
    /// `[upstream]`
    pub upstream: UpstreamConfig,
    /// `[cors]`
    pub cors: CorsConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[tls]`; none: plain TCP.
    pub tls: Option<TlsConfig>,
    /// `[log]`
    pub log: LogConfig,
    /// `[[client_keys]]`; empty: callers use the provider's own key.
    pub client_keys: Vec<ClientKey>,
    /// What seals the store in place of the key file in `data_dir` (`NIGHTBUS_MASTER_KEY`), as it was given.
    pub master_key: Option<SecretString>,
    /// `[flight]`
    pub flight: FlightConfig,
    /// `[budget]`
    pub budget: BudgetConfig,
    /// `[callbacks]`
    pub callbacks: CallbacksConfig,
    /// `[otel]`; none: no spans.
    pub otel: Option<OtelConfig>,
}

/// Which store keeps the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// SQLite in `data_dir`: survives everything.
    Sqlite,
    /// Memory only: everything is lost with the process.
    Memory,
}

pub use super::kinds::{BatchWire, KeyHeader, ProviderKind};

/// One provider. Limits that are `None` are the kind's own (capability table).
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Its name and path prefix.
    pub name: String,
    /// Its API.
    pub kind: ProviderKind,
    /// With the `/v1` at its end, without a trailing slash.
    pub base_url: http::Uri,
    /// nightbus's own key for it, and the environment variable it came from. None: the caller's credential.
    pub api_key: Option<ProviderKey>,
    /// Requests per batch.
    pub max_requests: Option<u32>,
    /// Bytes per batch.
    pub max_bytes: Option<u64>,
    /// Enqueued prompt tokens per model.
    pub in_flight_tokens: Option<u64>,
    /// Batches created in one hour.
    pub batches_per_hour: Option<u32>,
    /// `api-version` of every call (Azure OpenAI, providers.md, section 4.1).
    pub api_version: Option<String>,
    /// How long a batch may take, as the provider writes it; none: the kind's own.
    pub completion_window: Option<String>,
    /// The shortest pause between two looks at one batch; none: the kind's own.
    pub min_poll: Option<Duration>,
    /// How long requests wait whose batch may have been created and cannot be looked up; none: the kind's own.
    pub creation_patience: Option<Duration>,
    /// What stands before an endpoint in the creation of a batch; none: the kind's own.
    pub endpoint_prefix: Option<String>,
    /// Without batches: how many marked calls run live at a time; none: they go live at once.
    pub max_live_calls: Option<u32>,
    /// Marks of the prompt cache without a time ask for an hour in deferred calls.
    pub cache_hour: bool,
    /// The background windows that may be used, `8h` and `2h`; none: the kind's own.
    pub background_windows: Option<Vec<String>>,
    /// Endpoints that can be batched, such as `/v1/chat/completions`.
    pub endpoints: Option<Vec<String>>,
    /// Checks its webhooks; none: they are not taken.
    pub webhooks: Option<ProviderWebhooks>,
}

/// A provider that says by webhooks that a batch has ended.
#[derive(Clone, Debug)]
pub struct ProviderWebhooks {
    /// The environment variable of the secret (`webhook_secret_env`).
    pub env: String,
    /// Checks them with it.
    pub verifier: Verifier,
}

/// One `[[routes]]`.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// On the body's `model`, without `:batch`.
    pub model: GlobMatcher,
    /// Name of the provider that gets the call.
    pub provider: String,
    /// The model it is sent with; none: the caller's.
    pub rename: Option<String>,
}

/// A provider's key, held by nightbus.
#[derive(Clone, Debug)]
pub struct ProviderKey {
    /// The environment variable (`api_key_env`).
    pub env: String,
    /// Its value at start.
    pub value: SecretString,
}

/// What happens to calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeferralMode {
    /// Marked calls are deferred.
    On,
    /// Everything passes through live, and what would have been deferred is noted.
    Observe,
    /// Everything passes through live.
    Off,
}

pub use crate::domain::service::Service;

/// `[deferral]`
#[derive(Clone, Debug)]
pub struct DeferralConfig {
    /// On, observing or off.
    pub mode: DeferralMode,
    /// Whether a call that nothing marks is deferred.
    pub default: bool,
    /// For requests that batch cannot serve, in this order; empty: none.
    pub fallback: Vec<Service>,
    /// First match decides.
    pub rules: Vec<DeferralRule>,
}

/// One `[[deferral.rules]]`: all given conditions must hold.
#[derive(Clone, Debug)]
pub struct DeferralRule {
    /// On the body's `model`.
    pub model: Option<GlobMatcher>,
    /// On the path as the client sent it.
    pub path: Option<GlobMatcher>,
    /// On the `User-Agent` header.
    pub user_agent: Option<GlobMatcher>,
    /// On `x-nightbus-tag`.
    pub tag: Option<String>,
    /// On the name of the client key.
    pub key: Option<String>,
    /// The decision.
    pub defer: bool,
}

/// `[batching]`
#[derive(Clone, Debug)]
pub struct BatchingConfig {
    /// A lane is flushed when nothing arrived for this long.
    pub idle: Duration,
    /// … or its oldest request is this old.
    pub max_age: Duration,
    /// How often one request may ride.
    pub max_attempts: u32,
    /// Upper bound between two polls of one batch.
    pub poll: Duration,
    /// Below the provider's own limit.
    pub max_requests: Option<u32>,
    /// Below the provider's own limit.
    pub max_bytes: Option<u64>,
    /// Below the provider's own limit.
    pub in_flight_tokens: Option<u64>,
}

/// `[hold]`
#[derive(Clone, Debug)]
pub struct HoldConfig {
    /// When the `200` of a held call goes out.
    pub commit_after: Duration,
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// How long a queued request without a waiter is kept.
    pub orphan_grace: Duration,
    /// Send `102 Processing` to clients known to read past it.
    pub interim_102: bool,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Largest body of a deferred call.
    pub max_body_bytes: u64,
    /// Requests that may wait at once.
    pub max_queued_requests: u64,
    /// Connections that may wait at once.
    pub max_held_connections: u64,
}

/// `[shutdown]`
#[derive(Clone, Debug)]
pub struct ShutdownConfig {
    /// How long a stop waits for what finishes by itself.
    pub grace: Duration,
}

/// `[upstream]`
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// To a connection, TLS included.
    pub connect_timeout: Duration,
    /// From the request to the response head. Live calls of large models take minutes.
    pub first_byte_timeout: Duration,
    /// Between two frames of a body.
    pub idle_timeout: Duration,
    /// Which certificates are trusted.
    pub tls_roots: TlsRoots,
}

/// Which certificate authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsRoots {
    /// The system's if there are any, else the bundled ones.
    Auto,
    /// The system's (honours `SSL_CERT_FILE`).
    System,
    /// Mozilla's list, built in.
    Bundled,
    /// A PEM file.
    File(PathBuf),
}

/// `[cors]`
#[derive(Clone, Debug)]
pub struct CorsConfig {
    /// Origins of web pages that may call the main listener.
    pub allow_origins: Vec<String>,
    /// Public names under which the main listener is called, in lower case, with or without a port.
    pub allow_hosts: Vec<String>,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Needed on every admin call when set.
    pub token: Option<SecretString>,
    /// `Host` values accepted beside loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Whether the dashboard may show bodies.
    pub show_bodies: bool,
    /// `[admin.tls]`; none: plain TCP.
    pub tls: Option<TlsConfig>,
}

/// `[tls]`, `[admin.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `text` or `json`.
    pub json: bool,
    /// An `env_filter` directive such as `info` or `nightbus=debug`.
    pub level: String,
}

/// One `[[client_keys]]`.
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// For rules and the ledger.
    pub name: String,
    /// What the caller sends as its API key.
    pub key: SecretString,
    /// Providers it may use; none: all.
    pub providers: Option<Vec<String>>,
}

/// `[flight]`: test flights of new templates.
#[derive(Clone, Debug)]
pub struct FlightConfig {
    /// Fly at all.
    pub enabled: bool,
    /// From this many queued requests of a template.
    pub min_requests: u32,
    /// How many fly.
    pub size: u32,
    /// When grounded requests fail.
    pub ground_timeout: Duration,
}

/// `[budget]`
#[derive(Clone, Debug)]
pub struct BudgetConfig {
    /// US dollars in a day; none: no limit.
    pub daily_usd: Option<f64>,
    /// `[[budget.limits]]`
    pub limits: Vec<BudgetLimit>,
}

/// An entry of `[[budget.limits]]`.
#[derive(Clone, Debug)]
pub struct BudgetLimit {
    /// Whose spending it limits.
    pub scope: BudgetScope,
    /// US dollars in a day.
    pub daily_usd: f64,
}

/// Whose spending a limit is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetScope {
    /// Calls with this tag.
    Tag(String),
    /// Calls of the client key with this name.
    ClientKey(String),
}

impl BudgetScope {
    /// What it is, and its name.
    pub fn named(&self) -> (&'static str, &str) {
        match self {
            Self::Tag(tag) => ("tag", tag),
            Self::ClientKey(name) => ("client_key", name),
        }
    }
}

/// `[callbacks]`
#[derive(Clone, Debug)]
pub struct CallbacksConfig {
    /// Signs callbacks; none: there are none.
    pub signer: Option<Signer>,
    /// Private addresses may be called.
    pub allow_private: bool,
    /// These may be called although they are private.
    pub allow: Vec<AllowedTarget>,
}

/// `[otel]`: where spans go. What is not here is in the standard `OTEL_…` variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtelConfig {
    /// Base address of the collector; none: `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: Option<String>,
    /// `service.name` of the spans; none: `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
}
