//! From a file's bytes to text: gzip and zstd are unpacked, UTF-16 becomes UTF-8, a byte order mark is dropped.
//!
//! Decided by the first bytes, never by the name. Streams; called by [`super::Auditor::read`].

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::call::Problem;

/// What a file turned out to be.
pub(super) enum Opened<'r> {
    /// Text to read.
    Text(Box<dyn Read + 'r>),
    /// Not text.
    Unreadable(Problem),
}

const HEAD: usize = 512;
/// Packed text in packed text is somebody's mistake; more than that is an attack.
const LAYERS: usize = 3;

/// Looks at the first bytes and puts the right decoders in between.
///
/// # Errors
/// When not even the first bytes can be read.
pub(super) fn open<'r>(reader: impl Read + 'r) -> io::Result<Opened<'r>> {
    let mut reader: Box<dyn Read + 'r> = Box::new(reader);
    for _layer in 0..LAYERS {
        let head = head(&mut reader)?;
        let rest = move |reader, head: Vec<u8>| Cursor::new(head).chain(reader);
        match head.as_slice() {
            [0x1f, 0x8b, ..] => reader = Box::new(MultiGzDecoder::new(rest(reader, head))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let unpacked = zstd::stream::read::Decoder::new(rest(reader, head))?;
                reader = Box::new(unpacked);
            }
            [0xef, 0xbb, 0xbf, text @ ..] => {
                let text = text.to_vec();
                return Ok(Opened::Text(Box::new(rest(reader, text))));
            }
            [0xff, 0xfe, text @ ..] => {
                let text = text.to_vec();
                return Ok(Opened::Text(Box::new(Utf16::new(rest(reader, text), u16::from_le_bytes))));
            }
            [0xfe, 0xff, text @ ..] => {
                let text = text.to_vec();
                return Ok(Opened::Text(Box::new(Utf16::new(rest(reader, text), u16::from_be_bytes))));
            }
            [b'P', b'K', 3, 4, ..] => return Ok(Opened::Unreadable(Problem::Archive)),
            _ if head.get(257..262) == Some(b"ustar") => return Ok(Opened::Unreadable(Problem::Archive)),
            _ if head.contains(&0) => return Ok(Opened::Unreadable(Problem::Binary)),
            _ => return Ok(Opened::Text(Box::new(rest(reader, head)))),
        }
    }
    Ok(Opened::Unreadable(Problem::Archive))
}

fn head(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    let wanted = u64::try_from(HEAD).unwrap_or(u64::MAX);
    match reader.take(wanted).read_to_end(&mut head) {
        Ok(_) => Ok(head),
        // A packed file that breaks off here still has these bytes.
        Err(_broken) if !head.is_empty() => Ok(head),
        Err(error) => Err(error),
    }
}

/// UTF-16 as UTF-8; what is no character becomes U+FFFD.
struct Utf16<R> {
    inner: R,
    unit: fn([u8; 2]) -> u16,
    /// Bytes that are not decoded yet: half a unit, or the first of a pair.
    pending: Vec<u8>,
    ready: Cursor<Vec<u8>>,
}

impl<R: Read> Utf16<R> {
    fn new(inner: R, unit: fn([u8; 2]) -> u16) -> Self {
        Self { inner, unit, pending: Vec::new(), ready: Cursor::default() }
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; 64 * 1024];
        let read = self.inner.read(&mut chunk)?;
        self.pending.extend_from_slice(chunk.get(..read).unwrap_or_default());
        let mut units: Vec<u16> = self.pending.as_chunks::<2>().0.iter().map(|pair| (self.unit)(*pair)).collect();
        let is_first_of_pair = |unit: &u16| (0xd800..0xdc00).contains(unit);
        if read > 0 && units.last().is_some_and(is_first_of_pair) {
            units.pop();
        }
        let used = if read == 0 { self.pending.len() } else { units.len() * 2 };
        self.pending.drain(..used);
        let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        self.ready = Cursor::new(text.into_bytes());
        if read > 0 && self.ready.get_ref().is_empty() { self.refill() } else { Ok(()) }
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.ready.read(out)?;
        if read > 0 || out.is_empty() {
            return Ok(read);
        }
        self.refill()?;
        self.ready.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn text(bytes: &[u8]) -> String {
        match open(bytes).unwrap() {
            Opened::Text(mut input) => {
                let mut text = String::new();
                input.read_to_string(&mut text).unwrap();
                text
            }
            Opened::Unreadable(problem) => problem.as_str().to_owned(),
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn packed_and_plain_are_the_same_text() {
        let line = "{\"a\":\"ü\"}\n".repeat(100);
        assert_eq!(text(line.as_bytes()), line);
        assert_eq!(text(&gzip(line.as_bytes())), line);
        assert_eq!(text(&zstd::encode_all(line.as_bytes(), 1).unwrap()), line);
        let rotated = [gzip(line.as_bytes()), gzip(line.as_bytes())].concat();
        assert_eq!(text(&rotated), line.repeat(2), "several members, as log rotation appends them");
        assert_eq!(text(b""), "");
    }

    #[test]
    fn other_encodings_become_utf8() {
        let line = "{\"a\":\"ü 🚌\"}\n".repeat(50_000);
        let le: Vec<u8> = [0xfeff].into_iter().chain(line.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = [0xfeff].into_iter().chain(line.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        assert_eq!(text(&le), line);
        assert_eq!(text(&be), line);
        assert_eq!(text(&gzip(&le)), line);
        assert_eq!(text(b"\xef\xbb\xbf{}"), "{}");
        assert_eq!(text(b"\xff\xfe{\0\x01\xd8"), "{\u{fffd}", "half a pair at the end");
    }

    #[test]
    fn what_is_no_text_is_said_to_be_none() {
        assert_eq!(text(b"PK\x03\x04rest"), "archive");
        assert_eq!(text(b"\x7fELF\0\0"), "binary");
        let bomb = (0..5).fold(b"x".to_vec(), |inner, _| gzip(&inner));
        assert_eq!(text(&bomb), "archive");
    }

    #[test]
    fn a_packed_file_that_breaks_off_gives_what_is_there_and_then_an_error() {
        let whole = gzip("{\"a\":1}\n".repeat(40_000).as_bytes());
        let Opened::Text(mut input) = open(&whole[..whole.len() / 2]).unwrap() else { panic!("text") };
        let mut read = Vec::new();
        assert!(input.read_to_end(&mut read).is_err());
        assert!(read.starts_with(b"{\"a\":1}\n"));
    }
}
