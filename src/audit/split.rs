//! Where one record ends and the next begins: lines, the objects of a JSON document, or rows of CSV.
//!
//! Which of them is decided by the beginning of the file. One buffer, grown to the longest record and at most to
//! [`LIMIT`]; a longer record is left out and reading goes on behind its line. Called by [`super::Auditor::read`].

use std::io::{self, Read};

use memchr::{memchr, memchr2};

use super::formats::csv;

/// A record beyond this is left out.
const LIMIT: usize = 64 * 1024 * 1024;
const CHUNK: usize = 1024 * 1024;

/// A record and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    /// The line it begins on, from 1.
    pub(super) line: u64,
    pub(super) kind: Kind<'a>,
}

/// What is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A line, or an object of a JSON document.
    Record(&'a [u8]),
    /// A row of CSV.
    Row(&'a [u8]),
    /// Left out.
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Lines,
    Json,
    Csv,
}

/// Cuts a stream into records.
pub(super) struct Splitter<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Where the current record begins in the buffer, and how far it was searched.
    start: usize,
    searched: usize,
    filled: usize,
    line: u64,
    mode: Option<Mode>,
    state: State,
    limit: usize,
}

/// What the search for the end knows from what it has already seen.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl<R: Read> Splitter<R> {
    /// From the beginning of a text.
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            filled: 0,
            line: 1,
            mode: None,
            state: State::default(),
            limit: LIMIT,
        }
    }

    /// The next record; none at the end. The last may lack its end.
    ///
    /// # Errors
    /// The reader's; what was read before is lost only from the current record on.
    pub(super) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let mode = match self.mode {
            Some(mode) => mode,
            None => self.decide()?,
        };
        loop {
            let unseen = self.buffer.get(self.searched..self.filled).unwrap_or_default();
            if let Some(length) = end(mode, unseen, &mut self.state) {
                let end = self.searched + length;
                return Ok(Some(self.take(mode, end)));
            }
            self.searched = self.filled;
            if self.searched - self.start > self.limit {
                return self.skip_line().map(Some);
            }
            if !self.fill()? {
                let left = self.filled - self.start;
                return Ok((left > 0).then(|| self.take(mode, self.filled)));
            }
        }
    }

    /// The current record up to `end`; the next begins there.
    fn take(&mut self, mode: Mode, end: usize) -> Item<'_> {
        let record = self.buffer.get(self.start..end).unwrap_or_default();
        let line = self.line;
        self.line += lines_in(record);
        self.start = end;
        self.searched = end;
        self.state = State::default();
        let kind = match mode {
            Mode::Lines => Kind::Record(record),
            Mode::Csv => Kind::Row(record),
            // Between two objects there are brackets, commas and white space.
            Mode::Json => Kind::Record(record.get(memchr(b'{', record).unwrap_or(record.len())..).unwrap_or_default()),
        };
        Item { line, kind }
    }

    /// Leaves out the record that has become too long, up to the next line break.
    fn skip_line(&mut self) -> io::Result<Item<'_>> {
        let line = self.line;
        self.state = State::default();
        let mut seen = self.buffer.get(self.start..self.filled).unwrap_or_default();
        // A row with a quote that never ends has line breaks: only its first line is given up.
        let mut at = memchr(b'\n', seen);
        while at.is_none() {
            self.start = 0;
            self.filled = 0;
            if !self.fill()? {
                break;
            }
            seen = self.buffer.get(..self.filled).unwrap_or_default();
            at = memchr(b'\n', seen);
        }
        self.start = at.map_or(self.filled, |at| self.start + at + 1);
        self.searched = self.start;
        self.line += 1;
        Ok(Item { line, kind: Kind::TooLong })
    }

    /// Reads more behind what is there; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        if self.buffer.len() - self.filled < CHUNK {
            self.buffer
                .resize((self.filled + CHUNK).max(self.buffer.len().saturating_mul(2).min(self.filled + LIMIT)), 0);
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        loop {
            match self.reader.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.filled += read;
                    return Ok(read > 0);
                }
            }
        }
    }

    /// What kind of file this is, by its first line.
    fn decide(&mut self) -> io::Result<Mode> {
        while self.filled < CHUNK && self.fill()? {
            let text = self.buffer.get(..self.filled).unwrap_or_default().trim_ascii_start();
            if memchr::memchr_iter(b'\n', text).count() > 1 {
                break;
            }
        }
        let text = self.buffer.get(..self.filled).unwrap_or_default().trim_ascii_start();
        let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mode = match first.first() {
            Some(b'[') => Mode::Json,
            // A broken line of JSONL is followed by a whole object, the first line of a document is not.
            Some(b'{') if goes_on(first) && !second.is_empty() && !is_object(second) => Mode::Json,
            Some(b'{') | None => Mode::Lines,
            Some(_) if csv::is_header(first) => Mode::Csv,
            Some(_) => Mode::Lines,
        };
        self.mode = Some(mode);
        Ok(mode)
    }
}

/// Whether a JSON value is not finished on this line.
fn goes_on(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

fn is_object(line: &[u8]) -> bool {
    line.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

fn lines_in(record: &[u8]) -> u64 {
    u64::try_from(memchr::memchr_iter(b'\n', record).count()).unwrap_or(u64::MAX)
}

/// How many of `bytes` belong to the record, its end included.
fn end(mode: Mode, bytes: &[u8], state: &mut State) -> Option<usize> {
    match mode {
        Mode::Lines => memchr(b'\n', bytes).map(|at| at + 1),
        Mode::Csv => row_end(bytes, state),
        Mode::Json => object_end(bytes, state),
    }
}

/// A line break outside quotes; a doubled quote opens and closes again at once.
fn row_end(bytes: &[u8], state: &mut State) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let found = if state.quoted { memchr(b'"', rest) } else { memchr2(b'"', b'\n', rest) }?;
        at += found + 1;
        match rest.get(found) {
            Some(b'\n') => return Some(at),
            _ => state.quoted = !state.quoted,
        }
    }
}

/// The brace that closes the outermost open object.
fn object_end(bytes: &[u8], state: &mut State) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        if state.escaped {
            state.escaped = false;
            rest.first()?;
            at += 1;
            continue;
        }
        if state.quoted {
            let found = memchr2(b'"', b'\\', rest)?;
            at += found + 1;
            match rest.get(found) {
                Some(b'"') => state.quoted = false,
                _ => state.escaped = true,
            }
            continue;
        }
        let found = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}'))?;
        at += found + 1;
        match rest.get(found) {
            // Outside of objects a quote means nothing that could be closed.
            Some(b'"') => state.quoted = state.depth > 0,
            Some(b'{') => state.depth += 1,
            _ if state.depth > 1 => state.depth -= 1,
            _ if state.depth == 1 => return Some(at),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte at a time, as the worst network file system would.
    struct Slowly<'a>(&'a [u8]);
    impl Read for Slowly<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            out[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn split(text: &str) -> Vec<(u64, String)> {
        fn all(mut splitter: Splitter<impl Read>) -> Vec<(u64, String)> {
            let mut items = Vec::new();
            while let Some(item) = splitter.next().unwrap() {
                let text = match item.kind {
                    Kind::Record(bytes) | Kind::Row(bytes) => std::str::from_utf8(bytes).unwrap().trim().to_owned(),
                    Kind::TooLong => "too long".to_owned(),
                };
                items.push((item.line, text));
            }
            items
        }
        let items = all(Splitter::new(text.as_bytes()));
        assert_eq!(all(Splitter::new(Slowly(text.as_bytes()))), items, "in pieces");
        items
    }

    fn texts(text: &str) -> Vec<String> {
        split(text).into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()).collect()
    }

    #[test]
    fn lines_are_records_and_the_last_needs_no_end() {
        assert_eq!(
            split("{}\n{\"a\":1}\n\nx"),
            [(1, "{}".into()), (2, "{\"a\":1}".into()), (3, "".into()), (4, "x".into())]
        );
        assert_eq!(split(""), []);
    }

    #[test]
    fn documents_are_cut_into_their_objects() {
        assert_eq!(texts("[{\"a\":\"}{\\\"\"},\n {\"b\":{}}]"), ["{\"a\":\"}{\\\"\"}", "{\"b\":{}}"]);
        assert_eq!(texts("{\n \"a\": 1\n}\n{\n \"b\": [{}]\n}\n"), ["{\n \"a\": 1\n}", "{\n \"b\": [{}]\n}"]);
        assert_eq!(texts("{\"data\":[\n{\"a\":1},\n{\"b\":2}\n]}"), ["{\"data\":[\n{\"a\":1},\n{\"b\":2}\n]}"]);
        assert_eq!(split("[\n{\"a\":1},\n{\"b\":2}]")[1].0, 2);
    }

    #[test]
    fn a_broken_first_line_does_not_hide_the_others() {
        assert_eq!(texts("{\"a\":\n{\"b\":1}\n"), ["{\"a\":", "{\"b\":1}"]);
    }

    #[test]
    fn quoted_line_breaks_belong_to_their_row() {
        let rows = texts("generation_id,created_at,cost_total\n\"a\nb\",\"say \"\"x\"\"\",1\nc,d,2");
        assert_eq!(rows, ["generation_id,created_at,cost_total", "\"a\nb\",\"say \"\"x\"\"\",1", "c,d,2"]);
    }

    #[test]
    fn what_is_too_long_is_left_out_and_the_rest_read() {
        let text = format!("{}\nshort\n", "x".repeat(3 * CHUNK));
        let mut splitter = Splitter::new(text.as_bytes());
        splitter.limit = CHUNK;
        assert_eq!(splitter.next().unwrap(), Some(Item { line: 1, kind: Kind::TooLong }));
        assert_eq!(splitter.next().unwrap(), Some(Item { line: 2, kind: Kind::Record(b"short\n") }));
        assert_eq!(splitter.next().unwrap(), None);
        let quote = format!("generation_id,created_at\n\"never\nclosed,1\n{}", "a,b\n".repeat(CHUNK));
        let mut splitter = Splitter::new(quote.as_bytes());
        splitter.limit = CHUNK;
        assert!(matches!(splitter.next().unwrap(), Some(Item { line: 1, kind: Kind::Row(_) })));
        assert_eq!(splitter.next().unwrap(), Some(Item { line: 2, kind: Kind::TooLong }));
        assert_eq!(splitter.next().unwrap(), Some(Item { line: 3, kind: Kind::Row(b"closed,1\n") }));
    }
}
