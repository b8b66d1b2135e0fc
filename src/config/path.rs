//! The path of a key: `batching.idle`, `client_keys[0].name`; and its environment variable.

use std::fmt;

use super::schema;

/// What all of nightbus's variables begin with.
pub(super) const PREFIX: &str = "NIGHTBUS_";

/// One step of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// Into a table.
    Name(String),
    /// Into a list, from 0.
    Index(usize),
}

/// The path of a key or table. Ordered so that list entries come in their own order.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<Segment>);

impl KeyPath {
    /// From dotted names; no lists.
    pub(super) fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|name| Segment::Name(name.to_owned())).collect())
    }

    /// One step further, into a table.
    pub(super) fn child(&self, name: &str) -> Self {
        self.with(Segment::Name(name.to_owned()))
    }

    /// One step further, into a list.
    pub(super) fn entry(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// The path without its last step.
    pub(super) fn parent(&self) -> Self {
        let mut segments = self.0.clone();
        segments.pop();
        Self(segments)
    }

    /// Its last step, when that is a name.
    pub(super) fn leaf(&self) -> Option<&str> {
        match self.0.last() {
            Some(Segment::Name(name)) => Some(name),
            Some(Segment::Index(_)) | None => None,
        }
    }

    /// The step after `parent`, when this path lies below it.
    pub(super) fn step_below(&self, parent: &Self) -> Option<&Segment> {
        self.0.strip_prefix(parent.0.as_slice())?.first()
    }

    /// The schema's pattern for this path.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(_) => pattern.push_str("[]"),
                Segment::Name(name) => {
                    if position > 0 {
                        pattern.push('.');
                    }
                    let is_provider = position == 1 && pattern == "providers.";
                    pattern.push_str(if is_provider { "*" } else { name });
                }
            }
        }
        pattern
    }

    /// A pattern as a path: its `*` and `[]` are taken from `like` where that goes the same way.
    pub(super) fn instance_of(pattern: &str, like: &Self) -> Self {
        let mut path = Self::default();
        for name in pattern.split('.') {
            let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
            let beside = like.step_below(&path);
            path = match (name, beside) {
                ("*", Some(segment)) => path.with(segment.clone()),
                ("*", None) => path.child("openai"),
                _ => path.child(name),
            };
            if is_list {
                path = path.with(like.step_below(&path).cloned().unwrap_or(Segment::Index(0)));
            }
        }
        path
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|segment| match segment {
                Segment::Name(name) => name.to_ascii_uppercase().replace('-', "_"),
                Segment::Index(index) => index.to_string(),
            })
            .collect();
        format!("{PREFIX}{}", parts.join("__"))
    }

    /// The path a variable's name stands for, whether or not such a key exists.
    pub(super) fn from_variable(rest: &str) -> Self {
        let mut path = Self::default();
        for part in rest.split("__") {
            let index = part.parse::<usize>().ok().filter(|_| schema::is_list(&path.pattern()));
            path = match index {
                Some(index) => path.entry(index),
                None => path.child(&part.to_ascii_lowercase()),
            };
        }
        path
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Name(name) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    let bare = !name.is_empty()
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'*');
                    if bare { f.write_str(name)? } else { write!(f, "{name:?}")? }
                }
            }
        }
        Ok(())
    }
}
