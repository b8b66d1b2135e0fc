//! The schema's own consistency, and the parts that only this module sees.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::path::KeyPath;
use super::schema::Kind;
use super::value::parse_size;
use super::*;

#[test]
fn every_default_and_example_has_the_type_of_its_key() {
    for (pattern, key) in schema::keys() {
        for literal in [key.default, key.example].into_iter().flatten() {
            assert!(value::from_literal(key, literal).is_some(), "{pattern} = {literal}");
        }
        assert!(key.default.is_some() || key.example.is_some(), "{pattern} shows no value");
        assert!(key.effect.ends_with('.'), "{pattern}");
        assert!(key.risk.is_none_or(|risk| risk.ends_with('.')), "{pattern}");
    }
}

#[test]
fn every_path_and_variable_is_used_once() {
    let mut seen = BTreeSet::new();
    for (pattern, _) in schema::keys() {
        let path = KeyPath::instance_of(&pattern, &KeyPath::default());
        assert_eq!(path.pattern(), pattern);
        assert!(schema::key(&pattern).is_some(), "{pattern}");
        assert!(!schema::is_table(&pattern) && !schema::is_list(&pattern), "{pattern}");
        let variable = path.variable();
        let rest = variable.strip_prefix(path::PREFIX).unwrap();
        assert_eq!(KeyPath::from_variable(rest).to_string(), path.to_string());
        assert!(seen.insert(variable), "{pattern}");
    }
    assert!(seen.is_disjoint(&suggest::RESERVED_VARIABLES.iter().map(|&name| name.to_owned()).collect()));
}

#[test]
fn every_default_is_what_the_summary_shows() {
    let summary = summary(&Config::default());
    for (pattern, key) in schema::keys().filter(|(pattern, _)| !pattern.contains("[]")) {
        let Some(default) = key.default else { continue };
        let shown = summary.iter().find(|(path, _)| *path == pattern.replace('*', "openai"));
        let (_, shown) = shown.unwrap_or_else(|| panic!("{pattern} is not shown"));
        let same = value::from_literal(key, shown) == value::from_literal(key, default);
        assert!(same && value::from_literal(key, shown).is_some(), "{pattern}: {shown} for {default}");
    }
}

#[test]
fn durations_are_those_of_the_contract_and_no_others() {
    let ok = [("300ms", 300), ("5s", 5_000), ("90m", 5_400_000), ("6h", 21_600_000), ("1d", 86_400_000), ("0s", 0)];
    for (text, millis) in ok {
        assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
    for text in
        ["", "5", "s", "5 s", " 5s", "-5s", "1.5s", "5S", "90M", "1y", "1w", "5us", "99999d", "99999999999999999999s"]
    {
        assert_eq!(parse_duration(text), None, "{text:?}");
    }
}

#[test]
fn sizes_tell_millions_from_powers_of_two() {
    let ok = [("7", 7), ("200MB", 200_000_000), ("32MiB", 33_554_432), ("1 GiB", 1 << 30), ("1_000kB", 1_000_000)];
    for (text, bytes) in ok {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in ["", "MB", "5X", "-1", "1.5MB", "99999999999999GB", "1MB1"] {
        assert_eq!(parse_size(text), None, "{text:?}");
    }
}

#[test]
fn the_nearest_key_is_found_across_sections_and_spellings() {
    for (given, near) in [
        ("batching.idel", "did you mean batching.idle?"),
        ("bacthing", "did you mean batching?"),
        ("Listen", "did you mean listen?"),
        ("admin-listen", "did you mean admin_listen?"),
        ("heartbeat", "did you mean hold.heartbeat?"),
        ("providers.groq.base-url", "did you mean providers.groq.base_url?"),
        ("base_url", "did you mean providers.openai.base_url?"),
        ("client_key", "did you mean client_keys?"),
        ("provider", "did you mean providers?"),
        ("upstream.timeout", "did you mean upstream.connect_timeout?"),
        ("providers.openai.api_key", "did you mean providers.openai.api_key_env?"),
        ("batching.max_requests_per_file", "did you mean batching.max_requests?"),
    ] {
        assert_eq!(suggest::unknown_key(&KeyPath::of(given)), format!("unknown key; {near}"), "{given}");
    }
    for far in ["zzzzzzzzzzzz", "port"] {
        assert!(suggest::unknown_key(&KeyPath::of(far)).starts_with("unknown key; the nearest is "), "{far}");
    }
    let entry = KeyPath::of("client_keys").entry(3).child("nmae");
    assert_eq!(suggest::unknown_key(&entry), "unknown key; did you mean client_keys[3].name?");
}

#[test]
fn the_nearest_variable_is_found() {
    for (given, near) in [
        ("NIGHTBUS_BATCHING_IDLE", "NIGHTBUS_BATCHING__IDLE"),
        ("NIGHTBUS_LISTN", "NIGHTBUS_LISTEN"),
        ("NIGHTBUS_MASTERKEY", "NIGHTBUS_MASTER_KEY"),
        ("NIGHTBUS_PROVIDERS__GROQ__BASEURL", "NIGHTBUS_PROVIDERS__GROQ__BASE_URL"),
        ("NIGHTBUS_CLIENT_KEYS__1__NAM", "NIGHTBUS_CLIENT_KEYS__1__NAME"),
    ] {
        assert_eq!(suggest::unknown_variable(given), format!("unknown variable; did you mean {near}?"));
    }
}

/// Texts that are likely to get past the parser: known keys with odd values.
fn almost_a_file() -> impl Strategy<Value = String> {
    let names: Vec<String> = schema::SECTIONS
        .iter()
        .flat_map(|section| section.header().into_iter().chain(section.keys.iter().map(|key| key.name.to_owned())))
        .collect();
    let values = prop_oneof![
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("[[1], {a = 2}]".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("{ a.b = 1 }".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        "[a-z0-9:/.*{}\\[-]{0,12}".prop_map(|text| format!("'{text}'")),
        "\\PC{0,8}",
    ];
    let line = (proptest::sample::select(names), values, 0..4_u8).prop_map(|(name, value, how)| match how {
        0 => name,
        1 => format!("{name}x = {value}"),
        _ => format!("{} = {value}", name.trim_matches(['[', ']']).replace("NAME", "x")),
    });
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_every_refusal_names_a_mistake(
        text in prop_oneof![any::<String>(), almost_a_file()],
        name in "[A-Z_0-9]{0,20}",
        value in any::<String>(),
    ) {
        let env = [(format!("NIGHTBUS_{name}"), value.clone()), ("NIGHTBUS_LOG__LEVEL".to_owned(), value)];
        match parse(Some(("proxy.toml", &text)), env, &Overrides::default()) {
            Ok(config) => prop_assert!(!summary(&config).is_empty()),
            Err(errors) => prop_assert!(!errors.mistakes().is_empty() && !errors.to_string().is_empty()),
        }
    }

    #[test]
    fn any_value_of_any_variable_is_taken_or_refused(index in any::<proptest::sample::Index>(), value in any::<String>()) {
        let keys: Vec<_> = schema::keys().collect();
        let (pattern, key) = index.get(&keys);
        let variable = KeyPath::instance_of(pattern, &KeyPath::default()).variable();
        let result = parse(None, [(variable.clone(), value.clone())], &Overrides::default());
        if matches!(key.kind, Kind::Duration { .. }) && result.is_ok() {
            prop_assert!(value.trim().is_empty() || parse_duration(value.trim()).is_some(), "{variable}={value:?}");
        }
    }
}
