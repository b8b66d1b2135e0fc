//! What one answer consumed, in tokens, in one convention for all providers.
//!
//! The readers in `wire` translate each API's own counting into this one (providers.md, section 3.2).

use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Token counts of one or more answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// The whole prompt, with what came from the prompt cache and what was written to it.
    pub input: u64,
    /// The part of `input` that was read from the prompt cache.
    pub cached: u64,
    /// The part of `input` that was written to the prompt cache.
    pub cache_written: u64,
    /// The part of `cache_written` that is kept for an hour, where the provider tells and charges it apart.
    pub cache_written_1h: u64,
    /// Everything generated, reasoning included.
    pub output: u64,
    /// The part of `output` that was reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// Prompt and output together.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The part of the prompt that is billed at the plain input price.
    pub const fn plain_input(&self) -> u64 {
        self.input.saturating_sub(self.cached).saturating_sub(self.cache_written)
    }
}

impl Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            cache_written: self.cache_written.saturating_add(other.cache_written),
            cache_written_1h: self.cache_written_1h.saturating_add(other.cache_written_1h),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_includes_its_cached_and_written_parts() {
        let usage = Usage { input: 100, cached: 60, cache_written: 30, output: 7, reasoning: 5, ..Usage::default() };
        assert_eq!(usage.plain_input(), 10);
        assert_eq!(usage.total(), 107);
        let nonsense = Usage { input: 1, cached: 5, ..Usage::default() };
        assert_eq!(nonsense.plain_input(), 0);
    }

    #[test]
    fn sums_saturate() {
        let most = Usage { input: u64::MAX, output: 1, ..Usage::default() };
        let sum: Usage = [most, most].into_iter().sum();
        assert_eq!((sum.input, sum.output), (u64::MAX, 2));
    }

    #[test]
    fn every_count_is_added_up() {
        let one = Usage { input: 1, cached: 2, cache_written: 3, cache_written_1h: 4, output: 5, reasoning: 6 };
        let mut sum = one;
        sum += one;
        let twice = Usage { input: 2, cached: 4, cache_written: 6, cache_written_1h: 8, output: 10, reasoning: 12 };
        assert_eq!((sum, [one, one].into_iter().sum()), (twice, twice));
    }
}
