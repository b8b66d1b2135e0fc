//! The file that is run, as items in its own order: the provider's batch lines, bare bodies, or rows of a CSV over a template.
//!
//! Streams: one line is in memory at a time. The same file is read up to three times (checked, submitted, collected);
//! each pass hashes every byte, so that a file that changes in between is noticed before ids and answers are mixed up.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{Context as Hasher, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::csv::{self, Template};
use crate::cli::UsageError;
use crate::domain::lane::Endpoint;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// One call of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Where it begins, from 1.
    pub(super) line: u64,
    /// The file's own, or `line-N` / `row-N`.
    pub(super) custom_id: String,
    pub(super) endpoint: Endpoint,
    pub(super) body: Vec<u8>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) what: String,
}

/// A line, read.
pub(super) type Row = Result<Item, Fault>;

/// The file and how it is to be read.
#[derive(Clone, Debug)]
pub(super) struct Input {
    path: PathBuf,
    /// For bodies that do not name their endpoint.
    endpoint: Endpoint,
    /// The file is a CSV, and each row fills this in.
    template: Option<Template>,
}

/// What the first line showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Batch,
    Bare,
}

#[derive(Deserialize)]
struct Line<'a> {
    custom_id: Option<String>,
    method: Option<String>,
    url: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

impl Input {
    /// # Errors
    /// A template that cannot be read.
    pub(super) fn new(path: &Path, endpoint: Endpoint, template: Option<&Path>) -> anyhow::Result<Self> {
        let template = match template {
            None => None,
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(Template::new(&text).with_context(|| format!("{} is no template", file.display()))?)
            }
        };
        Ok(Self { path: path.to_owned(), endpoint, template })
    }

    /// Starts a pass.
    ///
    /// # Errors
    /// A file that cannot be opened, or a CSV whose header does not fit the template.
    pub(super) fn open(&self) -> anyhow::Result<Items> {
        let cannot = || format!("cannot read {}", self.path.display());
        let file = File::open(&self.path).with_context(cannot)?;
        let mut hasher = Hasher::new(&SHA256);
        if let Some(template) = &self.template {
            hasher.update(template.text().as_bytes());
        }
        let mut reader = BufReader::with_capacity(1 << 18, Hashing { file, hasher });
        let begin = reader.fill_buf().with_context(cannot)?;
        if let Some(instead) = self.misplaced(begin) {
            return Err(UsageError(format!("{}: {instead}", self.path.display())).into());
        }
        if begin.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        let mut items = Items { reader, line: 0, shape: None, endpoint: self.endpoint, rows: None, count: 0 };
        if let Some(template) = &self.template {
            let header = csv::record(&mut items.reader, &mut items.line).with_context(cannot)?;
            let header = match header.map(csv::Record::into_fields) {
                Some(Ok(header)) => header,
                Some(Err(broken)) => bail!("{}:1: the header cannot be read: {broken}", self.path.display()),
                None => bail!("{} is empty: its first line names the columns", self.path.display()),
            };
            items.rows = Some(template.over(&header).with_context(|| self.path.display().to_string())?);
        }
        Ok(items)
    }

    /// What to do with a file that is none of lines, where its beginning shows what it is instead: else each of its lines
    /// would be a fault.
    fn misplaced(&self, begin: &[u8]) -> Option<&'static str> {
        if begin.starts_with(GZIP) || begin.starts_with(ZSTD) {
            return Some("is packed: unpack it first");
        }
        if self.template.is_none() && self.path.extension().is_some_and(|name| name.eq_ignore_ascii_case("csv")) {
            return Some("a CSV needs --template FILE, a request body with {{column}} where a column belongs");
        }
        let text = begin.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begin);
        let array = self.template.is_none() && text.trim_ascii_start().starts_with(b"[");
        array.then_some("is a JSON array: write one call on each line, such as by `jq -c '.[]'`")
    }
}

/// One pass over the file.
#[derive(Debug)]
pub(super) struct Items {
    reader: BufReader<Hashing>,
    line: u64,
    shape: Option<Shape>,
    endpoint: Endpoint,
    rows: Option<csv::Filled>,
    /// Rows so far.
    count: u64,
}

impl Items {
    /// What the bytes read so far hash to (with the template): after the last item, the file's identity.
    pub(super) fn digest(&self) -> String {
        let digest = self.reader.get_ref().hasher.clone().finish();
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn row(&mut self) -> io::Result<Option<Row>> {
        let Some(rows) = &self.rows else { return self.json() };
        let Some(record) = csv::record(&mut self.reader, &mut self.line)? else { return Ok(None) };
        let line = record.line;
        self.count += 1;
        let item = rows.fill(&record, self.count).map(|(custom_id, body)| Item {
            line,
            custom_id,
            endpoint: self.endpoint,
            body,
        });
        Ok(Some(item.map_err(|what| Fault { line, what })))
    }

    fn json(&mut self) -> io::Result<Option<Row>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if self.reader.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let text = bytes.trim_ascii();
            if !text.is_empty() {
                let line = self.line;
                return Ok(Some(self.item(line, text).map_err(|what| Fault { line, what })));
            }
        }
    }

    fn item(&mut self, line: u64, bytes: &[u8]) -> Result<Item, String> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 (at byte {})", error.valid_up_to()))?;
        if !text.starts_with('{') {
            return Err("not a JSON object".to_owned());
        }
        let read: Result<Line<'_>, String> = serde_json::from_str(text).map_err(|error| {
            // The position in the line is all that helps: the line's number is said already.
            format!("not a valid line: {}", error.to_string().replace("line 1 column", "column"))
        });
        let read = match (self.shape, read) {
            // A body may have a member of the same name and another type.
            (Some(Shape::Bare), _) => None,
            (_, Ok(read)) => Some(read),
            (_, Err(what)) => return Err(what),
        };
        let names_itself = |read: &Line<'_>| read.custom_id.is_some() || read.body.is_some() || read.params.is_some();
        let shape = match (self.shape, &read) {
            (Some(shape), _) => shape,
            (None, Some(read)) if names_itself(read) => Shape::Batch,
            (None, _) => Shape::Bare,
        };
        self.shape = Some(shape);
        match read {
            Some(read) if shape == Shape::Batch => batch_line(line, read),
            _ => Ok(Item {
                line,
                custom_id: format!("line-{line}"),
                endpoint: self.endpoint,
                body: text.as_bytes().to_vec(),
            }),
        }
    }
}

impl Iterator for Items {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<io::Result<Row>> {
        self.row().transpose()
    }
}

/// The provider's own form (providers.md, sections 1.3 and 2.2).
fn batch_line(line: u64, read: Line<'_>) -> Result<Item, String> {
    let custom_id = read.custom_id.filter(|id| !id.is_empty()).ok_or("custom_id is missing or empty")?;
    let (endpoint, body) = match (read.body, read.params) {
        (Some(_), Some(_)) => return Err("has both body and params: a line has one of them".to_owned()),
        (None, None) => return Err("body is missing".to_owned()),
        (None, Some(params)) => (Endpoint::Messages, params),
        (Some(body), None) => {
            if let Some(method) = read.method.filter(|method| method != "POST") {
                return Err(format!("method must be POST, not {method:?}"));
            }
            let url = read.url.ok_or("url is missing: write the endpoint, such as /v1/chat/completions")?;
            (url.parse().map_err(|error: String| format!("url: {error}"))?, body)
        }
    };
    Ok(Item { line, custom_id, endpoint, body: body.get().as_bytes().to_vec() })
}

/// Hashes what is read.
struct Hashing {
    file: File,
    hasher: Hasher,
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashing").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
