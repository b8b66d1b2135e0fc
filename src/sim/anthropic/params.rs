//! What the model refuses of a Messages body: live at once, in a batch as the result of its line.

use serde_json::{Map, Value};

use crate::sim::anthropic::Refusal;

/// All parameters; others are refused.
const KNOWN: [&str; 22] = [
    "model",
    "messages",
    "max_tokens",
    "system",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "tools",
    "tool_choice",
    "thinking",
    "service_tier",
    "container",
    "context_management",
    "mcp_servers",
    "output_config",
    "output_format",
    "speed",
    "inference_geo",
    "cache_control",
];

/// The parameters of one call.
#[derive(Debug)]
pub(super) struct Params(Map<String, Value>);

impl Params {
    /// Checks `body`. `version` is the place of the API's version, `in_batch` whether it is a line.
    pub(super) fn checked(body: &[u8], version: usize, in_batch: bool) -> Result<Self, Refusal> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return Err(Refusal::invalid("The request body is not valid JSON"));
        };
        if let Some(unknown) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Refusal::invalid(format!("{unknown}: Extra inputs are not permitted")));
        }
        for name in ["model", "messages", "max_tokens"] {
            if fields.get(name).is_none_or(Value::is_null) {
                return Err(Refusal::invalid(format!("{name}: Field required")));
            }
        }
        let params = Self(fields);
        if params.text("model").is_none_or(str::is_empty) {
            return Err(Refusal::invalid("model: Input should be a valid string"));
        }
        params.check_messages()?;
        let least = u64::from(in_batch);
        if params.get("max_tokens").and_then(Value::as_u64).is_none_or(|number| number < least) {
            return Err(Refusal::invalid(format!("max_tokens: Input should be greater than or equal to {least}")));
        }
        if in_batch && params.wants_stream() {
            return Err(Refusal::invalid("stream: streaming is not supported in batches"));
        }
        if in_batch && params.text("speed") == Some("fast") {
            return Err(Refusal::invalid("speed: fast mode is not supported in batches"));
        }
        let gone = ["temperature", "top_p", "top_k"].into_iter().find(|name| version > 0 && params.get(name).is_some());
        match gone {
            Some(name) => Err(Refusal::invalid(format!("{name}: Extra inputs are not permitted"))),
            None => Ok(params),
        }
    }

    fn check_messages(&self) -> Result<(), Refusal> {
        let messages = self.get("messages").and_then(Value::as_array).filter(|messages| !messages.is_empty());
        let Some(messages) = messages else {
            return Err(Refusal::invalid("messages: at least one message is required"));
        };
        for (at, message) in messages.iter().enumerate() {
            let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
            if !["user", "assistant"].contains(&role) {
                return Err(Refusal::invalid(format!("messages.{at}.role: Input should be 'user' or 'assistant'")));
            }
            let has_content = match message.get("content") {
                Some(Value::String(text)) => !text.is_empty(),
                Some(Value::Array(blocks)) => blocks.iter().all(|block| block.get("type").is_some()),
                _ => false,
            };
            if !has_content {
                return Err(Refusal::invalid(format!("messages.{at}.content: content must be non-empty")));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    pub(super) fn wants_stream(&self) -> bool {
        self.get("stream") == Some(&Value::Bool(true))
    }

    /// The text of the last user message.
    pub(super) fn asked(&self) -> String {
        let messages = self.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let last = messages.iter().rfind(|message| message.get("role").and_then(Value::as_str) == Some("user"));
        match last.and_then(|message| message.get("content")) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(blocks)) => {
                let texts: Vec<&str> = blocks
                    .iter()
                    .filter_map(|block| block.get("text").or_else(|| block.get("content")).and_then(Value::as_str))
                    .collect();
                texts.join("\n")
            }
            _ => String::new(),
        }
    }

    /// Every breakpoint of the prompt cache, with the tokens of its block and whether it lives for an hour.
    pub(super) fn cache_writes(&self) -> (u64, u64) {
        let mut writes = (0, 0);
        let blocks = self.get("system").and_then(Value::as_array).into_iter().flatten();
        for block in blocks {
            let Some(control) = block.get("cache_control") else { continue };
            let tokens = tokens(block.get("text").and_then(Value::as_str).unwrap_or_default().len());
            if control.get("ttl").and_then(Value::as_str) == Some("1h") {
                writes.1 += tokens;
            } else {
                writes.0 += tokens;
            }
        }
        writes
    }
}

/// Tokens of a text of that many bytes.
pub(super) fn tokens(bytes: usize) -> u64 {
    (bytes as u64 / 4).max(1)
}
