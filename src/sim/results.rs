//! A result file while it is written: pieces of about a megabyte, so that nothing is copied as it grows.

use bytes::Bytes;

/// Bytes after which a new piece begins.
const PIECE: usize = 1 << 20;

/// How lines are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Lines end in CR LF.
    pub(super) crlf: bool,
    /// Every third line is followed by an empty one.
    pub(super) blank_lines: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct Results {
    layout: Layout,
    lines: usize,
    pieces: Vec<Bytes>,
    current: Vec<u8>,
    at_end: Vec<Vec<u8>>,
}

impl Results {
    /// An empty file.
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, lines: 0, pieces: Vec::new(), current: Vec::new(), at_end: Vec::new() }
    }

    /// Whether there is no line.
    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0 && self.at_end.is_empty()
    }

    /// Adds a line (without its end).
    pub(super) fn line(&mut self, line: &[u8]) {
        if self.current.is_empty() {
            self.current.reserve(PIECE + line.len());
        }
        self.lines += 1;
        let end: &[u8] = if self.layout.crlf { b"\r\n" } else { b"\n" };
        self.current.extend_from_slice(line);
        self.current.extend_from_slice(end);
        if self.layout.blank_lines && self.lines % 3 == 1 {
            self.current.extend_from_slice(end);
        }
        if self.current.len() >= PIECE {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.current)));
        }
    }

    /// Keeps a line for the end of the file.
    pub(super) fn line_at_end(&mut self, line: Vec<u8>) {
        self.at_end.push(line);
    }

    /// The file's pieces; `None` where it has no line. `cut` ends it in the middle of its last line.
    pub(super) fn finish(mut self, cut: bool) -> Option<Vec<Bytes>> {
        for line in std::mem::take(&mut self.at_end) {
            self.line(&line);
        }
        if self.lines == 0 {
            return None;
        }
        if !self.current.is_empty() {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.current)));
        }
        if let Some(last) = self.pieces.last_mut().filter(|_| cut) {
            let text = last.trim_ascii_end();
            let start = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
            last.truncate(start + (text.len() - start) / 2);
        }
        Some(self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(layout: Layout, cut: bool) -> String {
        let mut results = Results::new(layout);
        results.line_at_end(b"last!".to_vec());
        results.line(b"one");
        results.line(b"two");
        String::from_utf8(results.finish(cut).unwrap().concat()).unwrap()
    }

    #[test]
    fn lines_end_as_the_layout_says() {
        assert_eq!(written(Layout::default(), false), "one\ntwo\nlast!\n");
        assert_eq!(written(Layout { crlf: true, blank_lines: true }, false), "one\r\n\r\ntwo\r\nlast!\r\n");
        assert_eq!(written(Layout::default(), true), "one\ntwo\nla");
        assert_eq!(Results::new(Layout::default()).finish(false), None);
    }
}
