//! Changes to a body that leave every other byte as the client wrote it.
//!
//! A batch line must not hold `stream`, `stream_options`, `service_tier` or `background` (providers.md, section 1.6) nor raw newlines, and a
//! `:batch` suffix must not reach the provider. Fields are cut out or replaced by their byte ranges; numbers,
//! order, spacing and unknown fields survive. The input must be a JSON object that [`super::peek`] has checked.

use crate::wire::members::{members, skip_space};

/// The body as a batch line holds it: without `removed` members, with `model` in place of the old one if given, on one line.
pub fn for_batch_line(body: &[u8], removed: &[&str], model: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    out.push(b'{');
    let mut first = true;
    for member in members(body) {
        if removed.iter().any(|name| member.is(body, name)) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.push(b'"');
        out.extend_from_slice(body.get(member.key.clone()).unwrap_or_default());
        out.extend_from_slice(b"\":");
        match model {
            Some(model) if member.is(body, "model") => {
                out.extend_from_slice(&serde_json::to_vec(model).unwrap_or_default());
            }
            _ => push_on_one_line(&mut out, body.get(member.value.clone()).unwrap_or_default()),
        }
    }
    out.push(b'}');
    out
}

/// The body of a live call by flex: `service_tier` in front of everything else, which stays as it was. The body must
/// hold no `service_tier` of its own.
pub fn with_flex(body: &[u8]) -> Vec<u8> {
    beginning(b"{\"service_tier\":\"flex\"", body)
}

/// The body of a Responses call in the background, to be answered within `window` (providers.md, section 1.12). The body
/// must hold no `background` of its own; a `background_options` that is there loses its place to ours.
pub fn with_background(body: &[u8], window: &str) -> Vec<u8> {
    let head = format!("{{\"background\":true,\"background_options\":{{\"completion_window\":\"{window}\"}}");
    if members(body).any(|member| member.is(body, OPTIONS)) {
        return beginning(head.as_bytes(), &for_batch_line(body, &[OPTIONS], None));
    }
    beginning(head.as_bytes(), body)
}

/// A finished background response as the live call would have shown it: `background` is false, and nothing is said of a
/// window. Every other byte stays.
pub fn of_live_call(response: &[u8]) -> Vec<u8> {
    let without = match members(response).any(|member| member.is(response, OPTIONS)) {
        true => for_batch_line(response, &[OPTIONS], None),
        false => response.to_vec(),
    };
    let Some(member) = members(&without).find(|member| member.is(&without, "background")) else { return without };
    let before = without.get(..member.value.start).unwrap_or_default();
    let after = without.get(member.value.end..).unwrap_or_default();
    [before, b"false", after].concat()
}

/// What a background call says beside `background`.
const OPTIONS: &str = "background_options";

/// `head`, an object without its end, and the members of `body`.
fn beginning(head: &[u8], body: &[u8]) -> Vec<u8> {
    let first = skip_space(body, skip_space(body, 0) + 1);
    let rest = body.get(first..).unwrap_or_default();
    let comma: &[u8] = if rest.first() == Some(&b'}') { b"" } else { b"," };
    [head, comma, rest].concat()
}

/// The body with another model, every other byte as it was.
pub fn with_model(body: &[u8], model: &str) -> Vec<u8> {
    let Some(member) = members(body).find(|member| member.is(body, "model")) else {
        return body.to_vec();
    };
    let mut out = Vec::with_capacity(body.len());
    out.extend_from_slice(body.get(..member.value.start).unwrap_or_default());
    out.extend_from_slice(&serde_json::to_vec(model).unwrap_or_default());
    out.extend_from_slice(body.get(member.value.end..).unwrap_or_default());
    out
}

/// The model of a body of which only the beginning may be there; none: it is not in that part.
pub fn model_of_prefix(prefix: &[u8]) -> Option<String> {
    let member = members(prefix).find(|member| member.is(prefix, "model"))?;
    // A string that was cut off has no closing quote, and does not parse.
    serde_json::from_slice(prefix.get(member.value)?).ok()
}

/// Whether the body holds raw line breaks. They can only be insignificant white space: inside JSON strings they are escaped.
pub fn has_line_breaks(body: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', body).is_some()
}

fn push_on_one_line(out: &mut Vec<u8>, bytes: &[u8]) {
    if has_line_breaks(bytes) {
        out.extend(bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    } else {
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(body: &str, model: Option<&str>) -> String {
        String::from_utf8(for_batch_line(body.as_bytes(), &["stream", "stream_options"], model)).unwrap()
    }

    #[test]
    fn flex_is_asked_for_and_every_other_byte_stays() {
        assert_eq!(
            with_flex(b" { \"model\" : \"m\",\"n\":1.10 }"),
            b"{\"service_tier\":\"flex\",\"model\" : \"m\",\"n\":1.10 }"
        );
        assert_eq!(with_flex(b"{}"), b"{\"service_tier\":\"flex\"}");
    }

    #[test]
    fn a_background_call_and_its_answer_differ_from_the_live_ones_by_their_members_alone() {
        let head = r#"{"background":true,"background_options":{"completion_window":"8h"}"#;
        let of = |body: &str| String::from_utf8(with_background(body.as_bytes(), "8h")).unwrap();
        assert_eq!(of(r#" { "model" : "m","n":1.10 }"#), format!(r#"{head},"model" : "m","n":1.10 }}"#));
        assert_eq!(of("{}"), format!("{head}}}"));
        assert_eq!(of(r#"{"background_options":{"a":1},"model":"m"}"#), format!(r#"{head},"model":"m"}}"#));
        let plain = |body: &str| String::from_utf8(of_live_call(body.as_bytes())).unwrap();
        assert_eq!(
            plain("{ \"id\": 1,\n \"background\" : true, \"x\":{\"background\":true}}"),
            "{ \"id\": 1,\n \"background\" : false, \"x\":{\"background\":true}}"
        );
        assert_eq!(
            plain(r#"{"background_options":{"completion_window":"8h"},"background":true,"n":1.0}"#),
            r#"{"background":false,"n":1.0}"#
        );
        assert_eq!(plain(r#"{"id":"resp_1"}"#), r#"{"id":"resp_1"}"#);
    }

    #[test]
    fn cuts_fields_wherever_they_stand_and_keeps_the_rest_as_written() {
        assert_eq!(
            line(r#"{"stream":true,"model":"m","temperature":1.10,"x":{"stream":1},"stream_options":{"a":[1]}}"#, None),
            r#"{"model":"m","temperature":1.10,"x":{"stream":1}}"#
        );
        assert_eq!(line(r#" { "stream" : true } "#, None), "{}");
        assert_eq!(line(r#"{"a":"\"}{,\\","stream":false}"#, None), r#"{"a":"\"}{,\\"}"#);
    }

    #[test]
    fn replaces_the_model_only() {
        assert_eq!(line(r#"{"model":"m:batch","n":1e400}"#, Some("m")), r#"{"model":"m","n":1e400}"#);
        let body = b"{ \"a\": 1,\n \"model\" : \"m:batch\" }";
        assert_eq!(with_model(body, "m"), b"{ \"a\": 1,\n \"model\" : \"m\" }");
    }

    #[test]
    fn members_whose_keys_are_written_with_escapes_are_found() {
        assert_eq!(line(r#"{"str\u0065am":true,"a\\":1}"#, None), r#"{"a\\":1}"#);
        assert_eq!(line(r#"{"mod\u0065l":"m:batch"}"#, Some("m")), r#"{"mod\u0065l":"m"}"#);
        assert_eq!(with_model(br#"{"mod\u0065l":"m:batch"}"#, "m"), br#"{"mod\u0065l":"m"}"#);
    }

    #[test]
    fn the_model_of_a_body_that_is_cut_off() {
        let of = |body: &str| model_of_prefix(body.as_bytes());
        assert_eq!(of(r#"{"model":"m:batch","messages":[{"a":"#).as_deref(), Some("m:batch"));
        assert_eq!(of(r#"{"messages":[{"model":"m"}],"model":"m:ba"#), None);
        assert_eq!(of(r#"{"messages":[{"model":"m:batch"},"x:batch""#), None);
        for nothing in ["", "{", "[1", "{\"model\"", "{\"model\":", "{\"model\":7,"] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_body_with_line_breaks_comes_out_on_one_line_and_means_the_same() {
        let body = "{\n  \"model\": \"m\",\r\n  \"messages\": [\n    {\"content\": \"a\\nb\"}\n  ]\n}";
        let one_line = line(body, None);
        assert!(!has_line_breaks(one_line.as_bytes()), "{one_line}");
        let before: serde_json::Value = serde_json::from_str(body).unwrap();
        let after: serde_json::Value = serde_json::from_str(&one_line).unwrap();
        assert_eq!(before, after);
    }

    proptest::proptest! {
        #[test]
        fn what_is_not_removed_means_the_same(text in ".{0,30}", number in proptest::prelude::any::<i64>(), nested in proptest::collection::vec(".{0,8}", 0..4)) {
            let value = serde_json::json!({"model": "m", "stream": true, "text": text, "number": number, "nested": {"list": nested}});
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let mut expected = value;
            expected.as_object_mut().unwrap().remove("stream");
            let line = line(&pretty, None);
            proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
        }
    }

    #[test]
    fn either_kind_of_line_break_is_one() {
        assert!(has_line_breaks(b"{\n}") && has_line_breaks(b"{\r}"));
        assert!(!has_line_breaks(br#"{"a":"\n"}"#) && !has_line_breaks(b""));
    }
}
