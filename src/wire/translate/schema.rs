//! A JSON schema in the part of the language that Anthropic's structured output takes (providers.md, section 3.1): every
//! object is closed, bounds of numbers, texts and arrays are left out, `oneOf` is `anyOf`. The order of keys stays: the
//! model writes the fields in it.

use serde_json::value::RawValue;

use super::Refused;
use super::fields::Fields;

/// Keywords that are refused there, and only narrow what the model is told by descriptions anyway.
const LEFT_OUT: [&str; 11] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];

/// The schema as Anthropic takes it.
pub(super) fn narrowed(schema: &RawValue, at: &str) -> Result<Box<RawValue>, Refused> {
    let mut out = String::with_capacity(schema.get().len());
    write_schema(schema, at, &mut out)?;
    RawValue::from_string(out).map_err(|error| Refused::new(at, error.to_string()))
}

fn write_schema(schema: &RawValue, at: &str, out: &mut String) -> Result<(), Refused> {
    if !schema.get().starts_with('{') {
        // `true` and `false` are schemas, too.
        out.push_str(schema.get());
        return Ok(());
    }
    let fields = Fields::parse(schema, at)?;
    let has = |wanted: &str| fields.iter().any(|(name, _)| name == wanted);
    let is_object =
        has("properties") || fields.iter().any(|(name, raw)| name == "type" && raw.get().contains("\"object\""));
    out.push('{');
    let mut first = true;
    for (name, raw) in fields.iter() {
        let at = format!("{at}.{name}");
        if LEFT_OUT.contains(&name) || (name == "minItems" && !matches!(raw.get(), "0" | "1")) {
            continue;
        }
        if name == "additionalProperties" && is_object {
            if raw.get().starts_with('{') {
                let message = "Anthropic takes only objects whose fields are all named (additionalProperties: false)";
                return Err(Refused::new(at, message));
            }
            continue;
        }
        push_name(if name == "oneOf" { "anyOf" } else { name }, &mut first, out)?;
        match name {
            "properties" | "$defs" | "definitions" => write_members(raw, &at, out)?,
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => write_elements(raw, &at, out)?,
            "items" | "not" | "additionalProperties" => write_schema(raw, &at, out)?,
            _ => out.push_str(raw.get()),
        }
    }
    if is_object {
        push_name("additionalProperties", &mut first, out)?;
        out.push_str("false");
    }
    out.push('}');
    Ok(())
}

fn push_name(name: &str, first: &mut bool, out: &mut String) -> Result<(), Refused> {
    if !std::mem::take(first) {
        out.push(',');
    }
    out.push_str(&serde_json::to_string(name).map_err(|error| Refused::new(name, error.to_string()))?);
    out.push(':');
    Ok(())
}

fn write_members(members: &RawValue, at: &str, out: &mut String) -> Result<(), Refused> {
    out.push('{');
    let mut first = true;
    for (name, raw) in Fields::parse(members, at)?.iter() {
        push_name(name, &mut first, out)?;
        write_schema(raw, &format!("{at}.{name}"), out)?;
    }
    out.push('}');
    Ok(())
}

fn write_elements(elements: &RawValue, at: &str, out: &mut String) -> Result<(), Refused> {
    let schemas: Vec<&RawValue> =
        serde_json::from_str(elements.get()).map_err(|_no_array| Refused::new(at, "expected an array"))?;
    out.push('[');
    for (index, raw) in schemas.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_schema(raw, &format!("{at}[{index}]"), out)?;
    }
    out.push(']');
    Ok(())
}
