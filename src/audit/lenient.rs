//! Fields that take whatever JSON comes: a number, a text, a label, an object, the beginning of a prompt. What is of
//! another kind is as if it were absent, and is skipped unread.
//!
//! Also read from rows of CSV, where everything is text and nested JSON is text in text. Used by `shape` and its readers.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Names longer than this are cut: they are labels in a report.
const LONGEST_TEXT: usize = 200;
/// How much of a system prompt tells templates apart, and how much of a user's message.
const TEMPLATE_BYTES: usize = 4096;
pub(super) const OPENING_BYTES: usize = 64;

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
