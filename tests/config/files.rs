//! The files of the repository, and the sample of the design.

use nightbus::config::{Config, DeferralMode, Service, StoreKind, TlsRoots, default_file, reference, summary};

use super::super::{load, mistakes_with};

const SAMPLE: &str = r#"
listen = "127.0.0.1:5050"
admin_listen = "127.0.0.1:5051"
data_dir = "nightbus-data"
store = "sqlite"                 # "sqlite" | "memory" | "postgres://…"
retention = "72h"
default_provider = "openai"

[providers.openai]
kind = "openai"                  # openai | azure | anthropic | gemini | mistral | …
base_url = "https://api.openai.com/v1"

[deferral]
mode = "on"
default = false
fallback = ["sync"]

[batching]
idle = "5s"
max_age = "60s"
max_attempts = 3
poll = "10s"

[hold]
commit_after = "25s"
heartbeat = "15s"
orphan_grace = "10m"

[limits]
max_body_bytes = 33554432
max_queued_requests = 1000000
max_held_connections = 100000

[flight]
enabled = true
min_requests = 100
size = 5
ground_timeout = "1h"

[budget]

[shutdown]
grace = "10s"

[callbacks]
allow_private = false
"#;

fn same(a: &Config, b: &Config) {
    assert_eq!(summary(a), summary(b));
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

/// Compares a file of the repository with what it must say, or writes it.
fn holds(file: &str, expected: &str) {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("NIGHTBUS_TEST_BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let first = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "{file} is stale; write it with NIGHTBUS_TEST_BLESS=1. First difference: {first:?}");
}

#[test]
fn the_documentation_is_what_the_schema_says() {
    holds("docs/configuration.md", &reference());
}

#[test]
fn proxy_toml_is_the_commented_default() {
    holds("proxy.toml", &default_file());
    same(&load(&default_file()).unwrap(), &Config::default());
}

#[test]
fn every_key_commented_out_in_proxy_toml_is_known_and_well_typed() {
    let uncomment = |line: &str| line.strip_prefix("# ").unwrap_or(line).to_owned();
    let text: Vec<String> = default_file().lines().skip(3).map(uncomment).collect();
    let env = [
        ("OPENAI_API_KEY", "sk-1"),
        ("OPENAI_WEBHOOK_SECRET", "whsec_b2xk"),
        ("NIGHTBUS_KEY_CI", "k"),
        ("MY_ADMIN_TOKEN", "t"),
    ];
    let found = mistakes_with(&text.join("\n"), &env);
    let expected = |line: &str| {
        [
            "not in this version",
            "is set too",
            "cannot be read",
            "visible ASCII",
            "is for kind",
            "whsec_",
            "no provider is called",
            "this build sends no spans",
        ]
        .iter()
        .any(|part| line.contains(part))
    };
    assert!(!found.is_empty() && found.iter().all(|line| expected(line)), "{found:#?}");
}

#[test]
fn the_sample_of_the_design_is_the_default() {
    same(&load(SAMPLE).unwrap(), &Config::default());
    same(&load("").unwrap(), &Config::default());
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::default();
    assert_eq!(config.listen.to_string(), "127.0.0.1:5050");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:5051");
    assert_eq!(config.data_dir.to_str(), Some("nightbus-data"));
    assert_eq!(config.store, StoreKind::Sqlite);
    assert_eq!(config.retention.as_secs(), 72 * 3600);
    assert_eq!(config.default_provider, "openai");
    assert!(!config.allow_unauthenticated);
    let names: Vec<&String> = config.providers.keys().collect();
    assert_eq!(names, ["anthropic", "openai"]);
}

#[test]
fn the_defaults_of_sections_are_those_of_the_contract() {
    let config = Config::default();
    let openai = &config.providers["openai"];
    assert_eq!(openai.base_url.to_string(), "https://api.openai.com/v1");
    assert!(openai.api_key.is_none() && openai.max_requests.is_none() && openai.endpoints.is_none());
    assert_eq!(config.deferral.mode, DeferralMode::On);
    assert!(!config.deferral.default && config.deferral.rules.is_empty());
    assert_eq!(config.deferral.fallback, [Service::Sync]);
    assert_eq!(config.batching.idle.as_secs(), 5);
    assert_eq!(config.batching.max_age.as_secs(), 60);
    assert_eq!(config.batching.max_attempts, 3);
    assert_eq!(config.batching.poll.as_secs(), 10);
    assert_eq!(config.batching.max_requests, None);
}

#[test]
fn the_default_times_and_limits_are_those_of_the_contract() {
    let config = Config::default();
    assert_eq!(config.hold.commit_after.as_secs(), 25);
    assert_eq!(config.hold.heartbeat.as_secs(), 15);
    assert_eq!(config.hold.orphan_grace.as_secs(), 600);
    assert!(config.hold.interim_102);
    assert_eq!(config.limits.max_body_bytes, 33_554_432);
    assert_eq!(config.limits.max_queued_requests, 1_000_000);
    assert_eq!(config.limits.max_held_connections, 100_000);
    assert_eq!(config.shutdown.grace.as_secs(), 10);
    assert_eq!(config.upstream.connect_timeout.as_secs(), 10);
    assert_eq!(config.upstream.first_byte_timeout.as_secs(), 600);
    assert_eq!(config.upstream.idle_timeout.as_secs(), 600);
    assert_eq!(config.upstream.tls_roots, TlsRoots::Auto);
}

#[test]
fn by_default_nobody_else_may_call_and_nothing_is_shown() {
    let config = Config::default();
    assert!(config.cors.allow_origins.is_empty() && config.admin.allowed_hosts.is_empty());
    assert!(config.admin.token.is_none() && !config.admin.show_bodies && config.tls.is_none());
    assert!(!config.log.json && config.log.level == "info");
    assert!(config.client_keys.is_empty() && config.master_key.is_none());
}
