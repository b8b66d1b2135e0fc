//! Numbers, times and money as people read them. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// `1,234,567`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 request`, `1,234 requests`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", number(count), if count == 1 { "" } else { "s" })
}

/// `1.4 KiB`.
pub(super) fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mut scaled = value as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.into_iter().skip(1) {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    format!("{scaled:.1} {unit}")
}

/// `3s`, `12m`, `5h`, `2d`: the largest unit alone.
pub(super) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `7.3 s`, `2 min 5 s`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    format!("{} min {} s", seconds / 60, seconds % 60)
}

/// Unix seconds as a UTC time.
pub(super) fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_out_of_range| seconds.to_string(), |at| at.to_string())
}

/// `$0.0420`: four digits, and more of them for the small amounts that single calls cost.
pub(super) fn usd(amount: f64) -> String {
    match amount.abs() {
        size if size == 0.0 || size >= 0.01 => format!("${amount:.4}"),
        size if size >= 0.000_1 => format!("${amount:.6}"),
        _ => format!("${amount:.8}"),
    }
}

/// `$60,225.00`: whole cents, for amounts that people add up.
pub(super) fn dollars(amount: f64) -> String {
    let text = format!("{:.2}", amount.abs());
    let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let grouped = whole.parse().map_or_else(|_too_many_digits| whole.to_owned(), number);
    let sign = if amount < 0.0 { "-" } else { "" };
    format!("{sign}${grouped}.{cents}")
}

/// A member of an answer as text; `-` where it is null or missing.
pub(super) fn text(object: &Value, key: &str) -> String {
    match object.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A member of an answer as a whole number; 0 where it is missing.
pub(super) fn count(object: &Value, key: &str) -> u64 {
    object.get(key).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), expected);
        }
        assert_eq!([0, 1, 2_000].map(|count| counted(count, "line")), ["0 lines", "1 line", "2,000 lines"]);
    }

    #[test]
    fn sizes_and_spans_have_one_unit() {
        assert_eq!((bytes(1_023).as_str(), bytes(1_536).as_str()), ("1023 B", "1.5 KiB"));
        assert_eq!(bytes(5 * 1024 * 1024 * 1024), "5.0 GiB");
        assert_eq!(age(59) + &age(60) + &age(7_200) + &age(200_000) + &age(-5), "59s1m2h2d0s");
        assert_eq!(span(Duration::from_millis(7_340)), "7.3 s");
        assert_eq!(span(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn small_amounts_keep_their_digits() {
        assert_eq!(usd(0.000_003_7), "$0.00000370");
        assert_eq!((usd(0.0), usd(0.001_25), usd(12.5)), ("$0.0000".into(), "$0.001250".into(), "$12.5000".into()));
    }

    #[test]
    fn bills_have_cents_and_groups() {
        let shown = [330.0, 60_225.0, 0.005, -1_234.5].map(dollars);
        assert_eq!(shown, ["$330.00", "$60,225.00", "$0.01", "-$1,234.50"]);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(1_795_420_800), "2026-11-23T08:00:00Z");
    }

    #[test]
    fn missing_members_show_as_a_dash() {
        let object = serde_json::json!({"a": null, "b": "x", "c": 3});
        assert_eq!(
            [text(&object, "a"), text(&object, "z"), text(&object, "b"), text(&object, "c")],
            ["-", "-", "x", "3"]
        );
        assert_eq!((count(&object, "c"), count(&object, "b")), (3, 0));
    }
}
