//! All given values by path, each with its origin, and the mistakes found so far.
//!
//! Layers (file, environment, command line) write into it one after the other, so that the last one wins;
//! `build` then reads it, with the schema's defaults for what was not given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::{Mistake, Origin};
use super::path::{KeyPath, Segment};
use super::schema;
use super::value::{self, Value};

/// The values, without `Debug`, since some are secrets.
#[derive(Default)]
pub(super) struct Tree {
    values: BTreeMap<KeyPath, (Value, Origin)>,
    tables: BTreeMap<KeyPath, Origin>,
    broken: BTreeSet<KeyPath>,
    mistakes: Vec<Mistake>,
}

impl Tree {
    /// Stores a value over that of an earlier layer, or the reason why there is none.
    pub(super) fn put(&mut self, path: KeyPath, value: Result<Value, String>, origin: Origin) {
        match value {
            Ok(value) => {
                self.values.insert(path, (value, origin));
            }
            Err(message) => {
                self.report(&path, origin, message);
                self.broken.insert(path);
            }
        }
    }

    /// Notes that a table was given, with or without keys.
    pub(super) fn put_table(&mut self, path: KeyPath, origin: Origin) {
        self.tables.insert(path, origin);
    }

    /// Adds a mistake at a place of its own.
    pub(super) fn report(&mut self, path: &KeyPath, origin: Origin, message: impl Into<String>) {
        self.mistakes.push(Mistake { origin, key: path.to_string(), message: message.into() });
    }

    /// Adds a mistake where the value of `path` was given, else where its table was.
    pub(super) fn mistake(&mut self, path: &KeyPath, message: impl Into<String>) {
        let origin = self.origin(path);
        self.report(path, origin, message);
    }

    /// Adds a mistake about a value that is not there; not when it was given wrongly, which is reported already.
    pub(super) fn missing(&mut self, path: &KeyPath, message: impl Into<String>) {
        if !self.broken.contains(path) && !self.broken.contains(&path.parent()) {
            self.mistake(path, message);
        }
    }

    /// Drops the mistakes for which `keep` is false.
    pub(super) fn retain_mistakes(&mut self, keep: impl Fn(&Mistake) -> bool) {
        self.mistakes.retain(keep);
    }

    /// All mistakes.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// Whether any layer gave this value, rightly or wrongly.
    pub(super) fn is_given(&self, path: &KeyPath) -> bool {
        self.values.contains_key(path) || self.broken.contains(path)
    }

    /// Whether a layer gave this value wrongly.
    pub(super) fn is_broken(&self, path: &KeyPath) -> bool {
        self.broken.contains(path)
    }

    /// Of two keys that exclude each other, the one that counts: that of the later layer. Both in one layer is a
    /// mistake.
    pub(super) fn either(&mut self, a: &KeyPath, b: &KeyPath) -> Option<KeyPath> {
        let layer = |path: &KeyPath| match self.values.get(path)?.1 {
            Origin::Default => Some(0),
            Origin::File { .. } => Some(1),
            Origin::Environment(_) => Some(2),
            Origin::Option(_) => Some(3),
        };
        match (layer(a), layer(b)) {
            (None, None) => None,
            (first, second) if first == second => {
                self.mistake(b, format!("{} is set too: give one of them", a.leaf().unwrap_or_default()));
                Some(a.clone())
            }
            (first, second) => Some(if first > second { a.clone() } else { b.clone() }),
        }
    }

    /// All given values.
    pub(super) fn given(&self) -> impl Iterator<Item = (&KeyPath, &Value)> {
        self.values.iter().map(|(path, (value, _))| (path, value))
    }

    /// The names directly below a table.
    pub(super) fn names_below(&self, table: &KeyPath) -> BTreeSet<String> {
        self.steps_below(table)
            .filter_map(|step| match step {
                Segment::Name(name) => Some(name.clone()),
                Segment::Index(_) => None,
            })
            .collect()
    }

    /// The entries of a list of tables, without those that are no tables.
    pub(super) fn entries_of(&self, list: &KeyPath) -> Vec<KeyPath> {
        let indexes: BTreeSet<usize> = self
            .steps_below(list)
            .filter_map(|step| match step {
                Segment::Index(index) => Some(*index),
                Segment::Name(_) => None,
            })
            .collect();
        indexes.into_iter().map(|index| list.entry(index)).filter(|entry| !self.broken.contains(entry)).collect()
    }

    fn steps_below<'a>(&'a self, table: &'a KeyPath) -> impl Iterator<Item = &'a Segment> {
        let paths = self.values.keys().chain(self.tables.keys()).chain(&self.broken);
        paths.filter_map(|path| path.step_below(table))
    }

    fn origin(&self, path: &KeyPath) -> Origin {
        let own = self.values.get(path).map(|(_, origin)| origin).or_else(|| self.tables.get(path));
        let below =
            || self.values.iter().find(|(key, _)| key.step_below(path).is_some()).map(|(_, (_, origin))| origin);
        own.or_else(below).or_else(|| self.tables.get(&path.parent())).cloned().unwrap_or(Origin::Default)
    }

    /// The value of a key: as given, else its default.
    fn read(&self, path: &KeyPath) -> Option<Value> {
        if let Some((value, _)) = self.values.get(path) {
            return Some(value.clone());
        }
        let key = schema::key(&path.pattern())?;
        value::from_literal(key, key.default?)
    }

    /// A switch.
    pub(super) fn bool(&self, path: &KeyPath) -> bool {
        matches!(self.read(path), Some(Value::Bool(true)))
    }

    /// A switch that has no default.
    pub(super) fn optional_bool(&self, path: &KeyPath) -> Option<bool> {
        let Value::Bool(value) = self.read(path)? else { return None };
        Some(value)
    }

    /// A number, or bytes.
    pub(super) fn integer(&self, path: &KeyPath) -> Option<u64> {
        let Value::Integer(number) = self.read(path)? else { return None };
        Some(number)
    }

    /// A number that the schema keeps within 32 bits.
    pub(super) fn small(&self, path: &KeyPath) -> Option<u32> {
        self.integer(path).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// US dollars.
    pub(super) fn usd(&self, path: &KeyPath) -> Option<f64> {
        let Value::Usd(amount) = self.read(path)? else { return None };
        Some(amount)
    }

    /// A duration that has a default.
    pub(super) fn duration(&self, path: &KeyPath) -> Duration {
        match self.read(path) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    /// A duration without a default.
    pub(super) fn given_duration(&self, path: &KeyPath) -> Option<Duration> {
        let Value::Duration(duration) = self.read(path)? else { return None };
        Some(duration)
    }

    /// A text.
    pub(super) fn text(&self, path: &KeyPath) -> Option<String> {
        let Value::Text(text) = self.read(path)? else { return None };
        Some(text)
    }

    /// A list.
    pub(super) fn texts(&self, path: &KeyPath) -> Option<Vec<String>> {
        let Value::Texts(texts) = self.read(path)? else { return None };
        Some(texts)
    }
}
