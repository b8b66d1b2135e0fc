//! JSON that is cut, not re-printed: objects and arrays as slices of the body, and strings in their escaped form.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ReplayError;

/// How large a piece of text one event carries, at most, in escaped bytes (live events carry a token each; fewer and
/// larger ones mean the same to every client).
pub(super) const PIECE_BYTES: usize = 1024;

/// An object's fields in their order, each value as it stands in the body.
#[derive(Debug)]
pub(super) struct Object(Vec<(String, Bytes)>);

impl Object {
    pub(super) fn parse(json: &Bytes) -> Result<Self, ReplayError> {
        let Pairs(pairs) = serde_json::from_slice(json)?;
        Ok(Self(pairs.into_iter().map(|(key, raw)| (key, json.slice_ref(raw.get().as_bytes()))).collect()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value, also when it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Bytes> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The value, unless it is null.
    pub(super) fn value(&self, key: &str) -> Option<&Bytes> {
        self.get(key).filter(|value| !is_null(value))
    }

    /// The inside of a string value, still escaped.
    pub(super) fn text(&self, key: &str) -> Option<Bytes> {
        self.get(key).and_then(string_inside)
    }

    /// The elements of an array value.
    pub(super) fn elements(&self, key: &str) -> Option<Vec<Bytes>> {
        elements(self.get(key)?)
    }

    /// The object again, with other values for the fields in `replace` that are there and not null.
    pub(super) fn rebuilt(&self, replace: &[(&str, &[u8])]) -> Bytes {
        let mut out = Vec::from(*b"{");
        for (key, value) in self.iter() {
            let other = replace.iter().find(|(name, _)| *name == key && !is_null(value)).map(|(_, other)| *other);
            push_field(&mut out, key, other.unwrap_or(value));
        }
        close(&mut out);
        Bytes::from(out)
    }

    /// The fields whose name `keep` likes, each followed by a comma.
    pub(super) fn fields(&self, mut keep: impl FnMut(&str, &Bytes) -> bool) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in self.iter().filter(|(key, value)| keep(key, value)) {
            push_field(&mut out, key, value);
        }
        out
    }
}

pub(super) fn elements(json: &Bytes) -> Option<Vec<Bytes>> {
    let raws: Vec<&RawValue> = serde_json::from_slice(json).ok()?;
    Some(raws.into_iter().map(|raw| json.slice_ref(raw.get().as_bytes())).collect())
}

pub(super) fn is_null(json: &[u8]) -> bool {
    json == b"null"
}

pub(super) fn string_inside(json: &Bytes) -> Option<Bytes> {
    let inside = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(json.slice_ref(inside))
}

pub(super) fn join(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

/// `"key":value,`
pub(super) fn push_field(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    // A string always has a JSON form.
    out.extend_from_slice(&serde_json::to_vec(key).unwrap_or_default());
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b',');
}

/// Ends an object made of fields with a comma each.
fn close(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'}');
}

/// The body without line breaks: live bodies may be pretty-printed, and an event's data is one line.
pub(super) fn on_one_line(body: &Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', body).is_none() {
        return body.clone();
    }
    let mut out = Vec::with_capacity(body.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in body.iter() {
        // Inside a string a raw line break is invalid; it is kept there, so that the parser refuses it.
        if !in_string && matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        }
        out.push(byte);
        if byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && byte == b'\\' && !escaped;
    }
    Bytes::from(out)
}

/// The length of the longest beginning of `text`, the inside of a JSON string, that is at most `limit` long and ends
/// neither in a UTF-8 character nor in an escape nor in a surrogate pair; at least one of these.
pub(super) fn piece_length(text: &[u8], limit: usize) -> usize {
    let mut length = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = unit_length(rest).min(rest.len());
        if length > 0 && length + unit > limit {
            break;
        }
        length += unit;
        rest = rest.get(unit..).unwrap_or_default();
    }
    length
}

fn unit_length(text: &[u8]) -> usize {
    match text {
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', _, _, b'\\', b'u', ..] => 12,
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        [0..0x80, ..] => 1,
        [lead, ..] => usize::try_from(lead.leading_ones()).unwrap_or(1).clamp(1, 4),
        [] => 0,
    }
}

struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_end_between_characters_escapes_and_pairs() {
        assert_eq!(piece_length(b"abcdef", 4), 4);
        assert_eq!(piece_length("ab\u{e9}".as_bytes(), 3), 2);
        assert_eq!(piece_length("\u{1f600}x".as_bytes(), 1), 4, "one unit at least");
        assert_eq!(piece_length(br"a\nb", 2), 1);
        assert_eq!(piece_length(br"a\u00e9b", 6), 1);
        assert_eq!(piece_length(br"\ud83d\ude00x", 8), 12);
        assert_eq!(piece_length(br"\\\\", 3), 2);
        assert_eq!(piece_length(b"", 8), 0);
    }

    #[test]
    fn line_breaks_go_and_strings_stay() {
        let pretty = Bytes::from_static(b"{\n  \"a b\": \"x  \\\" \\\\\",\r\n\t\"n\": [1.50, 2e3]\n}\n");
        assert_eq!(&on_one_line(&pretty)[..], br#"{"a b":"x  \" \\","n":[1.50,2e3]}"#);
        let compact = Bytes::from_static(b"{\"a\": 1}");
        assert_eq!(on_one_line(&compact), compact);
    }

    #[test]
    fn an_object_keeps_order_and_spelling() {
        let json = Bytes::from_static(br#"{"b":1.0,"a":{"x": 1e2},"n":null,"s":"\u0041"}"#);
        let object = Object::parse(&json).unwrap();
        assert_eq!(object.rebuilt(&[]), &br#"{"b":1.0,"a":{"x": 1e2},"n":null,"s":"\u0041"}"#[..]);
        assert_eq!(
            object.rebuilt(&[("n", b"2"), ("b", b"3"), ("z", b"4")]),
            &br#"{"b":3,"a":{"x": 1e2},"n":null,"s":"\u0041"}"#[..]
        );
        assert_eq!(object.text("s").unwrap(), &br"\u0041"[..]);
        assert_eq!(Object::parse(&Bytes::from_static(b"{}")).unwrap().rebuilt(&[]), &b"{}"[..]);
    }

    proptest! {
        #[test]
        fn pieces_are_strings_and_join_to_the_whole(text in "\\PC{0,60}", limit in 1_usize..20) {
            let escaped = serde_json::to_string(&text).unwrap();
            let mut rest = &escaped.as_bytes()[1..escaped.len() - 1];
            let mut joined = String::new();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(piece_length(rest, limit));
                let quoted = [b"\"", piece, b"\""].concat();
                joined.push_str(&serde_json::from_slice::<String>(&quoted).unwrap());
                rest = after;
            }
            prop_assert_eq!(joined, text);
        }
    }
}
