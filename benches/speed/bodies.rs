//! Chat requests that look like real ones to a compressor, each different from all others.

use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: &str = "the of and to in is that for it as was with be by on not he his but at are this have from or had an \
    they which one you were all her she there would their we him been has when who will no more if out so up said what \
    its about than into them can only other time new some could these two may first then do any like my now over such \
    our man me even most made after also did many off before must well back through years much where your way down \
    should because long each just state those people too mister how little good world make very year still see own \
    work men day get here old life both between being under three never know same last another while us might great";
/// Where the number of a call goes.
const MARK: &[u8] = b"0000000000000000";

/// Prepared calls; each use gets its own number.
#[derive(Debug)]
pub(crate) struct Bodies {
    prepared: Vec<(Vec<u8>, usize)>,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Bodies {
    /// 500 calls with bodies of `length` bytes, wrapped into requests by `request`.
    pub(crate) fn new(length: usize, request: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let prepared = (0..500).filter_map(|_| {
            let whole = request(&chat(length));
            let at = memchr::memmem::find(&whole, MARK)?;
            Some((whole, at))
        });
        Self { prepared: prepared.collect() }
    }

    /// The next call, in `buffer`.
    pub(crate) fn next(&self, buffer: &mut Vec<u8>) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        buffer.clear();
        if let Some((whole, at)) = fastrand::choice(&self.prepared) {
            buffer.extend_from_slice(whole);
            for (place, digit) in buffer.iter_mut().skip(*at).zip(format!("{number:016x}").into_bytes()) {
                *place = digit;
            }
        }
    }
}

/// A chat request of `length` bytes.
pub(crate) fn chat(length: usize) -> Vec<u8> {
    let head = r#"{"model":"gpt-5-mini","messages":[{"role":"system","content":"You label texts."},{"role":"user","content":"0000000000000000 "#;
    let tail = r#""}],"temperature":0.2,"max_completion_tokens":256}"#;
    [head, &prose(length.saturating_sub(head.len() + tail.len())), tail].concat().into_bytes()
}

/// English-like text of `length` bytes.
pub(crate) fn prose(length: usize) -> String {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        text.push_str(fastrand::choice(&words).copied().unwrap_or_default());
        text.push(' ');
        if fastrand::u8(..) < 12 {
            text.push_str(&fastrand::u32(..).to_string());
        }
    }
    text.truncate(length);
    text
}
