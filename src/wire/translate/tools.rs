//! Tools and the choice among them (providers.md, section 3.1).

use serde::Serialize;
use serde_json::value::RawValue;

use super::Refused;
use super::fields::Fields;
use super::request::NO_COUNTERPART;

/// A tool that the model may use.
#[derive(Debug, Serialize)]
pub(super) struct Tool<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    input_schema: Schema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

/// What a tool takes: as it was given, or nothing.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Schema<'a> {
    Given(&'a RawValue),
    Nothing { r#type: &'static str, properties: Empty },
}

#[derive(Debug, Serialize)]
struct Empty {}

/// Which tool the model has to use.
#[derive(Debug, Serialize)]
pub(super) struct ToolChoice {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

/// Reads `tools`.
pub(super) fn tools<'a>(body: &mut Fields<'a>) -> Result<Vec<Tool<'a>>, Refused> {
    let given = body.elements("tools")?.unwrap_or_default();
    given.into_iter().enumerate().map(|(index, raw)| tool(raw, format!("tools[{index}]"))).collect()
}

fn tool(raw: &RawValue, at: String) -> Result<Tool<'_>, Refused> {
    let mut tool = Fields::parse(raw, at)?;
    if tool.required_text("type")? != "function" {
        return Err(Refused::new(tool.path("type"), "only functions have a counterpart"));
    }
    let cache_control = tool.take("cache_control");
    let path = tool.path("function");
    let function = tool.take("function").ok_or_else(|| Refused::new(path.clone(), "is required"))?;
    tool.nothing_left(NO_COUNTERPART)?;
    let mut function = Fields::parse(function, path)?;
    let made = Tool {
        name: function.required_text("name")?,
        description: function.text("description")?,
        input_schema: function
            .take("parameters")
            .map_or(Schema::Nothing { r#type: "object", properties: Empty {} }, Schema::Given),
        strict: function.take_as("strict", "true or false")?.filter(|strict| *strict),
        cache_control,
    };
    function.nothing_left(NO_COUNTERPART)?;
    Ok(made)
}

/// Reads `tool_choice` and `parallel_tool_calls`. Without tools there is nothing to choose.
pub(super) fn choice(body: &mut Fields<'_>, has_tools: bool) -> Result<Option<ToolChoice>, Refused> {
    let parallel: Option<bool> = body.take_as("parallel_tool_calls", "true or false")?;
    let given = body.take("tool_choice");
    let at = body.path("tool_choice");
    let (kind, name) = match given {
        None => ("auto", None),
        Some(raw) if raw.get().starts_with('"') => match raw.get() {
            "\"auto\"" => ("auto", None),
            "\"none\"" => ("none", None),
            "\"required\"" => ("any", None),
            _ => return Err(Refused::new(at, "expected \"auto\", \"none\", \"required\" or a function")),
        },
        Some(raw) => ("tool", Some(chosen(raw, at)?)),
    };
    if !has_tools {
        return match kind {
            "auto" | "none" => Ok(None),
            _ => Err(Refused::new("tool_choice", "there are no tools")),
        };
    }
    let single = parallel == Some(false) && kind != "none";
    Ok((given.is_some() || single).then_some(ToolChoice {
        r#type: kind,
        name,
        disable_parallel_tool_use: single.then_some(true),
    }))
}

fn chosen(raw: &RawValue, at: String) -> Result<String, Refused> {
    let mut choice = Fields::parse(raw, at)?;
    if choice.required_text("type")? != "function" {
        return Err(Refused::new(choice.path("type"), "only a function has a counterpart"));
    }
    let path = choice.path("function");
    let function = choice.take("function").ok_or_else(|| Refused::new(path.clone(), "is required"))?;
    choice.nothing_left(NO_COUNTERPART)?;
    let mut function = Fields::parse(function, path)?;
    let name = function.required_text("name")?;
    function.nothing_left(NO_COUNTERPART)?;
    Ok(name)
}
