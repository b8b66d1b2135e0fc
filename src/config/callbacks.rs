//! `[callbacks]`: the secret, and where callbacks may go.

use secrecy::ExposeSecret as _;

use super::layers::Environment;
use super::path::KeyPath;
use super::providers::from_environment;
use super::tree::Tree;
use super::types::CallbacksConfig;
use super::value::quoted;
use crate::domain::network::Network;
use crate::domain::webhook::Signer;

/// Where callbacks may go although it is private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedTarget {
    /// A host by its name, in lower case.
    Host(String),
    /// Addresses.
    Network(Network),
}

impl std::fmt::Display for AllowedTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// `[callbacks]`.
pub(super) fn callbacks(tree: &mut Tree, environment: &Environment) -> CallbacksConfig {
    let (plain, variable) = (KeyPath::of("callbacks.secret"), KeyPath::of("callbacks.secret_env"));
    let path = tree.either(&plain, &variable);
    let secret = match &path {
        Some(path) if *path == plain => tree.text(path),
        Some(path) => from_environment(tree, environment, path).map(|key| key.value.expose_secret().to_owned()),
        None => None,
    };
    let signer = match (secret.as_deref().map(Signer::new), &path) {
        (Some(Ok(signer)), _) => Some(signer),
        (Some(Err(error)), Some(path)) => {
            tree.mistake(path, error.to_string());
            None
        }
        (Some(Err(_)) | None, _) => None,
    };
    CallbacksConfig { signer, allow_private: tree.bool(&KeyPath::of("callbacks.allow_private")), allow: allowed(tree) }
}

fn allowed(tree: &mut Tree) -> Vec<AllowedTarget> {
    let path = KeyPath::of("callbacks.allow");
    let mut allowed = Vec::new();
    for given in tree.texts(&path).unwrap_or_default() {
        let is_host = !given.is_empty()
            && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            && !given.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if let Ok(network) = given.parse() {
            allowed.push(AllowedTarget::Network(network));
        } else if is_host {
            allowed.push(AllowedTarget::Host(given.trim_end_matches('.').to_ascii_lowercase()));
        } else {
            let message = "expected a host name such as \"hooks.internal\" or a network such as \"10.1.0.0/16\"";
            tree.mistake(&path, format!("{message}; found {}", quoted(&given)));
        }
    }
    allowed
}
