//! What a key is: its path, type, default, effect and risk.
//!
//! [`SECTIONS`] is the one table from which loading, the names suggested for unknown keys,
//! `docs/configuration.md` and `proxy.toml` all come. A path in the table is a pattern: `*` stands for a
//! provider's name, `[]` for any entry of a list of tables.

use std::time::Duration;

pub(super) use super::keys::SECTIONS;

/// Durations beyond this are refused: adding them to a clock could overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Names that are path prefixes already.
pub(super) const RESERVED_PROVIDER_NAMES: &[&str] = &["v1", "batch", "nightbus"];

/// One table of `proxy.toml`.
pub(super) struct Section {
    /// Pattern of the table's path; empty for the top level.
    pub(super) path: &'static str,
    /// What it is about.
    pub(super) about: &'static str,
    /// Its keys, in the order in which they are documented.
    pub(super) keys: &'static [Key],
}

impl Section {
    /// The pattern of one of its keys.
    pub(super) fn pattern_of(&self, key: &Key) -> String {
        if self.path.is_empty() { key.name.to_owned() } else { format!("{}.{}", self.path, key.name) }
    }

    /// Its header as `proxy.toml` writes it; `None` for the top level.
    pub(super) fn header(&self) -> Option<String> {
        match (self.path, self.path.strip_suffix("[]")) {
            ("", _) => None,
            (_, Some(list)) => Some(format!("[[{list}]]")),
            (table, None) => Some(format!("[{}]", table.replace('*', "NAME"))),
        }
    }
}

/// One key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// The last part of its path.
    pub(super) name: &'static str,
    /// What its values look like.
    pub(super) kind: Kind,
    /// As TOML text; `None`: there is none.
    pub(super) default: Option<&'static str>,
    /// As TOML text, shown where there is no default.
    pub(super) example: Option<&'static str>,
    /// What it does.
    pub(super) effect: &'static str,
    /// What can go wrong with it.
    pub(super) risk: Option<&'static str>,
}

/// What the values of a key look like.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Bytes, as a number or as `"32MiB"`; at least 1.
    Size,
    /// US dollars, not negative.
    Usd,
    /// A duration of at least `min`.
    Duration {
        /// Smallest.
        min: Duration,
    },
    /// A text that is not empty. Refusals never repeat it: it may be a secret, or a URL with one.
    Text {
        /// Completes "expected …".
        what: &'static str,
    },
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A list of texts.
    Texts {
        /// Completes "expected a list of …".
        what: &'static str,
        /// The allowed entries; empty: any.
        choices: &'static [&'static str],
    },
}

impl Key {
    /// A key without default.
    pub(super) const fn new(name: &'static str, kind: Kind, effect: &'static str) -> Self {
        Self { name, kind, default: None, example: None, effect, risk: None }
    }

    /// With its default, as TOML text.
    pub(super) const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// With an example, as TOML text.
    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    /// With what can go wrong.
    pub(super) const fn risk(mut self, risk: &'static str) -> Self {
        self.risk = Some(risk);
        self
    }
}

/// A duration of at least this many milliseconds.
pub(super) const fn duration(min_ms: u64) -> Kind {
    Kind::Duration { min: Duration::from_millis(min_ms) }
}

/// A whole number of at least `min`.
pub(super) const fn count(min: u64) -> Kind {
    Kind::Count { min, max: u32::MAX as u64 }
}

/// A text.
pub(super) const fn text(what: &'static str) -> Kind {
    Kind::Text { what }
}

/// A list of texts.
pub(super) const fn texts(what: &'static str) -> Kind {
    Kind::Texts { what, choices: &[] }
}

/// All keys with their patterns, in documented order.
pub(super) fn keys() -> impl Iterator<Item = (String, &'static Key)> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.pattern_of(key), key)))
}

/// The key of this pattern.
pub(super) fn key(pattern: &str) -> Option<&'static Key> {
    let (parent, name) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    let section = SECTIONS.iter().find(|section| section.path == parent)?;
    section.keys.iter().find(|key| key.name == name)
}

/// Whether a pattern names a list of tables (`[[client_keys]]`).
pub(super) fn is_list(pattern: &str) -> bool {
    SECTIONS.iter().any(|section| section.path.strip_suffix("[]") == Some(pattern))
}

/// Whether a pattern names a table, or one that only holds tables (`providers`).
pub(super) fn is_table(pattern: &str) -> bool {
    let below = format!("{pattern}.");
    SECTIONS.iter().any(|section| section.path == pattern || section.path.starts_with(&below))
}
