//! What of another configuration a running nightbus takes; the rest needs a restart. Called by `app`.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret as _;

use super::summary::summary;
use super::types::{Config, HoldConfig};

/// What is read anew at every call.
const TAKEN: &[&str] = &["deferral.", "hold.", "limits.", "cors.", "callbacks."];
/// What of it is read at the start only.
const KEPT: &[&str] = &["hold.orphan_grace"];

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
    let is_taken = |key: &String| {
        (TAKEN.iter().any(|prefix| key.starts_with(prefix)) && !KEPT.contains(&key.as_str()))
            || (key.starts_with("client_keys") && keys_fit)
    };
    let (taken, needs_restart) = changed.into_iter().partition(is_taken);
    let client_keys = if keys_fit { &new.client_keys } else { &old.client_keys };
    let config = Config {
        deferral: new.deferral.clone(),
        hold: HoldConfig { orphan_grace: old.hold.orphan_grace, ..new.hold.clone() },
        limits: new.limits.clone(),
        cors: new.cors.clone(),
        callbacks: new.callbacks.clone(),
        client_keys: client_keys.clone(),
        ..old.clone()
    };
    Reloaded { config, taken, needs_restart }
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
             [batching]\nidle = \"9s\"\n[cors]\nallow_origins = [\"https://app.example.com\"]",
        );
        let reloaded = reload(&old, &new);
        assert_eq!(reloaded.taken, ["cors.allow_origins", "deferral.default", "hold.commit_after"]);
        assert_eq!(reloaded.needs_restart, ["batching.idle", "hold.orphan_grace", "retention"]);
        let in_force = reloaded.config;
        assert!(in_force.deferral.default);
        assert_eq!((in_force.retention, in_force.hold.orphan_grace), (old.retention, old.hold.orphan_grace));
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
}
