//! `docs/configuration.md` and `proxy.toml`, written from the schema so that they cannot say anything else.
//!
//! A test holds both files against this; `NIGHTBUS_TEST_BLESS=1` makes it write them.

use std::fmt::Write as _;

use super::path::KeyPath;
use super::schema::{Key, SECTIONS, Section};
use super::value;

const INTRO: &str = "\
# Configuration

<!-- Written from the schema in src/config: `NIGHTBUS_TEST_BLESS=1 cargo test --test config` -->

nightbus reads `proxy.toml` in the working directory if there is one, or the file that `--config` or `NIGHTBUS_CONFIG`
names. Every key is optional. `nightbus check-config` says what is in force, or lists all mistakes and exits with 2:

```text
proxy.toml:12: batching.idel: unknown key; did you mean batching.idle?
```

- **Precedence**: command line, then environment, then file, then default.
- **Environment**: `NIGHTBUS_` and the key's path in capitals, joined by `__`; a `-` in a provider's name becomes `_`,
  entries of lists of tables are counted from 0. Lists are written `a,b` or `[\"a\", \"b\"]`. An empty variable counts as
  not set, for a list as the empty list. Unknown `NIGHTBUS_` variables are mistakes. Not keys, and allowed:
  `NIGHTBUS_CONFIG`, `NIGHTBUS_MASTER_KEY` (what seals the store), `NIGHTBUS_ADMIN_TOKEN` (the same as `admin.token`),
  `NIGHTBUS_ADMIN` (the admin listener that the command line talks to), `NIGHTBUS_BIN` (which binary scripts run), what `api_key_env`, `key_env` or `token_env` name, whatever begins with `NIGHTBUS_KEY_` (keys) or `NIGHTBUS_TEST_`,
  and the links that Kubernetes makes for a service called `nightbus`.
- **Durations** are `300ms`, `5s`, `90m`, `6h`, `1d`, or a sequence such as `1h30m`. **Sizes** are bytes, or texts such
  as `\"200MB\"` (millions) and `\"32MiB\"` (1024 x 1024).
- **Secrets** are best kept out of the file: `api_key_env`, `key_env` and `token_env` name environment variables, which
  must be set. No message, log line or listing repeats a secret.
";

const FILE_INTRO: &str = "\
# nightbus: all keys with their defaults. Every key is optional; lines with one `#` show keys without a default.
# NIGHTBUS_ and the path in capitals, joined by __, overrides any key: NIGHTBUS_BATCHING__IDLE=2s
# docs/configuration.md says more; `nightbus check-config` checks this file.
";

/// The text of `docs/configuration.md`.
pub fn reference() -> String {
    let mut text = INTRO.to_owned();
    for section in SECTIONS {
        let title = section.header().map_or_else(|| "Top level".to_owned(), |header| format!("`{header}`"));
        push(&mut text, format_args!("\n## {title}\n\n{}\n", section.about));
        for key in section.keys {
            push(&mut text, format_args!("\n{}", reference_of(section, key)));
        }
    }
    text
}

fn reference_of(section: &Section, key: &Key) -> String {
    let pattern = section.pattern_of(key);
    let variable = KeyPath::instance_of(&pattern, &KeyPath::of("providers.NAME")).variable();
    let default = key.default.map_or_else(|| "no default".to_owned(), |default| format!("default `{default}`"));
    let expected = value::expected(key);
    let mut text = format!("### `{}`\n\n{}\n\n", pattern.replace('*', "NAME"), key.effect);
    push(&mut text, format_args!("- Value: {expected}; {default}\n- Variable: `{variable}`\n"));
    if let (None, Some(example)) = (key.default, key.example) {
        push(&mut text, format_args!("- Example: `{} = {example}`\n", key.name));
    }
    if let Some(risk) = key.risk {
        push(&mut text, format_args!("- Risk: {risk}\n"));
    }
    text
}

/// The text of `proxy.toml`: every key, those without a default behind one `#`.
pub fn default_file() -> String {
    let mut text = FILE_INTRO.to_owned();
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.about);
        // A list's entries have no defaults: an active header would make an entry, and a mistake.
        let is_active = !section.path.ends_with("[]");
        if let Some(header) = section.header() {
            let header = header.replace("NAME", "openai");
            push(&mut text, format_args!("{}{header}\n", if is_active { "" } else { "# " }));
        }
        for key in section.keys {
            comment(&mut text, &format!("{} {}", key.effect, key.risk.unwrap_or_default()));
            match (key.default.filter(|_| is_active), key.default.or(key.example)) {
                (Some(default), _) => push(&mut text, format_args!("{} = {default}\n", key.name)),
                (None, shown) => push(&mut text, format_args!("# {} = {}\n", key.name, shown.unwrap_or("…"))),
            }
        }
    }
    text
}

/// Wraps prose into comment lines, marked `##` so that `#` is left for keys.
fn comment(text: &mut String, prose: &str) {
    let mut line = String::from("##");
    for word in prose.split_whitespace() {
        if line.chars().count() + word.chars().count() > 110 {
            push(text, format_args!("{line}\n"));
            line.truncate(2);
        }
        line.push(' ');
        line.push_str(word);
    }
    push(text, format_args!("{line}\n"));
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    text.write_fmt(more).unwrap_or_default();
}
