//! How many callers are being accepted at the same time.
//!
//! Compressing a body of 2 KB takes about as long as everything else the store does with it. When many callers wait, that
//! time decides how many are served, and a small body is stored as it came; when there is time it is compressed.

use std::sync::atomic::{AtomicUsize, Ordering};

/// From so many on it is a crowd.
const CROWD: usize = 8;

/// Counts those who are in.
#[derive(Debug, Default)]
pub(super) struct Crowd(AtomicUsize);

/// One who is in, until dropped.
pub(super) struct Place<'a> {
    crowd: &'a Crowd,
    before: usize,
}

impl Crowd {
    /// Comes in.
    pub(super) fn enter(&self) -> Place<'_> {
        Place { crowd: self, before: self.0.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Place<'_> {
    /// Whether many were there already.
    pub(super) const fn is_crowded(&self) -> bool {
        self.before >= CROWD
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.crowd.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_one_only_while_it_is_there() {
        let crowd = Crowd::default();
        let mut places: Vec<_> = (0..=CROWD).map(|_| crowd.enter()).collect();
        assert!(places.pop().is_some_and(|last| last.is_crowded()));
        places.clear();
        assert!(!crowd.enter().is_crowded());
    }
}
