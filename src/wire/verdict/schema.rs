//! Whether a value fits a JSON schema, as far as providers enforce schemas at all: the keywords of structured outputs
//! (providers.md, section 1.13). What is not known here fits, so that a schema that says more never makes an answer look wrong.

use serde_json::Value;

/// References lead in circles at times.
const DEEPEST: u32 = 64;

/// Where `value` does not fit: a JSON pointer into it; none: it fits.
pub(super) fn misfit(schema: &Value, value: &Value) -> Option<String> {
    Check { root: schema, place: String::new() }.misfit(schema, value, 0)
}

struct Check<'s> {
    root: &'s Value,
    place: String,
}

impl Check<'_> {
    fn misfit(&mut self, schema: &Value, value: &Value, depth: u32) -> Option<String> {
        let rules = schema.as_object().filter(|_| depth < DEEPEST)?;
        if let Some(target) = rules.get("$ref").and_then(Value::as_str)
            && let Some(target) = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer))
        {
            let target = target.clone();
            return self.misfit(&target, value, depth + 1);
        }
        let fits_itself = rules.get("type").is_none_or(|kinds| is_of(kinds, value))
            && rules.get("enum").and_then(Value::as_array).is_none_or(|all| all.contains(value))
            && rules.get("const").is_none_or(|only| only == value);
        if !fits_itself {
            return Some(self.here());
        }
        if let Some(any) = rules.get("anyOf").and_then(Value::as_array)
            && !any.iter().any(|one| self.misfit(one, value, depth + 1).is_none())
        {
            return Some(self.here());
        }
        if let Some(members) = value.as_object() {
            let required = rules.get("required").and_then(Value::as_array).into_iter().flatten();
            if required.filter_map(Value::as_str).any(|name| !members.contains_key(name)) {
                return Some(self.here());
            }
            let known = rules.get("properties").and_then(Value::as_object);
            for (name, member) in members {
                // Other names are the model's own text: they are not told.
                let (name, rule) = match known.and_then(|known| known.get(name)) {
                    Some(rule) => (name.as_str(), Some(rule)),
                    None => ("*", rules.get("additionalProperties")),
                };
                let found = match rule {
                    Some(Value::Bool(false)) => Some(self.here()),
                    Some(rule) => self.inside(name, rule, member, depth),
                    None => None,
                };
                if found.is_some() {
                    return found;
                }
            }
        }
        if let (Some(items), Some(rule)) = (value.as_array(), rules.get("items")) {
            return items.iter().find_map(|item| self.inside("*", rule, item, depth));
        }
        None
    }

    fn inside(&mut self, name: &str, rule: &Value, value: &Value, depth: u32) -> Option<String> {
        let length = self.place.len();
        self.place.push('/');
        self.place.push_str(name);
        let found = self.misfit(rule, value, depth + 1);
        self.place.truncate(length);
        found
    }

    fn here(&self) -> String {
        if self.place.is_empty() { "at the top".to_owned() } else { format!("at {}", self.place) }
    }
}

fn is_of(kinds: &Value, value: &Value) -> bool {
    let is = |kind: &Value| match kind.as_str().unwrap_or_default() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    };
    kinds.as_array().map_or_else(|| is(kinds), |kinds| kinds.iter().any(is))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_found_and_named() {
        let schema = json!({
            "type": "object",
            "properties": {
                "label": {"enum": ["spam", "ham"]},
                "why": {"type": ["string", "null"]},
                "stars": {"type": "integer"},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
                "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            },
            "required": ["label"],
            "additionalProperties": false,
            "$defs": {"tag": {"type": "string"}},
        });
        for (value, place) in [
            (json!({"label": "ham", "why": null, "stars": 3.0, "tags": ["a"], "next": {"label": "spam"}}), None),
            (json!({"why": "no label"}), Some("at the top")),
            (json!({"label": "eggs"}), Some("at /label")),
            (json!({"label": "ham", "more": 1}), Some("at the top")),
            (json!({"label": "ham", "stars": 1.5}), Some("at /stars")),
            (json!({"label": "ham", "tags": ["a", 7]}), Some("at /tags/*")),
            (json!({"label": "ham", "next": {"why": "x"}}), Some("at /next")),
            (json!([]), Some("at the top")),
        ] {
            assert_eq!(misfit(&schema, &value).as_deref(), place, "{value}");
        }
    }

    #[test]
    fn circles_end_and_unknown_keywords_fit() {
        assert_eq!(misfit(&json!({"$ref": "#"}), &json!(1)), None);
        assert_eq!(misfit(&json!({"type": "string", "pattern": "^x$"}), &json!("y")), None);
        assert_eq!(misfit(&json!(true), &json!(1)), None);
    }
}
