//! `text_completion` (providers.md, section 1.13).

use serde_json::{Value, json};

use crate::sim::answers::text::{echo, has};
use crate::sim::answers::{Answer, Call, Run, Usage, chat, tokens};

/// Runs the call; it was not refused.
pub(super) fn answer(call: &Call<'_>, run: &mut Run) -> Answer {
    let (body, usage) = complete(call, run);
    Answer::new(&body, usage)
}

/// The body, for one answer or a stream.
pub(in crate::sim) fn complete(call: &Call<'_>, run: &mut Run) -> (Value, Usage) {
    let texts: Vec<String> = (0..call.choices()).map(|choice| echo(call, run, choice)).collect();
    let billed = Usage { input: call.input_tokens(), output: tokens(texts.iter().map(String::len).sum()) };
    let finish_reason = if has(call, "sim-length") { "length" } else { "stop" };
    let choices: Vec<Value> = texts
        .into_iter()
        .enumerate()
        .map(|(index, text)| json!({"text": text, "index": index, "logprobs": null, "finish_reason": finish_reason}))
        .collect();
    let body = json!({
        "id": run.id("cmpl-"), "object": "text_completion", "created": run.now, "model": call.model,
        "choices": choices, "usage": chat::usage(billed),
    });
    (body, billed)
}
