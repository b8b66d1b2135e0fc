//! Moderations (providers.md, section 1.13): what says `sim-flag` is flagged as violence, nothing else is.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::sim::answers::{Answer, Call, Run, Usage};

const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// Runs the call; it was not refused. Moderations cost nothing, so no tokens are billed.
pub(super) fn answer(call: &Call<'_>, run: &mut Run) -> Answer {
    let items: Vec<&RawValue> =
        serde_json::from_str(call.content.get()).unwrap_or_else(|_not_a_list| vec![call.content]);
    // A list of parts (text and image together) is one input; a list of texts is as many.
    let is_multimodal = items.first().is_some_and(|first| first.get().starts_with('{'));
    let inputs = if is_multimodal { vec![call.content] } else { items };
    let results: Vec<Value> = inputs.into_iter().map(|input| result(input.get())).collect();
    let body = json!({"id": run.id("modr-"), "model": call.model, "results": results});
    Answer::new(&body, Usage::default())
}

fn result(input: &str) -> Value {
    let flagged = input.contains("sim-flag");
    let of_each = |value: &dyn Fn(bool) -> Value| -> Map<String, Value> {
        CATEGORIES.iter().map(|name| ((*name).to_owned(), value(flagged && *name == "violence"))).collect()
    };
    json!({
        "flagged": flagged,
        "categories": of_each(&Value::from),
        "category_scores": of_each(&|hit| Value::from(if hit { 0.97 } else { 0.0001 })),
        "category_applied_input_types": of_each(&|_| json!(["text"])),
    })
}
