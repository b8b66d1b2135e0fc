//! A value that fits a JSON Schema: structured outputs and tool arguments that pass a caller's check.
//!
//! Knows what the provider's structured outputs allow: types, `enum`, `const`, `properties`, `items`, `anyOf`,
//! `$ref` into `$defs`, lengths and ranges.

use serde_json::{Map, Number, Value};

/// Levels after which a schema that refers to itself is given up (`null`).
const MAX_DEPTH: usize = 24;

/// Samples: texts are `text`, choices are made by `luck`.
pub(super) struct Sampler<'a> {
    pub(super) root: &'a Value,
    pub(super) text: &'a str,
    pub(super) luck: u64,
}

impl Sampler<'_> {
    /// A value for the whole schema.
    pub(super) fn sample(&self) -> Value {
        self.value(self.root, MAX_DEPTH)
    }

    fn value(&self, schema: &Value, depth: usize) -> Value {
        let Some(depth) = depth.checked_sub(1) else { return Value::Null };
        if let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#')) {
            return self.root.pointer(pointer).map_or(Value::Null, |target| self.value(target, depth));
        }
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        if let Some(choice) = schema.get("enum").and_then(Value::as_array).and_then(|all| self.choose(all)) {
            return choice.clone();
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            if let Some(first) = schema.get(union).and_then(Value::as_array).and_then(|all| all.first()) {
                return self.value(first, depth);
            }
        }
        match type_of(schema) {
            Some("object") => self.object(schema, depth),
            Some("array") => self.array(schema, depth),
            Some("boolean") => Value::Bool(self.luck.is_multiple_of(2)),
            Some("null") => Value::Null,
            Some("integer") => self.integer(schema),
            Some("number") => self.number(schema),
            _ => self.string(schema),
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let properties = schema.get("properties").and_then(Value::as_object);
        let members = properties.into_iter().flatten().map(|(name, schema)| (name.clone(), self.value(schema, depth)));
        Value::Object(members.collect::<Map<_, _>>())
    }

    fn array(&self, schema: &Value, depth: usize) -> Value {
        let length = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(100);
        let item = schema.get("items").map_or_else(|| self.string(schema), |items| self.value(items, depth));
        Value::Array((0..length).map(|_| item.clone()).collect())
    }

    fn string(&self, schema: &Value) -> Value {
        let at_most = schema
            .get("maxLength")
            .and_then(Value::as_u64)
            .map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let at_least =
            schema.get("minLength").and_then(Value::as_u64).map_or(0, |least| usize::try_from(least).unwrap_or(0));
        let mut text: String = self.text.chars().take(at_most).collect();
        let missing = at_least.min(10_000).saturating_sub(text.chars().count());
        text.extend(std::iter::repeat_n('.', missing));
        Value::String(text)
    }

    fn integer(&self, schema: &Value) -> Value {
        let least = schema.get("minimum").and_then(Value::as_i64).unwrap_or(0);
        let most = schema.get("maximum").and_then(Value::as_i64).unwrap_or_else(|| least.saturating_add(99));
        let width = most.abs_diff(least).saturating_add(1);
        let offset = i64::try_from(self.luck % width).unwrap_or(0);
        Value::from(least.saturating_add(offset))
    }

    fn number(&self, schema: &Value) -> Value {
        let least = schema.get("minimum").and_then(Value::as_f64).unwrap_or(0.0);
        let most = schema.get("maximum").and_then(Value::as_f64).unwrap_or(least + 1.0);
        let share = f64::from(u32::try_from(self.luck % 101).unwrap_or(0)) / 100.0;
        Number::from_f64(least + (most - least) * share).map_or(Value::Null, Value::Number)
    }

    fn choose<'v>(&self, all: &'v [Value]) -> Option<&'v Value> {
        let at = self.luck.checked_rem(all.len() as u64)?;
        all.get(usize::try_from(at).unwrap_or(0))
    }
}

fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => Some(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => schema.get("properties").map(|_| "object"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fits_the_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "label": {"type": "string", "enum": ["spam", "ham"]},
                "why": {"type": ["string", "null"], "maxLength": 4},
                "score": {"type": "number", "minimum": 2, "maximum": 3},
                "stars": {"type": "integer", "minimum": 1, "maximum": 5},
                "tags": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/tag"}},
                "kind": {"const": 7},
            },
            "$defs": {"tag": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}},
        });
        let value = Sampler { root: &schema, text: "héllo", luck: 7 }.sample();
        assert_eq!(value["label"], "ham");
        assert_eq!(value["why"], "héll");
        assert!((2.0..=3.0).contains(&value["score"].as_f64().unwrap()));
        assert_eq!(value["stars"], 3);
        assert_eq!(value["tags"], json!([false, false]));
        assert_eq!(value["kind"], 7);
    }

    #[test]
    fn endless_schema_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(Sampler { root: &schema, text: "", luck: 0 }.sample().is_object());
    }
}
