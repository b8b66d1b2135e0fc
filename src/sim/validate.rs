//! The validation of a batch's input file (providers.md, sections 1.6, 1.8, 1.9): the whole file, every error.
//!
//! Pure and synchronous; `life` runs it off the async threads. A valid file becomes an [`Input`]: where each line's
//! `custom_id` and body lie, so that no line is taken apart twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::sim::answers::{Call, Endpoint};
use crate::sim::dialect::Dialect;
use crate::sim::limits::{Limits, MAX_EMBEDDING_INPUTS, MAX_LISTED_ERRORS};
use crate::sim::peek;
use crate::sim::reply::ApiFailure;

/// One entry of `errors.data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineError {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
    /// 1-based.
    pub(super) line: Option<usize>,
}

impl LineError {
    /// An error of the file as a whole.
    pub(super) fn whole(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, line: None }
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        json!({"code": self.code, "message": self.message, "param": self.param, "line": self.line})
    }
}

/// A valid input file.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: Bytes,
    pub(super) lines: Vec<Line>,
    pub(super) model: String,
    /// Prompt tokens of all lines.
    pub(super) tokens: u64,
}

/// Where the parts of a line lie in the file: JSON text each.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) custom_id: Range<usize>,
    pub(super) body: Range<usize>,
}

impl Input {
    /// The text at `range`.
    pub(super) fn text(&self, range: &Range<usize>) -> &str {
        // The range was made from a valid text within the same bytes.
        self.bytes.get(range.clone()).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// What a file is checked against.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) dialect: Dialect,
    pub(super) endpoint: Endpoint,
    pub(super) limits: Limits,
    /// The model of all lines, where the batch names it.
    pub(super) job_model: Option<String>,
}

/// Checks a whole file against `terms`.
///
/// # Errors
/// All faults found, at most [`MAX_LISTED_ERRORS`].
pub(super) fn validate(bytes: &Bytes, terms: &Terms) -> Result<Input, Vec<LineError>> {
    let limits = terms.limits;
    if bytes.len() as u64 > limits.max_bytes {
        let message = format!("The input file is larger than the limit of {} bytes.", limits.max_bytes);
        return Err(vec![LineError::whole("file_too_large", message)]);
    }
    if bytes.trim_ascii().is_empty() {
        let message = "The input file is empty. Please ensure that the batch contains at least one request.";
        return Err(vec![LineError::whole("empty_file", message)]);
    }
    let content = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let count = memchr::memchr_iter(b'\n', content).count() + 1;
    if count > limits.max_requests {
        let message =
            format!("The input file has {count} requests. The limit is {} requests in one batch.", limits.max_requests);
        return Err(vec![LineError::whole("too_many_tasks", message)]);
    }
    let mut check = Check::new(bytes, terms, count);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', content).chain([content.len()]) {
        check.line(content.get(start..end).unwrap_or_default());
        start = end + 1;
    }
    check.finish()
}

struct Check<'a> {
    bytes: &'a Bytes,
    terms: &'a Terms,
    number: usize,
    model: Option<Cow<'a, str>>,
    ids: HashSet<Cow<'a, str>>,
    lines: Vec<Line>,
    tokens: u64,
    embedding_inputs: usize,
    errors: Vec<LineError>,
}

impl<'a> Check<'a> {
    fn new(bytes: &'a Bytes, terms: &'a Terms, count: usize) -> Self {
        let (ids, lines) = (HashSet::with_capacity(count), Vec::with_capacity(count));
        Self { bytes, terms, number: 0, model: None, ids, lines, tokens: 0, embedding_inputs: 0, errors: Vec::new() }
    }

    fn line(&mut self, line: &'a [u8]) {
        self.number += 1;
        let text = str::from_utf8(line).ok();
        let members = text.and_then(|text| peek::members(text, &["custom_id", "method", "url", "body"]).ok());
        let Some([custom_id, method, url, body]) = members else {
            self.error("invalid_json_line", None, "This line is not parseable as valid JSON.".to_owned());
            return;
        };
        self.custom_id(custom_id);
        if self.terms.dialect.rules().bare_lines {
            if method.is_some() || url.is_some() {
                self.error("extra_forbidden", None, "Extra inputs are not permitted".to_owned());
            }
        } else {
            self.call(method, url);
        }
        match body {
            Some(body) => self.body(body),
            None => self.missing("body"),
        }
        if let (Some(custom_id), Some(body)) = (custom_id, body) {
            self.lines.push(Line { custom_id: self.range_of(custom_id), body: self.range_of(body) });
        }
    }

    /// Method and URL of a line.
    fn call(&mut self, method: Option<&'a RawValue>, url: Option<&'a RawValue>) {
        if self.text("method", method).is_some_and(|method| method != "POST") {
            self.error("invalid_method", Some("method"), "Only the method POST is supported.".to_owned());
        }
        let (terms, endpoint) = (self.terms, self.terms.endpoint.path());
        let fits = |url: &str| url.starts_with(endpoint) || terms.dialect.endpoint(url).as_deref() == Some(endpoint);
        if self.text("url", url).is_some_and(|url| !fits(&url)) {
            let message = "The URL provided for this request does not prefix-match the batch endpoint.";
            self.error("invalid_url", Some("url"), message.to_owned());
        }
    }

    fn custom_id(&mut self, raw: Option<&'a RawValue>) {
        let Some(custom_id) = self.text("custom_id", raw) else { return };
        if custom_id.is_empty() {
            self.error("invalid_value", Some("custom_id"), "The custom_id must not be empty.".to_owned());
        } else if !self.ids.insert(custom_id.clone()) {
            let message = format!(
                "The custom_id '{custom_id}' for this request is a duplicate of another request. \
                 The custom_id parameter must be unique for each request in a batch."
            );
            self.error("duplicate_custom_id", Some("custom_id"), message);
        }
    }

    fn body(&mut self, body: &'a RawValue) {
        let call = match Call::parse(self.terms.endpoint, body.get()) {
            Ok(call) => call,
            Err(failure) => return self.refused(&failure),
        };
        match &self.model {
            None => self.model = Some(call.model.clone()),
            Some(first) if *first != call.model && !self.terms.dialect.rules().mixed_models => {
                let message = format!(
                    "The model '{}' for this request does not match the rest of the batch. \
                     Each batch must contain requests for a single model.",
                    call.model
                );
                self.error("mismatched_model", Some("body.model"), message);
            }
            Some(_) => {}
        }
        if !call.names_model {
            self.error(
                "missing_required_parameter",
                Some("body.model"),
                "Missing required parameter: 'model'.".to_owned(),
            );
        }
        if call.model.ends_with("-no-batch") || call.model.ends_with(":batch") {
            let message = format!("The provided model '{}' is not supported by the Batch API.", call.model);
            self.error("model_not_found", Some("body.model"), message);
        }
        if call.wants_stream() {
            let message = "Streaming is not supported in the Batch API.";
            self.error("invalid_request", Some("body.stream"), message.to_owned());
        }
        if call.is_background() {
            let message = "Background mode is not supported in the Batch API.";
            self.error("invalid_request", Some("body.background"), message.to_owned());
        }
        if self.terms.endpoint == Endpoint::Embeddings {
            self.embedding_inputs += call.embedding_inputs();
        }
        self.tokens += call.input_tokens();
    }

    /// The text `name`; an error where it is not there or no text.
    fn text(&mut self, name: &'static str, raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
            self.missing(name);
            return None;
        };
        let text = peek::text(raw);
        if text.is_none() {
            self.error("invalid_type", Some(name), format!("Invalid type for '{name}': expected a string."));
        }
        text
    }

    fn missing(&mut self, name: &'static str) {
        self.error("missing_required_parameter", Some(name), format!("Missing required parameter: '{name}'."));
    }

    fn refused(&mut self, failure: &ApiFailure) {
        let param = failure.param.as_ref().map_or_else(|| "body".to_owned(), |param| format!("body.{param}"));
        self.error(failure.code.unwrap_or("invalid_request"), Some(&param), failure.message.clone());
    }

    fn error(&mut self, code: &'static str, param: Option<&str>, message: String) {
        if self.errors.len() < MAX_LISTED_ERRORS {
            self.errors.push(LineError { code, message, param: param.map(str::to_owned), line: Some(self.number) });
        }
    }

    /// Where `raw`, which was borrowed from the file, lies in it.
    fn range_of(&self, raw: &RawValue) -> Range<usize> {
        let start = raw.get().as_ptr().addr() - self.bytes.as_ptr().addr();
        start..start + raw.get().len()
    }

    fn finish(mut self) -> Result<Input, Vec<LineError>> {
        if self.embedding_inputs > MAX_EMBEDDING_INPUTS {
            let message = format!(
                "The batch has {} embedding inputs. The limit is {MAX_EMBEDDING_INPUTS} over all requests of a batch.",
                self.embedding_inputs
            );
            self.errors.push(LineError::whole("too_many_embedding_inputs", message));
        }
        if self.errors.is_empty() {
            let model = self.terms.job_model.clone().or_else(|| self.model.map(Cow::into_owned)).unwrap_or_default();
            Ok(Input { bytes: self.bytes.clone(), lines: self.lines, model, tokens: self.tokens })
        } else {
            Err(self.errors)
        }
    }
}
