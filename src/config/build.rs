//! From the tree of given values to the typed [`Config`]: what single values mean, section by section.
//!
//! Mistakes go into the tree and a stand-in takes the value's place, so that the rest is checked as well; the
//! caller throws the result away when there was one.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use super::layers::Environment;
use super::path::KeyPath;
use super::tree::Tree;
use super::types::*;
use super::value::quoted;
use super::{access, callbacks, otel, providers, routes, suggest};
use crate::domain::pricing::PriceTable;

/// Builds the configuration. Only to be used when `tree` has no mistakes after it.
pub(super) fn config(tree: &mut Tree, environment: &Environment) -> Config {
    let at = KeyPath::of;
    let providers = providers::providers(tree, environment);
    let (price_file, prices) = prices(tree);
    let config = Config {
        listen: address(tree, &at("listen")),
        admin_listen: address(tree, &at("admin_listen")),
        data_dir: PathBuf::from(tree.text(&at("data_dir")).unwrap_or_default()),
        store: store(tree),
        retention: tree.duration(&at("retention")),
        price_file,
        prices,
        default_provider: providers::default_provider(tree, &providers),
        allow_unauthenticated: tree.bool(&at("allow_unauthenticated")),
        routes: routes::routes(tree, &providers),
        deferral: deferral(tree),
        batching: batching(tree),
        hold: HoldConfig {
            commit_after: tree.duration(&at("hold.commit_after")),
            heartbeat: tree.duration(&at("hold.heartbeat")),
            orphan_grace: tree.duration(&at("hold.orphan_grace")),
            interim_102: tree.bool(&at("hold.interim_102")),
        },
        limits: LimitsConfig {
            max_body_bytes: tree.integer(&at("limits.max_body_bytes")).unwrap_or_default(),
            max_queued_requests: tree.integer(&at("limits.max_queued_requests")).unwrap_or_default(),
            max_held_connections: tree.integer(&at("limits.max_held_connections")).unwrap_or_default(),
        },
        shutdown: ShutdownConfig { grace: tree.duration(&at("shutdown.grace")) },
        upstream: UpstreamConfig {
            connect_timeout: tree.duration(&at("upstream.connect_timeout")),
            first_byte_timeout: tree.duration(&at("upstream.first_byte_timeout")),
            idle_timeout: tree.duration(&at("upstream.idle_timeout")),
            tls_roots: tls_roots(tree),
        },
        cors: CorsConfig { allow_origins: access::origins(tree), allow_hosts: access::hosts(tree, "cors.allow_hosts") },
        admin: access::admin(tree, environment),
        tls: access::tls(tree, "tls"),
        log: log(tree),
        client_keys: access::client_keys(tree, environment, &providers),
        master_key: environment.get("NIGHTBUS_MASTER_KEY").filter(|key| !key.is_empty()).map(|key| secret(key)),
        flight: flight(tree),
        budget: budget(tree),
        callbacks: callbacks::callbacks(tree, environment),
        otel: otel::otel(tree, environment),
        providers,
    };
    access::check_listeners(tree, &config);
    check_rules(tree, &config);
    config
}

/// A text that is not shown.
pub(super) fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

/// Checks that a path names a file.
pub(super) fn file(tree: &mut Tree, path: &KeyPath, file: &str) -> PathBuf {
    if let Err(error) = fs::File::open(file)
        .and_then(|file| file.metadata())
        .and_then(|found| if found.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(()) })
    {
        tree.mistake(path, format!("{} cannot be read: {error}", quoted(file)));
    }
    PathBuf::from(file)
}

/// The price file over the built-in list.
fn prices(tree: &mut Tree) -> (Option<PathBuf>, Arc<PriceTable>) {
    let path = KeyPath::of("prices");
    let Some(name) = tree.text(&path) else {
        return (None, Arc::new(PriceTable::builtin().clone()));
    };
    let own = fs::read(&name)
        .map_err(|error| format!("{} cannot be read: {error}", quoted(&name)))
        .and_then(|json| PriceTable::from_json(&json).map_err(|error| format!("{}: {error}", quoted(&name))));
    let own = own.unwrap_or_else(|message| {
        tree.mistake(&path, message);
        PriceTable::default()
    });
    (Some(PathBuf::from(name)), Arc::new(own.over(PriceTable::builtin())))
}

fn address(tree: &mut Tree, path: &KeyPath) -> SocketAddr {
    let text = tree.text(path).unwrap_or_default();
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.clone(),
    };
    numeric.parse().unwrap_or_else(|_error| {
        let why = "expected an IP address with a port, such as \"127.0.0.1:5050\" or \"[::1]:5050\"";
        tree.missing(path, format!("{why}; found {}", quoted(&text)));
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    })
}

fn store(tree: &mut Tree) -> StoreKind {
    let path = KeyPath::of("store");
    let text = tree.text(&path).unwrap_or_default();
    match text.as_str() {
        "sqlite" => StoreKind::Sqlite,
        "memory" => StoreKind::Memory,
        _ => {
            // A URL may hold a password: it is not repeated.
            let message = match text.split_once("://") {
                Some(("postgres" | "postgresql", _)) => {
                    "\"postgres://…\" is not in this version; use \"sqlite\"".to_owned()
                }
                Some(_) => "expected \"sqlite\" or \"memory\"; found a URL".to_owned(),
                None => match suggest::nearest(&text, &["sqlite", "memory"]) {
                    Some(near) => {
                        format!("expected \"sqlite\" or \"memory\"; found {}; did you mean \"{near}\"?", quoted(&text))
                    }
                    None => format!("expected \"sqlite\" or \"memory\"; found {}", quoted(&text)),
                },
            };
            tree.missing(&path, message);
            StoreKind::Sqlite
        }
    }
}

fn deferral(tree: &mut Tree) -> DeferralConfig {
    let mode = match tree.text(&KeyPath::of("deferral.mode")).as_deref() {
        Some("off") => DeferralMode::Off,
        Some("observe") => DeferralMode::Observe,
        _ => DeferralMode::On,
    };
    let rules = tree.entries_of(&KeyPath::of("deferral.rules"));
    DeferralConfig {
        mode,
        default: tree.bool(&KeyPath::of("deferral.default")),
        fallback: fallback(tree),
        rules: rules.iter().map(|entry| rule(tree, entry)).collect(),
    }
}

fn fallback(tree: &mut Tree) -> Vec<Service> {
    let path = KeyPath::of("deferral.fallback");
    let names = tree.texts(&path).unwrap_or_default();
    if names.len() > 1 && names.iter().any(|name| name == "none") {
        tree.mistake(&path, "\"none\" stands alone");
    }
    let mut services = Vec::new();
    for name in names {
        let service = match name.as_str() {
            "none" => continue,
            name => match name.parse() {
                Ok(Service::Batch) | Err(_) => continue,
                Ok(service) => service,
            },
        };
        if services.contains(&service) {
            tree.mistake(&path, format!("\"{name}\" is listed twice"));
        } else {
            services.push(service);
        }
    }
    services
}

fn rule(tree: &mut Tree, entry: &KeyPath) -> DeferralRule {
    let conditions = ["model", "path", "user_agent", "tag", "key"];
    if !conditions.iter().any(|name| tree.is_given(&entry.child(name))) {
        let message = "needs a condition: model, path, user_agent, tag or key (for all calls, set deferral.default)";
        tree.missing(entry, message);
    }
    let defer = tree.optional_bool(&entry.child("defer"));
    if defer.is_none() {
        tree.missing(&entry.child("defer"), "is required: true or false");
    }
    DeferralRule {
        model: glob(tree, &entry.child("model")),
        path: glob(tree, &entry.child("path")),
        user_agent: glob(tree, &entry.child("user_agent")),
        tag: tag(tree, &entry.child("tag")),
        key: tree.text(&entry.child("key")),
        defer: defer.unwrap_or_default(),
    }
}

/// A tag, checked.
fn tag(tree: &mut Tree, path: &KeyPath) -> Option<String> {
    let text = tree.text(path)?;
    if !is_tag(&text) {
        tree.mistake(path, format!("expected up to 64 letters, digits, \".\", \"_\", \"-\"; found {}", quoted(&text)));
    }
    Some(text)
}

fn budget(tree: &mut Tree) -> BudgetConfig {
    let mut limits: Vec<BudgetLimit> = Vec::new();
    for entry in tree.entries_of(&KeyPath::of("budget.limits")) {
        let (of_tag, of_key, amount) = (entry.child("tag"), entry.child("client_key"), entry.child("daily_usd"));
        if !tree.is_given(&amount) {
            tree.missing(&amount, "is required: an amount in US dollars");
        }
        let scope = match tree.either(&of_tag, &of_key) {
            Some(path) if path == of_tag => tag(tree, &path).map(BudgetScope::Tag),
            Some(path) => tree.text(&path).map(BudgetScope::ClientKey),
            None => None,
        };
        let Some(scope) = scope else {
            if !tree.is_given(&of_tag) && !tree.is_given(&of_key) {
                tree.missing(&entry, "needs tag or client_key (for all calls together, set budget.daily_usd)");
            }
            continue;
        };
        if limits.iter().any(|other| other.scope == scope) {
            tree.mistake(&entry, "an earlier entry limits the same tag or client key");
        }
        limits.push(BudgetLimit { scope, daily_usd: tree.usd(&amount).unwrap_or_default() });
    }
    BudgetConfig { daily_usd: tree.usd(&KeyPath::of("budget.daily_usd")), limits }
}

/// A glob, checked.
pub(super) fn glob(tree: &mut Tree, path: &KeyPath) -> Option<GlobMatcher> {
    let text = tree.text(path)?;
    match Glob::new(&text) {
        Ok(glob) => Some(glob.compile_matcher()),
        Err(error) => {
            tree.mistake(path, format!("{} is not a valid glob: {}", quoted(&text), error.kind()));
            None
        }
    }
}

/// What `x-nightbus-tag` may hold (contract, section 3).
fn is_tag(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn check_rules(tree: &mut Tree, config: &Config) {
    let names: Vec<&str> = config.client_keys.iter().map(|key| key.name.as_str()).collect();
    let rules = tree.entries_of(&KeyPath::of("deferral.rules")).into_iter().map(|entry| entry.child("key"));
    let limits = tree.entries_of(&KeyPath::of("budget.limits")).into_iter().map(|entry| entry.child("client_key"));
    for path in rules.chain(limits).collect::<Vec<_>>() {
        if let Some(name) = tree.text(&path).filter(|name| !names.contains(&name.as_str())) {
            let near = suggest::nearest(&name, &names).map(|near| format!("; did you mean \"{near}\"?"));
            tree.mistake(&path, format!("no client key is called {}{}", quoted(&name), near.unwrap_or_default()));
        }
    }
}

fn batching(tree: &Tree) -> BatchingConfig {
    let at = KeyPath::of;
    BatchingConfig {
        idle: tree.duration(&at("batching.idle")),
        max_age: tree.duration(&at("batching.max_age")),
        max_attempts: tree.small(&at("batching.max_attempts")).unwrap_or(1),
        poll: tree.duration(&at("batching.poll")),
        max_requests: tree.small(&at("batching.max_requests")),
        max_bytes: tree.integer(&at("batching.max_bytes")),
        in_flight_tokens: tree.integer(&at("batching.in_flight_tokens")),
    }
}

fn tls_roots(tree: &mut Tree) -> TlsRoots {
    let path = KeyPath::of("upstream.tls_roots");
    match tree.text(&path).as_deref() {
        None | Some("auto") => TlsRoots::Auto,
        Some("system") => TlsRoots::System,
        Some("bundled") => TlsRoots::Bundled,
        Some(name) => TlsRoots::File(file(tree, &path, name)),
    }
}

fn log(tree: &mut Tree) -> LogConfig {
    let path = KeyPath::of("log.level");
    let level = tree.text(&path).unwrap_or_default();
    const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
    // A filter also takes a bare module name and then shows all of it: `inof` would be no mistake to it.
    let unknown = level.split(',').map(str::trim).find(|part| {
        let (_, wanted) = part.rsplit_once('=').unwrap_or(("", part));
        !LEVELS.contains(&wanted.to_ascii_lowercase().as_str())
    });
    if let Some(part) = unknown {
        let near = suggest::nearest(part, LEVELS).map(|near| format!("; did you mean \"{near}\"?"));
        tree.mistake(&path, format!("{} is not a level{}", quoted(part), near.unwrap_or_default()));
    } else if EnvFilter::builder().parse(&level).is_err() {
        tree.mistake(&path, format!("{} is not a log filter such as \"info,nightbus=debug\"", quoted(&level)));
    }
    LogConfig { json: tree.text(&KeyPath::of("log.format")).as_deref() == Some("json"), level }
}

fn flight(tree: &mut Tree) -> FlightConfig {
    let at = KeyPath::of;
    let flight = FlightConfig {
        enabled: tree.bool(&at("flight.enabled")),
        min_requests: tree.small(&at("flight.min_requests")).unwrap_or_default(),
        size: tree.small(&at("flight.size")).unwrap_or_default(),
        ground_timeout: tree.duration(&at("flight.ground_timeout")),
    };
    if flight.size > flight.min_requests {
        tree.mistake(&at("flight.size"), format!("must not be above flight.min_requests ({})", flight.min_requests));
    }
    flight
}
