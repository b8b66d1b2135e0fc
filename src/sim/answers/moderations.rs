//! Moderations (providers.md, section 1.13): what says `sim-flag` is flagged as violence, nothing else is.

use std::sync::LazyLock;

use serde::Serialize;
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

/// The two possible results, as JSON: building them anew for each of 50,000 lines would take longer than all the rest.
static CLEAN: LazyLock<Option<Box<RawValue>>> = LazyLock::new(|| result(false));
static FLAGGED: LazyLock<Option<Box<RawValue>>> = LazyLock::new(|| result(true));

#[derive(Serialize)]
struct Moderation<'a> {
    id: String,
    model: &'a str,
    results: Vec<&'static RawValue>,
}

/// Runs the call; it was not refused. Moderations cost nothing, so no tokens are billed.
pub(super) fn answer(call: &Call<'_>, run: &mut Run) -> Answer {
    let items: Vec<&RawValue> =
        serde_json::from_str(call.content.get()).unwrap_or_else(|_not_a_list| vec![call.content]);
    // A list of parts (text and image together) is one input; a list of texts is as many.
    let is_multimodal = items.first().is_some_and(|first| first.get().starts_with('{'));
    let inputs = if is_multimodal { vec![call.content] } else { items };
    let result_of = |input: &RawValue| {
        let is_flagged = memchr::memmem::find(input.get().as_bytes(), b"sim-flag").is_some();
        if is_flagged { FLAGGED.as_deref() } else { CLEAN.as_deref() }
    };
    let results = inputs.into_iter().filter_map(result_of).collect();
    Answer::new(&Moderation { id: run.id("modr-"), model: &call.model, results }, Usage::default())
}

fn result(flagged: bool) -> Option<Box<RawValue>> {
    let of_each = |value: &dyn Fn(bool) -> Value| -> Map<String, Value> {
        CATEGORIES.iter().map(|name| ((*name).to_owned(), value(flagged && *name == "violence"))).collect()
    };
    let result = json!({
        "flagged": flagged,
        "categories": of_each(&Value::from),
        "category_scores": of_each(&|hit| Value::from(if hit { 0.97 } else { 0.0001 })),
        "category_applied_input_types": of_each(&|_| json!(["text"])),
    });
    serde_json::value::to_raw_value(&result).ok()
}
