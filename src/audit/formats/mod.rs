//! The formats, one file each: which records are theirs, and what the record says as a [`Call`].
//!
//! Decided record by record, so that files may be mixed. The order matters: gateways' logs have members that look like
//! those of the API itself.

pub(super) mod csv;

mod access_log;
mod helicone;
mod langfuse;
mod litellm;
mod openai;
mod openrouter;
mod time;

use serde::Deserialize;

use super::call::{Call, Problem, Reading};
use super::shape::{Scalar, Shape};
use crate::domain::money::Money;

/// A line, or an object of a JSON document.
pub(super) fn read(bytes: &[u8]) -> Reading {
    match bytes.first() {
        None => Reading::Nothing,
        Some(b'{') => object(bytes),
        Some(_) => match access_log::read(bytes) {
            Some(reading) => reading,
            // Collectors put a time or a container's name in front.
            None => match memchr::memchr(b'{', bytes).and_then(|at| bytes.get(at..)).map(object) {
                Some(reading @ (Reading::Call(_) | Reading::Many(_))) => reading,
                _ => Reading::Skip(Problem::NotJson),
            },
        },
    }
}

fn object(bytes: &[u8]) -> Reading {
    match serde_json::from_slice::<Shape>(bytes) {
        Ok(shape) => match read_shape(&shape) {
            Reading::Skip(Problem::Unrecognised) => wrapped(bytes),
            reading @ (Reading::Call(_) | Reading::Skip(_) | Reading::Many(_) | Reading::Nothing) => reading,
        },
        Err(_broken) if std::str::from_utf8(bytes).is_err() => repaired(bytes),
        Err(_broken) => Reading::Skip(Problem::NotJson),
    }
}

/// Bytes of another encoding: the structure is ASCII in most of them, only names suffer.
fn repaired(bytes: &[u8]) -> Reading {
    let text = String::from_utf8_lossy(bytes);
    let Ok(shape) = serde_json::from_str::<Shape>(&text) else { return Reading::Skip(Problem::NotUtf8) };
    match read_shape(&shape) {
        call @ Reading::Call(_) => Reading::Many(vec![call, Reading::Skip(Problem::NotUtf8)]),
        reading @ (Reading::Skip(_) | Reading::Many(_) | Reading::Nothing) => reading,
    }
}

/// `{"data":[…]}`: an answer of an API that lists calls.
fn wrapped(bytes: &[u8]) -> Reading {
    #[derive(Deserialize)]
    struct Wrapper {
        data: Vec<Shape>,
    }
    let listed = serde_json::from_slice::<Wrapper>(bytes).map(|wrapper| wrapper.data).unwrap_or_default();
    if listed.is_empty() {
        return Reading::Skip(Problem::Unrecognised);
    }
    Reading::Many(listed.iter().map(read_shape).collect())
}

/// A record, whatever it came from.
pub(super) fn read_shape(shape: &Shape) -> Reading {
    let readers = [litellm::read, helicone::read, openrouter::read, langfuse::read, openai::read];
    readers.into_iter().find_map(|read| read(shape)).unwrap_or(Reading::Skip(Problem::Unrecognised))
}

fn call(call: Call) -> Option<Reading> {
    Some(Reading::Call(Box::new(call)))
}

/// The first of several that is a time, as Unix seconds.
fn first_time<const N: usize>(candidates: [&Scalar; N]) -> Option<i64> {
    candidates.into_iter().find_map(time::unix_seconds)
}

fn first_text<const N: usize>(candidates: [&Scalar; N]) -> Option<String> {
    candidates.into_iter().find_map(Scalar::text).map(ToOwned::to_owned)
}

fn first_count<const N: usize>(candidates: [&Scalar; N]) -> Option<u64> {
    candidates.into_iter().find_map(Scalar::count)
}

/// A logged amount; zero and below says nothing (gateways write 0 for models whose price they do not know).
fn amount<const N: usize>(candidates: [&Scalar; N]) -> Option<Money> {
    let usd = candidates.into_iter().find_map(Scalar::number).filter(|usd| *usd > 0.0)?;
    Money::from_usd_f64(usd).ok()
}

/// Whether a status, a number or a word, is that of a failure.
fn is_failure(status: &Scalar) -> bool {
    status.number().map_or_else(
        || matches!(status.text(), Some("failure" | "failed" | "error" | "ERROR" | "cancelled")),
        |code| !(0.0..400.0).contains(&code),
    )
}
