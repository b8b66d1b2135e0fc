//! Looks at every line before the first one is sent: what is wrong with which, and what the whole will take.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::again::Wanted;
use super::input::{Fault, Input, Item};
use crate::domain::lane::Endpoint;
use crate::wire::peek::{peek, without_batch_suffix};

/// More faults than anybody reads are counted and not kept.
const KEPT_FAULTS: usize = 1_000;

/// What a file without faults holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Those that are wanted, as are all others here.
    pub(super) lines: u64,
    /// Hash of all its bytes, and of the template's.
    pub(super) digest: String,
    pub(super) endpoint: Endpoint,
    pub(super) models: BTreeMap<String, Tally>,
}

/// The lines of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) lines: u64,
    /// Of the bodies.
    pub(super) bytes: u64,
    /// Output tokens that lines with a limit may take.
    pub(super) limited_output: u64,
    /// Lines without a limit.
    pub(super) unlimited: u64,
}

/// What is wrong with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// The first of them, in the order of the file.
    pub(super) kept: Vec<Fault>,
    pub(super) count: u64,
}

#[derive(Default, Deserialize)]
struct Caps<'a> {
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    n: Option<&'a RawValue>,
}

struct Checking {
    /// By a hash of the id: ids themselves would be most of the memory.
    seen: HashMap<[u8; 16], u64>,
    endpoint: Option<(Endpoint, u64)>,
    models: BTreeMap<String, Tally>,
    lines: u64,
    max_body: u64,
}

/// Reads the whole file; the lines that are not wanted must be sound, too, and are not counted.
///
/// # Errors
/// Outer: it cannot be read, or what is wanted of it cannot be told. Inner: its faults.
pub(super) fn check(input: &Input, max_body: u64, mut wanted: Wanted) -> anyhow::Result<Result<Checked, Faults>> {
    let mut items = input.open()?;
    let mut checking = Checking { seen: HashMap::new(), endpoint: None, models: BTreeMap::new(), lines: 0, max_body };
    let mut faults = Faults::default();
    for row in items.by_ref() {
        let fault = match row? {
            // After the first fault, which lines are wanted is not asked for any more: nothing will be sent.
            Ok(item) => {
                let is_wanted = faults.count == 0 && wanted.wants(&item)?;
                checking.look(&item, is_wanted).err().map(|what| Fault { line: item.line, what })
            }
            Err(fault) => Some(fault),
        };
        if let Some(fault) = fault {
            faults.add(fault);
        }
    }
    let Checking { endpoint, models, lines, .. } = checking;
    let Some((endpoint, _)) = endpoint.filter(|_| faults.count == 0) else {
        if faults.count == 0 {
            faults.add(Fault { line: 1, what: "the file has no calls".to_owned() });
        }
        return Ok(Err(faults));
    };
    wanted.has_ended()?;
    Ok(Ok(Checked { lines, digest: items.digest(), endpoint, models }))
}

impl Faults {
    fn add(&mut self, fault: Fault) {
        self.count += 1;
        if self.kept.len() < KEPT_FAULTS {
            self.kept.push(fault);
        }
    }
}

impl Checking {
    fn look(&mut self, item: &Item, is_wanted: bool) -> Result<(), String> {
        let hash = digest(&SHA256, item.custom_id.as_bytes());
        let hash = hash.as_ref().first_chunk::<16>().copied().unwrap_or_default();
        match self.seen.entry(hash) {
            Entry::Occupied(first) => {
                return Err(format!("custom_id {:?} is already that of line {}", item.custom_id, first.get()));
            }
            Entry::Vacant(place) => {
                place.insert(item.line);
            }
        }
        let (endpoint, line) = *self.endpoint.get_or_insert((item.endpoint, item.line));
        if endpoint != item.endpoint {
            let endpoints = format!("{} here, {endpoint} in line {line}", item.endpoint);
            return Err(format!("a file has one endpoint: {endpoints}"));
        }
        let bytes = u64::try_from(item.body.len()).unwrap_or(u64::MAX);
        if bytes > self.max_body {
            return Err(format!("the body has {bytes} bytes, limits.max_body_bytes is {}", self.max_body));
        }
        let peeked = peek(item.endpoint, &item.body).map_err(|error| error.message)?;
        if peeked.stream {
            return Err("stream: answers of a file are no streams; remove it".to_owned());
        }
        if let Some(reason) = peeked.live {
            return Err(format!("cannot be batched ({reason})"));
        }
        if !is_wanted {
            return Ok(());
        }
        self.lines += 1;
        let model = without_batch_suffix(&peeked.model).unwrap_or(&peeked.model).to_owned();
        self.models.entry(model).or_default().add(item.endpoint, bytes, output_limit(&item.body));
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, endpoint: Endpoint, bytes: u64, limit: Option<u64>) {
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        match limit {
            // Nothing is generated.
            _ if matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations) => {}
            Some(limit) => self.limited_output = self.limited_output.saturating_add(limit),
            None => self.unlimited += 1,
        }
    }
}

/// How many tokens a body's answer may have, all its choices together.
fn output_limit(body: &[u8]) -> Option<u64> {
    let caps: Caps<'_> = serde_json::from_slice(body).unwrap_or_default();
    let number = |raw: Option<&RawValue>| raw.and_then(|raw| raw.get().parse::<u64>().ok());
    let limit = [caps.max_completion_tokens, caps.max_output_tokens, caps.max_tokens].into_iter().find_map(number)?;
    Some(limit.saturating_mul(number(caps.n).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(content: &str) -> Result<Checked, Faults> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in.jsonl");
        std::fs::write(&file, content).unwrap();
        check(&Input::new(&file, Endpoint::ChatCompletions, None).unwrap(), 200, Wanted::All).unwrap()
    }

    fn line(id: &str, url: &str, body: &str) -> String {
        format!("{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"{url}\",\"body\":{body}}}\n")
    }

    const CHAT: &str = "/v1/chat/completions";
    const BODY: &str = r#"{"model":"m","messages":[]}"#;

    #[test]
    fn all_faults_of_a_file_are_found_with_their_lines() {
        let long = format!(r#"{{"model":"m","messages":["{}"]}}"#, "x".repeat(200));
        let content = [
            line("a", CHAT, BODY),
            line("a", CHAT, BODY),
            line("b", "/v1/embeddings", r#"{"model":"m","input":"x"}"#),
            line("c", CHAT, r#"{"messages":[]}"#),
            line("d", CHAT, r#"{"model":"m","messages":[],"stream":true}"#),
            line("e", CHAT, &long),
            line("f", CHAT, r#"{"model":"m","messages":[],"background":true}"#),
            line("g", CHAT, BODY),
        ]
        .concat();
        let faults = checked(&content).unwrap_err();
        let lines: Vec<u64> = faults.kept.iter().map(|fault| fault.line).collect();
        assert_eq!((lines.as_slice(), faults.count), (&[2, 3, 4, 5, 6, 7][..], 6));
        for (fault, part) in
            faults.kept.iter().zip(["line 1", "one endpoint", "model", "stream", "bytes", "background"])
        {
            assert!(fault.what.contains(part), "{fault:?}");
        }
    }

    #[test]
    fn tallies_are_by_model_and_know_the_limits() {
        let content = [
            r#"{"model":"m","messages":[],"max_tokens":10,"n":3}"#,
            r#"{"model":"m:batch","messages":[],"max_completion_tokens":5}"#,
            r#"{"model":"other","messages":[]}"#,
        ];
        let checked = checked(&content.join("\n")).unwrap();
        assert_eq!((checked.lines, checked.endpoint), (3, Endpoint::ChatCompletions));
        let bytes = u64::try_from(content[0].len() + content[1].len()).unwrap();
        assert_eq!(checked.models["m"], Tally { lines: 2, bytes, limited_output: 35, unlimited: 0 });
        assert_eq!(checked.models["other"].unlimited, 1);
    }

    #[test]
    fn an_empty_file_is_a_fault() {
        assert_eq!(checked("\n\n").unwrap_err().count, 1);
    }
}
