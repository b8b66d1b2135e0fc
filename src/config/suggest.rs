//! The nearest valid name for one that is not known.

use super::path::{KeyPath, PREFIX};
use super::schema;

/// Variables that are not keys of `proxy.toml`.
pub(super) const RESERVED_VARIABLES: &[&str] = &["NIGHTBUS_MASTER_KEY", "NIGHTBUS_ADMIN_TOKEN", "NIGHTBUS_CONFIG"];

/// The choice that `text` was probably meant to be; `None` when none is close.
pub(super) fn nearest<'a>(text: &str, choices: &[&'a str]) -> Option<&'a str> {
    let text = plain(text);
    let scored = choices.iter().map(|choice| (distance(&text, &plain(choice)), *choice));
    scored.min_by_key(|(score, _)| *score).filter(|(score, _)| is_close(*score, &text)).map(|(_, choice)| choice)
}

/// What to say of an unknown key.
pub(super) fn unknown_key(path: &KeyPath) -> String {
    let leaf = plain(path.leaf().unwrap_or_default());
    let parent = plain(&path.parent().to_string());
    let best = known_paths(path)
        .map(|known| {
            let leaf_distance = name_distance(&leaf, &plain(known.leaf().unwrap_or_default()));
            // A right name in the wrong section must beat a wrong name in the right one.
            let parent_distance = distance(&parent, &plain(&known.parent().to_string())).min(3);
            (leaf_distance.saturating_mul(2).saturating_add(parent_distance), leaf_distance, known)
        })
        .min_by_key(|(score, _, _)| *score);
    match best {
        Some((_, leaf_distance, known)) => verdict("unknown key", is_close(leaf_distance, &leaf), &known.to_string()),
        None => "unknown key".to_owned(),
    }
}

/// What to say of an unknown `NIGHTBUS_` variable.
pub(super) fn unknown_variable(name: &str) -> String {
    let like = KeyPath::from_variable(name.strip_prefix(PREFIX).unwrap_or(name));
    let keys = schema::keys().map(|(pattern, _)| KeyPath::instance_of(&pattern, &like).variable());
    let best = keys
        .chain(RESERVED_VARIABLES.iter().map(|&reserved| reserved.to_owned()))
        .map(|known| (distance(name, &known), known))
        .min_by_key(|(score, _)| *score);
    match best {
        Some((score, known)) => {
            let own_part = name.strip_prefix(PREFIX).unwrap_or(name);
            verdict("unknown variable", is_close(score, own_part), &known)
        }
        None => "unknown variable".to_owned(),
    }
}

fn verdict(what: &str, close: bool, near: &str) -> String {
    if close { format!("{what}; did you mean {near}?") } else { format!("{what}; the nearest is {near}") }
}

/// All keys and tables, with the names and positions of `like` where the way is the same.
fn known_paths(like: &KeyPath) -> impl Iterator<Item = KeyPath> {
    let keys = schema::keys().map(|(pattern, _)| pattern);
    let tables = schema::SECTIONS.iter().filter(|section| !section.path.is_empty()).map(|section| {
        let pattern = section.path.trim_end_matches("[]");
        pattern.trim_end_matches(".*").to_owned()
    });
    keys.chain(tables).map(|pattern| KeyPath::instance_of(&pattern, like))
}

fn plain(text: &str) -> String {
    // Distances cost length x length; no key is longer than this.
    text.chars().take(80).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

fn distance(a: &str, b: &str) -> usize {
    if a.len() > 400 { usize::MAX / 4 } else { strsim::damerau_levenshtein(a, b) }
}

/// As [`distance`], but `timeout` is near to `idle_timeout`, and `max_requests_per_file` to `max_requests`.
fn name_distance(a: &str, b: &str) -> usize {
    let contains = (a.len() > 3 && b.contains(a)) || (b.len() > 3 && a.contains(b));
    if contains { distance(a, b).min(2) } else { distance(a, b) }
}

fn is_close(score: usize, text: &str) -> bool {
    score <= (text.chars().count() / 3).max(1)
}
