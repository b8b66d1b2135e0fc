//! Configuration: `proxy.toml` and the environment become one typed tree before anything binds a port.
//!
//! Every key is optional, unknown keys are refused with the nearest valid name, and all mistakes are reported
//! together. Called by `app` and `cli` only; the rest of the program gets the typed values.
//!
//! `schema` and `keys` say what there is; `layers` reads it into a `tree`; `build`, `providers` and `access` make
//! the typed [`Config`] of it; `docs` and `summary` show it.

mod access;
mod build;
mod callbacks;
mod docs;
mod error;
mod keys;
mod kinds;
mod layers;
mod otel;
mod path;
mod providers;
mod reload;
mod routes;
mod schema;
mod suggest;
mod summary;
mod tree;
mod types;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

pub use callbacks::AllowedTarget;
pub use docs::{default_file, reference};
pub use error::{ConfigErrors, Mistake, Origin};
pub use reload::{InForce, Reloaded, reload};
pub use summary::summary;
pub use types::*;
pub use value::parse_duration;

use layers::Environment;
use tree::Tree;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "proxy.toml";

/// What the command line sets. It wins over the environment, which wins over the file.
#[derive(Clone, Default)]
pub struct Overrides {
    /// `--listen`: `listen`.
    pub listen: Option<String>,
    /// `--admin-listen`: `admin_listen`.
    pub admin_listen: Option<String>,
    /// `--upstream`: `base_url` of the default provider, which is made when it is not there.
    pub upstream: Option<String>,
    /// `--data-dir`: `data_dir`.
    pub data_dir: Option<String>,
    /// `--store`: `store`.
    pub store: Option<String>,
}

impl fmt::Debug for Overrides {
    /// Without `upstream` and `store`: URLs may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overrides")
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    /// What an empty file and environment give.
    #[expect(clippy::expect_used, reason = "a test proves that the schema's own defaults have no mistakes")]
    fn default() -> Self {
        parse(None, [], &Overrides::default()).expect("the defaults have no mistakes")
    }
}

/// Reads the configuration: the file `path`, or else the one that `NIGHTBUS_CONFIG` names, or else
/// [`DEFAULT_FILE`] in the working directory if it is there; over it the environment `env`; over that `overrides`.
///
/// # Errors
/// All mistakes of all three, the caller's fault. Messages never repeat a secret.
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    let environment: Environment = env.into_iter().collect();
    let named = environment.get("NIGHTBUS_CONFIG").filter(|named| !named.is_empty()).map(Path::new);
    let (path, may_be_absent) = match path.or(named) {
        Some(path) => (path, false),
        None => (Path::new(DEFAULT_FILE), true),
    };
    let name = path.display().to_string();
    match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => resolve(Some((&name, &text)), &environment, overrides),
        Ok(Err(_not_utf8)) => Err(unreadable(name, "is not UTF-8 text")),
        Err(error) if may_be_absent && error.kind() == std::io::ErrorKind::NotFound => {
            resolve(None, &environment, overrides)
        }
        Err(error) => Err(unreadable(name, &format!("cannot be read: {error}"))),
    }
}

/// The same as [`load`], from a text: `file` is its name, for messages, and its content.
///
/// # Errors
/// As [`load`].
pub fn parse(
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    resolve(file, &env.into_iter().collect(), overrides)
}

/// This process's environment for [`load`]. What is not UTF-8 is marked as such in place of being left out, so
/// that it shows as a mistake.
pub fn environment() -> Vec<(String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

fn resolve(
    file: Option<(&str, &str)>,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Config, ConfigErrors> {
    let mut tree = Tree::default();
    let is_valid = file.is_none_or(|(name, text)| layers::add_file(&mut tree, name, text));
    layers::add_environment(&mut tree, environment);
    layers::add_overrides(&mut tree, overrides);
    let config = is_valid.then(|| build::config(&mut tree, environment));
    match (config, ConfigErrors::of(tree.into_mistakes())) {
        (Some(config), None) => Ok(config),
        (_, errors) => Err(errors.unwrap_or_default()),
    }
}

fn unreadable(name: String, message: &str) -> ConfigErrors {
    let origin = Origin::File { name, line: None };
    ConfigErrors::single(Mistake { origin, key: String::new(), message: message.to_owned() })
}
