//! What makes calls alike: everything of a body but what the single call is about. Two calls of one template differ in
//! their user content alone, so what was learned of one says something of the other.
//!
//! Model, system and developer messages, tools, response format and sampling parameters count, in any order of the
//! members; user content, names of users, seeds and what steers delivery do not. The model is the caller's to add: it
//! stands in the lane, without `:batch`. Used by `intake::defer` when a call is accepted.

use std::borrow::Cow;

use serde_json::Value;

use crate::domain::lane::Endpoint;
use crate::wire::members::{items, members};

/// What a body says of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Equal for calls of one template, to be hashed; none: the endpoint knows no templates.
    pub identity: Option<Vec<u8>>,
    /// The most output tokens that the call may have; none: it does not say.
    pub most_output: Option<u32>,
}

/// Members that belong to the single call or its delivery.
const OWN: [&str; 13] = [
    "background",
    "conversation",
    "metadata",
    "model",
    "prediction",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "seed",
    "service_tier",
    "stream",
    "stream_options",
    "user",
];
/// The most output tokens, under its names (providers.md, sections 1.13 and 2.2).
const MOST_OUTPUT: [&str; 3] = ["max_completion_tokens", "max_output_tokens", "max_tokens"];

/// Reads the template of a body that [`super::peek`] has checked.
pub fn template(endpoint: Endpoint, body: &[u8]) -> Template {
    let mut members: Vec<(Cow<'_, str>, &[u8])> =
        members(body).filter_map(|member| Some((member.name(body), body.get(member.value)?))).collect();
    // In any order of the body; of a name that comes twice both count.
    members.sort_by(|one, other| one.0.cmp(&other.0));
    let named = |name: &str| members.iter().find(|member| member.0 == name).map(|member| member.1);
    let number = |raw: &[u8]| std::str::from_utf8(raw).ok()?.parse().ok();
    let most_output = MOST_OUTPUT.iter().find_map(|name| named(name).and_then(number));
    let content = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Messages => "messages",
        Endpoint::Responses => "input",
        Endpoint::Completions => "prompt",
        // They have no instructions, and their answers cannot look wrong.
        Endpoint::Embeddings | Endpoint::Moderations => return Template { identity: None, most_output },
    };
    let mut identity = Vec::new();
    for (name, value) in &members {
        let name: &str = name;
        if name == content {
            instructions(value).for_each(|text| push(&mut identity, name, text));
        } else if name == "prompt" {
            // Its variables are the call's own.
            for part in ["id", "version"].iter().filter_map(|part| member_of(value, part)) {
                push(&mut identity, name, part);
            }
        } else if !OWN.contains(&name) {
            push(&mut identity, name, value);
        }
    }
    Template { identity: Some(identity), most_output }
}

/// What the user says first in a body, to be compared with other calls of its template; none: nothing in words.
pub fn user_text(endpoint: Endpoint, body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let content = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Messages => body.get("messages")?,
        Endpoint::Responses => body.get("input")?,
        Endpoint::Completions => body.get("prompt")?,
        Endpoint::Embeddings | Endpoint::Moderations => return None,
    };
    let is_users = |item: &&Value| item.get("role").is_some_and(|role| role == "user");
    let said = content.as_array().map_or(Some(content), |items| items.iter().find(is_users)?.get("content"))?;
    let text = said.as_array().map_or(Some(said), |parts| parts.iter().find_map(|part| part.get("text")))?;
    text.as_str().map(ToOwned::to_owned)
}

/// The messages of a list that are not the user's or the model's.
fn instructions(messages: &[u8]) -> impl Iterator<Item = &[u8]> {
    items(messages).filter(|item| matches!(member_of(item, "role"), Some(b"\"system\"" | b"\"developer\"")))
}

fn member_of<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(object).find(|member| member.is(object, name)).and_then(|member| object.get(member.value))
}

/// Parts are told apart by their lengths: no content can look like another one's boundary.
fn push(identity: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), value] {
        identity.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        identity.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Vec<u8> {
        template(Endpoint::ChatCompletions, body.as_bytes()).identity.unwrap()
    }

    #[test]
    fn user_content_delivery_and_order_do_not_count() {
        let one = chat(
            r#"{"model":"m","temperature":0,"messages":[{"role":"system","content":"S"},{"role":"user","content":"a"}]}"#,
        );
        let other = chat(
            r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"b"},{"role":"assistant","content":"c"}],
                "stream":true,"user":"u7","seed":5,"temperature":0,"model":"m:batch"}"#,
        );
        assert_eq!(one, other);
    }

    #[test]
    fn instructions_tools_formats_and_sampling_count() {
        let base = r#"{"messages":[{"role":"developer","content":"S"},{"role":"user","content":"a"}]}"#;
        for changed in [
            r#"{"messages":[{"role":"developer","content":"T"},{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"developer","content":"S"}],"temperature":1}"#,
            r#"{"messages":[{"role":"developer","content":"S"}],"tools":[]}"#,
            r#"{"messages":[{"role":"developer","content":"S"}],"response_format":{"type":"json_object"}}"#,
            r#"{"messages":[{"role":"developer","content":"S"}],"max_tokens":9}"#,
        ] {
            assert_ne!(chat(base), chat(changed), "{changed}");
        }
    }

    #[test]
    fn each_endpoint_has_its_own_content() {
        let read = |endpoint, body: &str| template(endpoint, body.as_bytes()).identity;
        let responses = |body| read(Endpoint::Responses, body);
        assert_eq!(responses(r#"{"instructions":"I","input":"a"}"#), responses(r#"{"instructions":"I","input":"b"}"#));
        assert_ne!(responses(r#"{"instructions":"I","input":"a"}"#), responses(r#"{"instructions":"J","input":"a"}"#));
        assert_eq!(
            responses(r#"{"prompt":{"id":"p","variables":{"x":1}}}"#),
            responses(r#"{"prompt":{"id":"p","variables":{"x":2}}}"#)
        );
        assert_ne!(responses(r#"{"prompt":{"id":"p"}}"#), responses(r#"{"prompt":{"id":"q"}}"#));
        let messages = |body| read(Endpoint::Messages, body);
        assert_eq!(messages(r#"{"system":"S","messages":[1]}"#), messages(r#"{"system":"S","messages":[2]}"#));
        assert_ne!(messages(r#"{"system":"S","messages":[]}"#), messages(r#"{"system":"T","messages":[]}"#));
        assert_eq!(read(Endpoint::Completions, r#"{"prompt":"a"}"#), read(Endpoint::Completions, r#"{"prompt":"b"}"#));
        assert_eq!(read(Endpoint::Embeddings, r#"{"input":"a"}"#), None);
        assert_eq!(read(Endpoint::Moderations, r#"{"input":"a"}"#), None);
    }

    #[test]
    fn what_the_user_says_is_found_in_every_shape() {
        for (endpoint, body) in [
            (
                Endpoint::ChatCompletions,
                r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"U"},{"role":"user","content":"V"}]}"#,
            ),
            (
                Endpoint::Messages,
                r#"{"system":"S","messages":[{"role":"user","content":[{"type":"image"},{"type":"text","text":"U"}]}]}"#,
            ),
            (Endpoint::Responses, r#"{"input":"U"}"#),
            (
                Endpoint::Responses,
                r#"{"input":[{"role":"developer","content":"D"},{"role":"user","content":[{"type":"input_text","text":"U"}]}]}"#,
            ),
            (Endpoint::Completions, r#"{"prompt":"U"}"#),
        ] {
            assert_eq!(user_text(endpoint, body.as_bytes()).as_deref(), Some("U"), "{body}");
        }
        for (endpoint, body) in [
            (Endpoint::ChatCompletions, r#"{"messages":[{"role":"assistant","content":"A"}]}"#),
            (Endpoint::ChatCompletions, r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#),
            (Endpoint::Completions, r#"{"prompt":[1,2]}"#),
            (Endpoint::Embeddings, r#"{"input":"U"}"#),
            (Endpoint::Responses, "no json"),
        ] {
            assert_eq!(user_text(endpoint, body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_most_output_is_read_under_each_name() {
        for name in MOST_OUTPUT {
            let body = format!(r#"{{"{name}":77}}"#);
            assert_eq!(template(Endpoint::ChatCompletions, body.as_bytes()).most_output, Some(77), "{name}");
        }
        assert_eq!(template(Endpoint::Responses, b"{}").most_output, None);
    }
}
