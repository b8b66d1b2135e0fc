//! `[providers.NAME]`: names, addresses, and the keys that nightbus holds for them.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use secrecy::ExposeSecret as _;

use super::build::secret;
use super::layers::Environment;
use super::path::KeyPath;
use super::tree::Tree;
use super::types::{BatchWire, ProviderConfig, ProviderKey, ProviderKind, ProviderWebhooks};
use super::value::quoted;
use super::{schema, suggest};
use crate::domain::webhook::Verifier;

/// The provider that is always there.
const OPENAI: &str = "openai";
/// There as well, unless another provider of its kind is configured, or callers authenticate with keys of nightbus's own,
/// which no provider must see.
const ANTHROPIC: &str = "anthropic";

/// All providers, the built-in ones included.
pub(super) fn providers(tree: &mut Tree, environment: &Environment) -> BTreeMap<String, ProviderConfig> {
    let root = KeyPath::of("providers");
    let mut names = tree.names_below(&root);
    names.insert(OPENAI.to_owned());
    let other_of_kind = |name: &String| kind_of(tree, &root.child(name), name) == ProviderKind::Anthropic;
    let has_client_keys = !tree.entries_of(&KeyPath::of("client_keys")).is_empty();
    if !has_client_keys && !names.iter().any(other_of_kind) {
        names.insert(ANTHROPIC.to_owned());
    }
    let mut providers = BTreeMap::new();
    for name in names {
        let path = root.child(&name);
        check_name(tree, &path, &name);
        let config = provider(tree, environment, &path, &name);
        providers.insert(name, config);
    }
    providers
}

/// The name of the provider of `/v1/…`.
pub(super) fn default_provider(tree: &mut Tree, providers: &BTreeMap<String, ProviderConfig>) -> String {
    let path = KeyPath::of("default_provider");
    let name = tree.text(&path).unwrap_or_default();
    unknown_provider(tree, &path, &name, providers);
    name
}

/// Reports a name that no provider has.
pub(super) fn unknown_provider(
    tree: &mut Tree,
    path: &KeyPath,
    name: &str,
    providers: &BTreeMap<String, ProviderConfig>,
) {
    if !providers.contains_key(name) {
        let names: Vec<&str> = providers.keys().map(String::as_str).collect();
        let hint = match suggest::nearest(name, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("there are: {}", names.join(", ")),
        };
        tree.missing(path, format!("no provider is called {}; {hint}", quoted(name)));
    }
}

/// The value of the environment variable that `path` names. It must be there, and must fit into a header.
pub(super) fn from_environment(tree: &mut Tree, environment: &Environment, path: &KeyPath) -> Option<ProviderKey> {
    let variable = tree.text(path)?;
    let looks_like_a_name = !variable.starts_with(|c: char| c.is_ascii_digit())
        && variable.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let value = environment.get(&variable).map_or("", String::as_str);
    // Who pastes the key itself here must not find it in the log; a variable that is set is one.
    let shown = if looks_like_a_name || environment.contains_key(&variable) { variable.as_str() } else { "" };
    let problem = match (shown, value) {
        ("", _) => "must be the name of an environment variable that is set; what it says now is no such name and is \
                    not repeated here, since it may be a key"
            .to_owned(),
        (name, "") => format!("the environment variable {name} is not set, or empty"),
        (name, value) if !is_token(value) => {
            format!("the environment variable {name} holds blanks, line breaks or other characters that no key has")
        }
        _ => return Some(ProviderKey { env: variable.clone(), value: secret(value) }),
    };
    tree.mistake(path, problem);
    None
}

/// Whether a text can be sent as a bearer token: visible ASCII.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn check_name(tree: &mut Tree, path: &KeyPath, name: &str) {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !name.bytes().next().is_some_and(valid) || !name.bytes().all(|byte| valid(byte) || byte == b'-' || byte == b'_')
    {
        tree.mistake(path, "a provider's name is made of lower-case letters, digits, \"-\" and \"_\", and begins with a letter or digit");
    } else if schema::RESERVED_PROVIDER_NAMES.contains(&name) {
        tree.mistake(path, format!("no provider can be called \"{name}\": /{name}/… is a path of nightbus's own"));
    }
}

fn provider(tree: &mut Tree, environment: &Environment, path: &KeyPath, name: &str) -> ProviderConfig {
    let kind = kind_of(tree, path, name);
    let (creation_patience, endpoint_prefix) = openrouters_own(tree, path, kind);
    ProviderConfig {
        name: name.to_owned(),
        kind,
        api_version: api_version(tree, path, kind),
        completion_window: completion_window(tree, path, kind),
        min_poll: tree.given_duration(&path.child("min_poll")),
        creation_patience,
        endpoint_prefix,
        base_url: base_url(tree, path, name),
        api_key: from_environment(tree, environment, &path.child("api_key_env")),
        max_requests: tree.small(&path.child("max_requests")),
        max_bytes: tree.integer(&path.child("max_bytes")),
        in_flight_tokens: tree.integer(&path.child("in_flight_tokens")),
        batches_per_hour: tree.small(&path.child("batches_per_hour")),
        max_live_calls: max_live_calls(tree, path, kind),
        cache_hour: cache_hour(tree, path, kind),
        background_windows: background_windows(tree, path, kind),
        endpoints: tree.texts(&path.child("endpoints")),
        webhooks: webhooks(tree, environment, path, kind),
    }
}

/// `anthropic` is of its own kind without being told so.
fn kind_of(tree: &Tree, path: &KeyPath, name: &str) -> ProviderKind {
    let key = path.child("kind");
    match tree.text(&key).as_deref() {
        _ if name == ANTHROPIC && !tree.is_given(&key) => ProviderKind::Anthropic,
        Some(name) => ProviderKind::named(name).unwrap_or(ProviderKind::OpenAi),
        None => ProviderKind::OpenAi,
    }
}

/// The address that a provider has without being told. One of kind `openai` that is called otherwise is somebody else's.
fn built_in_url(kind: ProviderKind, name: &str) -> Option<&'static str> {
    let is_generic = matches!(kind, ProviderKind::OpenAi | ProviderKind::Anthropic);
    kind.base_url().filter(|_| !is_generic || name == kind.as_str())
}

/// How long requests wait whose batch may exist and cannot be looked up, and how it names endpoints: OpenRouter's alone.
fn openrouters_own(tree: &mut Tree, path: &KeyPath, kind: ProviderKind) -> (Option<Duration>, Option<String>) {
    let (patience, prefix) = (path.child("creation_patience"), path.child("endpoint_prefix"));
    let read = (tree.given_duration(&patience), tree.text(&prefix));
    for key in [(read.0.is_some(), &patience), (read.1.is_some(), &prefix)] {
        if key.0 && kind != ProviderKind::OpenRouter {
            tree.mistake(key.1, "is for kind \"openrouter\" alone");
        }
    }
    if read.1.as_ref().is_some_and(|prefix| !prefix.starts_with('/')) {
        tree.mistake(&prefix, "expected a path, such as \"/api/v1\"");
    }
    read
}

/// The secret with which the provider signs what it says of its batches.
fn webhooks(
    tree: &mut Tree,
    environment: &Environment,
    path: &KeyPath,
    kind: ProviderKind,
) -> Option<ProviderWebhooks> {
    let key = path.child("webhook_secret_env");
    let ProviderKey { env, value } = from_environment(tree, environment, &key)?;
    if kind.batch_wire() != BatchWire::OpenAi {
        tree.mistake(&key, format!("kind \"{}\" has no webhooks that this version understands", kind.as_str()));
        return None;
    }
    let verifier = Verifier::new(value.expose_secret());
    if verifier.is_none() {
        let problem = format!("the environment variable {env} does not hold a webhook secret: whsec_ and base64");
        tree.mistake(&key, problem);
    }
    Some(ProviderWebhooks { env, verifier: verifier? })
}

/// `api_version` is Azure's, and stands in a query.
fn api_version(tree: &mut Tree, path: &KeyPath, kind: ProviderKind) -> Option<String> {
    let key = path.child("api_version");
    let version = tree.text(&key)?;
    if kind != ProviderKind::Azure {
        tree.mistake(&key, "is for kind \"azure\" alone");
    } else if !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        tree.mistake(&key, "expected letters, digits and \"-\", such as \"2025-04-01-preview\"");
    }
    Some(version)
}

/// Marks of the prompt cache are Anthropic's.
fn cache_hour(tree: &mut Tree, path: &KeyPath, kind: ProviderKind) -> bool {
    let key = path.child("cache_ttl");
    let asked = tree.text(&key).is_some();
    if asked && kind != ProviderKind::Anthropic {
        tree.mistake(&key, "is for kind \"anthropic\" alone");
    }
    asked
}

/// A limit of live calls is for those without batches.
fn max_live_calls(tree: &mut Tree, path: &KeyPath, kind: ProviderKind) -> Option<u32> {
    let key = path.child("max_live_calls");
    let most = tree.small(&key)?;
    let told = tree.texts(&path.child("endpoints")).is_some_and(|endpoints| !endpoints.is_empty());
    if told || !matches!(kind.batch_wire(), BatchWire::None) {
        tree.mistake(&key, "is for kinds without batches, and this provider has some: leave it out");
    }
    Some(most)
}

/// Background windows are OpenAI's own (providers.md, section 1.12).
fn background_windows(tree: &mut Tree, path: &KeyPath, kind: ProviderKind) -> Option<Vec<String>> {
    let key = path.child("background_windows");
    let windows = tree.texts(&key)?;
    if kind != ProviderKind::OpenAi && !windows.is_empty() {
        tree.mistake(&key, "is for kind \"openai\" alone: leave it out");
    }
    Some(windows)
}

/// Longer windows are for those that have them (providers.md, sections 4.5, 4.6, 4.11 and 4.13), or may.
fn completion_window(tree: &mut Tree, path: &KeyPath, kind: ProviderKind) -> Option<String> {
    let key = path.child("completion_window");
    let window = tree.text(&key)?;
    let number = window
        .strip_suffix(['h', 'd'])
        .filter(|number| number.len() <= 4)
        .and_then(|number| number.parse::<u32>().ok());
    if number.is_none_or(|number| number == 0) {
        tree.mistake(&key, "expected hours or days, such as \"24h\" or \"7d\"");
    } else if window != "24h" && !kind.has_windows() {
        tree.mistake(&key, format!("kind \"{}\" knows \"24h\" alone", kind.as_str()));
    }
    Some(window)
}

fn base_url(tree: &mut Tree, provider: &KeyPath, name: &str) -> Uri {
    let path = provider.child("base_url");
    let kind = kind_of(tree, provider, name);
    let built_in = built_in_url(kind, name);
    let stand_in = Uri::from_static(built_in.unwrap_or("https://api.openai.com/v1"));
    let Some(text) = tree.text(&path) else {
        // Of a kind that is not known its own mistake is enough.
        if built_in.is_none() && !tree.is_broken(&provider.child("kind")) {
            tree.missing(&path, "is required: the URL where the provider's API begins, with its /v1");
        }
        return stand_in;
    };
    match parse_base_url(&text) {
        Ok(url) => url,
        Err(problem) => {
            tree.mistake(&path, problem);
            stand_in
        }
    }
}

/// The text is not repeated in the refusal: it may hold a password or a key.
fn parse_base_url(text: &str) -> Result<Uri, &'static str> {
    const EXPECTED: &str = "expected a URL such as \"https://api.openai.com/v1\"";
    if text.contains(['?', '#']) {
        return Err("must not have a query or fragment: a URL such as \"https://api.openai.com/v1\"");
    }
    let url: Uri = text.trim().trim_end_matches('/').parse().map_err(|_error| EXPECTED)?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("must not have a user name or password in it; keys come from api_key_env or the caller")
        }
        (Some("http" | "https"), Some(authority)) if !authority.host().is_empty() => Ok(url),
        (Some(_), _) => Err("must begin with https:// or http://"),
        (None, _) => Err(EXPECTED),
    }
}
