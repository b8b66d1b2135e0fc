//! Plans the events of Anthropic's Messages (providers.md, section 2.7): the message is opened without its content, its
//! blocks are told one after the other, and two events end it.
//!
//! Text, thinking and the input of tools are told in deltas; results of server tools, redacted thinking and blocks
//! unknown to us come whole in the event that begins them.

use bytes::Bytes;

use super::json::{Object, join};
use super::{Plan, ReplayError, Step};

pub(super) fn plan(body: &Bytes) -> Result<Plan, ReplayError> {
    let message = Object::parse(body)?;
    let blocks = message.elements("content").ok_or(ReplayError::Missing("content"))?;
    let usage = message.value("usage").cloned().unwrap_or_else(|| Bytes::from_static(b"{\"output_tokens\":0}"));
    let begun = Object::parse(&usage)?.rebuilt(&[("output_tokens", b"1")]);
    let opened = message.rebuilt(&[
        ("content", b"[]"),
        ("stop_reason", b"null"),
        ("stop_sequence", b"null"),
        ("stop_details", b"null"),
        ("usage", &begun),
    ]);
    let mut steps = Vec::new();
    steps.push(Step::whole("message_start", Bytes::from_static(b"\"message\":"), opened, Bytes::new()));
    for (index, raw) in blocks.iter().enumerate() {
        block(&mut steps, index, raw);
    }
    let null = Bytes::from_static(b"null");
    let or_null = |name| message.get(name).unwrap_or(&null);
    let mut delta = vec![
        b"\"delta\":{\"stop_reason\":".as_slice(),
        or_null("stop_reason"),
        b",\"stop_sequence\":",
        or_null("stop_sequence"),
    ];
    if let Some(details) = message.value("stop_details") {
        delta.extend([b",\"stop_details\":".as_slice(), details]);
    }
    delta.extend([b"},\"usage\":".as_slice(), &usage]);
    steps.push(Step::whole("message_delta", join(&delta), Bytes::new(), Bytes::new()));
    steps.push(Step::whole("message_stop", Bytes::new(), Bytes::new(), Bytes::new()));
    Ok(Plan { steps, ..Plan::default() })
}

fn block(steps: &mut Vec<Step>, index: usize, raw: &Bytes) {
    let known = Object::parse(raw).ok().and_then(|block| told(&block, index));
    let (begun, deltas) = known.unwrap_or_else(|| (raw.clone(), Vec::new()));
    let before = Bytes::from(format!("\"index\":{index},\"content_block\":"));
    steps.push(Step::whole("content_block_start", before, begun, Bytes::new()));
    steps.extend(deltas);
    steps.push(Step::whole(
        "content_block_stop",
        Bytes::from(format!("\"index\":{index}")),
        Bytes::new(),
        Bytes::new(),
    ));
}

/// The block as it begins, and its deltas; none for blocks that come whole.
fn told(block: &Object, index: usize) -> Option<(Bytes, Vec<Step>)> {
    let kind = block.text("type")?;
    match &kind[..] {
        b"text" => {
            let begun = block.rebuilt(&[("text", b"\"\""), ("citations", b"[]")]);
            let mut deltas = vec![text(index, "text_delta", "text", block.text("text")?)];
            let citations = block.elements("citations").unwrap_or_default();
            deltas.extend(citations.into_iter().map(|citation| whole(index, "citations_delta", "citation", citation)));
            Some((begun, deltas))
        }
        b"thinking" => {
            let begun = block.rebuilt(&[("thinking", b"\"\""), ("signature", b"\"\"")]);
            let mut deltas = vec![text(index, "thinking_delta", "thinking", block.text("thinking")?)];
            let signature = block.value("signature").cloned();
            deltas.extend(signature.map(|signature| whole(index, "signature_delta", "signature", signature)));
            Some((begun, deltas))
        }
        // Calls of any tool have an input that is told as text: `tool_use`, `server_tool_use`, `mcp_tool_use`.
        kind if kind.ends_with(b"tool_use") => {
            let input = block.value("input").filter(|input| input.starts_with(b"{"))?;
            // An empty one has nothing to tell.
            Object::parse(input).ok()?.iter().next()?;
            let escaped = serde_json::to_vec(std::str::from_utf8(input).ok()?).ok()?;
            let escaped = super::json::string_inside(&Bytes::from(escaped))?;
            let begun = block.rebuilt(&[("input", b"{}")]);
            Some((begun, vec![text(index, "input_json_delta", "partial_json", escaped)]))
        }
        _ => None,
    }
}

fn delta(index: usize, kind: &str, field: &str) -> String {
    format!("\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":")
}

fn text(index: usize, kind: &str, field: &str, text: Bytes) -> Step {
    let before = Bytes::from(delta(index, kind, field) + "\"");
    Step::text("content_block_delta", before, text, Bytes::from_static(b"\"}"))
}

fn whole(index: usize, kind: &str, field: &str, value: Bytes) -> Step {
    Step::whole("content_block_delta", Bytes::from(delta(index, kind, field)), value, Bytes::from_static(b"}"))
}
