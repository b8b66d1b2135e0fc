//! A chat completions call as a Messages call: the parameters (providers.md, section 3.1).

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Refused;
use super::fields::Fields;
use super::parts::Block;
use super::schema;
use super::tools::{self, Tool, ToolChoice};
use super::turns::{Turn, conversation};

/// Why a field is refused that nothing in Messages stands for.
pub(super) const NO_COUNTERPART: &str =
    "has no counterpart in Anthropic's Messages: leave it out, or use a model that is not routed there";

/// Fields without a counterpart that change nothing of the answer: labels, hints for OpenAI's own cache, and what the
/// intake reads itself.
const WITHOUT_EFFECT: [&str; 6] =
    ["stream", "stream_options", "metadata", "prompt_cache_key", "prompt_cache_retention", "model"];

/// Most tokens of an answer whose caller named no limit: Anthropic needs one. By the beginning of the model's name,
/// what the model surely takes.
const MOST_TOKENS: [(&str, u64); 4] =
    [("claude-3-5", 8_192), ("claude-3-7", 32_000), ("claude-3", 4_096), ("claude-", 32_000)];
/// … and of any other model.
const MOST_TOKENS_OF_OTHERS: u64 = 4_096;

/// Models that refuse `temperature`, `top_p` and `top_k` at any value (providers.md, section 2.6).
const WITHOUT_SAMPLING: [&str; 1] = ["claude-haiku-5-5"];

/// The call in the other shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The Messages body without `stream`, on one line, as a batch line holds it.
    pub body: Vec<u8>,
}

impl Translated {
    /// The body of the live call that answers with a stream.
    pub fn streaming(&self) -> Vec<u8> {
        let rest = self.body.strip_prefix(b"{").unwrap_or(&self.body);
        [b"{\"stream\":true,".as_slice(), rest].concat()
    }
}

#[derive(Serialize)]
struct Messages<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System<'a>>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

/// One text, or blocks where one of them is marked for the prompt cache.
#[derive(Serialize)]
#[serde(untagged)]
enum System<'a> {
    Text(String),
    Blocks(Vec<Block<'a>>),
}

#[derive(Default, Serialize)]
struct OutputConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
}

#[derive(Serialize)]
struct Format {
    r#type: &'static str,
    schema: Box<RawValue>,
}

#[derive(Serialize)]
struct Metadata {
    user_id: String,
}

/// What `response_format` asks for.
enum Shape {
    Text,
    AnyObject,
    Of(Format),
}

/// The Messages call that means the same as a chat completions call. `model` is the name it is sent with.
///
/// # Errors
/// [`Refused`]: the field that has no counterpart, or is not what the API says.
pub fn messages_request(body: &[u8], model: &str) -> Result<Translated, Refused> {
    let raw: &RawValue =
        serde_json::from_slice(body).map_err(|error| Refused::new("body", format!("is not valid JSON: {error}")))?;
    let mut body = Fields::parse(raw, "")?;
    let read = conversation(body.elements("messages")?.unwrap_or_default())?;
    let shape = shape(&mut body)?;
    let tools = tools::tools(&mut body)?;
    let tool_choice = tools::choice(&mut body, !tools.is_empty())?;
    let (effort, thinking) = reasoning(&mut body)?;
    let (temperature, top_p, top_k) = sampling(&mut body, model)?;
    let user: Option<String> = body.text("user")?.or(body.text("safety_identifier")?);
    let mut call = Messages {
        model,
        max_tokens: max_tokens(&mut body, model)?,
        system: system(read.system, matches!(shape, Shape::AnyObject)),
        messages: read.turns,
        tools,
        tool_choice,
        temperature,
        top_p,
        top_k,
        stop_sequences: stop(&mut body)?,
        thinking,
        output_config: effort.map(|effort| OutputConfig { effort: Some(effort), format: None }),
        metadata: user.map(|user_id| Metadata { user_id }),
    };
    if let Shape::Of(format) = shape {
        call.output_config.get_or_insert_default().format = Some(format);
    }
    neutral(&mut body)?;
    body.ignore(&WITHOUT_EFFECT);
    body.nothing_left(NO_COUNTERPART)?;
    let body = serde_json::to_vec(&call).map_err(|error| Refused::new("body", error.to_string()))?;
    Ok(Translated { body: one_line(body) })
}

/// Raw values keep the line breaks that stood between their tokens; inside strings there are none.
fn one_line(body: Vec<u8>) -> Vec<u8> {
    if memchr::memchr2(b'\n', b'\r', &body).is_none() {
        return body;
    }
    body.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
}

fn system(blocks: Vec<Block<'_>>, json: bool) -> Option<System<'_>> {
    const ONE_OBJECT: &str = "Answer with one JSON object.";
    let is_marked = |block: &Block<'_>| matches!(block, Block::Text { cache_control: Some(_), .. });
    let mut blocks = blocks;
    if json {
        blocks.push(Block::Text { text: ONE_OBJECT.to_owned(), cache_control: None });
    }
    if blocks.is_empty() {
        return None;
    }
    if blocks.iter().any(is_marked) {
        return Some(System::Blocks(blocks));
    }
    let texts = blocks.into_iter().filter_map(|block| match block {
        Block::Text { text, .. } => Some(text),
        Block::Image { .. } | Block::Document { .. } | Block::ToolUse { .. } | Block::ToolResult { .. } => None,
    });
    Some(System::Text(texts.collect::<Vec<_>>().join("\n")))
}

fn max_tokens(body: &mut Fields<'_>, model: &str) -> Result<u64, Refused> {
    const WHAT: &str = "a whole number";
    let newer: Option<u64> = body.take_as("max_completion_tokens", WHAT)?;
    let older: Option<u64> = body.take_as("max_tokens", WHAT)?;
    let known = || MOST_TOKENS.iter().find(|(name, _)| model.starts_with(name)).map(|(_, most)| *most);
    Ok(newer.or(older).or_else(known).unwrap_or(MOST_TOKENS_OF_OTHERS))
}

fn stop(body: &mut Fields<'_>) -> Result<Vec<String>, Refused> {
    let at = body.path("stop");
    let Some(raw) = body.take("stop") else { return Ok(Vec::new()) };
    let given: Vec<String> = serde_json::from_str::<String>(raw.get())
        .map(|one| vec![one])
        .or_else(|_not_one| serde_json::from_str(raw.get()))
        .map_err(|_neither| Refused::new(at, "expected a text or an array of texts"))?;
    // Anthropic refuses sequences of white space alone.
    Ok(given.into_iter().filter(|text| !text.trim().is_empty()).collect())
}

fn shape(body: &mut Fields<'_>) -> Result<Shape, Refused> {
    let at = body.path("response_format");
    let Some(raw) = body.take("response_format") else { return Ok(Shape::Text) };
    let mut format = Fields::parse(raw, at)?;
    let shape = match format.required_text("type")?.as_str() {
        "text" => Shape::Text,
        "json_object" => Shape::AnyObject,
        "json_schema" => {
            let at = format.path("json_schema");
            let raw = format.take("json_schema").ok_or_else(|| Refused::new(at.clone(), "is required"))?;
            let mut named = Fields::parse(raw, at)?;
            // A name and a description for people; the schema is always kept to.
            named.ignore(&["name", "description", "strict"]);
            let at = named.path("schema");
            let schema = named.take("schema").ok_or_else(|| Refused::new(at.clone(), "is required"))?;
            named.nothing_left(NO_COUNTERPART)?;
            Shape::Of(Format { r#type: "json_schema", schema: schema::narrowed(schema, &at)? })
        }
        _ => return Err(Refused::new(format.path("type"), "expected text, json_object or json_schema")),
    };
    format.nothing_left(NO_COUNTERPART)?;
    Ok(shape)
}

type Thinking<'a> = (Option<String>, Option<&'a RawValue>);

/// `reasoning_effort`, and Anthropic's own `thinking`, which its compatible endpoint takes as well (section 2.8).
fn reasoning<'a>(body: &mut Fields<'a>) -> Result<Thinking<'a>, Refused> {
    const OFF: &str = r#"{"type":"disabled"}"#;
    let thinking = body.take("thinking");
    let Some(effort) = body.text("reasoning_effort")? else { return Ok((None, thinking)) };
    match effort.as_str() {
        "none" => {
            let off = serde_json::from_str(OFF).map_err(|error| Refused::new("thinking", error.to_string()))?;
            Ok((None, Some(thinking.unwrap_or(off))))
        }
        "minimal" => Ok((Some("low".to_owned()), thinking)),
        "low" | "medium" | "high" | "xhigh" | "max" => Ok((Some(effort), thinking)),
        _ => Err(Refused::new("reasoning_effort", "expected none, minimal, low, medium, high, xhigh or max")),
    }
}

type Sampling<'a> = (Option<Cow<'a, RawValue>>, Option<&'a RawValue>, Option<&'a RawValue>);

/// `temperature` ends at 1 there, and some models take only one of it and `top_p`; some take none of them.
fn sampling<'a>(body: &mut Fields<'a>, model: &str) -> Result<Sampling<'a>, Refused> {
    let number = |raw: &RawValue, name: &str| {
        let number: Option<f64> = serde_json::from_str(raw.get()).ok();
        number.ok_or_else(|| Refused::new(name, "expected a number"))
    };
    let (temperature, top_p, top_k) = (body.take("temperature"), body.take("top_p"), body.take("top_k"));
    for (raw, name) in [(temperature, "temperature"), (top_p, "top_p"), (top_k, "top_k")] {
        raw.map(|raw| number(raw, name)).transpose()?;
    }
    if WITHOUT_SAMPLING.iter().any(|name| model.starts_with(name)) {
        return Ok((None, None, None));
    }
    let Some(given) = temperature else { return Ok((None, top_p, top_k)) };
    let value = number(given, "temperature")?;
    if !(0.0..=2.0).contains(&value) {
        return Err(Refused::new("temperature", "expected a number from 0 to 2"));
    }
    let one = || RawValue::from_string("1".to_owned()).map(Cow::Owned);
    let sent = if value > 1.0 { one() } else { Ok(Cow::Borrowed(given)) };
    let sent = sent.map_err(|error| Refused::new("temperature", error.to_string()))?;
    Ok((Some(sent), None, top_k))
}

/// Fields without a counterpart are fine at the value that asks for nothing.
fn neutral(body: &mut Fields<'_>) -> Result<(), Refused> {
    const NEUTRAL: [(&str, &[&str]); 12] = [
        ("n", &["1"]),
        ("logprobs", &["false"]),
        ("top_logprobs", &["0"]),
        ("logit_bias", &["{}"]),
        ("presence_penalty", &["0", "0.0"]),
        ("frequency_penalty", &["0", "0.0"]),
        ("modalities", &["[\"text\"]"]),
        ("store", &["false"]),
        ("service_tier", &["\"auto\"", "\"default\""]),
        ("verbosity", &["\"medium\""]),
        ("functions", &["[]"]),
        ("function_call", &["\"auto\"", "\"none\""]),
    ];
    for (name, allowed) in NEUTRAL {
        if let Some(raw) = body.take(name) {
            let compact: String = raw.get().chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
            if !allowed.contains(&compact.as_str()) {
                return Err(Refused::new(name, NO_COUNTERPART));
            }
        }
    }
    Ok(())
}
