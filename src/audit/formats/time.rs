//! Times as logs write them: Unix time in any unit, RFC 3339, the same without a zone (UTC), dates, and the form of
//! access logs. Pure.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::audit::shape::Scalar;

/// Unix seconds; none when it is no time, or before 2001 (a counter, not a time).
pub(super) fn unix_seconds(value: &Scalar) -> Option<i64> {
    value.text().and_then(from_text).or_else(|| from_number(value.number()?))
}

/// Seconds, milliseconds, microseconds or nanoseconds: 2001 to 5138 in one unit is before 1973 in the next.
fn from_number(number: f64) -> Option<i64> {
    let seconds = [1.0, 1e3, 1e6, 1e9].into_iter().map(|unit| number / unit).find(|seconds| *seconds < 1e11)?;
    #[expect(clippy::cast_possible_truncation, reason = "between 1e9 and 1e11")]
    (seconds >= 1e9).then_some(seconds.floor() as i64)
}

fn from_text(text: &str) -> Option<i64> {
    if !text.contains('-') {
        return None;
    }
    let zoned = || text.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let naive = || text.parse::<DateTime>().ok().and_then(as_utc);
    let date = || text.parse::<Date>().ok().and_then(|date| as_utc(date.to_datetime(jiff::civil::Time::midnight())));
    zoned().or_else(naive).or_else(date)
}

fn as_utc(time: DateTime) -> Option<i64> {
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp().as_second())
}

/// `23/Nov/2026:12:00:00 +0000`.
pub(super) fn from_access_log(text: &str) -> Option<i64> {
    Some(strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?.to_timestamp().ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_moment_in_every_spelling() {
        for text in [
            "2026-11-23T08:00:00Z",
            "2026-11-23T08:00:00.123456Z",
            "2026-11-23T09:00:00+01:00",
            "2026-11-23 08:00:00.999999",
            "2026-11-23 08:00:00+00:00",
            "2026-11-23T08:00:00",
            "1795420800",
            "1795420800.5",
        ] {
            assert_eq!(unix_seconds(&Scalar::Text(text.into())), Some(1_795_420_800), "{text}");
        }
        for number in [1_795_420_800.0, 1_795_420_800_123.0, 1_795_420_800_123_456.0, 1_795_420_800_123_456_789.0] {
            assert_eq!(unix_seconds(&Scalar::Number(number)), Some(1_795_420_800), "{number}");
        }
        assert_eq!(unix_seconds(&Scalar::Text("2026-11-23".into())), Some(1_795_392_000));
        assert_eq!(from_access_log("23/Nov/2026:09:00:00 +0100"), Some(1_795_420_800));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "soon", "2026-13-01", "12", "-", "4711", "Mon Nov 23"] {
            assert_eq!(unix_seconds(&Scalar::Text(text.into())), None, "{text}");
        }
        assert_eq!(unix_seconds(&Scalar::Number(-1e12)), None);
        assert_eq!(unix_seconds(&Scalar::Number(12.0)), None);
        assert_eq!(from_access_log("23/Nov/2026"), None);
    }
}
