//! A live stream of Messages events as chat chunks, event by event (providers.md, sections 1.14, 2.7 and 3.2).
//!
//! Invariant: `[DONE]` follows only on the end that the provider told. A stream that broke off has none, and one with an
//! event that could not be read ends with an error, so that no part of an answer is taken for the whole.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{StopDetails, finish_reason, refusal};
use super::errors::chat_error;
use super::usage::{Tally, Usage};
use crate::wire::openai::sse::SseReader;

/// Largest event: blocks that come whole are as long as a model's answer.
const LONGEST_EVENT: usize = 16 << 20;

/// The state between two pieces of a stream.
#[derive(Debug)]
pub struct ChatStream {
    reader: Option<SseReader>,
    told: Telling,
}

#[derive(Debug)]
struct Telling {
    out: Vec<u8>,
    id: String,
    model: String,
    created: i64,
    include_usage: bool,
    tally: Tally,
    /// How many tools were called, and whether the input of the last one has begun.
    tools: usize,
    tool: Option<ToolBlock>,
    ended: bool,
}

/// A tool call that is being told.
#[derive(Debug)]
struct ToolBlock {
    /// What stands for its input when no part of it comes.
    whole: String,
    begun: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    r#type: String,
    #[serde(borrow, default)]
    message: Option<Begun<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Begun<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default)]
    partial_json: Option<String>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_details: Option<StopDetails>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    delta: Change,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolChange; 1]>,
}

#[derive(Serialize)]
struct ToolChange {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl ChatStream {
    /// `created` in Unix seconds; `include_usage` is the caller's `stream_options.include_usage`.
    pub const fn new(created: i64, include_usage: bool) -> Self {
        let told = Telling {
            out: Vec::new(),
            id: String::new(),
            model: String::new(),
            created,
            include_usage,
            tally: Tally::NONE,
            tools: 0,
            tool: None,
            ended: false,
        };
        Self { reader: Some(SseReader::new(LONGEST_EVENT)), told }
    }

    /// Takes the next bytes; the chunks that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(reader) = self.reader.as_mut() else { return Vec::new() };
        let told = &mut self.told;
        reader.feed(bytes, |event| told.event(event.data));
        if reader.skipped() > 0 {
            told.fail("an event of the provider's stream is too long");
        }
        if told.ended {
            self.reader = None;
        }
        std::mem::take(&mut told.out)
    }

    /// Whether the stream was told to its end, be that an error. If not, it broke off.
    pub const fn has_ended(&self) -> bool {
        self.told.ended
    }
}

impl Telling {
    fn event(&mut self, data: &[u8]) {
        if self.ended {
            return;
        }
        match serde_json::from_slice::<Event<'_>>(data) {
            Ok(event) if event.r#type == "error" => self.end_with_error(data),
            Ok(event) => self.known(event),
            Err(_unreadable) => self.fail("an event of the provider's stream cannot be read"),
        }
    }

    fn known(&mut self, event: Event<'_>) {
        match event.r#type.as_str() {
            "message_start" => {
                let Some(message) = event.message else { return };
                (self.id, self.model) = (message.id, message.model);
                self.tally.update(message.usage);
                self.change(Change { role: Some("assistant"), content: Some(String::new()), ..Change::default() });
            }
            "content_block_start" => {
                let Some(block) = event.content_block else { return };
                self.block(block);
            }
            "content_block_delta" => self.delta(event.delta.unwrap_or_default()),
            "content_block_stop" => {
                if let Some(tool) = self.tool.take().filter(|tool| !tool.begun) {
                    self.arguments(tool.whole);
                }
            }
            "message_delta" => {
                self.tally.update(event.usage);
                let Some(delta) = event.delta else { return };
                let reason = delta.stop_reason.as_deref();
                let refusal = refusal(reason, delta.stop_details.as_ref());
                self.chunk(Change { refusal, ..Change::default() }, Some(finish_reason(reason)));
            }
            "message_stop" => {
                if self.include_usage {
                    let usage = Some(Some(self.tally.told()));
                    self.write(&[], usage);
                }
                self.out.extend_from_slice(b"data: [DONE]\n\n");
                self.ended = true;
            }
            "ping" => self.out.extend_from_slice(b": ping\n\n"),
            _ => {}
        }
    }

    fn block(&mut self, block: Block<'_>) {
        match block.r#type.as_str() {
            "text" => self.text(block.text.unwrap_or_default()),
            "thinking" => self.thinking(block.thinking.unwrap_or_default()),
            "tool_use" => {
                self.tools += 1;
                self.tool = Some(ToolBlock { whole: block.input.map_or("{}", RawValue::get).to_owned(), begun: false });
                let function = Function { name: Some(block.name), arguments: String::new() };
                self.tool_change(ToolChange { index: 0, id: Some(block.id), r#type: Some("function"), function });
            }
            _ => {}
        }
    }

    fn delta(&mut self, delta: Delta) {
        self.text(delta.text.unwrap_or_default());
        self.thinking(delta.thinking.unwrap_or_default());
        let Some(tool) = self.tool.as_mut() else { return };
        let Some(part) = delta.partial_json.filter(|part| !part.is_empty()) else { return };
        tool.begun = true;
        self.arguments(part);
    }

    fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.change(Change { content: Some(text), ..Change::default() });
        }
    }

    fn thinking(&mut self, text: String) {
        if !text.is_empty() {
            self.change(Change { reasoning_content: Some(text), ..Change::default() });
        }
    }

    fn arguments(&mut self, arguments: String) {
        let function = Function { name: None, arguments };
        self.tool_change(ToolChange { index: 0, id: None, r#type: None, function });
    }

    fn tool_change(&mut self, change: ToolChange) {
        let change = ToolChange { index: self.tools.saturating_sub(1), ..change };
        self.change(Change { tool_calls: Some([change]), ..Change::default() });
    }

    fn change(&mut self, delta: Change) {
        self.chunk(delta, None);
    }

    fn chunk(&mut self, delta: Change, finish_reason: Option<&'static str>) {
        let usage = self.include_usage.then_some(None);
        self.write(&[Choice { index: 0, delta, logprobs: None, finish_reason }], usage);
    }

    fn write(&mut self, choices: &[Choice], usage: Option<Option<Usage>>) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        };
        self.out.extend_from_slice(b"data: ");
        // These types always have a JSON form.
        self.out.extend_from_slice(&serde_json::to_vec(&chunk).unwrap_or_default());
        self.out.extend_from_slice(b"\n\n");
    }

    fn fail(&mut self, message: &str) {
        if !self.ended {
            let error = serde_json::json!({"error": {"type": "api_error", "message": message}});
            self.end_with_error(error.to_string().as_bytes());
        }
    }

    /// The SDKs raise on it; nothing may follow.
    fn end_with_error(&mut self, body: &[u8]) {
        self.out.extend_from_slice(b"data: ");
        self.out.extend_from_slice(&chat_error(500, body));
        self.out.extend_from_slice(b"\n\n");
        self.ended = true;
    }
}
