//! Prompt caches: what calls wrote to them and read from them, and how much was written in vain.
//!
//! Invariant: what is told as unread is a lower bound. A token that was read once or more is in `cached` as often, so that what
//! was written beyond all reads cannot have been read. Only calls of one credential and model can read what others of
//! it wrote; all versions of a model count as one, because an alias and the version behind it share their cache.
//!
//! Added up for every report by [`super::LedgerReport`], priced by `admin::savings`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Group, LedgerSums};
use crate::domain::lane::Fingerprint;
use crate::domain::pricing::undated;

/// Whose cache it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    provider: Arc<str>,
    account: Fingerprint,
    /// Without its version.
    model: String,
}

/// A call that wrote, as far as its price depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// Provider name.
    pub provider: Arc<str>,
    /// The model, as it was asked for.
    pub model: Arc<str>,
    /// The service that was really used.
    pub service: String,
}

/// What happened to one cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheSums {
    /// Tokens that were written to it.
    written: u64,
    /// Tokens that were read from it.
    read: u64,
    /// Who wrote.
    writers: BTreeSet<Writer>,
}

impl CacheSums {
    /// How many of the written tokens at least were never read.
    pub const fn unread(&self) -> u64 {
        self.written.saturating_sub(self.read)
    }

    /// Who wrote: nobody where nothing was written.
    pub const fn writers(&self) -> &BTreeSet<Writer> {
        &self.writers
    }
}

/// The caches that calls wrote to or read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caches(BTreeMap<Owner, CacheSums>);

impl Caches {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &CacheSums> {
        self.0.values()
    }

    /// Adds the sums of calls of `group`.
    pub(super) fn add(&mut self, group: &Group, sums: &LedgerSums) {
        let (written, read) = (sums.usage.cache_written, sums.usage.cached);
        if written == 0 && read == 0 {
            return;
        }
        let owner = Owner {
            provider: Arc::clone(&group.provider),
            account: group.account,
            model: undated(&group.model).to_owned(),
        };
        let cache = self.0.entry(owner).or_default();
        cache.written = cache.written.saturating_add(written);
        cache.read = cache.read.saturating_add(read);
        if written > 0 {
            let (provider, model) = (Arc::clone(&group.provider), Arc::clone(&group.model));
            cache.writers.insert(Writer { provider, model, service: group.service.clone() });
        }
    }
}
