//! Whether a text fits `pattern` and `format`.
//!
//! The same rule as in [`super`]: what is not sure to be a misfit fits. Patterns are those of ECMA-262; where that syntax
//! means something else to our engine it is written anew, and a pattern that cannot be (it looks around, or back) fits everything.
//! The engine never goes back over a text, and its size is bounded, so that no pattern takes long.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use regex_automata::meta::{Config, Regex};

/// Longer ones fit everything.
const LONGEST_PATTERN: usize = 1 << 10;
/// Longer ones fit every pattern.
const LONGEST_TEXT: usize = 8 << 10;
/// Bytes of a compiled pattern; what needs more fits everything.
const MOST_BYTES: usize = 64 << 10;

/// Patterns, compiled once; none: it fits everything.
#[derive(Default)]
pub(super) struct Patterns<'s>(HashMap<&'s str, Option<Regex>>);

impl<'s> Patterns<'s> {
    pub(super) fn fits(&mut self, pattern: &'s str, text: &str) -> bool {
        let compiled = self.0.entry(pattern).or_insert_with(|| compile(pattern));
        text.len() > LONGEST_TEXT || compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    let config = Config::new().nfa_size_limit(Some(MOST_BYTES)).onepass(false).dfa(false);
    Regex::builder().configure(config).build(&translated(pattern)?).ok()
}

const DIGIT: &str = "0-9";
const WORD: &str = "A-Za-z0-9_";
const SPACE: &str = r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}";

/// A pattern in the engine's syntax; none: it has something that cannot be said there.
fn translated(pattern: &str) -> Option<String> {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = Some(pattern).filter(|pattern| pattern.len() <= LONGEST_PATTERN)?.chars().peekable();
    let mut in_class = false;
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => escape(rest.next()?, in_class, &mut text)?,
            // Here a class in the class.
            '[' if in_class => text.push_str(r"\["),
            '[' => {
                in_class = true;
                text.push('[');
                text.extend(rest.next_if_eq(&'^'));
                // Of nothing, or of everything.
                rest.peek().filter(|next| **next != ']')?;
            }
            ']' if in_class => {
                in_class = false;
                text.push(']');
            }
            // Doubled, differences of classes.
            '-' if in_class && rest.peek() == Some(&'-') => return None,
            '&' | '~' if in_class => text.extend(['\\', letter]),
            '(' if rest.peek() == Some(&'?') => {
                // It looks around, or sets what ECMA does not know.
                let mut ahead = rest.clone().skip(1);
                let is_group = match ahead.next()? {
                    ':' => true,
                    '<' => ahead.next()?.is_ascii_alphabetic(),
                    _ => false,
                };
                is_group.then(|| text.push('('))?;
            }
            // No count there.
            '{' if !in_class && rest.peek() == Some(&',') => return None,
            _ => text.push(letter),
        }
    }
    Some(text)
}

/// What follows a backslash.
fn escape(letter: char, in_class: bool, text: &mut String) -> Option<()> {
    let (members, is_not) = match letter {
        'd' => (DIGIT, false),
        'D' => (DIGIT, true),
        'w' => (WORD, false),
        'W' => (WORD, true),
        's' => (SPACE, false),
        'S' => (SPACE, true),
        'b' if !in_class => {
            text.push_str(r"(?-u:\b)");
            return Some(());
        }
        't' | 'n' | 'r' | 'f' | 'v' | 'x' | 'u' => {
            text.extend(['\\', letter]);
            return Some(());
        }
        // There they would be the ends of a word.
        '<' | '>' => {
            text.push(letter);
            return Some(());
        }
        _ if letter.is_ascii_punctuation() => {
            text.extend(['\\', letter]);
            return Some(());
        }
        _ => return None,
    };
    text.push_str(if is_not { "[^" } else { "[" });
    text.push_str(members);
    text.push(']');
    Some(())
}

/// Whether a text has a format of strict mode (providers.md, section 1.13); one that is not known fits.
pub(super) fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "time" => {
            let clock = text.split(['Z', 'z', '+', '-']).next().unwrap_or_default();
            clock.parse::<jiff::civil::Time>().is_ok()
        }
        "duration" => text.starts_with('P') && text.len() > 1,
        "email" => text.rsplit_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        "hostname" => !text.is_empty() && !text.contains(char::is_whitespace),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Patterns::default().fits(pattern, text)
    }

    #[test]
    fn patterns_mean_what_they_mean_in_ecma() {
        for (pattern, matching, other) in [
            ("b", "abc", "ac"),
            ("^a$", "a", "a\n"),
            (r"^\d+$", "12", "١٢"),
            (r"^[\D]$", "١", "1"),
            (r"^\D$", "x", "1"),
            (r"^\w+$", "a_1", "é"),
            (r"^[^\w-]$", "é", "-"),
            (r"^\W$", "-", "_"),
            (r"^a\sb$", "a\u{feff}b", "axb"),
            (r"^\S$", "x", "\u{a0}"),
            (r"^\u0041\x42\/\-$", "AB/-", "AB"),
            (r"^\<a\>$", "<a>", "a"),
            (r"\bbus\b", "night bus.", "omnibus"),
            (r"^[[]$", "[", "a"),
            (r"^[a&&b]$", "&", "c"),
            (r"^[~~]$", "~", "a"),
            (r"^[a\]]$", "]", "a]"),
            (r"^(?:a|b){2,3}$", "aba", "a"),
            (r"^(?<year>[0-9]{4})$", "2026", "26"),
            (r"^[a-z]{2}-[A-Z]{2}$", "de-DE", "de_DE"),
        ] {
            assert!(fits(pattern, matching), "{pattern} {matching}");
            assert!(!fits(pattern, other), "{pattern} {other}");
        }
    }

    #[test]
    fn what_cannot_be_said_or_takes_too_much_fits_everything() {
        let long = format!("^{}$", "a".repeat(LONGEST_PATTERN));
        for pattern in [
            "(",
            "^(?=x)",
            "^(?!y)",
            "(?<=x)y",
            "(?<!y)y",
            r"^(x)\1$",
            r"^\p{L}$",
            r"^\Bx",
            r"^\k<a>",
            r"^\cA$",
            r"^\0$",
            "^[]$",
            "[^]x",
            "^[a--b]$",
            r"^[\b]$",
            "^x{,2}$",
            "^x{2",
            "(?i)x",
            "^x\\",
            "((x{99}){99}){99}",
            "",
            &long,
        ] {
            assert!(fits(pattern, "y"), "{pattern}");
        }
        assert!(!fits("^x$", &"y".repeat(LONGEST_TEXT)) && fits("^x$", &"y".repeat(LONGEST_TEXT + 1)));
        assert!(!fits("^(a+)+$", &format!("{}b", "a".repeat(8_000))), "no pattern takes long");
    }

    #[test]
    fn formats() {
        for (format, good, bad) in [
            (
                "date-time",
                &["2026-11-23T20:00:00Z", "1990-12-31T23:59:60Z", "2026-11-23t20:00:00.5-08:00"][..],
                &["yesterday", "2026-11-23"][..],
            ),
            ("date", &["2024-02-29"], &["2023-02-29", "23.11.2026"]),
            ("time", &["20:00:00Z", "08:30:06.28+01:00", "12:00:00"], &["25:00:00Z", "noon"]),
            ("duration", &["P3DT4H", "P2W"], &["3 days", "P", ""]),
            ("email", &["a@b.example", "\"a@b\"@c"], &["nobody", "@b", "a@"]),
            ("hostname", &["localhost", "a-b.example"], &["", "two words"]),
            ("ipv4", &["127.0.0.1"], &["127.0.0.256", "::1"]),
            ("ipv6", &["::1", "fe80::1:2"], &["1.2.3.4", "::g"]),
            ("uuid", &["0190a3c1-7d3f-7000-8000-000000000000"], &["0190a3c1", "zz90a3c1-7d3f-7000-8000-000000000000"]),
            ("iri-of-somebody", &["", "anything"], &[]),
        ] {
            assert!(good.iter().all(|text| has_format(format, text)), "{format}");
            assert!(!bad.iter().any(|text| has_format(format, text)), "{format}");
        }
    }
}
