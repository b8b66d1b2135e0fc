//! Plans the events of the Responses API: the response is opened, its items are told one after the other, and the
//! event that ends it carries the whole body as it stands.
//!
//! Messages, reasoning and calls are told in deltas; hosted-tool items and items unknown to us come whole.

use bytes::Bytes;

use super::json::{Object, join};
use super::{Plan, ReplayError, Step};

const IN_PROGRESS: &[u8] = b"\"in_progress\"";

pub(super) fn plan(body: &Bytes) -> Result<Plan, ReplayError> {
    let response = Object::parse(body)?;
    let status = response.text("status");
    let ending = match status.as_deref() {
        None | Some(b"completed") => "response.completed",
        Some(b"incomplete") => "response.incomplete",
        // There is no event for `cancelled`; its answer is not there either way.
        Some(b"failed" | b"cancelled") => "response.failed",
        Some(_) => return Err(ReplayError::NotFinished),
    };
    let items = response.elements("output").ok_or(ReplayError::Missing("output"))?;
    let opened = response.rebuilt(&[
        ("status", IN_PROGRESS),
        ("output", b"[]"),
        ("usage", b"null"),
        ("completed_at", b"null"),
        ("error", b"null"),
        ("incomplete_details", b"null"),
    ]);
    let mut steps = Vec::new();
    for kind in ["response.created", "response.in_progress"] {
        steps.push(with_response(kind, &opened));
    }
    for (index, raw) in items.iter().enumerate() {
        let index = index.to_string();
        item(&mut steps, &index, raw);
    }
    steps.push(with_response(ending, body));
    Ok(Plan { steps, numbered: true, ..Plan::default() })
}

fn with_response(kind: &'static str, response: &Bytes) -> Step {
    Step::whole(kind, Bytes::from_static(b"\"response\":"), response.clone(), Bytes::new())
}

fn item(steps: &mut Vec<Step>, index: &str, raw: &Bytes) {
    let known = Object::parse(raw).ok().and_then(|item| {
        let kind = item.text("type")?;
        let place = Place::of(&item, index);
        let told: (Bytes, Vec<Step>) = match &kind[..] {
            b"message" => message(&item, &place)?,
            b"reasoning" => reasoning(&item, &place),
            b"function_call" => call(&item, &place, &FUNCTION)?,
            b"custom_tool_call" => call(&item, &place, &CUSTOM_TOOL)?,
            _ => return None,
        };
        Some(told)
    });
    let (added, inner) = known.unwrap_or_else(|| (raw.clone(), Vec::new()));
    let before = join(&[b"\"output_index\":", index.as_bytes(), b",\"item\":"]);
    steps.push(Step::whole("response.output_item.added", before.clone(), added, Bytes::new()));
    steps.extend(inner);
    steps.push(Step::whole("response.output_item.done", before, raw.clone(), Bytes::new()));
}

/// Where an event belongs: `"item_id":…,"output_index":…,`
struct Place(Bytes);

impl Place {
    fn of(item: &Object, index: &str) -> Self {
        let stand_in = Bytes::from(format!("\"item_{index}\""));
        let id = item.value("id").unwrap_or(&stand_in);
        Self(join(&[b"\"item_id\":", id, b",\"output_index\":", index.as_bytes(), b","]))
    }

    fn part(&self, key: &str, index: usize) -> Self {
        Self(join(&[&self.0, format!("\"{key}\":{index},").as_bytes()]))
    }

    fn before(&self, field: &[u8]) -> Bytes {
        join(&[&self.0, field])
    }
}

/// How one kind of part is told.
struct Telling {
    /// The part's field that holds its text.
    field: &'static str,
    added: &'static str,
    delta: &'static str,
    text_done: &'static str,
    done: &'static str,
}

const OUTPUT_TEXT: Telling = Telling {
    field: "text",
    added: "response.content_part.added",
    delta: "response.output_text.delta",
    text_done: "response.output_text.done",
    done: "response.content_part.done",
};
const REFUSAL: Telling =
    Telling { field: "refusal", delta: "response.refusal.delta", text_done: "response.refusal.done", ..OUTPUT_TEXT };
const REASONING_TEXT: Telling =
    Telling { delta: "response.reasoning_text.delta", text_done: "response.reasoning_text.done", ..OUTPUT_TEXT };
const SUMMARY: Telling = Telling {
    field: "text",
    added: "response.reasoning_summary_part.added",
    delta: "response.reasoning_summary_text.delta",
    text_done: "response.reasoning_summary_text.done",
    done: "response.reasoning_summary_part.done",
};

fn message(item: &Object, place: &Place) -> Option<(Bytes, Vec<Step>)> {
    let mut steps = Vec::new();
    for (index, raw) in item.elements("content")?.iter().enumerate() {
        part(&mut steps, &place.part("content_index", index), raw, None);
    }
    Some((item.rebuilt(&[("status", IN_PROGRESS), ("content", b"[]")]), steps))
}

fn reasoning(item: &Object, place: &Place) -> (Bytes, Vec<Step>) {
    let mut steps = Vec::new();
    for (index, raw) in item.elements("summary").unwrap_or_default().iter().enumerate() {
        part(&mut steps, &place.part("summary_index", index), raw, Some(&SUMMARY));
    }
    for (index, raw) in item.elements("content").unwrap_or_default().iter().enumerate() {
        part(&mut steps, &place.part("content_index", index), raw, None);
    }
    (item.rebuilt(&[("status", IN_PROGRESS), ("summary", b"[]"), ("content", b"[]")]), steps)
}

/// One part of a message or of reasoning. A part of an unknown kind is added and done as it stands.
fn part(steps: &mut Vec<Step>, place: &Place, raw: &Bytes, telling: Option<&Telling>) {
    let object = Object::parse(raw).ok();
    let kind = object.as_ref().and_then(|part| part.text("type"));
    let telling = telling.or(match kind.as_deref() {
        Some(b"output_text") => Some(&OUTPUT_TEXT),
        Some(b"refusal") => Some(&REFUSAL),
        Some(b"reasoning_text") => Some(&REASONING_TEXT),
        _ => None,
    });
    let (added_kind, done_kind) = telling.map_or((OUTPUT_TEXT.added, OUTPUT_TEXT.done), |told| (told.added, told.done));
    let told =
        object.as_ref().zip(telling).and_then(|(part, telling)| Some((part, telling, part.text(telling.field)?)));
    let before = place.before(b"\"part\":");
    let Some((part, telling, text)) = told else {
        steps.push(Step::whole(added_kind, before.clone(), raw.clone(), Bytes::new()));
        steps.push(Step::whole(done_kind, before, raw.clone(), Bytes::new()));
        return;
    };
    let empty = part.rebuilt(&[(telling.field, b"\"\""), ("annotations", b"[]"), ("logprobs", b"[]")]);
    steps.push(Step::whole(added_kind, before.clone(), empty, Bytes::new()));
    let is_output_text = telling.delta == OUTPUT_TEXT.delta;
    let after_delta: &'static [u8] = if is_output_text { b"\",\"logprobs\":[]" } else { b"\"" };
    steps.push(Step::text(telling.delta, place.before(b"\"delta\":\""), text, Bytes::from_static(after_delta)));
    if is_output_text {
        annotations(steps, place, part);
    }
    let whole_text = part.get(telling.field).cloned().unwrap_or_default();
    let logprobs = part.value("logprobs").map_or(b"[]".as_slice(), Bytes::as_ref);
    let after_text = if is_output_text { join(&[b",\"logprobs\":", logprobs]) } else { Bytes::new() };
    let field = format!("\"{}\":", telling.field);
    steps.push(Step::whole(telling.text_done, place.before(field.as_bytes()), whole_text, after_text));
    steps.push(Step::whole(done_kind, before, raw.clone(), Bytes::new()));
}

fn annotations(steps: &mut Vec<Step>, place: &Place, part: &Object) {
    for (index, annotation) in part.elements("annotations").unwrap_or_default().iter().enumerate() {
        let before = place.before(format!("\"annotation_index\":{index},\"annotation\":").as_bytes());
        steps.push(Step::whole("response.output_text.annotation.added", before, annotation.clone(), Bytes::new()));
    }
}

/// How one kind of call is told.
struct CallTelling {
    field: &'static str,
    delta: &'static str,
    done: &'static str,
    /// Whether the closing event names the function.
    named: bool,
}

const FUNCTION: CallTelling = CallTelling {
    field: "arguments",
    delta: "response.function_call_arguments.delta",
    done: "response.function_call_arguments.done",
    named: true,
};
const CUSTOM_TOOL: CallTelling = CallTelling {
    field: "input",
    delta: "response.custom_tool_call_input.delta",
    done: "response.custom_tool_call_input.done",
    named: false,
};

fn call(item: &Object, place: &Place, telling: &CallTelling) -> Option<(Bytes, Vec<Step>)> {
    let text = item.text(telling.field)?;
    let whole = item.get(telling.field)?.clone();
    let name = item.value("name").filter(|_| telling.named);
    let name = name.map_or_else(Bytes::new, |name| join(&[b"\"name\":", name, b","]));
    let before_done = place.before(&[&name, format!("\"{}\":", telling.field).as_bytes()].concat());
    let steps = vec![
        Step::text(telling.delta, place.before(b"\"delta\":\""), text, Bytes::from_static(b"\"")),
        Step::whole(telling.done, before_done, whole, Bytes::new()),
    ];
    Some((item.rebuilt(&[("status", IN_PROGRESS), (telling.field, b"\"\"")]), steps))
}
