//! Whether a value fits a JSON schema, as far as providers enforce schemas at all: the keywords of structured outputs
//! (providers.md, section 1.13), and what is written beside them most. Why not by a library: docs/dependencies.md.
//!
//! A check may miss a misfit, but never finds one where there is none: a keyword that is not known here, or is written in
//! another way than its draft says, fits everything, and so does whatever is left when the check takes too long. Checked
//! are `type` (and OpenAPI's `nullable`), `enum`, `const`, `anyOf`, `allOf`, `oneOf` (that one fits, not that no other does),
//! `$ref` within the schema, `properties`, `required`, `additionalProperties`, `items`, `minItems`, `maxItems`, `minimum`,
//! `maximum` and their exclusive forms, `multipleOf`, `minLength`, `maxLength`, `pattern` and `format` ([`text`]). Not checked
//! of OpenAI's strict mode: of a `$ref` what stands beside it.

mod text;

use serde_json::{Map, Value};

use text::{Patterns, has_format};

/// References lead in circles at times.
const DEEPEST: u32 = 64;
/// Circles with branches would take for ever.
const MOST_STEPS: u32 = 100_000;
/// A pattern counts as a step for so many bytes that it is tried on …
const BYTES_PER_STEP: usize = 8;
/// … and so many for itself.
const STEPS_PER_PATTERN: u32 = 200;
/// The part by which a multiple may be off: 0.3 is three times 0.1.
const NEARLY: f64 = 1e-9;

/// Where `value` does not fit: a JSON pointer into it; none: it fits.
pub(super) fn misfit(schema: &Value, value: &Value) -> Option<String> {
    let mut check = Check { root: schema, place: String::new(), steps: 0, patterns: Patterns::default() };
    let found = check.misfit(schema, value, 0);
    found.filter(|_| check.steps < MOST_STEPS)
}

type Rules = Map<String, Value>;

struct Check<'s> {
    root: &'s Value,
    place: String,
    steps: u32,
    patterns: Patterns<'s>,
}

impl<'s> Check<'s> {
    fn misfit(&mut self, schema: &'s Value, value: &Value, depth: u32) -> Option<String> {
        self.steps = self.steps.saturating_add(1);
        let rules = schema.as_object().filter(|_| depth < DEEPEST && self.steps < MOST_STEPS)?;
        if let Some(target) = rules.get("$ref").and_then(Value::as_str)
            && let Some(target) = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer))
        {
            return self.misfit(target, value, depth + 1);
        }
        let is_null_after_all = value.is_null() && rules.get("nullable") == Some(&Value::Bool(true));
        if !(is_null_after_all || (fits_itself(rules, value) && self.fits_pattern(rules, value))) {
            return Some(self.here());
        }
        let parts = |keyword| rules.get(keyword).and_then(Value::as_array).filter(|parts| !parts.is_empty());
        for any in ["anyOf", "oneOf"].into_iter().filter_map(parts) {
            if !any.iter().any(|one| self.misfit(one, value, depth + 1).is_none()) {
                return Some(self.here());
            }
        }
        if let Some(found) =
            parts("allOf").and_then(|all| all.iter().find_map(|one| self.misfit(one, value, depth + 1)))
        {
            return Some(found);
        }
        match value {
            Value::Object(members) => self.misfit_of_members(rules, members, depth),
            Value::Array(items) => {
                // Places with rules of their own are not looked at; `items` is for those behind them.
                let placed = rules.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                let rule = rules.get("items")?;
                items.iter().skip(placed).find_map(|item| self.inside("*", rule, item, depth))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }

    fn fits_pattern(&mut self, rules: &'s Rules, value: &Value) -> bool {
        let Some((pattern, text)) = rules.get("pattern").and_then(Value::as_str).zip(value.as_str()) else {
            return true;
        };
        let steps = u32::try_from(text.len() / BYTES_PER_STEP).unwrap_or(u32::MAX).saturating_add(STEPS_PER_PATTERN);
        self.steps = self.steps.saturating_add(steps);
        self.patterns.fits(pattern, text)
    }

    fn misfit_of_members(&mut self, rules: &'s Rules, members: &Rules, depth: u32) -> Option<String> {
        let required = rules.get("required").and_then(Value::as_array).into_iter().flatten();
        if required.filter_map(Value::as_str).any(|name| !members.contains_key(name)) {
            return Some(self.here());
        }
        let known = rules.get("properties").and_then(Value::as_object);
        // A pattern may speak of any other name.
        let others = rules.get("additionalProperties").filter(|_| !rules.contains_key("patternProperties"));
        members.iter().find_map(|(name, member)| {
            // Other names are the model's own text: they are not told.
            let (name, rule) = match known.and_then(|known| known.get(name)) {
                Some(rule) => (name.as_str(), Some(rule)),
                None => ("*", others),
            };
            let rule = rule?;
            if *rule == Value::Bool(false) { Some(self.here()) } else { self.inside(name, rule, member, depth) }
        })
    }

    fn inside(&mut self, name: &str, rule: &'s Value, value: &Value, depth: u32) -> Option<String> {
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

/// Whether the value itself fits, whatever is in it.
fn fits_itself(rules: &Rules, value: &Value) -> bool {
    let bound = |name: &str| rules.get(name).and_then(Value::as_f64);
    let fits_number = value.as_f64().is_none_or(|number| {
        bound("minimum").is_none_or(|least| number >= least)
            && bound("maximum").is_none_or(|most| number <= most)
            && bound("exclusiveMinimum").is_none_or(|least| number > least)
            && bound("exclusiveMaximum").is_none_or(|most| number < most)
    });
    let length = |name: &str| rules.get(name).and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok());
    let fits_text = value.as_str().is_none_or(|text| {
        length("minLength").is_none_or(|least| text.chars().count() >= least)
            && length("maxLength").is_none_or(|most| text.chars().count() <= most)
            && rules.get("format").and_then(Value::as_str).is_none_or(|format| has_format(format, text))
    });
    let fits_length = value.as_array().is_none_or(|items| {
        length("minItems").is_none_or(|least| items.len() >= least)
            && length("maxItems").is_none_or(|most| items.len() <= most)
    });
    fits_number
        && fits_text
        && fits_length
        && rules.get("multipleOf").is_none_or(|step| is_multiple(value, step))
        && rules.get("type").is_none_or(|kinds| is_of(kinds, value))
        && rules.get("const").is_none_or(|only| same(only, value))
        && rules.get("enum").and_then(Value::as_array).is_none_or(|all| all.iter().any(|one| same(one, value)))
}

/// Whether a number is a multiple of another, as far as that can be told: exactly of whole ones, else as near as decimals are.
fn is_multiple(value: &Value, step: &Value) -> bool {
    if let (Some(value), Some(step)) = (value.as_i64(), step.as_i64()) {
        return step <= 0 || value % step == 0;
    }
    let (Some(value), Some(step)) = (value.as_f64(), step.as_f64()) else { return true };
    let times = value / step;
    let off = (times - times.round()).abs();
    step <= 0.0 || off.is_nan() || off <= (times.abs() * NEARLY).max(NEARLY)
}

/// Equal as JSON schema means it: 1 and 1.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
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
    kinds.as_array().map_or_else(|| is(kinds), |kinds| kinds.is_empty() || kinds.iter().any(is))
}

#[cfg(test)]
mod tests;
