//! The members of a JSON object by their byte ranges, without reading what is in them.
//!
//! For text that is known to be JSON, or of which a guess may be wrong: nothing is validated, and what cannot be read ends
//! the walk. Used where a body is changed in place, and where a few members of many answers are looked for.

use std::borrow::Cow;
use std::ops::Range;

/// A member of the outermost object.
#[derive(Debug)]
pub(in crate::wire) struct Member {
    /// Without its quotes, escapes as written.
    pub(in crate::wire) key: Range<usize>,
    /// As written.
    pub(in crate::wire) value: Range<usize>,
}

impl Member {
    /// The name, escapes undone.
    pub(in crate::wire) fn name<'a>(&self, body: &'a [u8]) -> Cow<'a, str> {
        let key = body.get(self.key.clone()).unwrap_or_default();
        match std::str::from_utf8(key) {
            Ok(plain) if memchr::memchr(b'\\', key).is_none() => Cow::Borrowed(plain),
            _ => {
                let quoted = body.get(self.key.start.saturating_sub(1)..=self.key.end).unwrap_or_default();
                serde_json::from_slice(quoted).map(Cow::Owned).unwrap_or_default()
            }
        }
    }

    /// Whether this is the member `name`, however its key is written: `"str\u0065am"` is `stream`, too.
    pub(in crate::wire) fn is(&self, body: &[u8], name: &str) -> bool {
        self.name(body) == name
    }
}

/// The members in order, as far as the body can be read.
pub(in crate::wire) fn members(body: &[u8]) -> impl Iterator<Item = Member> + '_ {
    let mut next = Some(skip_space(body, 0) + 1);
    std::iter::from_fn(move || {
        let key_start = skip_space(body, next.take()?);
        if body.get(key_start) != Some(&b'"') {
            return None;
        }
        let key_end = skip_string(body, key_start);
        let colon = skip_space(body, key_end);
        if body.get(colon) != Some(&b':') {
            return None;
        }
        let value_start = skip_space(body, colon + 1);
        let value_end = skip_value(body, value_start);
        let comma = skip_space(body, value_end);
        next = (body.get(comma) == Some(&b',')).then_some(comma + 1);
        Some(Member { key: key_start + 1..key_end.saturating_sub(1), value: value_start..value_end })
    })
}

/// The items of an array, as written, as far as it can be read; none of anything else.
pub(in crate::wire) fn items(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = skip_space(array, 0);
    let mut next = (array.get(start) == Some(&b'[')).then_some(start + 1);
    std::iter::from_fn(move || {
        let start = skip_space(array, next.take()?);
        let end = skip_value(array, start);
        let comma = skip_space(array, end);
        next = (array.get(comma) == Some(&b',')).then_some(comma + 1);
        array.get(start..end).filter(|item| !item.is_empty())
    })
}

/// The first place from `at` on that is no white space.
pub(in crate::wire) fn skip_space(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// From an opening quote to just behind the closing one.
fn skip_string(body: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = body.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if body.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    body.len()
}

fn skip_value(body: &[u8], start: usize) -> usize {
    match body.get(start) {
        Some(b'"') => skip_string(body, start),
        Some(b'{' | b'[') => {
            let mut depth = 0_usize;
            let mut at = start;
            while let Some(byte) = body.get(at) {
                match byte {
                    b'"' => {
                        at = skip_string(body, at);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
            body.len()
        }
        _ => {
            let mut at = start;
            while body.get(at).is_some_and(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')) {
                at += 1;
            }
            at
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &str) -> Vec<(String, String)> {
        let of = |range: Range<usize>| object.get(range).unwrap().to_owned();
        members(object.as_bytes())
            .map(|member| (member.name(object.as_bytes()).into_owned(), of(member.value)))
            .collect()
    }

    #[test]
    fn members_are_found_as_written() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read(r#" { "a" : [1,{"b":"]}"}] , "c\u0064\"":"x\\" ,"e":-1.5e3} "#),
            [pair("a", r#"[1,{"b":"]}"}]"#), pair("cd\"", r#""x\\""#), pair("e", "-1.5e3")]
        );
        for nothing in ["", "{}", "{", "[1]", "7", r#"{"a""#] {
            assert_eq!(read(nothing), [], "{nothing}");
        }
    }

    #[test]
    fn items_are_found_as_written() {
        let read = |array: &'static str| -> Vec<&str> {
            items(array.as_bytes()).map(|item| std::str::from_utf8(item).unwrap()).collect()
        };
        assert_eq!(read(r#" [ {"a":[1,2]} ,"x,]", [ ] ,null ] "#), [r#"{"a":[1,2]}"#, r#""x,]""#, "[ ]", "null"]);
        for nothing in ["", "[]", "[ ]", "{}", "7", "null"] {
            assert!(read(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn a_member_is_known_by_its_name_however_it_is_written() {
        let object = br#"{"str\u0065am":1,"x":2}"#;
        let known: Vec<_> =
            members(object).map(|member| (member.is(object, "stream"), member.is(object, "x"))).collect();
        assert_eq!(known, [(true, false), (false, true)]);
    }
}
