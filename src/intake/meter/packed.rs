//! Compressed answers of live calls, unpacked beside their way to be read by the meter.
//!
//! Only whole answers of up to [`super::KEPT`] packed bytes come here, so many at a time ([`LINE`]), and no more than
//! [`MOST_BYTES`] are unpacked of one: memory is bounded, whatever a provider sends. What cannot be unpacked has unknown
//! usage.

use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tokio::sync::mpsc;

use super::Metered;
use crate::wire::openai::usage::Consumption;
use crate::wire::usage::{consumption, consumption_of_tail};

/// Packed answers that wait to be read; the usage of more is unknown.
pub(super) const LINE: usize = 256;
/// Bytes of one unpacked answer.
const MOST_BYTES: u64 = 8 << 20;

/// Bytes that the reader of brotli takes at a time.
const BROTLI_BUFFER: usize = 4 << 10;

/// How an answer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Deflate,
    Zstd,
    Brotli,
    /// Another one, or several one over the other.
    Unknown,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else { return Self::Plain };
        if codings.next().is_some() {
            return Self::Unknown;
        }
        match coding.as_bytes().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Self::Plain,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"zstd" => Self::Zstd,
            b"br" => Self::Brotli,
            _ => Self::Unknown,
        }
    }

    /// The content; none where it is broken off or too long.
    fn unpack(self, packed: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(packed).take(MOST_BYTES).read_to_end(&mut content),
            Self::Deflate => ZlibDecoder::new(packed).take(MOST_BYTES).read_to_end(&mut content),
            Self::Zstd => zstd::stream::read::Decoder::new(packed)
                .and_then(|unpacked| unpacked.take(MOST_BYTES).read_to_end(&mut content)),
            Self::Brotli => Decompressor::new(packed, BROTLI_BUFFER).take(MOST_BYTES).read_to_end(&mut content),
            Self::Plain | Self::Unknown => return None,
        };
        read.is_ok().then_some(content)
    }
}

/// A packed answer, whole.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) call: Metered,
    pub(super) bytes: Vec<u8>,
    pub(super) coding: Coding,
    /// It is a stream of events.
    pub(super) events: bool,
}

impl Packed {
    fn consumption(&self) -> Consumption {
        let api = self.call.endpoint.api();
        match self.coding.unpack(&self.bytes) {
            Some(content) if self.events => consumption_of_tail(api, &content),
            Some(content) => consumption(api, &content),
            None => Consumption::default(),
        }
    }
}

/// Reads packed answers until nobody can send any more.
pub(super) async fn unpack_all(mut answers: mpsc::Receiver<Packed>, enter: impl Fn(Metered, &Consumption) + Send) {
    while let Some(packed) = answers.recv().await {
        let consumed = packed.consumption();
        enter(packed.call, &consumed);
        // Others have their turn between two answers.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use http::header::HeaderValue;

    use super::*;

    const ANSWER: &[u8] = br#"{"model":"m","usage":{"prompt_tokens":7,"completion_tokens":2}}"#;

    /// The same, as another program packed it.
    const BROTLI: [u8; 63] = [
        27, 62, 0, 16, 140, 195, 116, 163, 61, 127, 132, 114, 108, 86, 17, 193, 242, 200, 31, 48, 201, 48, 160, 110,
        221, 54, 43, 117, 88, 250, 192, 33, 7, 142, 159, 223, 18, 141, 37, 240, 96, 3, 78, 56, 14, 147, 117, 151, 104,
        180, 180, 143, 53, 247, 244, 252, 90, 31, 143, 204, 25, 40, 241,
    ];

    fn coding(values: &[&str]) -> Coding {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, value.parse::<HeaderValue>().unwrap());
        }
        Coding::of(&headers)
    }

    #[test]
    fn codings_are_told_apart() {
        assert_eq!((coding(&[]), coding(&["identity"])), (Coding::Plain, Coding::Plain));
        assert_eq!(
            [&["GZip"][..], &["zstd"], &["deflate"], &["br"]].map(coding),
            [Coding::Gzip, Coding::Zstd, Coding::Deflate, Coding::Brotli]
        );
        for unknown in [&["compress"][..], &["gzip, gzip"], &["gzip", "br"]] {
            assert_eq!(coding(unknown), Coding::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn what_was_packed_comes_back_and_what_broke_off_is_unknown() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(ANSWER).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(ANSWER).unwrap();
        let packed = [
            (Coding::Gzip, gzip.finish().unwrap()),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Zstd, zstd::stream::encode_all(ANSWER, 1).unwrap()),
            (Coding::Brotli, BROTLI.to_vec()),
        ];
        for (coding, bytes) in packed {
            assert_eq!(coding.unpack(&bytes).as_deref(), Some(ANSWER), "{coding:?}");
            assert_eq!(coding.unpack(&bytes[..bytes.len() - 9]), None, "{coding:?}");
        }
        assert_eq!(Coding::Gzip.unpack(b"{}"), None);
    }
}
