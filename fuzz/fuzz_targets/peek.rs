//! What is read of a request's body, and what is cut out of it. A body that is accepted is one line of the batch file
//! afterwards, valid JSON, and the same as before but for what had to go.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightbus::domain::ids::RequestId;
use nightbus::domain::lane::Endpoint;
use nightbus::wire::openai::batch_file::{line_length, push_line};
use nightbus::wire::openai::edit;
use nightbus::wire::openai::peek::{peek, without_batch_suffix};
use serde_json::Value;
use serde_json::value::RawValue;

const REMOVED: [&str; 4] = ["stream", "stream_options", "service_tier", "background"];
const ID: &str = "req_0198f2c05a6b7c8d9e0f112233445566";

fuzz_target!(|input: &[u8]| {
    let Some((which, body)) = input.split_first() else { return };
    // Also what is not checked first: the beginning of a body that is too long.
    let of_prefix = edit::model_of_prefix(body);
    let endpoint = Endpoint::ALL[usize::from(*which) % Endpoint::ALL.len()];
    let Ok(peeked) = peek(endpoint, body) else { return };
    assert_eq!(of_prefix.as_deref(), Some(&*peeked.model));
    let renamed = without_batch_suffix(&peeked.model);
    let line = edit::for_batch_line(body, &REMOVED, renamed);
    assert!(!edit::has_line_breaks(&line));
    let _: &RawValue = serde_json::from_slice(&line).expect("still JSON");
    if !peeked.needs_edit && renamed.is_none() && !edit::has_line_breaks(body) {
        // Such a body becomes a line as it is; the edit must not say otherwise.
        let same = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        assert_eq!(same(body), same(&line));
    }
    let mut file = Vec::new();
    let id: RequestId = ID.parse().expect("an id");
    push_line(&mut file, id, endpoint, &line);
    assert_eq!(file.len() as u64, line_length(endpoint, line.len() as u64));
    let again = peek(endpoint, &line).expect("the line is as good as the body");
    assert!(!again.needs_edit && !again.stream && !again.background);
    assert_eq!(&*again.model, renamed.unwrap_or(&peeked.model));
    assert_eq!(again.inputs, peeked.inputs);
    // Not for what only the strict parser refuses: very deep nesting, numbers out of range, halves of surrogates.
    if let Ok(Value::Object(mut before)) = serde_json::from_slice::<Value>(body) {
        for name in REMOVED {
            before.remove(name);
        }
        if let Some(model) = renamed {
            before.insert("model".to_owned(), Value::from(model));
        }
        let after: Value = serde_json::from_slice(&line).expect("as strict as before");
        assert_eq!(Value::Object(before), after);
        let other: Value = serde_json::from_slice(&edit::with_model(body, "other\"")).expect("still JSON");
        assert_eq!(other["model"], "other\"");
    }
});
