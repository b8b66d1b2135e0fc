//! What of another configuration a running nightbus takes; the rest needs a restart. Called by `app`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use secrecy::ExposeSecret as _;

use super::summary::summary;
use super::types::{AdminConfig, BatchingConfig, Config, LogConfig, TlsConfig};

/// What is read anew at every call, or at every look.
const TAKEN: &[&str] = &[
    "deferral.",
    "hold.",
    "limits.",
    "cors.",
    "callbacks.",
    "prices",
    "log.level",
    "batching.idle",
    "batching.max_age",
    "batching.max_attempts",
    "batching.poll",
];

/// The configuration in force, which a reload replaces. Clones share it.
#[derive(Clone, Debug)]
pub struct InForce(Arc<RwLock<Arc<Config>>>);

impl InForce {
    /// From the start on.
    pub fn new(config: Arc<Config>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// As of now.
    pub fn get(&self) -> Arc<Config> {
        Arc::clone(&self.0.read())
    }

    /// From now on.
    pub fn set(&self, config: Arc<Config>) {
        *self.0.write() = config;
    }
}

/// A configuration for the running process.
#[derive(Debug)]
pub struct Reloaded {
    /// What is in force from now on.
    pub config: Config,
    /// The keys that changed and were taken.
    pub taken: Vec<String>,
    /// The keys that differ from what is in force until the next start.
    pub needs_restart: Vec<String>,
}

/// Of `new`, what can change while the process runs; of `old`, the rest.
pub fn reload(old: &Config, new: &Config) -> Reloaded {
    let changed = changed(old, new);
    // Who may call is part of how the listeners are guarded and of which keys go upstream: it changes alone, or not.
    let keys_fit = !old.client_keys.is_empty()
        && !new.client_keys.is_empty()
        && !changed.iter().any(|key| key.starts_with("providers."));
    let (tls, admin_tls) = (renewed(&old.tls, &new.tls), renewed(&old.admin.tls, &new.admin.tls));
    let is_taken = |key: &String| {
        TAKEN.iter().any(|prefix| key.starts_with(prefix))
            || (key.starts_with("client_keys") && keys_fit)
            || (key.starts_with("tls.") && tls.is_some())
            || (key.starts_with("admin.tls.") && admin_tls.is_some())
    };
    let (taken, needs_restart) = changed.into_iter().partition(is_taken);
    let client_keys = if keys_fit { &new.client_keys } else { &old.client_keys };
    let config = Config {
        deferral: new.deferral.clone(),
        hold: new.hold.clone(),
        batching: BatchingConfig {
            idle: new.batching.idle,
            max_age: new.batching.max_age,
            max_attempts: new.batching.max_attempts,
            poll: new.batching.poll,
            ..old.batching.clone()
        },
        prices: Arc::clone(&new.prices),
        price_file: new.price_file.clone(),
        log: LogConfig { level: new.log.level.clone(), ..old.log.clone() },
        tls: tls.or_else(|| old.tls.clone()),
        admin: AdminConfig { tls: admin_tls.or_else(|| old.admin.tls.clone()), ..old.admin.clone() },
        limits: new.limits.clone(),
        cors: new.cors.clone(),
        callbacks: new.callbacks.clone(),
        client_keys: client_keys.clone(),
        ..old.clone()
    };
    Reloaded { config, taken, needs_restart }
}

/// The new files of a listener that speaks TLS and goes on to; whether it does is decided at the start.
fn renewed(old: &Option<TlsConfig>, new: &Option<TlsConfig>) -> Option<TlsConfig> {
    old.as_ref().and_then(|_| new.clone())
}

/// The keys whose values differ. Of secrets `summary` tells only that they are set, so the client keys are compared here;
/// a callback secret that was replaced is taken without being named.
fn changed(old: &Config, new: &Config) -> BTreeSet<String> {
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (summary(old).into_iter().collect(), summary(new).into_iter().collect());
    let differs = |key: &&String| before.get(*key) != after.get(*key);
    let mut changed: BTreeSet<String> = before.keys().chain(after.keys()).filter(differs).cloned().collect();
    for (index, (one, other)) in old.client_keys.iter().zip(&new.client_keys).enumerate() {
        if one.key.expose_secret() != other.key.expose_secret() {
            changed.insert(format!("client_keys[{index}].key"));
        }
    }
    // The same file, written anew.
    if old.prices != new.prices {
        changed.insert("prices".to_owned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    fn config(text: &str) -> Config {
        parse(Some(("proxy.toml", text)), [("UPSTREAM".to_owned(), "sk".to_owned())], &Overrides::default()).unwrap()
    }

    #[test]
    fn what_calls_read_is_taken_and_the_rest_waits_for_a_restart() {
        let old = config("");
        let new = config(
            "retention = \"1h\"\n[deferral]\ndefault = true\n[hold]\ncommit_after = \"1s\"\norphan_grace = \"1h\"\n\
             [batching]\nidle = \"9s\"\nmax_requests = 7\n[cors]\nallow_origins = [\"https://app.example.com\"]\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"",
        );
        let reloaded = reload(&old, &new);
        let taken = [
            "batching.idle",
            "cors.allow_origins",
            "deferral.default",
            "hold.commit_after",
            "hold.orphan_grace",
            "log.level",
        ];
        assert_eq!(reloaded.taken, taken);
        assert_eq!(reloaded.needs_restart, ["batching.max_requests", "log.format", "retention"]);
        let in_force = reloaded.config;
        assert!(in_force.deferral.default);
        assert_eq!((in_force.retention, in_force.log.json), (old.retention, old.log.json));
        assert_eq!((in_force.batching.idle.as_secs(), in_force.batching.max_requests), (9, None));
        assert_eq!(in_force.log.level, "debug");
        assert_eq!(reload(&in_force, &new).taken, Vec::<String>::new(), "once");
    }

    #[test]
    fn client_keys_are_replaced_but_never_come_or_go() {
        let with = |key: &str| {
            config(&format!(
                "[providers.openai]\napi_key_env = \"UPSTREAM\"\n[[client_keys]]\nname = \"ci\"\nkey = \"{key}\"\n\
                 providers = [\"openai\"]"
            ))
        };
        let (old, new) = (with("one"), with("two"));
        let reloaded = reload(&old, &new);
        assert_eq!(reloaded.taken, ["client_keys[0].key"]);
        assert_eq!(reloaded.config.client_keys[0].key.expose_secret(), "two");
        let gone = reload(&old, &config("[providers.openai]\napi_key_env = \"UPSTREAM\""));
        assert!(gone.taken.is_empty() && gone.config.client_keys.len() == 1, "nobody is let in by a reload");
        let come = reload(&config(""), &new);
        assert!(
            come.config.client_keys.is_empty() && come.needs_restart.iter().any(|key| key.starts_with("client_keys"))
        );
    }

    #[test]
    fn prices_are_compared_by_what_they_say_and_certificates_change_but_do_not_come() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let price = |usd: f64| {
            format!(
                r#"{{"schema":1,"as_of":"2026-11-01","currency":"USD","unit":"per 1,000,000 tokens","models":[
                {{"provider":"openai","model":"own","input":{usd},"output":1.0}}]}}"#
            )
        };
        let path = file("prices.json", &price(1.0));
        let text = format!("prices = {path:?}");
        let old = config(&text);
        assert_eq!(reload(&old, &config(&text)).taken, Vec::<String>::new());
        file("prices.json", &price(2.0));
        let reloaded = reload(&old, &config(&text));
        assert_eq!((reloaded.taken, reloaded.config.prices == old.prices), (vec!["prices".to_owned()], false));

        let tls = |name: &str| format!("[tls]\ncert = {:?}\nkey = {:?}", file(name, ""), file("key.pem", ""));
        let (plain, first, second) = (config(""), config(&tls("first.pem")), config(&tls("second.pem")));
        let reloaded = reload(&first, &second);
        assert_eq!((reloaded.taken, reloaded.config.tls), (vec!["tls.cert".to_owned()], second.tls));
        assert_eq!(reload(&plain, &first).needs_restart, ["tls.cert", "tls.key"]);
        assert_eq!(reload(&first, &plain).config.tls, first.tls, "no listener loses its TLS");
    }
}
