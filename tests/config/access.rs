//! Who may call: the loopback rule, client keys, tokens, origins, providers' addresses and keys.

use secrecy::ExposeSecret;

use super::super::{load, load_with, mistakes, mistakes_with, one_mistake, shown};

const KEYED: &str = "providers.openai.api_key_env = \"OPENAI_API_KEY\"\n";

#[test]
fn nothing_listens_beyond_loopback_without_authentication() {
    for listen in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"] {
        assert!(load(&format!("listen = \"{listen}\"")).is_ok(), "{listen}");
    }
    for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        one_mistake(&format!("\nlisten = \"{listen}\""), "proxy.toml:2: listen: ");
        one_mistake(&format!("listen = \"{listen}\""), "add [[client_keys]], or set allow_unauthenticated = true");
        assert!(load(&format!("listen = \"{listen}\"\nallow_unauthenticated = true")).is_ok());
        let keyed = format!("listen = \"{listen}\"\n{KEYED}client_keys = [{{ name = \"a\", key = \"b\" }}]");
        assert!(load_with(&keyed, &[("OPENAI_API_KEY", "sk-1")]).is_ok());
        // An admin token protects the admin listener only.
        one_mistake(&format!("listen = \"{listen}\"\nadmin.token = \"t\""), "listen: ");
    }
}

#[test]
fn the_admin_listener_needs_a_token_beyond_loopback_whatever_else_is_allowed() {
    let text = "allow_unauthenticated = true\nadmin_listen = \"0.0.0.0:5051\"\n";
    one_mistake(
        text,
        "proxy.toml:2: admin_listen: 0.0.0.0:5051 can be reached from other machines: set admin.token_env",
    );
    assert!(load(&format!("{text}admin.token = \"t\"")).is_ok());
    assert!(load_with(text, &[("NIGHTBUS_ADMIN_TOKEN", "t")]).is_ok());
    assert!(load_with(&format!("{text}admin.token_env = \"T\""), &[("T", "t")]).is_ok());
    // A token that cannot be had is one mistake, not two.
    one_mistake(&format!("{text}admin.token_env = \"T\""), "admin.token_env: the environment variable T is not set");
}

#[test]
fn the_two_listeners_must_not_overlap() {
    one_mistake(
        "listen = \"127.0.0.1:5051\"",
        "proxy.toml:1: listen: listen (127.0.0.1:5051) and admin_listen (127.0.0.1:5051) must differ",
    );
    one_mistake(
        "allow_unauthenticated = true\nlisten = \"0.0.0.0:5051\"",
        "proxy.toml:2: listen: listen (0.0.0.0:5051) and",
    );
    assert!(load("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"").is_ok());
    assert!(load("listen = \"127.0.0.2:5051\"").is_ok());
}

#[test]
fn client_keys_hold_names_values_and_providers() {
    let text = format!(
        "{KEYED}[[client_keys]]\nname = \"ci\"\nkey_env = \"NIGHTBUS_KEY_CI\"\nproviders = [\"openai\"]\n\
         [[client_keys]]\nname = \"web\"\nkey = \"w\"\n[[deferral.rules]]\nkey = \"ci\"\ndefer = true"
    );
    let config = load_with(&text, &[("OPENAI_API_KEY", "sk-1"), ("NIGHTBUS_KEY_CI", "c")]).unwrap();
    let [ci, web] = config.client_keys.as_slice() else { panic!("two keys") };
    assert_eq!((ci.name.as_str(), ci.key.expose_secret()), ("ci", "c"));
    assert_eq!(ci.providers.as_deref(), Some(["openai".to_owned()].as_slice()));
    assert!(web.providers.is_none());
    assert_eq!(config.deferral.rules[0].key.as_deref(), Some("ci"));
    let own = config.providers["openai"].api_key.as_ref().unwrap();
    assert_eq!((own.env.as_str(), own.value.expose_secret()), ("OPENAI_API_KEY", "sk-1"));
}

#[test]
fn client_keys_are_checked() {
    for (text, expected) in [
        ("key = \"k\"", "proxy.toml:2: client_keys[0].name: is required"),
        ("name = \"a\"", "proxy.toml:2: client_keys[0]: needs key_env"),
        (
            "name = \"a\"\nkey = \"k\"\nkey_env = \"K\"",
            "proxy.toml:5: client_keys[0].key_env: key is set too: give one of them",
        ),
        (
            "name = \"a\"\nkey_env = \"NIGHTBUS_KEY_A\"",
            "client_keys[0].key_env: the environment variable NIGHTBUS_KEY_A is not set, or empty",
        ),
        ("name = \"a\"\nkey = \"two words\"", "client_keys[0].key: must be visible ASCII without blanks"),
        ("name = \"a\"\nkey = \"k\"\nproviders = []", "client_keys[0].providers: is empty"),
        (
            "name = \"a\"\nkey = \"k\"\nproviders = [\"opanai\"]",
            "no provider is called \"opanai\"; did you mean \"openai\"?",
        ),
        (
            "name = \"a\"\nkey = \"k\"\n[[client_keys]]\nname = \"a\"\nkey = \"l\"",
            "proxy.toml:6: client_keys[1].name: \"a\" is the name of an earlier",
        ),
        (
            "name = \"a\"\nkey = \"k\"\n[[client_keys]]\nname = \"b\"\nkey = \"k\"",
            "proxy.toml:5: client_keys[1]: has the same value as the key of client \"a\"",
        ),
        ("name = 7\nkey = \"k\"", "client_keys[0].name: expected a name; found an integer"),
    ] {
        let found = mistakes_with(&format!("{KEYED}[[client_keys]]\n{text}"), &[("OPENAI_API_KEY", "sk-1")]);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:#?}");
    }
}

#[test]
fn a_provider_that_clients_may_use_needs_a_key_of_its_own() {
    let groq = "[providers.groq]\nbase_url = \"https://api.groq.com/openai/v1\"\n";
    let all = format!("{groq}[[client_keys]]\nname = \"ci\"\nkey = \"k\"");
    let found = mistakes(&all);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("proxy.toml:1: providers.groq.api_key_env: is required, since client \"ci\""),
        "{found:?}"
    );
    assert!(found[1].starts_with("providers.openai.api_key_env: is required"), "{found:?}");
    let one = format!("{KEYED}{all}\nproviders = [\"openai\"]");
    assert!(load_with(&one, &[("OPENAI_API_KEY", "sk-1")]).is_ok());
}

#[test]
fn a_key_that_cannot_be_had_names_the_key_and_the_variable_but_never_a_secret() {
    for (variable, value) in
        [("OPENAI_API_KEY", None), ("OPENAI_API_KEY", Some("")), ("OPENAI_API_KEY", Some("sk-hunter2\n"))]
    {
        let env: Vec<_> = value.map(|value| (variable, value)).into_iter().collect();
        let found = mistakes_with(KEYED, &env);
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .starts_with("proxy.toml:1: providers.openai.api_key_env: the environment variable OPENAI_API_KEY ")
        );
        assert!(!found[0].contains("hunter2"));
    }
    for pasted in ["sk-proj-hunter2", "gsk_hunter2", "hunter2"] {
        let found = mistakes(&format!("providers.openai.api_key_env = \"{pasted}\""));
        assert!(found.len() == 1 && found[0].contains("must be the name of an environment variable"), "{found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn provider_names_are_path_segments() {
    let table = |name: &str| format!("[providers.{name}]\nbase_url = \"https://h/v1\"");
    for name in ["groq", "my-groq_2", "0x"] {
        assert!(load(&table(name)).is_ok(), "{name}");
    }
    for name in ["v1", "batch", "nightbus"] {
        one_mistake(&table(name), &format!("proxy.toml:1: providers.{name}: no provider can be called"));
    }
    for name in ["Groq", "\"\"", "-x", "\"a/b\"", "\"ü\""] {
        one_mistake(&table(name), "a provider's name is made of");
    }
    one_mistake("[providers.groq]", "proxy.toml:1: providers.groq.base_url: is required");
}

#[test]
fn base_urls_are_checked_and_never_repeated() {
    for (url, stored) in [
        ("https://api.openai.com/v1///", "https://api.openai.com/v1"),
        ("http://127.0.0.1:5052/v1", "http://127.0.0.1:5052/v1"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("https://h", "https://h/"),
    ] {
        let config = load(&format!("providers.openai.base_url = \"{url}\"")).unwrap();
        assert_eq!(config.providers["openai"].base_url.to_string(), stored);
    }
    for url in [
        "api.openai.com/v1",
        "ftp://h/v1",
        "https://",
        "https://u:hunter2@h/v1",
        "https://h/v1?key=hunter2",
        "/v1",
        "ht tp://h",
        "http://:80/v1",
    ] {
        let found = mistakes(&format!("providers.openai.base_url = \"{url}\""));
        assert!(
            found.len() == 1 && found[0].starts_with("proxy.toml:1: providers.openai.base_url: "),
            "{url}: {found:?}"
        );
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn origins_and_hosts_are_checked() {
    for origin in ["*", "null", "app.example.com", "https://", "https://a/b", "https://*.a.com"] {
        one_mistake(&format!("cors.allow_origins = [\"{origin}\"]"), "cors.allow_origins: ");
    }
    for host in ["http://a", "a/b", "*", "a b"] {
        one_mistake(&format!("admin.allowed_hosts = [\"{host}\"]"), "admin.allowed_hosts: expected a host name");
    }
    one_mistake("admin.token = \"a\"\nadmin.token_env = \"PATH\"", "admin.token_env: token is set too");
    one_mistake("admin.token = \"a b\"", "admin.token: must be visible ASCII");
}

#[test]
fn tls_needs_both_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pem");
    std::fs::write(&file, "x").unwrap();
    let (file, directory) = (file.display(), directory.path().display());
    assert!(load(&format!("[tls]\ncert = \"{file}\"\nkey = \"{file}\"")).unwrap().tls.is_some());
    one_mistake(&format!("[tls]\nkey = \"{file}\""), "proxy.toml:1: tls.cert: is required beside tls.key");
    let admin = load(&format!("[admin.tls]\ncert = \"{file}\"\nkey = \"{file}\"")).unwrap();
    assert!(admin.admin.tls.is_some() && admin.tls.is_none());
    one_mistake(
        &format!("[admin.tls]\nkey = \"{file}\""),
        "proxy.toml:1: admin.tls.cert: is required beside admin.tls.key",
    );
    one_mistake(&format!("[tls]\ncert = \"{directory}\"\nkey = \"{file}\""), "proxy.toml:2: tls.cert: ");
    assert!(load(&format!("upstream.tls_roots = \"{file}\"")).is_ok());
}

#[test]
fn no_secret_shows_in_debug_or_summary() {
    let text =
        format!("{KEYED}admin.token = \"hunter2-admin\"\nclient_keys = [{{ name = \"a\", key = \"hunter2-client\" }}]");
    let config =
        load_with(&text, &[("OPENAI_API_KEY", "hunter2-openai"), ("NIGHTBUS_MASTER_KEY", "hunter2-master")]).unwrap();
    let said = format!("{config:?} {:?}", nightbus::config::summary(&config));
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(said.matches("(set)").count(), 3);
}

#[test]
fn a_webhook_secret_is_one_and_is_never_shown() {
    let text = "providers.openai.webhook_secret_env = \"HOOKS\"";
    let config = load_with(text, &[("HOOKS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]).unwrap();
    assert_eq!(shown(&config, "providers.openai.webhook_secret_env"), "\"HOOKS\"");
    assert!(!format!("{config:?}").contains("MfKQ"));
    for wrong in ["hunter2", "whsec_", "whsec_hunter2?"] {
        let found = mistakes_with(text, &[("HOOKS", wrong)]);
        assert!(found.len() == 1 && found[0].contains("HOOKS does not hold a webhook secret"), "{found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
    let other = mistakes_with(
        "providers.anthropic.webhook_secret_env = \"HOOKS\"",
        &[("HOOKS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
    );
    assert!(other.len() == 1 && other[0].contains("has no webhooks"), "{other:?}");
}
