//! `chat.completion` (providers.md, section 1.13).

use serde::Serialize;
use serde_json::{Value, json};

use crate::sim::answers::sample::Sampler;
use crate::sim::answers::text::{echo, has, last_user_text};
use crate::sim::answers::{Answer, Call, Run, Usage, tokens};

/// A finished chat completion.
#[derive(Debug, Serialize)]
pub(in crate::sim) struct Completion {
    pub(in crate::sim) id: String,
    object: &'static str,
    pub(in crate::sim) created: i64,
    pub(in crate::sim) model: String,
    pub(in crate::sim) choices: Vec<Choice>,
    pub(in crate::sim) usage: TokenUsage,
    pub(in crate::sim) service_tier: &'static str,
    system_fingerprint: Option<&'static str>,
    #[serde(skip)]
    pub(in crate::sim) billed: Usage,
}

/// The usage object of chat and text completions.
#[derive(Clone, Debug, Serialize)]
pub(in crate::sim) struct TokenUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Debug, Default, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

/// One of its choices.
#[derive(Debug, Serialize)]
pub(in crate::sim) struct Choice {
    pub(in crate::sim) index: usize,
    pub(in crate::sim) message: Message,
    logprobs: Option<()>,
    pub(in crate::sim) finish_reason: &'static str,
}

/// What the model said.
#[derive(Debug, Serialize)]
pub(in crate::sim) struct Message {
    role: &'static str,
    pub(in crate::sim) content: Option<String>,
    pub(in crate::sim) refusal: Option<String>,
    annotations: [(); 0],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::sim) tool_calls: Vec<ToolCall>,
}

/// A call of a function.
#[derive(Debug, Serialize)]
pub(in crate::sim) struct ToolCall {
    pub(in crate::sim) id: String,
    r#type: &'static str,
    pub(in crate::sim) function: Function,
}

/// Name and arguments (JSON text).
#[derive(Debug, Serialize)]
pub(in crate::sim) struct Function {
    pub(in crate::sim) name: String,
    pub(in crate::sim) arguments: String,
}

/// Runs the call; it was not refused.
pub(super) fn answer(call: &Call<'_>, run: &mut Run) -> Answer {
    let completion = complete(call, run);
    Answer::new(&completion, completion.billed)
}

/// The completion, for one JSON body or a stream.
pub(in crate::sim) fn complete(call: &Call<'_>, run: &mut Run) -> Completion {
    let tool = chosen_tool(call);
    let choices: Vec<Choice> = (0..call.choices()).map(|index| choice(call, run, index, tool.as_ref())).collect();
    let bytes = choices.iter().map(|choice| choice.message.len()).sum();
    let billed = Usage { input: call.input_tokens(), output: tokens(bytes) };
    Completion {
        id: run.id("chatcmpl-"),
        object: "chat.completion",
        created: run.now,
        model: call.model.clone().into_owned(),
        choices,
        usage: usage(billed),
        service_tier: run.tier,
        system_fingerprint: None,
        billed,
    }
}

/// The usage object of chat and text completions.
pub(super) fn usage(billed: Usage) -> TokenUsage {
    TokenUsage {
        prompt_tokens: billed.input,
        completion_tokens: billed.output,
        total_tokens: billed.input + billed.output,
        prompt_tokens_details: PromptDetails::default(),
        completion_tokens_details: CompletionDetails::default(),
    }
}

impl Message {
    fn len(&self) -> usize {
        let tools: usize = self.tool_calls.iter().map(|call| call.function.arguments.len()).sum();
        self.content.as_ref().map_or(0, String::len) + self.refusal.as_ref().map_or(0, String::len) + tools
    }
}

fn choice(call: &Call<'_>, run: &mut Run, index: usize, tool: Option<&Tool>) -> Choice {
    let mut message =
        Message { role: "assistant", content: None, refusal: None, annotations: [], tool_calls: Vec::new() };
    let mut finish_reason = "stop";
    if let Some(tool) = tool {
        let arguments = tool.arguments(call, run, index);
        let function = Function { name: tool.name.clone(), arguments };
        message.tool_calls.push(ToolCall { id: run.id("call_"), r#type: "function", function });
        finish_reason = "tool_calls";
    } else if has(call, "sim-refuse") {
        message.refusal = Some(format!("I cannot help with that. [{}]", run.short_hash()));
    } else {
        message.content = Some(content(call, run, index));
        if has(call, "sim-length") {
            finish_reason = "length";
        }
    }
    Choice { index, message, logprobs: None, finish_reason }
}

/// The text of an answer: an echo, or JSON where the request's format asks for it.
pub(super) fn content(call: &Call<'_>, run: &Run, index: usize) -> String {
    let format = call.format.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    // Chat has `{"type":…,"json_schema":{"schema":…}}`, responses `{"format":{"type":…,"schema":…}}`.
    let format = format.map(|format| format.get("format").cloned().unwrap_or(format));
    let kind = format.as_ref().and_then(|format| format.get("type")).and_then(Value::as_str);
    match (kind, &format) {
        (Some("json_object"), _) => echo_json(call, run, index),
        (Some("json_schema"), Some(format)) => {
            let schema = format.pointer("/json_schema/schema").or_else(|| format.get("schema"));
            schema.map_or_else(|| echo_json(call, run, index), |schema| sampled(schema, call, run, index))
        }
        _ => echo(call, run, index),
    }
}

/// A function that is to be called.
pub(super) struct Tool {
    pub(super) name: String,
    parameters: Option<Value>,
}

impl Tool {
    /// Its arguments as JSON text.
    pub(super) fn arguments(&self, call: &Call<'_>, run: &Run, index: usize) -> String {
        match &self.parameters {
            Some(schema) => sampled(schema, call, run, index),
            None => echo_json(call, run, index),
        }
    }
}

/// The function to call, if one is to be called: `tool_choice` demands it, or the user says "use the tool".
pub(super) fn chosen_tool(call: &Call<'_>) -> Option<Tool> {
    let tools: Vec<Value> = serde_json::from_str(call.tools?.get()).ok()?;
    let choice: Value = call.tool_choice.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    // Chat wraps both in `function`, responses does not.
    let named = choice.pointer("/function/name").or_else(|| choice.get("name")).and_then(Value::as_str);
    let wanted = match choice.as_str() {
        Some("none") => false,
        Some("required") => true,
        _ => named.is_some() || last_user_text(call.content).contains("use the tool"),
    };
    if !wanted {
        return None;
    }
    let functions = tools.iter().map(|tool| tool.get("function").unwrap_or(tool));
    let mut functions = functions.filter(|function| function.get("name").is_some_and(Value::is_string));
    let function = match named {
        Some(name) => functions.find(|function| function.get("name").and_then(Value::as_str) == Some(name)),
        None => functions.next(),
    }?;
    let name = function.get("name").and_then(Value::as_str)?.to_owned();
    let parameters = function.get("parameters").filter(|schema| schema.get("properties").is_some()).cloned();
    Some(Tool { name, parameters })
}

fn echo_json(call: &Call<'_>, run: &Run, index: usize) -> String {
    json!({"echo": last_user_text(call.content), "hash": run.short_hash(), "choice": index}).to_string()
}

fn sampled(schema: &Value, call: &Call<'_>, run: &Run, index: usize) -> String {
    let text = echo(call, run, index);
    let luck = run.digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)).wrapping_add(index as u64);
    Sampler { root: schema, text: &text, luck }.sample().to_string()
}
