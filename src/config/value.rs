//! From text to a checked value: what a key's type accepts, strictly, and what the refusal says.

use std::time::Duration;

use toml::de::DeValue;

use super::schema::{Key, Kind, LONGEST};
use super::suggest;

/// A value of the right type. Without `Debug`, since it may be a secret.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Count`] and, in bytes, [`Kind::Size`].
    Integer(u64),
    /// Of [`Kind::Usd`].
    Usd(f64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Text`] and [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Texts`].
    Texts(Vec<String>),
}

/// Reads a duration as `proxy.toml` and nightbus's headers write it: `300ms`, `5s`, `90m`, `6h`, `1d`, or
/// several of them one after the other (`1h30m`). `None` for anything else, and beyond ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    // humantime alone would also take years, months (`M`), nanoseconds and blanks: `90M` must not be 7 years.
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let after = ["ms", "s", "m", "h", "d"].into_iter().find_map(|known| unit.strip_prefix(known))?;
        if unit.len() == rest.len() {
            return None;
        }
        rest = after;
    }
    humantime::parse_duration(text).ok().filter(|duration| *duration <= LONGEST)
}

/// Reads a size: `33554432`, `200MB` (millions), `32MiB` (1024 x 1024).
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
    let number: u64 = text.strip_suffix(unit)?.replace('_', "").parse().ok()?;
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The value of `key` that the file gives.
pub(super) fn from_toml(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    let refuse = || refusal(key, &describe(key, value));
    match (&key.kind, value) {
        (Kind::Bool, DeValue::Boolean(value)) => Ok(Value::Bool(*value)),
        (Kind::Count { .. } | Kind::Size, DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            integer(key, i128::from_str_radix(&digits, number.radix()).map_err(|_error| refuse())?)
        }
        (Kind::Usd, DeValue::Integer(number)) => usd(key, number.as_str()),
        (Kind::Usd, DeValue::Float(number)) => usd(key, number.as_str()),
        (Kind::Size | Kind::Duration { .. } | Kind::Text { .. } | Kind::Choice(_), DeValue::String(text)) => {
            from_text(key, text)
        }
        (Kind::Texts { .. }, DeValue::Array(entries)) => {
            let texts: Option<Vec<String>> =
                entries.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned)).collect();
            list(key, texts.ok_or_else(|| refusal(key, "a list with something else in it"))?)
        }
        _ => Err(refuse()),
    }
}

/// The value of `key` that an environment variable or a command line option gives.
pub(super) fn from_plain(key: &Key, plain: &str) -> Result<Value, String> {
    let plain = if matches!(key.kind, Kind::Text { .. }) { plain } else { plain.trim() };
    match key.kind {
        Kind::Bool => match plain.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Value::Bool(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Bool(false)),
            _ => Err(refusal(key, &quoted(plain))),
        },
        Kind::Count { .. } => {
            let number = plain.replace('_', "").parse::<i128>();
            integer(key, number.map_err(|_error| refusal(key, &quoted(plain)))?)
        }
        Kind::Usd => usd(key, plain),
        Kind::Texts { .. } if plain.starts_with('[') => match DeValue::parse(plain) {
            Ok(value) => from_toml(key, value.get_ref()),
            Err(_error) => Err(refusal(key, "a list that is not valid TOML")),
        },
        Kind::Texts { .. } => {
            let entries = plain.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            list(key, entries.map(str::to_owned).collect())
        }
        Kind::Size | Kind::Duration { .. } | Kind::Text { .. } | Kind::Choice(_) => from_text(key, plain),
    }
}

/// A default or example of the schema.
pub(super) fn from_literal(key: &Key, literal: &str) -> Option<Value> {
    DeValue::parse(literal).ok().and_then(|value| from_toml(key, value.get_ref()).ok())
}

/// What is expected of a key's values: completes "expected …".
pub(super) fn expected(key: &Key) -> String {
    match key.kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Count { min, max } if max > u64::from(u32::MAX) => format!("a whole number of at least {min}"),
        Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Size => "a number of bytes above 0, or a size such as \"32MiB\"".to_owned(),
        Kind::Usd => "an amount in US dollars such as 50.0".to_owned(),
        Kind::Duration { min } if min.is_zero() => "a duration such as \"300ms\", \"5s\", \"90m\", \"6h\"".to_owned(),
        Kind::Duration { min } => {
            format!("a duration of at least {}, such as \"5s\", \"90m\", \"6h\"", humantime::format_duration(min))
        }
        Kind::Text { what } => what.to_owned(),
        Kind::Choice(choices) => format!("one of {}", quoted_list(choices)),
        Kind::Texts { what, choices: [] } => format!("a list of {what}"),
        Kind::Texts { choices, .. } => format!("a list of {}", quoted_list(choices)),
    }
}

/// A text in quotes, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

fn quoted_list(choices: &[&str]) -> String {
    choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(", ")
}

fn refusal(key: &Key, found: &str) -> String {
    format!("expected {}; found {found}", expected(key))
}

fn describe(key: &Key, value: &DeValue<'_>) -> String {
    let shown = !matches!(key.kind, Kind::Text { .. });
    match value {
        DeValue::String(text) if shown => quoted(text),
        DeValue::Integer(number) if shown => format!("the integer {}", number.as_str()),
        DeValue::Float(number) if shown => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::String(_) => "a string".to_owned(),
        DeValue::Integer(_) => "an integer".to_owned(),
        DeValue::Float(_) => "a number with a fraction".to_owned(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn integer(key: &Key, number: i128) -> Result<Value, String> {
    let (min, max) = if let Kind::Count { min, max } = key.kind { (min, max) } else { (1, u64::MAX / 2) };
    let in_bounds = u64::try_from(number).ok().filter(|number| (min..=max).contains(number));
    in_bounds.map(Value::Integer).ok_or_else(|| refusal(key, &number.to_string()))
}

fn usd(key: &Key, number: &str) -> Result<Value, String> {
    match number.replace('_', "").parse::<f64>() {
        Ok(amount) if amount.is_finite() && amount >= 0.0 => Ok(Value::Usd(amount)),
        _ => Err(refusal(key, &quoted(number))),
    }
}

fn from_text(key: &Key, text: &str) -> Result<Value, String> {
    let refuse = || refusal(key, &quoted(text));
    match key.kind {
        Kind::Size => integer(key, i128::from(parse_size(text).ok_or_else(refuse)?)),
        Kind::Duration { min } => match parse_duration(text) {
            Some(duration) if duration >= min => Ok(Value::Duration(duration)),
            _ => Err(refuse()),
        },
        Kind::Text { .. } if text.trim().is_empty() => Err(refusal(key, "an empty string")),
        Kind::Choice(choices) if !choices.contains(&text) => Err(not_a_choice(key, text, choices)),
        Kind::Bool | Kind::Count { .. } | Kind::Usd | Kind::Texts { .. } => Err(refuse()),
        Kind::Text { .. } | Kind::Choice(_) => Ok(Value::Text(text.to_owned())),
    }
}

fn list(key: &Key, entries: Vec<String>) -> Result<Value, String> {
    if let Kind::Texts { choices, .. } = key.kind {
        let unknown = entries.iter().find(|entry| !choices.is_empty() && !choices.contains(&entry.as_str()));
        if let Some(entry) = unknown {
            return Err(not_a_choice(key, entry, choices));
        }
        if entries.iter().any(String::is_empty) {
            return Err(refusal(key, "an empty string in it"));
        }
    }
    Ok(Value::Texts(entries))
}

fn not_a_choice(key: &Key, text: &str, choices: &[&str]) -> String {
    match suggest::nearest(text, choices) {
        Some(near) => format!("{}; did you mean \"{near}\"?", refusal(key, &quoted(text))),
        None => refusal(key, &quoted(text)),
    }
}
