//! What every part of the program shares: the error type, medians, numbers as `f64`.

/// A measurement that cannot be taken ends its row with any error.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The middle value; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which `share` of the values lie; 0 of none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within the slice")]
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (float(sorted.len().saturating_sub(1)) * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// A count as a number to calculate with.
pub(crate) fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
