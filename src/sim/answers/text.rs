//! The text of a request: what is echoed, and the words that steer.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::sim::answers::{Call, Run};
use crate::sim::peek::{members, text};

/// The largest answer that `sim-reply-bytes` may ask for.
const MAX_REPLY: usize = 32_000_000;

/// The text of the last user message, or of the whole input where it has no messages.
pub(super) fn last_user_text<'a>(content: &'a RawValue) -> Cow<'a, str> {
    if let Some(text) = text(content) {
        return text;
    }
    let items: Vec<&'a RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
    for item in items.iter().rev() {
        if let Some(text) = text(item) {
            return text;
        }
        let Ok([role, content]) = members(item.get(), &["role", "content"]) else { continue };
        if role.is_some_and(|role| role.get() == "\"user\"") {
            return content.map(content_text).unwrap_or_default();
        }
    }
    Cow::Borrowed("")
}

/// The text of a message's content: a text, or the text parts of a list.
fn content_text(content: &RawValue) -> Cow<'_, str> {
    if let Some(text) = text(content) {
        return text;
    }
    let parts: Vec<&RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
    let texts = parts.into_iter().filter_map(|part| members(part.get(), &["text"]).ok()?[0].and_then(text));
    Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
}

/// The text answer to `call`: `[HASH] TEXT`, for a further choice with its number.
pub(super) fn echo(call: &Call<'_>, run: &Run, choice: usize) -> String {
    let asked = last_user_text(call.content);
    let mut reply = format!("[{}] {asked}", run.short_hash());
    if choice > 0 {
        reply.push_str(&format!(" #{choice}"));
    }
    if let Some(wanted) = number_after(call.asked(), "sim-reply-bytes=") {
        let wanted = usize::try_from(wanted).unwrap_or(MAX_REPLY).min(MAX_REPLY);
        let missing = wanted.saturating_sub(reply.len());
        reply.extend(std::iter::repeat_n('.', missing));
    }
    reply
}

/// Whether the request holds `word`.
pub(super) fn has(call: &Call<'_>, word: &str) -> bool {
    memchr::memmem::find(call.asked().as_bytes(), word.as_bytes()).is_some()
}

/// The number that follows `word` in `asked`.
pub(in crate::sim) fn number_after(asked: &str, word: &str) -> Option<u64> {
    let at = memchr::memmem::find(asked.as_bytes(), word.as_bytes())?;
    let rest = asked.get(at + word.len()..)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(json: &str) -> String {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        last_user_text(raw).into_owned()
    }

    #[test]
    fn takes_the_last_user_message_whatever_its_form() {
        assert_eq!(last(r#""plain""#), "plain");
        assert_eq!(last(r#"["a","b"]"#), "b");
        let messages = r#"[{"role":"user","content":"one"},{"role":"assistant","content":"two"}]"#;
        assert_eq!(last(messages), "one");
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"x\ny"},{"type":"image_url"},{"text":"z"}]}]"#;
        assert_eq!(last(parts), "x\ny\nz");
        assert_eq!(last(r#"[{"role":"system","content":"s"}]"#), "");
        assert_eq!(last("[1,2]"), "");
    }

    #[test]
    fn reads_the_number_after_a_word() {
        assert_eq!(number_after("do sim-sleep=250 now", "sim-sleep="), Some(250));
        assert_eq!(number_after("sim-sleep=9", "sim-sleep="), Some(9));
        assert_eq!(number_after("sim-sleep=x", "sim-sleep="), None);
        assert_eq!(number_after("none", "sim-sleep="), None);
    }
}
