//! An incremental reader of server-sent events: bytes in as they arrive, events out.
//!
//! Lines may end in LF, CR or CRLF and may be cut anywhere. Memory is bounded: an event larger than the limit is
//! skipped and counted, and reading goes on behind it. Used to meter live streams and to re-read replayed ones.

/// One event, borrowed from the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The `event:` field; empty when there was none (as in all chat streams).
    pub event: &'a [u8],
    /// The `data:` lines, joined by newlines.
    pub data: &'a [u8],
}

impl SseEvent<'_> {
    /// Whether this is the `[DONE]` that ends chat and completion streams (providers.md, section 1.14).
    pub fn is_done(&self) -> bool {
        self.data.trim_ascii() == b"[DONE]"
    }
}

/// The state between two pieces of a stream.
#[derive(Debug)]
pub struct SseReader {
    limit: usize,
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    too_large: bool,
    after_cr: bool,
    at_start: bool,
    skipped: u64,
}

impl SseReader {
    /// A reader that keeps at most `limit` bytes of one line, and of one event's data and name.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            has_data: false,
            too_large: false,
            after_cr: false,
            at_start: true,
            skipped: 0,
        }
    }

    /// Takes the next bytes and hands over each event that they complete. An event that no blank line ended is
    /// never handed over: the stream was cut.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(SseEvent<'_>)) {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (part, rest) = bytes.split_at(end);
            self.line_ends(part, &mut on_event);
            bytes = match rest {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => rest,
            };
            self.after_cr = rest == b"\r";
        }
        self.keep(bytes);
    }

    /// How many events were too large to be kept.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    fn keep(&mut self, part: &[u8]) {
        if self.line.len().saturating_add(part.len()) > self.limit {
            self.too_large = true;
            // What is left still tells a blank line from one that is not, also where all of it came at once.
            self.line.truncate(1);
            if self.line.is_empty() {
                self.line.extend(part.first());
            }
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn line_ends(&mut self, part: &[u8], on_event: &mut impl FnMut(SseEvent<'_>)) {
        if self.line.is_empty() && part.len() <= self.limit {
            self.take_line(part, on_event);
            return;
        }
        self.keep(part);
        let line = std::mem::take(&mut self.line);
        self.take_line(&line, on_event);
        self.line = line;
        self.line.clear();
    }

    fn take_line(&mut self, line: &[u8], on_event: &mut impl FnMut(SseEvent<'_>)) {
        let line =
            if std::mem::take(&mut self.at_start) { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.is_empty() {
            self.dispatch(on_event);
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.add_data(value),
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            _ => {} // comments (an empty name), `id`, `retry`, and what may come
        }
    }

    fn add_data(&mut self, value: &[u8]) {
        if self.data.len().saturating_add(value.len()) >= self.limit {
            self.too_large = true;
            self.data = Vec::new();
            return;
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        self.has_data = true;
    }

    fn dispatch(&mut self, on_event: &mut impl FnMut(SseEvent<'_>)) {
        if self.too_large {
            self.skipped = self.skipped.saturating_add(1);
        } else if self.has_data {
            on_event(SseEvent { event: &self.event, data: &self.data });
        }
        self.event.clear();
        self.data.clear();
        self.has_data = false;
        self.too_large = false;
    }
}

#[cfg(test)]
mod tests;
