//! The configuration. No text makes reading it panic; what is accepted can be shown; and no message about it, nor the
//! list of what is in force, repeats a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightbus::config::{Overrides, parse, parse_duration, summary};

/// Stands in the text wherever the fuzzer wrote `$`.
const SECRET: &str = "hush-4f9d7c";

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = parse_duration(text);
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    let env = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("NIGHTBUS_{name}"), value.to_owned()));
    told(parse(Some(("proxy.toml", file)), env, &Overrides::default()));
    keeps_secrets(file);
});

fn told(result: Result<nightbus::config::Config, nightbus::config::ConfigErrors>) -> String {
    match result {
        Ok(config) => format!("{:?}", summary(&config)),
        Err(errors) => {
            let text = errors.to_string();
            assert!(!text.is_empty());
            text
        }
    }
}

/// Where a secret belongs, whatever stands around it.
fn keeps_secrets(around: &str) {
    let quoted = serde_json::to_string(around).unwrap_or_default();
    let inside = quoted.trim_matches('"');
    for place in ["[admin]\ntoken", "[[client_keys]]\nname = \"ci\"\nkey"] {
        let file = format!("{place} = \"{inside}{SECRET}\"\n");
        let shown = told(parse(Some(("proxy.toml", &file)), [], &Overrides::default()));
        assert!(!shown.contains(SECRET), "{shown}");
    }
    for variable in ["NIGHTBUS_ADMIN_TOKEN", "NIGHTBUS_ADMIN__TOKEN"] {
        let env = [(variable.to_owned(), format!("{around}{SECRET}"))];
        let shown = told(parse(Some(("proxy.toml", around)), env, &Overrides::default()));
        assert!(!shown.contains(SECRET), "{shown}");
    }
}
