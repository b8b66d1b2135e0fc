//! The lines of a batch, in and out, in the shape of the endpoint's API. Each result line is read on its own: one that
//! cannot be used affects nobody else.

use bytes::Bytes;

use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::{Api, Endpoint};
use crate::wire::anthropic;
use crate::wire::openai::{batch_file, output_line};

/// How the lines of a batch are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineForm {
    /// With method and URL (providers.md, section 1.6).
    OpenAi,
    /// `custom_id` and `body` alone (section 4.5).
    Bare,
    /// Inside the call that creates the batch (section 2.2).
    Anthropic,
    /// The same as `custom_id` and `body` alone (section 4.12); what stands around them is the provider's own.
    Listed,
}

impl LineForm {
    /// That of an API's own provider; those of others are not longer.
    pub const fn of(api: Api) -> Self {
        match api {
            Api::OpenAi => Self::OpenAi,
            Api::Anthropic => Self::Anthropic,
        }
    }
}

/// What a line says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineOutcome {
    /// The model API answered, with whatever status.
    Answered {
        /// HTTP status.
        status: u16,
        /// The provider's id of the exchange: opaque.
        provider_request_id: Option<String>,
        /// The JSON body, byte for byte.
        body: Bytes,
    },
    /// It was not executed (`response: null`).
    NotExecuted {
        /// `batch_expired`, `batch_cancelled`, `request_timeout`, …
        code: String,
        /// For people.
        message: String,
    },
}

/// Why a line cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// Nothing but white space: harmless.
    Blank,
    /// Not JSON of the expected form (truncated, not UTF-8, …).
    Unreadable,
    /// It breaks off or is no JSON, but it begins as the answer of this request: that one was executed.
    Damaged(RequestId),
    /// No `custom_id` of ours.
    UnknownId,
    /// Neither an answer nor an error.
    Empty,
}

impl BadLine {
    /// For the log and the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Unreadable => "unreadable",
            Self::Damaged(_) => "damaged",
            Self::UnknownId => "unknown_id",
            Self::Empty => "empty",
        }
    }
}

/// How many bytes the input of a batch has beside its lines.
pub fn frame_length(api: Api) -> u64 {
    let (open, close) = frame(api);
    u64::try_from(open.len() + close.len()).unwrap_or(u64::MAX)
}

/// How many bytes a request takes in the input of a batch: known before its body is read, so that the input's
/// `Content-Length` is known before it is sent.
pub fn line_length(form: LineForm, endpoint: Endpoint, body_len: u64) -> u64 {
    match form {
        LineForm::OpenAi => batch_file::line_length(endpoint, body_len),
        LineForm::Bare => batch_file::bare_line_length(body_len),
        // With what parts it from the one before.
        LineForm::Listed => batch_file::bare_line_length(body_len).saturating_add(1),
        LineForm::Anthropic => anthropic::line::line_length(body_len),
    }
}

/// What stands before the first line and after the last one.
pub const fn frame(api: Api) -> (&'static [u8], &'static [u8]) {
    match api {
        Api::OpenAi => (b"", b""),
        Api::Anthropic => anthropic::line::FRAME,
    }
}

/// Where a line stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// In which batch.
    pub batch: BatchId,
    /// Whose lines have this endpoint.
    pub endpoint: Endpoint,
    /// No line stands before it.
    pub first: bool,
}

/// Appends one line.
pub fn push_line(out: &mut Vec<u8>, form: LineForm, place: Place, id: RequestId, body: &[u8]) {
    match form {
        LineForm::OpenAi => batch_file::push_line(out, id, place.endpoint, body),
        LineForm::Bare => batch_file::push_bare_line(out, id, body),
        LineForm::Listed => {
            out.push(if place.first { b' ' } else { b',' });
            batch_file::push_bare_line(out, id, body);
        }
        LineForm::Anthropic => anthropic::line::push_line(out, place.batch, id, body, place.first),
    }
}

/// Reads a result line (with or without its line end). The answer's body shares the line's memory. Bytes that are not
/// UTF-8 are replaced: the answer was paid for, and a character less is better than none of it.
pub fn parse(api: Api, line: &Bytes) -> Result<(RequestId, LineOutcome), BadLine> {
    let read = match api {
        Api::OpenAi => output_line::parse,
        Api::Anthropic => anthropic::line::parse,
    };
    let trimmed = line.trim_ascii();
    if trimmed.is_empty() {
        return Err(BadLine::Blank);
    }
    match std::str::from_utf8(trimmed) {
        Ok(text) => read(line, text),
        Err(_not_utf8) => {
            let repaired = Bytes::from(String::from_utf8_lossy(trimmed).into_owned());
            read(&repaired, std::str::from_utf8(&repaired).unwrap_or_default())
        }
    }
}

/// The `custom_id` of a damaged line, where that much of it is left.
pub(in crate::wire) fn id_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("\"custom_id\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    Some(rest.split_once('"')?.0)
}
