//! Who may call: client keys, the admin token, origins, TLS, and the rule that nothing listens beyond loopback
//! without authentication (contract, section 2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use secrecy::ExposeSecret;

use super::build::{file, secret};
use super::layers::Environment;
use super::path::KeyPath;
use super::providers::{from_environment, is_token, unknown_provider};
use super::tree::Tree;
use super::types::{AdminConfig, ClientKey, Config, ProviderConfig, TlsConfig};
use super::value::quoted;

/// `[[client_keys]]`.
pub(super) fn client_keys(
    tree: &mut Tree,
    environment: &Environment,
    providers: &BTreeMap<String, ProviderConfig>,
) -> Vec<ClientKey> {
    let mut keys: Vec<ClientKey> = Vec::new();
    let mut needed = BTreeMap::new();
    for entry in tree.entries_of(&KeyPath::of("client_keys")) {
        let name = client_name(tree, &entry, &keys);
        let key = client_secret(tree, environment, &entry);
        if let Some(twin) = keys.iter().find(|other| !key.is_empty() && other.key.expose_secret() == key) {
            let message = format!("has the same value as the key of client \"{}\"", twin.name);
            tree.mistake(&entry, message);
        }
        let allowed = allowed_providers(tree, &entry, providers);
        let all = || providers.keys().cloned().collect();
        for provider in allowed.clone().unwrap_or_else(all) {
            let client = if name.is_empty() { entry.to_string() } else { quoted(&name) };
            needed.entry(provider).or_insert(client);
        }
        keys.push(ClientKey { name, key: secret(&key), providers: allowed });
    }
    for (provider, client) in needed {
        let path = KeyPath::of("providers").child(&provider).child("api_key_env");
        if providers.contains_key(&provider) && !tree.is_given(&path) {
            let message = format!(
                "is required, since client {client} may use this provider and nightbus then needs a key of its own; \
                 or limit client_keys[].providers"
            );
            tree.missing(&path, message);
        }
    }
    keys
}

fn client_name(tree: &mut Tree, entry: &KeyPath, before: &[ClientKey]) -> String {
    let path = entry.child("name");
    let Some(name) = tree.text(&path) else {
        tree.missing(&path, "is required");
        return String::new();
    };
    if name.len() > 64 || !name.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        tree.mistake(&path, "expected up to 64 visible ASCII characters");
    }
    if before.iter().any(|other| other.name == name) {
        tree.mistake(&path, format!("{} is the name of an earlier client key", quoted(&name)));
    }
    name
}

fn client_secret(tree: &mut Tree, environment: &Environment, entry: &KeyPath) -> String {
    let (plain, variable) = (entry.child("key"), entry.child("key_env"));
    match tree.either(&plain, &variable) {
        Some(path) if path == plain => {
            let key = tree.text(&path).unwrap_or_default();
            if !is_token(&key) {
                tree.mistake(&path, "must be visible ASCII without blanks");
            }
            key
        }
        Some(path) => from_environment(tree, environment, &path)
            .map_or_else(String::new, |key| key.value.expose_secret().to_owned()),
        None if tree.is_given(&plain) || tree.is_given(&variable) => String::new(),
        None => {
            tree.missing(entry, "needs key_env, the name of the environment variable that holds the key, or key");
            String::new()
        }
    }
}

fn allowed_providers(
    tree: &mut Tree,
    entry: &KeyPath,
    providers: &BTreeMap<String, ProviderConfig>,
) -> Option<Vec<String>> {
    let path = entry.child("providers");
    let names = tree.texts(&path)?;
    if names.is_empty() {
        tree.mistake(&path, "is empty: this key could call nothing; leave it out for all providers");
    }
    for name in &names {
        unknown_provider(tree, &path, name, providers);
    }
    Some(names)
}

/// `[admin]`.
pub(super) fn admin(tree: &mut Tree, environment: &Environment) -> AdminConfig {
    let (plain, variable) = (KeyPath::of("admin.token"), KeyPath::of("admin.token_env"));
    let token = match tree.either(&plain, &variable) {
        Some(path) if path == plain => {
            let token = tree.text(&path).unwrap_or_default();
            if !is_token(&token) {
                tree.mistake(&path, "must be visible ASCII without blanks");
            }
            Some(secret(&token))
        }
        Some(path) => from_environment(tree, environment, &path).map(|key| key.value),
        None => None,
    };
    AdminConfig {
        token,
        allowed_hosts: hosts(tree, "admin.allowed_hosts"),
        show_bodies: tree.bool(&KeyPath::of("admin.show_bodies")),
        tls: tls(tree, "admin.tls"),
    }
}

pub(super) fn hosts(tree: &mut Tree, key: &str) -> Vec<String> {
    let path = KeyPath::of(key);
    let hosts = tree.texts(&path).unwrap_or_default();
    for host in &hosts {
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) {
            tree.mistake(&path, format!("expected a host name such as \"nightbus.internal\"; found {}", quoted(host)));
        }
    }
    hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
}

/// `cors.allow_origins`, as browsers send them: lower-case, without a trailing slash.
pub(super) fn origins(tree: &mut Tree) -> Vec<String> {
    let path = KeyPath::of("cors.allow_origins");
    let mut origins = BTreeSet::new();
    for given in tree.texts(&path).unwrap_or_default() {
        let origin = given.trim_end_matches('/').to_ascii_lowercase();
        let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' '])
        });
        if origin == "*" || origin == "null" {
            tree.mistake(&path, format!("{} would let any page spend; list each origin", quoted(&given)));
        } else if !is_origin {
            let message = "expected an origin such as \"https://app.example.com\" (scheme, host, port)";
            tree.mistake(&path, format!("{message}; found {}", quoted(&given)));
        }
        origins.insert(origin);
    }
    origins.into_iter().collect()
}

/// A table of a listener's certificate and key: both files or neither.
pub(super) fn tls(tree: &mut Tree, table: &str) -> Option<TlsConfig> {
    let table = KeyPath::of(table);
    let (cert_path, key_path) = (table.child("cert"), table.child("key"));
    let cert = tree.text(&cert_path).map(|name| file(tree, &cert_path, &name));
    let key = tree.text(&key_path).map(|name| file(tree, &key_path, &name));
    match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsConfig { cert, key }),
        (Some(_), None) => {
            tree.missing(&key_path, format!("is required beside {cert_path}"));
            None
        }
        (None, Some(_)) => {
            tree.missing(&cert_path, format!("is required beside {key_path}"));
            None
        }
        (None, None) => None,
    }
}

/// The loopback rule, and that the two listeners can both be bound.
pub(super) fn check_listeners(tree: &mut Tree, config: &Config) {
    let (listen, admin_listen) = (KeyPath::of("listen"), KeyPath::of("admin_listen"));
    let has_clients = !tree.entries_of(&KeyPath::of("client_keys")).is_empty();
    if !is_loopback(config.listen.ip()) && !has_clients && !config.allow_unauthenticated {
        tree.mistake(
            &listen,
            format!(
                "{} can be reached from other machines, and anybody could spend: add [[client_keys]], or set \
                 allow_unauthenticated = true",
                config.listen
            ),
        );
    }
    let has_token = tree.is_given(&KeyPath::of("admin.token")) || tree.is_given(&KeyPath::of("admin.token_env"));
    if !is_loopback(config.admin_listen.ip()) && !has_token {
        tree.mistake(
            &admin_listen,
            format!(
                "{} can be reached from other machines: set admin.token_env (or NIGHTBUS_ADMIN_TOKEN), or listen on \
                 127.0.0.1",
                config.admin_listen
            ),
        );
    }
    if overlap(config.listen, config.admin_listen) {
        let message = format!("listen ({}) and admin_listen ({}) must differ", config.listen, config.admin_listen);
        let given = if tree.is_given(&admin_listen) { &admin_listen } else { &listen };
        tree.mistake(given, message);
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip().to_canonical() == b.ip().to_canonical() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}
