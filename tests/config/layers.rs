//! Files, the environment and the command line as sources.

use std::path::Path;

use nightbus::config::{Config, Overrides, ProviderKind, load, parse, summary};
use secrecy::ExposeSecret;

use super::super::{environment, load_with, mistakes_with, shown};

#[test]
fn providers_come_from_file_environment_and_option() {
    let config = load_with(
        "[providers.my-groq]\nbase_url = \"https://api.groq.com/openai/v1\"",
        &[
            ("NIGHTBUS_PROVIDERS__LOCAL__BASE_URL", "http://127.0.0.1:9/v1"),
            ("NIGHTBUS_PROVIDERS__MY_GROQ__MAX_REQUESTS", "7"),
        ],
    )
    .unwrap();
    let names: Vec<&String> = config.providers.keys().collect();
    assert_eq!(names, ["anthropic", "local", "my-groq", "openai"]);
    assert_eq!(config.providers["my-groq"].max_requests, Some(7));
    assert_eq!(config.providers["local"].name, "local");
}

#[test]
fn anthropic_is_there_unless_another_of_its_kind_or_client_keys_are() {
    let config = parse(None, [], &Overrides::default()).unwrap();
    let own = &config.providers["anthropic"];
    assert_eq!(
        (own.kind, own.base_url.to_string().as_str()),
        (ProviderKind::Anthropic, "https://api.anthropic.com/v1")
    );
    let other = "[providers.claude]\nkind = \"anthropic\"\nbase_url = \"http://127.0.0.1:9/v1\"";
    let config = load_with(other, &[]).unwrap();
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["claude", "openai"]);
    let config = load_with("[providers.anthropic]\nmax_requests = 3", &[]).unwrap();
    assert_eq!(config.providers["anthropic"].kind, ProviderKind::Anthropic, "its name says it");
    let config =
        load_with("[providers.anthropic]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"", &[]).unwrap();
    assert_eq!(config.providers["anthropic"].kind, ProviderKind::OpenAi);
    let keys = "[providers.openai]\napi_key_env = \"K\"\n[[client_keys]]\nname = \"ci\"\nkey = \"nb-0123456789\"";
    let config = load_with(keys, &[("K", "sk-1")]).unwrap();
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["openai"], "a client key must not reach a provider");
}

#[test]
fn the_upstream_option_makes_the_default_provider() {
    let upstream = Overrides { upstream: Some("http://127.0.0.1:5052/v1/".to_owned()), ..Overrides::default() };
    let config = parse(None, [], &upstream).unwrap();
    assert_eq!(config.providers["openai"].base_url.to_string(), "http://127.0.0.1:5052/v1");
    let config = parse(Some(("p", "default_provider = \"lab\"")), [], &upstream).unwrap();
    assert_eq!(config.providers["lab"].base_url.to_string(), "http://127.0.0.1:5052/v1");
    assert_eq!(config.providers["openai"].base_url.to_string(), "https://api.openai.com/v1");
    let bad = Overrides { upstream: Some("ftp://u:hunter2@h".to_owned()), ..Overrides::default() };
    let errors = parse(None, [], &bad).unwrap_err().to_string();
    assert_eq!(errors, "--upstream: providers.openai.base_url: must begin with https:// or http://");
    assert!(!format!("{bad:?}").contains("hunter2"));
}

#[test]
fn lists_of_tables_come_from_the_environment_by_index() {
    let env = [
        ("NIGHTBUS_CLIENT_KEYS__0__NAME", "ci"),
        ("NIGHTBUS_CLIENT_KEYS__0__KEY_ENV", "NIGHTBUS_KEY_CI"),
        ("NIGHTBUS_CLIENT_KEYS__1__NAME", "web"),
        ("NIGHTBUS_CLIENT_KEYS__1__KEY", "second"),
        ("NIGHTBUS_KEY_CI", "first"),
        ("NIGHTBUS_PROVIDERS__OPENAI__API_KEY_ENV", "NIGHTBUS_KEY_OPENAI"),
        ("NIGHTBUS_KEY_OPENAI", "sk-1"),
    ];
    let config = load_with("", &env).unwrap();
    let keys: Vec<_> = config.client_keys.iter().map(|key| (key.name.as_str(), key.key.expose_secret())).collect();
    assert_eq!(keys, [("ci", "first"), ("web", "second")]);
    let renamed = load_with("client_keys = [{ name = \"a\", key = \"b\" }]", &env).unwrap();
    assert_eq!(renamed.client_keys[0].key.expose_secret(), "first", "the later layer's key counts");
    let gap = mistakes_with("", &[("NIGHTBUS_CLIENT_KEYS__3__NAME", "x")]);
    assert_eq!(gap, ["NIGHTBUS_CLIENT_KEYS__3__NAME: client_keys[3].name: the list has 0 entries, counted from 0"]);
}

#[test]
fn unknown_variables_are_mistakes_but_not_those_of_others() {
    let found = mistakes_with("", &[("NIGHTBUS_BATCHING__IDEL", "2s"), ("NIGHTBUS_LOG", "debug")]);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], "NIGHTBUS_BATCHING__IDEL: unknown variable; did you mean NIGHTBUS_BATCHING__IDLE?");
    assert!(found[1].starts_with("NIGHTBUS_LOG: unknown variable; "), "{found:?}");
    let config = load_with(
        "admin.token_env = \"NIGHTBUS_MY_TOKEN\"",
        &[
            ("NIGHTBUS_MASTER_KEY", "m"),
            ("NIGHTBUS_CONFIG", "proxy.toml"),
            ("NIGHTBUS_KEY_CI", "k"),
            ("NIGHTBUS_TEST_ANYTHING", "1"),
            ("NIGHTBUS_MY_TOKEN", "t"),
            ("NIGHTBUS_SERVICE_HOST", "10.0.0.7"),
            ("NIGHTBUS_SERVICE_PORT", "5050"),
            ("NIGHTBUS_SERVICE_PORT_MAIN", "5050"),
            ("NIGHTBUS_PORT", "tcp://10.0.0.7:5050"),
            ("NIGHTBUS_PORT_5050_TCP_ADDR", "10.0.0.7"),
            ("NIGHTBUS_ADMIN_PORT_5051_TCP", "tcp://10.0.0.8:5051"),
            ("BATCHING__IDLE", "1s"),
        ],
    )
    .unwrap();
    assert_eq!(config.master_key.unwrap().expose_secret(), "m");
    assert_eq!(config.admin.token.unwrap().expose_secret(), "t");
}

#[test]
fn values_of_variables_are_coerced_and_refused_like_those_of_the_file() {
    for (text, value) in [("1", true), ("TRUE", true), ("no", false), (" false ", false)] {
        let config = load_with("", &[("NIGHTBUS_HOLD__INTERIM_102", text)]).unwrap();
        assert_eq!(config.hold.interim_102, value, "{text}");
    }
    let origins = load_with("", &[("NIGHTBUS_CORS__ALLOW_ORIGINS", "https://a, https://b:8080,")]).unwrap();
    assert_eq!(origins.cors.allow_origins, ["https://a", "https://b:8080"]);
    assert_eq!(
        mistakes_with("", &[("NIGHTBUS_BATCHING__IDLE", "2x"), ("NIGHTBUS_BATCHING__MAX_ATTEMPTS", "many")]),
        [
            "NIGHTBUS_BATCHING__IDLE: batching.idle: expected a duration such as \"300ms\", \"5s\", \"90m\", \"6h\"; found \"2x\"",
            "NIGHTBUS_BATCHING__MAX_ATTEMPTS: batching.max_attempts: expected a whole number from 1 to 100; found \"many\"",
        ]
    );
    assert_eq!(mistakes_with("", &[("NIGHTBUS_CORS__ALLOW_ORIGINS", "[oops")]).len(), 1);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config =
        load_with("batching.idle = \"7s\"", &[("NIGHTBUS_BATCHING__IDLE", ""), ("NIGHTBUS_MASTER_KEY", "")]).unwrap();
    assert_eq!(config.batching.idle.as_secs(), 7);
    assert!(config.master_key.is_none());
}

#[test]
fn the_admin_token_has_a_short_variable() {
    let config =
        load_with("admin.token_env = \"UNUSED\"\n", &[("NIGHTBUS_ADMIN_TOKEN", "short"), ("UNUSED", "u")]).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().expose_secret(), "short");
    assert_eq!(shown(&config, "admin.token"), "(set)");
}

#[test]
fn files_are_read_by_name_or_by_variable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("my.toml");
    std::fs::write(&file, "retention = \"5h\"\n").unwrap();
    let none = Overrides::default();
    assert_eq!(load(Some(&file), [], &none).unwrap().retention.as_secs(), 5 * 3600);
    let env = environment(&[("NIGHTBUS_CONFIG", file.to_str().unwrap())]);
    assert_eq!(load(None, env, &none).unwrap().retention.as_secs(), 5 * 3600);
    std::fs::write(&file, "\nretention = 5\n").unwrap();
    let errors = load(Some(&file), [], &none).unwrap_err().to_string();
    assert!(errors.starts_with(&format!("{}:2: retention: expected", file.display())), "{errors}");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(load(Some(&file), [], &none).unwrap_err().to_string().ends_with("my.toml: is not UTF-8 text"));
    let missing = load(Some(Path::new("/no/such/proxy.toml")), [], &none).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/proxy.toml: cannot be read: "), "{missing}");
}

#[test]
fn the_repositorys_proxy_toml_is_found_in_the_working_directory() {
    // Tests run in the root of the package.
    let config = load(None, [], &Overrides::default()).unwrap();
    assert_eq!(summary(&config), summary(&Config::default()));
}

#[test]
fn the_process_environment_can_be_read() {
    assert!(nightbus::config::environment().iter().any(|(name, _)| name == "PATH"));
}
