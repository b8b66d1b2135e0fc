//! The configuration as a user meets it: `proxy.toml`, the environment, the command line, and what is said of mistakes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests; clippy's exception covers only the test functions themselves"
)]

mod config {
    mod access;
    mod files;
    mod keys;
    mod layers;
    mod mistakes;
    mod spans;
}

use nightbus::config::{Config, ConfigErrors, Overrides};

/// Loads a file's text under an environment.
fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    nightbus::config::parse(Some(("proxy.toml", text)), environment(env), &Overrides::default())
}

/// Loads a file's text alone.
fn load(text: &str) -> Result<Config, ConfigErrors> {
    load_with(text, &[])
}

/// What is said of a file's text, one mistake per entry.
fn mistakes(text: &str) -> Vec<String> {
    mistakes_with(text, &[])
}

/// What is said of a file's text under an environment.
fn mistakes_with(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    match load_with(text, env) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Asserts that there is exactly one mistake, which says `expected`.
#[track_caller]
fn one_mistake(text: &str, expected: &str) {
    let found = mistakes(text);
    assert!(found.len() == 1 && found[0].contains(expected), "{text}\n{found:#?}\nexpected: {expected}");
}

fn environment(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A value of the summary.
#[track_caller]
fn shown(config: &Config, key: &str) -> String {
    let lines = nightbus::config::summary(config);
    let line = lines.into_iter().find(|(path, _)| path == key);
    line.unwrap_or_else(|| panic!("{key} is not in the summary")).1
}
