//! Embeddings, as floats and as base64 (providers.md, section 1.13).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::sim::answers::{Answer, Call, Run, Usage};
use crate::sim::reply::ApiFailure;
use crate::sim::state::mix;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    model: &'a str,
    data: Vec<Item>,
    usage: ListUsage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Base64(String),
    Floats(Vec<f32>),
}

#[derive(Serialize)]
struct ListUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Runs the call; it was not refused.
pub(super) fn answer(call: &Call<'_>, _run: &mut Run) -> Answer {
    let base64 = match call.encoding_format.map(RawValue::get) {
        None | Some("\"float\"") => false,
        Some("\"base64\"") => true,
        Some(_) => return wrong("encoding_format", "must be 'float' or 'base64'"),
    };
    let default = if call.model.contains("large") { 3_072 } else { 1_536 };
    let dimensions = match call.dimensions.map(|raw| raw.get().parse::<usize>()) {
        None => default,
        Some(Ok(dimensions)) if (1..=3_072).contains(&dimensions) => dimensions,
        Some(_) => return wrong("dimensions", "must be an integer between 1 and 3072"),
    };
    let data = inputs(call.content).into_iter().enumerate().map(|(index, input)| {
        let floats = vector(input, dimensions);
        Item {
            object: "embedding",
            index,
            embedding: if base64 { Vector::Base64(encode(&floats)) } else { Vector::Floats(floats) },
        }
    });
    let usage = Usage { input: call.input_tokens(), output: 0 };
    let list = List {
        object: "list",
        model: &call.model,
        data: data.collect(),
        usage: ListUsage { prompt_tokens: usage.input, total_tokens: usage.input },
    };
    Answer::new(&list, usage)
}

/// How many inputs there are: one text, a list of texts, one list of tokens, or a list of such lists.
pub(super) fn count_inputs(content: &RawValue) -> usize {
    inputs(content).len()
}

fn inputs(content: &RawValue) -> Vec<&str> {
    let items: Vec<&RawValue> = match serde_json::from_str(content.get()) {
        Ok(items) => items,
        Err(_) => return vec![content.get()],
    };
    let is_token_list = items.first().is_some_and(|first| first.get().starts_with(|c: char| c.is_ascii_digit()));
    if is_token_list { vec![content.get()] } else { items.into_iter().map(RawValue::get).collect() }
}

/// A vector of length 1 that depends on nothing but `input`.
fn vector(input: &str, dimensions: usize) -> Vec<f32> {
    let mut seed = input.bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)));
    let mut floats: Vec<f32> = std::iter::repeat_with(|| {
        seed = mix(seed);
        let [a, b, ..] = seed.to_le_bytes();
        f32::from(i16::from_le_bytes([a, b])) / 32_768.0
    })
    .take(dimensions)
    .collect();
    let norm = floats.iter().map(|float| float * float).sum::<f32>().sqrt();
    for float in &mut floats {
        *float /= norm.max(f32::MIN_POSITIVE);
    }
    floats
}

/// Little-endian float32, base64.
fn encode(floats: &[f32]) -> String {
    STANDARD.encode(floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>())
}

fn wrong(param: &str, rule: &str) -> Answer {
    let message = format!("Invalid value for '{param}': {rule}.");
    Answer::refused(&ApiFailure::invalid(400, "invalid_value", Some(param), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_inputs_of_every_form() {
        for (json, count) in [(r#""a""#, 1), (r#"["a","b"]"#, 2), ("[1,2,3]", 1), ("[[1],[2],[3]]", 3)] {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(count_inputs(raw), count, "{json}");
        }
    }

    #[test]
    fn vectors_are_unit_length_and_differ() {
        let (a, b) = (vector("a", 64), vector("b", 64));
        assert!((a.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(a != b && a == vector("a", 64));
        assert_eq!(STANDARD.decode(encode(&a)).unwrap().len(), 256);
    }
}
