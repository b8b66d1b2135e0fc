//! Mistakes in the configuration: collected, not thrown, so that one run shows all of them.
//!
//! A message never repeats a value that may be a secret; see `value::shown`.

use std::fmt;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file, and the line in it (from 1; `None`: the file as a whole).
    File {
        /// As it was named to nightbus.
        name: String,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment(String),
    /// A command line option, such as `--listen`.
    Option(&'static str),
    /// Nowhere: the default, or a key that is missing.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}: "),
            Self::File { name, line: None } => write!(f, "{name}: "),
            Self::Environment(variable) => write!(f, "{variable}: "),
            Self::Option(option) => write!(f, "{option}: "),
            Self::Default => Ok(()),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it was made.
    pub origin: Origin,
    /// The key's path, such as `batching.idle` or `client_keys[0].name`; empty when no key is concerned.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// All mistakes of one configuration, at least one: the file's by line, then the environment's, then the
/// command line's, then what is missing. The caller's fault; nothing of it may be retried.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<Mistake>);

impl ConfigErrors {
    /// Sorts `mistakes`; `None` when there are none.
    pub(super) fn of(mut mistakes: Vec<Mistake>) -> Option<Self> {
        mistakes.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        mistakes.dedup();
        (!mistakes.is_empty()).then_some(Self(mistakes))
    }

    /// One mistake alone.
    pub(super) fn single(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }

    /// The mistakes, in the order they are shown.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}
