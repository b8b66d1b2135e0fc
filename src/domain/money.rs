//! Money: whole picodollars (10⁻¹² USD), so that the price of one token is exact and sums do not drift.
//!
//! Floating point is only at the edges ([`Money::from_usd_f64`], [`Money::as_usd_f64`]). Sums saturate at about
//! ±9.2 million USD instead of wrapping. Used by the price list, the ledger and the answers' headers.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

const PICO_PER_USD: u64 = 1_000_000_000_000;
const DECIMALS: usize = 12;

/// An amount in US dollars; negative where something cost more than it would have otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

/// A text or number that is not an amount: not decimal, finer than a picodollar, or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount in USD: a decimal number with at most 12 places is expected")]
pub struct InvalidMoney;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From whole picodollars; what the store keeps.
    pub const fn from_picos(picos: i64) -> Self {
        Self(picos)
    }

    /// Whole picodollars.
    pub const fn picos(self) -> i64 {
        self.0
    }

    /// The nearest amount to a JSON or TOML number.
    ///
    /// # Errors
    /// When `usd` is not finite or too large.
    pub fn from_usd_f64(usd: f64) -> Result<Self, InvalidMoney> {
        format!("{usd:.DECIMALS$}").parse()
    }

    /// For JSON numbers; the nearest `f64`, which prints as the same decimal up to 15 significant digits.
    #[expect(clippy::as_conversions, reason = "rounding to the nearest f64 is what is wanted here")]
    pub fn as_usd_f64(self) -> f64 {
        self.0 as f64 / PICO_PER_USD as f64
    }

    /// The sum, or none when it does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// This amount `count` times, or none when it does not fit.
    pub fn checked_times(self, count: u64) -> Option<Self> {
        i64::try_from(count).ok().and_then(|count| self.0.checked_mul(count)).map(Self)
    }

    /// What `counts` cost at `prices` per million: the products are added exactly and rounded once, half up, to
    /// a whole picodollar. Saturates.
    pub(crate) fn of_millionths<const N: usize>(parts: [(u64, Self); N]) -> Self {
        let exact = parts
            .into_iter()
            .map(|(count, per_million)| i128::from(count).saturating_mul(i128::from(per_million.0)))
            .fold(0_i128, i128::saturating_add);
        let rounded = exact.saturating_add(500_000).div_euclid(1_000_000);
        Self(i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX }))
    }

    /// This amount times `numerator / denominator`, rounded half up; itself when the denominator is zero.
    pub(crate) fn scaled(self, numerator: Self, denominator: Self) -> Self {
        if denominator.0 == 0 {
            return self;
        }
        let denominator = i128::from(denominator.0);
        let product = i128::from(self.0).saturating_mul(i128::from(numerator.0));
        let scaled = product.saturating_add(denominator.div_euclid(2)).div_euclid(denominator);
        Self(i64::try_from(scaled).unwrap_or(i64::MAX))
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Money {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Plain decimal USD without an exponent or trailing zeros: `0.000825`, `12`, `-0.5`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let picos = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, fraction) = (picos / PICO_PER_USD, picos % PICO_PER_USD);
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:0DECIMALS$}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl FromStr for Money {
    type Err = InvalidMoney;

    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let significant = fraction.trim_end_matches('0');
        if !all_digits(whole) || !all_digits(fraction) || significant.len() > DECIMALS {
            return Err(InvalidMoney);
        }
        let padded = format!("{whole}{significant:0<DECIMALS$}");
        let picos: i64 = padded.parse().map_err(|_error| InvalidMoney)?;
        Ok(Self(if negative { -picos } else { picos }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usd(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn prints_plain_decimals_without_trailing_zeros() {
        for text in ["0", "0.000825", "12", "-0.5", "0.000000000001", "9223372.036854775807"] {
            assert_eq!(usd(text).to_string(), text);
        }
        assert_eq!(usd("1.500").to_string(), "1.5");
        assert_eq!(Money::from_picos(i64::MIN).to_string(), "-9223372.036854775808");
    }

    #[test]
    fn refuses_what_is_not_a_decimal_amount() {
        for text in ["", "-", ".", "1.", ".5", "1e3", "0x1", "NaN", "1.0000000000001", "9223372.036854775808", "+1"] {
            assert_eq!(text.parse::<Money>(), Err(InvalidMoney), "{text}");
        }
        assert_eq!(Money::from_usd_f64(f64::NAN), Err(InvalidMoney));
        assert_eq!(Money::from_usd_f64(f64::INFINITY), Err(InvalidMoney));
        assert_eq!(Money::from_usd_f64(1e300), Err(InvalidMoney));
    }

    #[test]
    fn numbers_of_json_survive_exactly() {
        for text in ["0.0375", "0.1", "0.044", "12.5", "0.000825"] {
            assert_eq!(Money::from_usd_f64(text.parse().unwrap()), Ok(usd(text)));
            assert_eq!(usd(text).as_usd_f64().to_string(), text);
        }
    }

    #[test]
    fn rounds_once_and_half_up() {
        let half_a_picodollar_per_unit = Money::from_picos(500_000);
        assert_eq!(Money::of_millionths([(1, half_a_picodollar_per_unit)]).picos(), 1);
        assert_eq!(Money::of_millionths([(1, half_a_picodollar_per_unit), (1, half_a_picodollar_per_unit)]).picos(), 1);
        assert_eq!(Money::of_millionths([(1, Money::from_picos(499_999))]).picos(), 0);
    }

    #[test]
    fn saturates_instead_of_wrapping() {
        let most = Money::from_picos(i64::MAX);
        assert_eq!(most + most, most);
        assert_eq!(most.checked_add(Money::from_picos(1)), None);
        assert_eq!(Money::of_millionths([(u64::MAX, most)]), most);
        assert_eq!(Money::from_picos(i64::MIN) - most, Money::from_picos(i64::MIN));
    }

    proptest! {
        #[test]
        fn text_form_parses_back(picos in -i64::MAX..=i64::MAX) {
            let money = Money::from_picos(picos);
            prop_assert_eq!(money.to_string().parse(), Ok(money));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _outcome = text.parse::<Money>();
        }
    }

    #[test]
    fn sums_and_parts_are_exact_and_end_at_the_bounds() {
        let [one, two] = [1, 2].map(Money::from_picos);
        assert_eq!((one.checked_add(two), Money(i64::MAX).checked_add(one)), (Some(Money(3)), None));
        let mut sum = two;
        sum += one;
        assert_eq!(sum, Money(3));
        assert_eq!([(one, two), (Money(3), two), (Money(6), one)].map(|(part, of)| part.scaled(one, of).0), [1, 2, 6]);
        assert_eq!(one.scaled(two, Money::ZERO), one);
        let most = |price| Money::of_millionths([(u64::MAX, Money(price))]);
        assert_eq!((most(i64::MAX), most(i64::MIN)), (Money(i64::MAX), Money(i64::MIN)));
    }
}
