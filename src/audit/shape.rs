//! The few fields of a record that any format uses, read in one pass over its bytes; all else is skipped unread.
//!
//! Lenient: a field of an unexpected type is as if it were absent, so that one odd value does not cost the record. All
//! formats share one structure, which is why a JSON object and a row of CSV (whose nested JSON is text) are read alike.
//! Nothing of prompts and answers is kept but two hashes of a prompt's beginning.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Names longer than this are cut: they are labels in a report.
const LONGEST_TEXT: usize = 200;
/// How much of a system prompt tells templates apart, and how much of a user's message.
const TEMPLATE_BYTES: usize = 4096;
const OPENING_BYTES: usize = 64;

/// What a record may say. Names as the formats spell them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shape {
    // when
    pub(super) timestamp: Scalar,
    pub(super) time: Scalar,
    pub(super) ts: Scalar,
    pub(super) date: Scalar,
    pub(super) created: Scalar,
    pub(super) created_at: Scalar,
    #[serde(rename = "createdAt")]
    pub(super) created_at_camel: Scalar,
    pub(super) start_time: Scalar,
    #[serde(rename = "startTime")]
    pub(super) start_time_camel: Scalar,
    pub(super) request_created_at: Scalar,
    // which model, whose
    pub(super) model: Scalar,
    pub(super) model_group: Scalar,
    pub(super) provided_model_name: Scalar,
    #[serde(rename = "providedModelName")]
    pub(super) provided_model_name_camel: Scalar,
    pub(super) model_permaslug: Scalar,
    pub(super) request_model: Scalar,
    pub(super) response_model: Scalar,
    pub(super) provider: Scalar,
    pub(super) custom_llm_provider: Scalar,
    // tokens
    pub(super) usage: Nested<Counts>,
    pub(super) usage_details: Nested<Sums>,
    #[serde(rename = "usageDetails")]
    pub(super) usage_details_camel: Nested<Sums>,
    pub(super) prompt_tokens: Scalar,
    pub(super) completion_tokens: Scalar,
    pub(super) total_tokens: Scalar,
    pub(super) reasoning_tokens: Scalar,
    pub(super) input_tokens: Scalar,
    pub(super) output_tokens: Scalar,
    pub(super) tokens_prompt: Scalar,
    pub(super) tokens_completion: Scalar,
    pub(super) tokens_reasoning: Scalar,
    pub(super) tokens_cached: Scalar,
    pub(super) prompt_cache_read_tokens: Scalar,
    pub(super) prompt_cache_write_tokens: Scalar,
    // money
    pub(super) spend: Scalar,
    pub(super) cost: Scalar,
    #[serde(rename = "costUSD")]
    pub(super) cost_usd: Scalar,
    pub(super) cost_total: Scalar,
    pub(super) total_cost: Scalar,
    #[serde(rename = "totalCost")]
    pub(super) total_cost_camel: Scalar,
    // who, and for what
    #[serde(alias = "user-agent", alias = "User-Agent")]
    pub(super) user_agent: Scalar,
    pub(super) headers: Nested<Self>,
    pub(super) tag: Label,
    pub(super) tags: Label,
    pub(super) request_tags: Label,
    pub(super) trace_name: Label,
    #[serde(rename = "traceName")]
    pub(super) trace_name_camel: Label,
    pub(super) name: Label,
    pub(super) app_name: Label,
    pub(super) metadata: Nested<Marks>,
    pub(super) request_properties: Nested<Marks>,
    pub(super) properties: Nested<Marks>,
    // how
    pub(super) stream: Scalar,
    pub(super) streamed: Scalar,
    pub(super) service_tier: Scalar,
    pub(super) variant: Scalar,
    pub(super) status: Scalar,
    pub(super) status_code: Scalar,
    pub(super) response_status: Scalar,
    pub(super) level: Scalar,
    pub(super) cache_hit: Scalar,
    pub(super) requests: Scalar,
    pub(super) error: Present,
    // what kind of record
    pub(super) object: Scalar,
    #[serde(rename = "type")]
    pub(super) kind: Scalar,
    pub(super) call_type: Scalar,
    pub(super) custom_id: Scalar,
    pub(super) method: Scalar,
    pub(super) url: Scalar,
    pub(super) generation_id: Scalar,
    pub(super) endpoint_id: Scalar,
    pub(super) request_id: Scalar,
    pub(super) trace_id: Scalar,
    #[serde(rename = "traceId")]
    pub(super) trace_id_camel: Scalar,
    // bodies
    pub(super) messages: Opening,
    pub(super) input: Opening,
    pub(super) prompt: Opening,
    pub(super) instructions: Opening,
    pub(super) choices: Present,
    pub(super) output: Present,
    pub(super) request: Nested<Self>,
    pub(super) response: Nested<Self>,
    pub(super) body: Nested<Self>,
    pub(super) request_body: Nested<Self>,
    pub(super) response_body: Nested<Self>,
}

/// `usage` in the spelling of the OpenAI and Anthropic APIs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) prompt_tokens: Scalar,
    pub(super) input_tokens: Scalar,
    pub(super) input: Scalar,
    pub(super) completion_tokens: Scalar,
    pub(super) output_tokens: Scalar,
    pub(super) output: Scalar,
    pub(super) total_tokens: Scalar,
    pub(super) total: Scalar,
    pub(super) prompt_tokens_details: Nested<Parts>,
    pub(super) input_tokens_details: Nested<Parts>,
    pub(super) completion_tokens_details: Nested<Parts>,
    pub(super) output_tokens_details: Nested<Parts>,
    pub(super) cache_read_input_tokens: Scalar,
    pub(super) cache_creation_input_tokens: Scalar,
    /// OpenRouter puts the price in here.
    pub(super) cost: Scalar,
}

/// The parts that `usage` splits a count into.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parts {
    pub(super) cached_tokens: Scalar,
    pub(super) cache_write_tokens: Scalar,
    pub(super) reasoning_tokens: Scalar,
}

/// Members of metadata that are used as labels.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Marks {
    pub(super) tag: Label,
    pub(super) tags: Label,
    pub(super) job: Label,
    pub(super) task: Label,
    pub(super) feature: Label,
    pub(super) app: Label,
    pub(super) user_agent: Scalar,
    pub(super) requester_user_agent: Scalar,
}

impl Marks {
    /// The first label there is.
    pub(super) fn label(&self) -> Option<&str> {
        [&self.tag, &self.tags, &self.job, &self.task, &self.feature, &self.app].into_iter().find_map(Label::text)
    }
}

/// A number, a text, yes or no; anything else is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Scalar {
    #[default]
    Nothing,
    Flag(bool),
    Number(f64),
    Text(Box<str>),
}

impl Scalar {
    /// A text that says something.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            Self::Nothing | Self::Flag(_) | Self::Number(_) => None,
        }
    }

    /// A number, also one that is written as a text (CSV).
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Self::Nothing | Self::Flag(_) => None,
        }
    }

    /// A count: whole, not negative, and exact as a number of JSON.
    pub(super) fn count(&self) -> Option<u64> {
        let number = self.number()?;
        let is_count = (0.0..=9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked in the line above")]
        is_count.then_some(number as u64)
    }

    /// Yes or no, also as a text (CSV, Python's spelling).
    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Text(text) => match text.trim() {
                "true" | "True" | "TRUE" | "1" => Some(true),
                "false" | "False" | "FALSE" | "0" => Some(false),
                _ => None,
            },
            Self::Nothing | Self::Number(_) => None,
        }
    }

    /// Whether there is anything.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Text(text) => !text.is_empty(),
            Self::Flag(_) | Self::Number(_) => true,
        }
    }
}

/// An object, given as one or as its text; a number in its place is kept (OpenRouter's `usage`).
#[derive(Debug)]
pub(super) struct Nested<T> {
    inner: Option<Box<T>>,
    pub(super) number: Option<f64>,
}

impl<T> Default for Nested<T> {
    fn default() -> Self {
        Self { inner: None, number: None }
    }
}

impl<T> Nested<T> {
    /// The object.
    pub(super) fn get(&self) -> Option<&T> {
        self.inner.as_deref()
    }
}

/// One label: a text, or the first of a list.
#[derive(Debug, Default)]
pub(super) struct Label(Scalar);

impl Label {
    pub(super) fn text(&self) -> Option<&str> {
        self.0.text()
    }
}

/// Whether there is something other than null.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Present(pub(super) bool);

/// How a prompt begins: what tells templates apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opening {
    /// There is a prompt.
    pub(super) present: bool,
    /// Its first message is a system prompt.
    system: bool,
    whole: u64,
    short: u64,
}

impl Opening {
    /// A hash of the system prompt, or else of the first words.
    pub(super) fn template(self) -> Option<u64> {
        self.present.then_some(if self.system { self.whole } else { self.short })
    }

    fn of(text: &str) -> Self {
        let hash = |length: usize| {
            let mut hasher = DefaultHasher::new();
            text.as_bytes().get(..length).unwrap_or(text.as_bytes()).hash(&mut hasher);
            hasher.finish()
        };
        Self { present: true, system: false, whole: hash(TEMPLATE_BYTES), short: hash(OPENING_BYTES) }
    }
}

/// All token counts of Langfuse's `usageDetails`, whose keys are the integrations' own: those with `input` add up to
/// the prompt, those with `output` to the answer.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) input: f64,
    pub(super) cached: f64,
    pub(super) written: f64,
    pub(super) output: f64,
    pub(super) reasoning: f64,
    pub(super) any: bool,
}

/// Visits what a type does not look into: drains it and gives the default.
macro_rules! or_else_nothing {
    ($($visit:ident),+) => { $(or_else_nothing!(@ $visit);)+ };
    (@ visit_bool) => { fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ visit_number) => {
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
    };
    (@ visit_unit) => { fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ visit_str) => { fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> { Ok(Self::Value::default()) } };
    (@ visit_seq) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (@ visit_map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

/// A `Deserialize` that takes whatever comes, and the visitor it uses.
macro_rules! reads_anything {
    ($type:ty, $visitor:ident) => {
        struct $visitor;
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    };
}

fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("any value")
}

reads_anything!(Scalar, ScalarVisitor);
impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }
    #[expect(clippy::cast_precision_loss, reason = "counts above 2^53 are refused where they are used")]
    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }
    #[expect(clippy::cast_precision_loss, reason = "counts above 2^53 are refused where they are used")]
    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        let cut = text.char_indices().map(|(at, _)| at).nth(LONGEST_TEXT).and_then(|at| text.get(..at));
        Ok(Scalar::Text(cut.unwrap_or(text).into()))
    }
    or_else_nothing!(visit_unit, visit_seq, visit_map);
}

reads_anything!(Label, LabelVisitor);
impl<'de> Visitor<'de> for LabelVisitor {
    type Value = Label;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Label, E> {
        let list = text.starts_with('[').then(|| serde_json::from_str::<Label>(text).ok()).flatten();
        list.map_or_else(|| ScalarVisitor.visit_str(text).map(Label), Ok)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Label, A::Error> {
        let first = seq.next_element::<Scalar>()?.unwrap_or_default();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Label(first))
    }
    or_else_nothing!(visit_bool, visit_number, visit_unit, visit_map);
}

reads_anything!(Present, PresentVisitor);
impl<'de> Visitor<'de> for PresentVisitor {
    type Value = Present;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f)
    }
    fn visit_str<E>(self, text: &str) -> Result<Present, E> {
        Ok(Present(!text.is_empty()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Present, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Present(true))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Present, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Present(true))
    }
    or_else_nothing!(visit_bool, visit_number, visit_unit);
}

struct NestedVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Nested<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NestedVisitor(std::marker::PhantomData))
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for NestedVisitor<T> {
    type Value = Nested<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f)
    }
    fn visit_f64<E>(self, number: f64) -> Result<Nested<T>, E> {
        Ok(Nested { inner: None, number: Some(number) })
    }
    #[expect(clippy::cast_precision_loss, reason = "an amount of money")]
    fn visit_u64<E>(self, number: u64) -> Result<Nested<T>, E> {
        Ok(Nested { inner: None, number: Some(number as f64) })
    }
    fn visit_i64<E>(self, _: i64) -> Result<Nested<T>, E> {
        Ok(Nested::default())
    }
    fn visit_str<E>(self, text: &str) -> Result<Nested<T>, E> {
        let text = text.trim();
        let inner = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
        Ok(Nested { inner, number: text.parse().ok() })
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Nested<T>, A::Error> {
        Ok(Nested { inner: Some(Box::new(T::deserialize(MapAccessDeserializer::new(map))?)), number: None })
    }
    or_else_nothing!(visit_bool, visit_unit, visit_seq);
}

/// One message, or whatever holds messages.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    role: Scalar,
    content: Opening,
    text: Opening,
    messages: Opening,
}

reads_anything!(Opening, OpeningVisitor);
impl<'de> Visitor<'de> for OpeningVisitor {
    type Value = Opening;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f)
    }
    fn visit_str<E>(self, text: &str) -> Result<Opening, E> {
        let json = ["[{", "{\""].iter().any(|start| text.starts_with(start));
        let nested = json.then(|| serde_json::from_str::<Opening>(text).ok()).flatten();
        Ok(nested.filter(|opening| opening.present).unwrap_or_else(|| Opening::of(text)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Opening, A::Error> {
        let first = seq.next_element::<Opening>()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first.unwrap_or_default())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Opening, A::Error> {
        let message = Message::deserialize(MapAccessDeserializer::new(map))?;
        let system = matches!(message.role.text(), Some("system" | "developer"));
        let said = [message.content, message.text, message.messages].into_iter().find(|opening| opening.present);
        Ok(said.map_or_else(Opening::default, |said| Opening { system: said.system || system, ..said }))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Opening, E> {
        Ok(Opening::default())
    }
    or_else_nothing!(visit_number, visit_unit);
}

reads_anything!(Sums, SumsVisitor);
impl<'de> Visitor<'de> for SumsVisitor {
    type Value = Sums;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sums, A::Error> {
        let mut sums = Sums::default();
        while let Some((key, value)) = map.next_entry::<String, Scalar>()? {
            let Some(number) = value.number().filter(|number| *number >= 0.0) else { continue };
            let has = |word: &str| key.contains(word);
            if has("input") || has("prompt") {
                sums.any = true;
                sums.input += number;
                if has("creation") || has("write") {
                    sums.written += number;
                } else if has("cache") {
                    sums.cached += number;
                }
            } else if has("output") || has("completion") {
                sums.any = true;
                sums.output += number;
                if has("reasoning") {
                    sums.reasoning += number;
                }
            }
        }
        Ok(sums)
    }
    or_else_nothing!(visit_bool, visit_number, visit_unit, visit_str, visit_seq);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(json: &str) -> Shape {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn odd_types_cost_only_their_own_field() {
        let odd = shape(
            r#"{"model":["x"],"created":{"a":1},"stream":"perhaps","usage":[1],"tags":{"a":1},"messages":7,
                "choices":null,"request":"no json","spend":"0.25","status":null,"unknown":[{"a":[1,{}]}]}"#,
        );
        assert_eq!((odd.model.text(), odd.created.number(), odd.stream.flag()), (None, None, None));
        assert!(odd.usage.get().is_none() && odd.request.get().is_none() && !odd.choices.0);
        assert_eq!((odd.spend.number(), odd.tags.text()), (Some(0.25), None));
        assert!(!odd.messages.present);
    }

    #[test]
    fn objects_are_read_from_their_text_too() {
        let text = shape(
            r#"{"request":"{\"model\":\"m\",\"metadata\":{\"job\":\"nightly\"}}","request_tags":"[\"a\",\"b\"]"}"#,
        );
        let request = text.request.get().unwrap();
        assert_eq!(request.model.text(), Some("m"));
        assert_eq!(request.metadata.get().unwrap().label(), Some("nightly"));
        assert_eq!(text.request_tags.text(), Some("a"));
    }

    #[test]
    fn templates_are_the_system_prompt_or_the_first_words() {
        let of = |messages: &str| shape(&format!(r#"{{"messages":{messages}}}"#)).messages.template();
        let long = "x".repeat(OPENING_BYTES);
        let system = |prompt: &str, user: &str| {
            of(&format!(r#"[{{"role":"system","content":"{prompt}"}},{{"role":"user","content":"{user}"}}]"#))
        };
        let user = |text: &str| of(&format!(r#"[{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}}]"#));
        assert_eq!(system(&format!("{long}a"), "1"), system(&format!("{long}a"), "2"));
        assert_ne!(system(&format!("{long}a"), "1"), system(&format!("{long}b"), "1"));
        assert_eq!(user(&format!("{long}a")), user(&format!("{long}b")), "the same first words");
        assert_ne!(user("a"), user("b"));
        assert_eq!(of("[]"), None);
        assert_eq!(of("\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"a\\\"}]\""), user("a"), "as text");
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        let count = |json: &str| serde_json::from_str::<Scalar>(json).unwrap().count();
        assert_eq!((count("7"), count("7.0"), count("\"7\"")), (Some(7), Some(7), Some(7)));
        for bad in ["-1", "1.5", "\"\"", "1e300", "\"NaN\"", "true", "null", "18446744073709551615"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }
}
