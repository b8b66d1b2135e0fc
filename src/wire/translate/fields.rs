//! A JSON object as it is taken apart: every field is asked for by name, and what is left over at the end is refused.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Refused;

/// The fields of an object in their order, and where it stands in the call.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    at: String,
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Takes apart the object at `at` (empty: the body itself).
    pub(super) fn parse(raw: &'a RawValue, at: impl Into<String>) -> Result<Self, Refused> {
        let at = at.into();
        let Pairs(fields) = serde_json::from_str(raw.get())
            .map_err(|error| Refused::new(or_body(&at), format!("expected a JSON object ({error})")))?;
        Ok(Self { at, fields })
    }

    /// The path of a field.
    pub(super) fn path(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Takes a value out; null is as good as nothing. Of several with one name the last one counts.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut found = None;
        self.fields.retain(|(key, raw)| {
            let is_it = key == name;
            if is_it {
                found = Some(*raw);
            }
            !is_it
        });
        found.filter(|raw| raw.get() != "null")
    }

    /// Takes a value of some type out. `what` completes "expected …".
    pub(super) fn take_as<T: DeserializeOwned>(&mut self, name: &str, what: &str) -> Result<Option<T>, Refused> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_other_type| Refused::new(self.path(name), format!("expected {what}")))
    }

    /// Takes a text out.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refused> {
        self.take_as(name, "a text")
    }

    /// A text that has to be there.
    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Refused> {
        self.text(name)?.ok_or_else(|| Refused::new(self.path(name), "is required"))
    }

    /// The elements of an array; none: it is not there.
    pub(super) fn elements(&mut self, name: &str) -> Result<Option<Vec<&'a RawValue>>, Refused> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_no_array| Refused::new(self.path(name), "expected an array"))
    }

    /// Leaves out fields that change nothing of the answer.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        self.fields.retain(|(key, _)| !names.contains(&key.as_str()));
    }

    /// Fields in their order, as they stand.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.fields.iter().map(|(key, raw)| (key.as_str(), *raw))
    }

    /// What nobody asked for has no counterpart.
    pub(super) fn nothing_left(&self, why: &str) -> Result<(), Refused> {
        match self.fields.iter().find(|(_, raw)| raw.get() != "null") {
            Some((name, _)) => Err(Refused::new(self.path(name), why)),
            None => Ok(()),
        }
    }
}

fn or_body(at: &str) -> &str {
    if at.is_empty() { "body" } else { at }
}

struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}
