//! A finished message as a chat completion (providers.md, section 3.2).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::usage::{Tally, Usage};

/// A body that is no message: the provider's answer is not what its API promises.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not a message: {0}")]
pub struct AnswerError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Message<'a> {
    id: String,
    model: String,
    #[serde(borrow)]
    content: Vec<Block<'a>>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_details: Option<StopDetails>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// Blocks of kinds that a chat completion cannot have asked for are passed over.
#[derive(Deserialize)]
struct Block<'a> {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// Why the model refused.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StopDetails {
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    explanation: Option<String>,
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: [Choice; 1],
    usage: Usage,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    message: Told,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Default, Serialize)]
struct Told {
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// The chat completion that says the same as a finished message. `created` in Unix seconds: messages have no time.
///
/// # Errors
/// [`AnswerError`]: the body is no message. Asking again makes no difference.
pub fn chat_completion(body: &[u8], created: i64) -> Result<Vec<u8>, AnswerError> {
    let message: Message<'_> = serde_json::from_slice(body)?;
    let mut told = Told { role: "assistant", ..Told::default() };
    for block in message.content {
        match block.r#type.as_str() {
            "text" => told.content.get_or_insert_default().push_str(&block.text.unwrap_or_default()),
            "thinking" => {
                told.reasoning_content.get_or_insert_default().push_str(&block.thinking.unwrap_or_default());
            }
            "tool_use" => told.tool_calls.push(ToolCall {
                id: block.id.unwrap_or_default(),
                r#type: "function",
                function: Function {
                    name: block.name.unwrap_or_default(),
                    arguments: block.input.map_or("{}", RawValue::get).to_owned(),
                },
            }),
            _ => {}
        }
    }
    if told.content.is_none() && told.tool_calls.is_empty() {
        told.content = Some(String::new());
    }
    told.refusal = refusal(message.stop_reason.as_deref(), message.stop_details.as_ref());
    let mut tally = Tally::NONE;
    tally.update(message.usage);
    let completion = Completion {
        id: &message.id,
        object: "chat.completion",
        created,
        model: &message.model,
        choices: [Choice {
            index: 0,
            message: told,
            logprobs: None,
            finish_reason: finish_reason(message.stop_reason.as_deref()),
        }],
        usage: tally.told(),
    };
    Ok(serde_json::to_vec(&completion)?)
}

/// Why the model stopped, in the other API's word.
pub(super) fn finish_reason(stop_reason: Option<&str>) -> &'static str {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded" | "pause_turn") => "length",
        Some("tool_use") => "tool_calls",
        Some("refusal") => "content_filter",
        _ => "stop",
    }
}

/// What a refusal says.
pub(super) fn refusal(stop_reason: Option<&str>, details: Option<&StopDetails>) -> Option<String> {
    (stop_reason == Some("refusal")).then(|| {
        let said = details.and_then(|details| details.explanation.clone().or_else(|| details.category.clone()));
        said.unwrap_or_else(|| "The model refused to answer.".to_owned())
    })
}
