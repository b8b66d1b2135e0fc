//! The conversation: OpenAI's messages as Anthropic's system prompt and turns (providers.md, section 3.1).

use serde::Serialize;
use serde_json::value::RawValue;

use super::Refused;
use super::fields::Fields;
use super::parts::{Block, Whose, blocks};
use super::request::NO_COUNTERPART;

/// One turn; no two neighbours have the same role.
#[derive(Debug, Serialize)]
pub(super) struct Turn<'a> {
    pub(super) role: Role,
    pub(super) content: Vec<Block<'a>>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    User,
    Assistant,
}

/// What the messages say.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub(super) system: Vec<Block<'a>>,
    pub(super) turns: Vec<Turn<'a>>,
}

/// Reads `messages`.
pub(super) fn conversation(messages: Vec<&RawValue>) -> Result<Conversation<'_>, Refused> {
    let mut read = Conversation::default();
    for (index, message) in messages.into_iter().enumerate() {
        read.add(Fields::parse(message, format!("messages[{index}]"))?)?;
    }
    match read.turns.first() {
        None => return Err(Refused::new("messages", "Anthropic needs a message of the user beside the system prompt")),
        Some(turn) if turn.role == Role::Assistant => {
            let message = "for Anthropic the first message beside the system prompt must be the user's";
            return Err(Refused::new("messages", message));
        }
        Some(_) => {}
    }
    for turn in &mut read.turns {
        // Results come first in a turn (stable: otherwise the order stays).
        turn.content.sort_by_key(|block| !block.is_tool_result());
    }
    read.trim_prefill();
    Ok(read)
}

impl<'a> Conversation<'a> {
    fn add(&mut self, mut message: Fields<'a>) -> Result<(), Refused> {
        let role = message.required_text("role")?;
        let at = message.path("content");
        let content = message.take("content");
        match role.as_str() {
            "system" | "developer" => self.system.extend(blocks(content, &at, Whose::System)?),
            "user" => {
                let content = blocks(content, &at, Whose::User)?;
                if content.is_empty() {
                    return Err(Refused::new(at, "is empty, which Anthropic does not take"));
                }
                self.say(Role::User, content);
            }
            "assistant" => {
                let mut said = blocks(content, &at, Whose::Assistant)?;
                let refusal = message.text("refusal")?.filter(|text| !text.is_empty());
                said.extend(refusal.map(|text| Block::Text { text, cache_control: None }));
                said.extend(tool_calls(&mut message)?);
                // Of answers that are sent back: thoughts are not told again, and notes are the answer's own.
                message.ignore(&["reasoning_content", "reasoning", "annotations"]);
                self.say(Role::Assistant, said);
            }
            "tool" => {
                let tool_use_id = message.required_text("tool_call_id")?;
                let content = blocks(content, &at, Whose::Tool)?;
                self.say(Role::User, vec![Block::ToolResult { tool_use_id, content }]);
            }
            other => {
                let message_of =
                    format!("{other:?} has no counterpart: system, developer, user, assistant and tool have");
                return Err(Refused::new(message.path("role"), message_of));
            }
        }
        message.nothing_left(NO_COUNTERPART)
    }

    /// What the same role says next belongs to its turn. An empty turn is none.
    fn say(&mut self, role: Role, content: Vec<Block<'a>>) {
        match self.turns.last_mut() {
            _ if content.is_empty() => {}
            Some(turn) if turn.role == role => turn.content.extend(content),
            _ => self.turns.push(Turn { role, content }),
        }
    }

    /// Anthropic refuses white space at the end of a text that it is to go on with.
    fn trim_prefill(&mut self) {
        let Some(turn) = self.turns.last_mut().filter(|turn| turn.role == Role::Assistant) else { return };
        if let Some(Block::Text { text, .. }) = turn.content.last_mut() {
            text.truncate(text.trim_end().len());
            if text.is_empty() {
                turn.content.pop();
            }
        }
        if turn.content.is_empty() {
            self.turns.pop();
        }
    }
}

fn tool_calls<'a>(message: &mut Fields<'a>) -> Result<Vec<Block<'a>>, Refused> {
    let at = message.path("tool_calls");
    let calls = message.elements("tool_calls")?.unwrap_or_default();
    calls.into_iter().enumerate().map(|(index, call)| tool_call(call, format!("{at}[{index}]"))).collect()
}

fn tool_call(raw: &RawValue, at: String) -> Result<Block<'_>, Refused> {
    let mut call = Fields::parse(raw, at)?;
    let kind = call.text("type")?;
    if kind.is_some_and(|kind| kind != "function") {
        return Err(Refused::new(call.path("type"), "only calls of functions have a counterpart"));
    }
    let id = call.required_text("id")?;
    let path = call.path("function");
    let function = call.take("function").ok_or_else(|| Refused::new(path.clone(), "is required"))?;
    call.ignore(&["index"]);
    call.nothing_left(NO_COUNTERPART)?;
    let mut function = Fields::parse(function, path)?;
    let name = function.required_text("name")?;
    let arguments = function.text("arguments")?.unwrap_or_default();
    function.nothing_left(NO_COUNTERPART)?;
    let arguments = if arguments.trim().is_empty() { "{}".to_owned() } else { arguments };
    let input = RawValue::from_string(arguments)
        .ok()
        .filter(|input| input.get().starts_with('{'))
        .ok_or_else(|| Refused::new(function.path("arguments"), "is not a JSON object, which Anthropic needs"))?;
    Ok(Block::ToolUse { id, name, input })
}
