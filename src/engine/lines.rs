//! Cuts a downloaded file into lines as it arrives. Lines within one network chunk share its memory; only a line that
//! spans chunks is copied. Nothing larger than one line is ever held.

use bytes::{Bytes, BytesMut};

/// Longer lines cannot be an answer to a request we sent: they are dropped up to their end.
const MAX_LINE_BYTES: usize = 256 << 20;

/// The lines of a stream.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: BytesMut,
    skipping: bool,
    oversized: u64,
}

impl LineSplitter {
    /// Takes the next chunk; calls `line` for each line that is complete, without its `\n`.
    pub(crate) fn feed(&mut self, mut chunk: Bytes, mut line: impl FnMut(Bytes)) {
        while let Some(end) = memchr::memchr(b'\n', &chunk) {
            let piece = chunk.split_to(end + 1);
            let piece = piece.slice(..end);
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.is_empty() {
                line(piece);
            } else {
                self.partial.extend_from_slice(&piece);
                line(self.partial.split().freeze());
            }
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + chunk.len() > MAX_LINE_BYTES {
            self.partial = BytesMut::new();
            self.skipping = true;
            self.oversized += 1;
        } else {
            self.partial.extend_from_slice(&chunk);
        }
    }

    /// The last line, when the file does not end with a newline.
    pub(crate) fn finish(self) -> Option<Bytes> {
        (!self.partial.is_empty()).then(|| self.partial.freeze())
    }

    /// How many lines were too long.
    pub(crate) const fn oversized(&self) -> u64 {
        self.oversized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.feed(Bytes::copy_from_slice(chunk), |line| lines.push(line.to_vec()));
        }
        lines.extend(splitter.finish().map(|line| line.to_vec()));
        lines
    }

    #[test]
    fn lines_survive_any_cut_and_a_missing_final_newline() {
        assert_eq!(split(&[b"a\nb", b"c", b"\n\nd"]), [&b"a"[..], b"bc", b"", b"d"]);
        assert_eq!(split(&[b"a\n"]), [b"a"]);
        assert!(split(&[]).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_cut_gives_the_same_lines(text in "[a-c\n]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let mut expected: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            proptest::prop_assert_eq!(split(&chunks), expected);
        }
    }
}
