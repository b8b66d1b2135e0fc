//! How long to wait before trying again.

use std::time::Duration;

/// The delay before attempt `attempt` (0 is the first retry): doubles from `first` to at most `most`, minus up to a
/// quarter by `jitter` (0.0 to 1.0), so that many clients do not come back at the same moment.
pub fn backoff(attempt: u32, first: Duration, most: Duration, jitter: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempt.min(20))).min(most);
    doubled.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_and_jitter_only_shortens() {
        let at =
            |attempt, jitter| backoff(attempt, Duration::from_secs(1), Duration::from_secs(60), jitter).as_secs_f64();
        assert_eq!([at(0, 0.0), at(1, 0.0), at(5, 0.0), at(6, 0.0), at(u32::MAX, 0.0)], [1.0, 2.0, 32.0, 60.0, 60.0]);
        assert_eq!(at(2, 1.0), 3.0);
    }

    #[test]
    fn doubles_twenty_times_at_most() {
        let micro = Duration::from_micros(1);
        let at = |attempt| backoff(attempt, micro, Duration::MAX, 0.0);
        assert_eq!((at(19) * 2, at(20)), (at(20), at(21)));
    }
}
