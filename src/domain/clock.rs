//! Time as a parameter: the engine runs under a clock that tests can set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A moment of wall-clock time: microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// From whole Unix seconds.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Whole Unix seconds, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole hours since the epoch, rounded down: the step of the ledger's sums.
    pub const fn hour(self) -> i64 {
        self.unix_seconds().div_euclid(3_600)
    }

    /// This moment plus `duration`.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this moment; zero when the clock went backwards.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Where wall-clock time comes from. Intervals come from `tokio::time`, which tests can pause.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now.
    fn now(&self) -> Micros;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Micros {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands until it is set.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `at`.
    pub fn at(at: Micros) -> Self {
        Self(AtomicI64::new(at.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_and_the_time_between_them() {
        let at = Micros::from_unix_seconds(-1);
        assert_eq!(at, Micros(-1_000_000));
        assert_eq!([Micros(-1), Micros(1_999_999)].map(Micros::unix_seconds), [-1, 1], "rounded down");
        let (short, later) = (Duration::from_micros(7), Micros(-999_993));
        assert_eq!(at.plus(short), later);
        assert_eq!((later.since(at), at.since(later)), (short, Duration::ZERO));
        assert_eq!(Micros(i64::MAX).plus(short), Micros(i64::MAX));
        let clock = ManualClock::at(at);
        clock.advance(short);
        assert_eq!(clock.now(), later);
    }

    #[test]
    fn seconds_and_hours_are_whole_ones_since_the_epoch() {
        let at = Micros::from_unix_seconds(1_795_420_800);
        assert_eq!((at.unix_seconds(), at.hour()), (1_795_420_800, 498_728));
        assert_eq!([Micros(-1), Micros(0)].map(Micros::hour), [-1, 0]);
    }
}
