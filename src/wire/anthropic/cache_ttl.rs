//! One hour for the prompt cache (providers.md, section 2): lines of a batch seldom run within the five minutes that a mark without a
//! `ttl` asks for.
//!
//! Every other byte stays as it was. A body that names a `ttl` anywhere is left alone: its sender has chosen, and the API refuses a
//! longer time behind a shorter one. Marks are looked for where the API has them, and not in what tools are given or give.
//! The body is one that [`crate::wire::peek`] has checked.

use crate::wire::members::{items, members};

const HOUR: &[u8] = b"\"ttl\":\"1h\",";
/// How deep content may be in content: results of tools, documents.
const DEPTH: usize = 6;

/// The body with an hour in each mark that names no time; none: there is nothing to change.
pub fn with_hour(body: &[u8]) -> Option<Vec<u8>> {
    let mut marks = Marks { body, places: Vec::new(), chosen: false };
    marks.object(body, DEPTH);
    if marks.chosen || marks.places.is_empty() {
        return None;
    }
    marks.places.sort_unstable();
    let mut out = Vec::with_capacity(body.len() + marks.places.len() * HOUR.len());
    let mut from = 0;
    for place in marks.places {
        out.extend_from_slice(body.get(from..place).unwrap_or_default());
        out.extend_from_slice(HOUR);
        from = place;
    }
    out.extend_from_slice(body.get(from..).unwrap_or_default());
    Some(out)
}

struct Marks<'b> {
    body: &'b [u8],
    /// Just behind the opening brace of each mark without a time.
    places: Vec<usize>,
    /// A mark names a time.
    chosen: bool,
}

impl<'b> Marks<'b> {
    /// `object`: a part of the body.
    fn object(&mut self, object: &'b [u8], depth: usize) {
        for member in members(object) {
            let value = object.get(member.value.clone()).unwrap_or_default();
            match member.name(object).as_ref() {
                "cache_control" => self.mark(value),
                "tools" | "system" | "messages" | "content" => self.array(value, depth),
                // A document may be made of content.
                "source" if depth > 0 && value.first() == Some(&b'{') => self.object(value, depth - 1),
                _ => {}
            }
        }
    }

    fn array(&mut self, array: &'b [u8], depth: usize) {
        if depth > 0 {
            items(array).filter(|item| item.first() == Some(&b'{')).for_each(|item| self.object(item, depth - 1));
        }
    }

    fn mark(&mut self, mark: &'b [u8]) {
        let value = |name: &str| {
            let member = members(mark).find(|member| member.is(mark, name))?;
            mark.get(member.value)
        };
        if mark.first() != Some(&b'{') || value("type") != Some(b"\"ephemeral\"") {
            return;
        }
        match value("ttl") {
            Some(_) => self.chosen = true,
            None => self.places.push(mark.as_ptr().addr() - self.body.as_ptr().addr() + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(body: &str) -> Option<String> {
        with_hour(body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn every_mark_gets_an_hour_and_nothing_else_changes() {
        let mark = r#"{ "type" : "ephemeral" }"#;
        let hour = r#"{"ttl":"1h", "type" : "ephemeral" }"#;
        let body = |mark: &str| {
            format!(
                r#" {{"model":"claude-haiku-5-5","temperature":1.10,"cache_control":{mark},
                "system":[{{"type":"text","text":"cache_control","cache_control":{mark}}}],
                "tools":[{{"name":"t","input_schema":{{"properties":{{"content":{{}}}}}},"cache_control":{mark}}}],
                "messages":[{{"role":"user","content":[
                  {{"type":"tool_result","content":[{{"type":"text","text":"a \" b","cache_control":{mark}}}]}},
                  {{"type":"document","source":{{"type":"content","content":[{{"cache_control":{mark}}}]}}}}]}}]}}"#
            )
        };
        let changed = changed(&body(mark)).unwrap();
        assert_eq!(changed, body(hour));
        assert!(serde_json::from_str::<serde_json::Value>(&changed).is_ok());
    }

    #[test]
    fn what_names_a_time_or_is_no_mark_is_left() {
        let mark = r#"{"type":"ephemeral"}"#;
        let five = r#"{"type":"ephemeral","ttl":"5m"}"#;
        for body in [
            r#"{"messages":[{"role":"user","content":"hi"}]}"#.to_owned(),
            format!(
                r#"{{"system":[{{"cache_control":{mark}}}],"messages":[{{"content":[{{"cache_control":{five}}}]}}]}}"#
            ),
            format!(r#"{{"messages":[{{"content":[{{"type":"tool_use","input":{{"cache_control":{mark}}}}}]}}]}}"#),
            format!(r#"{{"tools":[{{"input_schema":{{"cache_control":{mark}}}}}]}}"#),
            r#"{"system":[{"cache_control":null},{"cache_control":{"type":"other"}}]}"#.to_owned(),
        ] {
            assert_eq!(changed(&body), None, "{body}");
        }
    }
}
