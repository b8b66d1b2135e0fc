//! A borrowed look at a JSON object: the raw text of a few named members, in one pass and without allocating.
//!
//! Where a name is there twice the last one counts, as in the parsers of the provider. Used for batch file lines
//! and for call bodies, where building whole values would dominate the time of a batch.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The raw texts of the members `names` of the object `json`; `None` for those not there.
///
/// # Errors
/// When `json` is not one valid JSON object.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: &[&'static str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = Members(names).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// The value as a text, if it is one.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    // serde's `Cow<str>` never borrows; most texts have no escape and can be taken as they are.
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// Whether a member is absent or `null`.
pub(super) fn is_null(raw: Option<&RawValue>) -> bool {
    raw.is_none_or(|raw| raw.get() == "null")
}

struct Members<'n, const N: usize>(&'n [&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(at) = map.next_key_seed(Name(self.0))? {
            match at.and_then(|at| found.get_mut(at)) {
                Some(slot) => *slot = Some(map.next_value::<&RawValue>()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Reads a name and gives its place among the known ones.
struct Name<'n, const N: usize>(&'n [&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Name<'_, N> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Name<'_, N> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_members_last_one_wins() {
        let json = r#" {"a": 1, "x": {"a": [2]}, "b" : "q\n", "a":3} "#;
        let [a, b, c] = members(json, &["a", "b", "c"]).unwrap();
        assert_eq!(a.map(RawValue::get), Some("3"));
        assert_eq!(b.and_then(text).as_deref(), Some("q\n"));
        assert!(c.is_none());
    }

    #[test]
    fn refuses_what_is_not_one_object() {
        for json in ["", "[]", "1", "{", r#"{"a":}"#, "{} {}", r#"{"a":1,}"#, r#"{"z":[1,}"#] {
            assert!(members(json, &["a"]).is_err(), "{json}");
        }
    }

    #[test]
    fn texts_borrow_unless_escaped() {
        let raw: &RawValue = serde_json::from_str(r#""plain""#).unwrap();
        assert!(matches!(text(raw), Some(Cow::Borrowed("plain"))));
        let raw: &RawValue = serde_json::from_str(r#""\u00e9""#).unwrap();
        assert_eq!(text(raw).as_deref(), Some("é"));
        let raw: &RawValue = serde_json::from_str("7").unwrap();
        assert!(text(raw).is_none());
    }
}
