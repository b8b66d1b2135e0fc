//! Every key, by file and by variable.

use std::collections::BTreeSet;

use nightbus::config::{Overrides, parse, reference};

use super::super::{environment, load, load_with, mistakes, mistakes_with, shown};

/// Key, a value that is not the default, as the summary shows it.
const KEYS: &[(&str, &str, &str)] = &[
    ("listen", "\"127.0.0.1:7001\"", "\"127.0.0.1:7001\""),
    ("admin_listen", "\"localhost:7002\"", "\"127.0.0.1:7002\""),
    ("allow_unauthenticated", "true", "true"),
    ("data_dir", "\"/var/lib/nightbus\"", "\"/var/lib/nightbus\""),
    ("store", "\"memory\"", "\"memory\""),
    ("retention", "\"1d\"", "\"1d\""),
    ("providers.openai.kind", "\"openai\"", "\"openai\""),
    ("providers.openai.base_url", "\"http://127.0.0.1:5052/v1/\"", "\"http://127.0.0.1:5052/v1\""),
    ("providers.openai.api_key_env", "\"OPENAI_API_KEY\"", "\"OPENAI_API_KEY\""),
    ("providers.openai.max_requests", "100", "100"),
    ("providers.openai.max_bytes", "\"1MB\"", "1000000"),
    ("providers.openai.in_flight_tokens", "5_000_000_000", "5000000000"),
    ("providers.openai.batches_per_hour", "0x10", "16"),
    ("providers.openai.completion_window", "\"24h\"", "\"24h\""),
    ("providers.openai.min_poll", "\"60s\"", "\"1m\""),
    ("providers.openai.endpoints", "[\"/v1/embeddings\"]", "[\"/v1/embeddings\"]"),
    ("providers.openai.background_windows", "[\"2h\"]", "[\"2h\"]"),
    ("deferral.mode", "\"observe\"", "\"observe\""),
    ("deferral.default", "true", "true"),
    ("deferral.fallback", "[\"background_8h\", \"sync\"]", "[\"background_8h\", \"sync\"]"),
    ("batching.idle", "\"300ms\"", "\"300ms\""),
    ("batching.max_age", "\"90s\"", "\"90s\""),
    ("batching.max_attempts", "5", "5"),
    ("batching.poll", "\"2s\"", "\"2s\""),
    ("batching.max_requests", "10", "10"),
    ("batching.max_bytes", "1024", "1024"),
    ("batching.in_flight_tokens", "9", "9"),
    ("hold.commit_after", "\"20s\"", "\"20s\""),
    ("hold.heartbeat", "\"1s\"", "\"1s\""),
    ("hold.orphan_grace", "\"1h30m\"", "\"90m\""),
    ("hold.interim_102", "false", "false"),
    ("limits.max_body_bytes", "\"32KiB\"", "32768"),
    ("limits.max_queued_requests", "1", "1"),
    ("limits.max_held_connections", "2", "2"),
    ("shutdown.grace", "\"0s\"", "\"0ms\""),
    ("upstream.connect_timeout", "\"1s\"", "\"1s\""),
    ("upstream.first_byte_timeout", "\"6h\"", "\"6h\""),
    ("upstream.idle_timeout", "\"3s\"", "\"3s\""),
    ("upstream.tls_roots", "\"bundled\"", "\"bundled\""),
    ("cors.allow_origins", "[\"https://App.example.com/\"]", "[\"https://app.example.com\"]"),
    ("cors.allow_hosts", "[\"LLM.example.com\"]", "[\"llm.example.com\"]"),
    ("admin.token", "\"t0ken\"", "(set)"),
    ("admin.allowed_hosts", "[\"Nightbus.internal\"]", "[\"nightbus.internal\"]"),
    ("admin.show_bodies", "true", "true"),
    ("log.format", "\"json\"", "\"json\""),
    ("log.level", "\"info,nightbus=debug\"", "\"info,nightbus=debug\""),
    ("flight.enabled", "false", "false"),
    ("flight.min_requests", "10", "10"),
    ("flight.size", "4", "4"),
    ("flight.ground_timeout", "\"2h\"", "\"2h\""),
    ("budget.daily_usd", "50.5", "50.5"),
    ("callbacks.secret", "\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"", "(set)"),
    ("callbacks.allow_private", "true", "true"),
    ("callbacks.allow", "[\"Hooks.internal\", \"10.1.0.0/16\"]", "[\"hooks.internal\", \"10.1.0.0/16\"]"),
];

/// Keys that need company; they are tried with it in `access` and below.
const WITH_COMPANY: &[&str] = &[
    "default_provider",
    "prices",
    "providers.openai.api_version",
    "providers.openai.cache_ttl",
    "providers.openai.creation_patience",
    "providers.openai.endpoint_prefix",
    "providers.openai.max_live_calls",
    "providers.openai.webhook_secret_env",
    "deferral.rules[].model",
    "deferral.rules[].path",
    "deferral.rules[].user_agent",
    "deferral.rules[].tag",
    "deferral.rules[].key",
    "deferral.rules[].defer",
    "client_keys[].name",
    "client_keys[].key_env",
    "client_keys[].key",
    "client_keys[].providers",
    "admin.token_env",
    "budget.limits[].tag",
    "budget.limits[].client_key",
    "budget.limits[].daily_usd",
    "callbacks.secret_env",
    "otel.endpoint",
    "otel.service_name",
    "admin.tls.cert",
    "admin.tls.key",
    "tls.cert",
    "tls.key",
];

/// Keys of later versions with a value that only these take.
const LATER: &[(&str, &str)] = &[("store", "\"postgres://u:hunter2@db/nightbus\"")];

const ROUTE_KEYS: &[&str] = &["routes[].model", "routes[].provider", "routes[].rename"];

fn variable(key: &str) -> String {
    format!("NIGHTBUS_{}", key.to_uppercase().replace('.', "__"))
}

/// As one writes it in a shell: without quotes, lists with commas.
fn plain(literal: &str) -> String {
    literal.replace(['"', '[', ']'], "")
}

#[test]
fn every_key_takes_effect_from_the_file_and_from_the_environment() {
    let key = ("OPENAI_API_KEY", "sk-1");
    for (path, literal, expected) in KEYS {
        let from_file = load_with(&format!("{path} = {literal}"), &[key]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(shown(&from_file, path), *expected, "{path}");
        if literal.starts_with("0x") {
            continue;
        }
        for text in [plain(literal), if literal.starts_with('[') { (*literal).to_owned() } else { plain(literal) }] {
            let from_env = load_with("", &[key, (&variable(path), &text)]).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(shown(&from_env, path), *expected, "{path}");
        }
    }
}

#[test]
fn what_later_versions_take_is_refused_as_such() {
    for (path, literal) in LATER {
        for found in
            [mistakes(&format!("{path} = {literal}")), mistakes_with("", &[(&variable(path), &plain(literal))])]
        {
            assert!(found.len() == 1 && found[0].contains("not in this version"), "{path}: {found:?}");
            assert!(!found[0].contains("hunter2"), "{found:?}");
        }
    }
}

#[test]
fn kinds_know_their_address_and_what_they_cannot_do() {
    let groq = load_with("[providers.groq]\nkind = \"groq\"", &[]).unwrap();
    assert_eq!(shown(&groq, "providers.groq.base_url"), "\"https://api.groq.com/openai/v1\"");
    let azure = "[providers.azure]\nkind = \"azure\"\nbase_url = \"https://r.openai.azure.com/openai\"\n\
                 api_version = \"2025-04-01-preview\"";
    let azure = load_with(azure, &[]).unwrap();
    assert_eq!(shown(&azure, "providers.azure.api_version"), "\"2025-04-01-preview\"");
    let told =
        "[providers.own]\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:9/v1\"\nendpoints = [\"/v1/embeddings\"]";
    assert!(mistakes(told).is_empty(), "a gateway may have batches");
    let own = "[providers.own]\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmax_live_calls = 8";
    assert_eq!(shown(&load_with(own, &[]).unwrap(), "providers.own.max_live_calls"), "8");
    let groq = load_with("[providers.groq]\nkind = \"groq\"\ncompletion_window = \"7d\"", &[]).unwrap();
    assert_eq!(shown(&groq, "providers.groq.completion_window"), "\"7d\"");
    let hour = load_with("[providers.anthropic]\ncache_ttl = \"1h\"", &[]).unwrap();
    assert_eq!(shown(&hour, "providers.anthropic.cache_ttl"), "\"1h\"");
    let openrouter = "[providers.r]\nkind = \"openrouter\"\ncreation_patience = \"90m\"\nendpoint_prefix = \"/v1\"";
    let openrouter = load_with(openrouter, &[]).unwrap();
    assert_eq!(shown(&openrouter, "providers.r.creation_patience"), "\"90m\"");
    assert_eq!(shown(&openrouter, "providers.r.endpoint_prefix"), "\"/v1\"");
    for (text, expected) in [
        ("[providers.own]\nkind = \"vllm\"", "providers.own.base_url: is required"),
        ("[providers.azure]\nkind = \"azure\"", "providers.azure.base_url: is required"),
        ("[providers.openai]\ncreation_patience = \"1h\"", "is for kind \"openrouter\" alone"),
        ("[providers.m]\nkind = \"openrouter\"\nendpoint_prefix = \"v1\"", "expected a path"),
        ("[providers.openai]\napi_version = \"1\"", "azure"),
        ("[providers.azure]\nkind = \"azure\"\nbase_url = \"http://h/v1\"\napi_version = \"a&b\"", "api_version"),
        ("[providers.x]\nkind = \"mistal\"\nbase_url = \"http://h/v1\"", "mistral"),
        ("[providers.x]\nkind = \"mistal\"", "mistral"),
        ("[providers.openai]\ncache_ttl = \"1h\"", "is for kind \"anthropic\" alone"),
        ("[providers.anthropic]\ncache_ttl = \"2h\"", "expected one of \"1h\""),
        ("[providers.openai]\nmax_live_calls = 8", "is for kinds without batches"),
        ("[providers.openai]\ncompletion_window = \"48h\"", "knows \"24h\" alone"),
        ("[providers.groq]\nkind = \"groq\"\ncompletion_window = \"a week\"", "expected hours or days"),
    ] {
        let found = mistakes(text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn a_route_needs_a_glob_and_a_provider_that_is_there() {
    let good = "[[routes]]\nmodel = \"claude-*\"\nprovider = \"anthropic\"\nrename = \"x\"";
    assert!(mistakes(good).is_empty(), "{:?}", mistakes(good));
    for (text, path) in [
        ("[[routes]]\nmodel = \"claude-*\"", "routes[0].provider"),
        ("[[routes]]\nprovider = \"anthropic\"", "routes[0].model"),
        ("[[routes]]\nmodel = \"a[\"\nprovider = \"anthropic\"", "routes[0].model"),
        ("[[routes]]\nmodel = \"a\"\nprovider = \"antropic\"", "did you mean \"anthropic\""),
        ("[[routes]]\nmodel = \"a\"\nprovider = \"openai\"\nrename = \"b:batch\"", "routes[0].rename"),
    ] {
        let found = mistakes(text);
        assert!(found.len() == 1 && found[0].contains(path), "{text}: {found:?}");
    }
}

#[test]
fn these_tests_know_every_key_of_the_documentation() {
    let documented: BTreeSet<String> = reference()
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .map(|path| path.replace("NAME", "openai"))
        .collect();
    let tested = KEYS.iter().map(|(path, ..)| *path).chain(LATER.iter().map(|(path, _)| *path));
    let tested: BTreeSet<String> =
        tested.chain(WITH_COMPANY.iter().copied()).chain(ROUTE_KEYS.iter().copied()).map(str::to_owned).collect();
    assert_eq!(documented, tested);
}

#[test]
fn every_key_refuses_a_value_of_another_type_and_says_what_it_expects() {
    for (path, literal, _) in KEYS {
        let wrong = if literal.starts_with('{') { "1" } else { "{ a = 1 }" };
        for wrong in [wrong, "1979-05-27", if literal.starts_with('"') { "true" } else { "\"x y\"" }] {
            let found = mistakes(&format!("\n{path} = {wrong}"));
            assert_eq!(found.len(), 1, "{path} = {wrong}: {found:?}");
            assert!(found[0].starts_with(&format!("proxy.toml:2: {path}: expected ")), "{found:?}");
            assert!(found[0].contains("; found "), "{found:?}");
        }
    }
}

#[test]
fn values_are_checked_for_sense() {
    for (text, expected) in [
        ("batching.idle = 5", "expected a duration such as \"300ms\", \"5s\", \"90m\", \"6h\"; found the integer 5"),
        ("batching.idle = \"5\"", "found \"5\""),
        ("batching.max_attempts = 0", "expected a whole number from 1 to 100; found 0"),
        ("batching.max_attempts = \"3\"", "expected a whole number from 1 to 100; found \"3\""),
        ("batching.max_requests = -1", "found -1"),
        ("batching.max_requests = 1.5", "found the number 1.5"),
        ("hold.heartbeat = \"900ms\"", "expected a duration of at least 1s"),
        ("hold.interim_102 = \"yes\"", "expected true or false; found \"yes\""),
        ("limits.max_body_bytes = 0", "found 0"),
        ("limits.max_body_bytes = \"32 apples\"", "such as \"32MiB\"; found \"32 apples\""),
        ("upstream.connect_timeout = \"0s\"", "at least 1ms"),
        ("deferral.mode = \"offf\"", "found \"offf\"; did you mean \"off\"?"),
        ("deferral.fallback = [\"snyc\"]", "found \"snyc\"; did you mean \"sync\"?"),
        ("deferral.fallback = \"sync\"", "expected a list of"),
        ("deferral.fallback = [\"sync\", 1]", "found a list with something else in it"),
        ("deferral.fallback = [\"none\", \"sync\"]", "\"none\" stands alone"),
        ("deferral.fallback = [\"sync\", \"sync\"]", "\"sync\" is listed twice"),
        ("store = \"sqlit\"", "found \"sqlit\"; did you mean \"sqlite\"?"),
        ("default_provider = \"opnai\"", "no provider is called \"opnai\"; did you mean \"openai\"?"),
        ("listen = \"5050\"", "expected an IP address with a port"),
        ("listen = \"localhost\"", "expected an IP address with a port"),
        ("listen = \"\"", "found an empty string"),
        ("log.level = \"inof\"", "\"inof\" is not a level; did you mean \"info\"?"),
        ("log.format = \"xml\"", "expected one of \"text\", \"json\"; found \"xml\""),
        ("upstream.tls_roots = \"/no/such.pem\"", "\"/no/such.pem\" cannot be read"),
        ("tls.cert = \"Cargo.toml\"", "tls.key: is required beside tls.cert"),
        ("flight.size = 200", "flight.size"),
        ("providers.openai.endpoints = [\"/v1/embedings\"]", "did you mean \"/v1/embeddings\"?"),
        ("budget.daily_usd = -1", "expected an amount in US dollars"),
        ("budget.daily_usd = nan", "expected an amount in US dollars"),
        ("batching = 5", "expected a table: [batching]"),
        ("[client_keys]\nname = \"x\"", "expected a list of tables: [[client_keys]]"),
        ("client_keys = [1]", "expected a list of tables"),
        ("deferral.rules = [1]", "expected a list of tables: [[deferral.rules]]"),
        ("providers.groq = \"https://api.groq.com\"", "expected a table: [providers.groq]"),
    ] {
        let found = mistakes(text);
        assert!(!found.is_empty() && found.iter().any(|line| line.contains(expected)), "{text}: {found:#?}");
        assert!(found.len() == 1 || text.starts_with("flight"), "{text}: {found:#?}");
    }
}

#[test]
fn an_empty_fallback_and_none_mean_the_same() {
    for text in ["deferral.fallback = []", "deferral.fallback = [\"none\"]"] {
        assert!(load(text).unwrap().deferral.fallback.is_empty());
    }
    for text in ["", "none", "[]"] {
        assert!(load_with("", &[("NIGHTBUS_DEFERRAL__FALLBACK", text)]).unwrap().deferral.fallback.is_empty());
    }
}

#[test]
fn rules_match_by_glob_and_keep_their_order() {
    let config = load(
        "client_keys = [{ name = \"ci\", key = \"k\" }]\nproviders.openai.base_url = \"http://h\"\n[[deferral.rules]]\nmodel = \"gpt-5*\"\n\
         path = \"/v1/*\"\nuser_agent = \"nightly/*\"\ntag = \"nightly-eval\"\ndefer = true\n[[deferral.rules]]\nmodel = \"openai/*\"\ndefer = false",
    );
    let errors = config.unwrap_err().to_string();
    assert!(errors.contains("providers.openai.api_key_env: is required, since client \"ci\""), "{errors}");
    let text = "[[deferral.rules]]\nmodel = \"gpt-5*\"\ntag = \"nightly-eval\"\ndefer = true\n\
                [[deferral.rules]]\npath = \"/v1/*\"\nuser_agent = \"n/*\"\ndefer = false";
    let rules = load(text).unwrap().deferral.rules;
    assert!(rules[0].defer && !rules[1].defer);
    let model = rules[0].model.as_ref().unwrap();
    assert!(model.is_match("gpt-5-mini") && !model.is_match("gpt-4"));
    assert!(rules[1].path.as_ref().unwrap().is_match("/v1/chat/completions"));
    assert!(rules[1].user_agent.as_ref().unwrap().is_match("n/1.0 (x/y)"));
    assert_eq!(rules[0].tag.as_deref(), Some("nightly-eval"));
    assert!(rules[0].path.is_none() && rules[0].key.is_none());
}

#[test]
fn rules_are_checked() {
    for (text, expected) in [
        ("defer = true", "proxy.toml:1: deferral.rules[0]: needs a condition"),
        ("model = \"a\"", "proxy.toml:1: deferral.rules[0].defer: is required"),
        ("model = \"[a\"\ndefer = true", "proxy.toml:2: deferral.rules[0].model: \"[a\" is not a valid glob"),
        ("tag = \"a b\"\ndefer = true", "proxy.toml:2: deferral.rules[0].tag: expected up to 64 letters"),
        ("key = \"ci\"\ndefer = true", "proxy.toml:2: deferral.rules[0].key: no client key is called \"ci\""),
        (
            "modle = \"a\"\nmodel = \"b\"\ndefer = true",
            "proxy.toml:2: deferral.rules[0].modle: unknown key; did you mean deferral.rules[0].model?",
        ),
    ] {
        super::super::one_mistake(&format!("[[deferral.rules]]\n{text}"), expected);
    }
}

#[test]
fn options_win_over_the_environment_which_wins_over_the_file() {
    let text = "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\ndata_dir = \"a\"\nretention = \"1h\"";
    let env = environment(&[("NIGHTBUS_LISTEN", "127.0.0.1:3"), ("NIGHTBUS_ADMIN_LISTEN", "127.0.0.1:4")]);
    let overrides =
        Overrides { listen: Some("127.0.0.1:5".to_owned()), store: Some("memory".to_owned()), ..Overrides::default() };
    let config = parse(Some(("proxy.toml", text)), env, &overrides).unwrap();
    assert_eq!((config.listen.port(), config.admin_listen.port()), (5, 4));
    assert_eq!((config.data_dir.to_str(), config.retention.as_secs()), (Some("a"), 3600));
    assert_eq!(shown(&config, "store"), "\"memory\"");
}

#[test]
fn budgets_of_tags_and_client_keys_are_checked() {
    for (text, expected) in [
        ("daily_usd = 1", "proxy.toml:1: budget.limits[0]: needs tag or client_key"),
        ("tag = \"a\"", "proxy.toml:1: budget.limits[0].daily_usd: is required"),
        ("tag = \"a b\"\ndaily_usd = 1", "proxy.toml:2: budget.limits[0].tag: expected up to 64 letters"),
        ("tag = \"a\"\ndaily_usd = -1", "proxy.toml:3: budget.limits[0].daily_usd: expected an amount in US dollars"),
        (
            "client_key = \"ci\"\ndaily_usd = 1",
            "proxy.toml:2: budget.limits[0].client_key: no client key is called \"ci\"",
        ),
        ("tag = \"a\"\nclient_key = \"\"\ndaily_usd = 1", "found an empty string"),
        (
            "tag = \"a\"\ndaily_usd = 1\n[[budget.limits]]\ntag = \"a\"\ndaily_usd = 2",
            "proxy.toml:4: budget.limits[1]: an earlier entry limits the same tag or client key",
        ),
    ] {
        let found = mistakes(&format!("[[budget.limits]]\n{text}"));
        assert!(found.iter().any(|line| line.contains(expected)), "{text}: {found:#?}");
    }
    let limits = "budget.daily_usd = 9\n[[budget.limits]]\ntag = \"eval\"\ndaily_usd = 2.5";
    let config = load(limits).unwrap();
    assert_eq!(shown(&config, "budget.daily_usd"), "9");
    assert_eq!(
        (shown(&config, "budget.limits[0].tag"), shown(&config, "budget.limits[0].daily_usd")),
        ("\"eval\"".into(), "2.5".into())
    );
}
