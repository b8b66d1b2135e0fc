//! `GET /files/{id}/content`: the bytes, in chunks that share the file's memory.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::body::{Body, BoxError};
use crate::sim::faults::Fault;
use crate::sim::files;
use crate::sim::reply::{ApiFailure, Outcome, not_found};
use crate::sim::server::Query;
use crate::sim::state::{Account, State};

/// Bytes handed to the connection at once.
const CHUNK: usize = 64 * 1024;

/// Sends the file.
pub(super) fn download(state: &State, account: &Account, id: &str, query: &Query) -> Outcome {
    let file = files::find(state, account, id)?;
    if state.faults.take(Fault::Content404) {
        return Err(not_found(Some("id"), format!("No such File object: {id}")));
    }
    if state.faults.take(Fault::Content500) {
        return Err(ApiFailure::server().into());
    }
    let is_partial = account.dialect.rules().partial;
    if file.incomplete && !is_partial {
        return Err(not_found(Some("id"), format!("No such File object: {id}")));
    }
    let offset = if is_partial { query.number("offset", 0..=usize::MAX, 0)? } else { 0 };
    let all = file.pieces.concat();
    let lines = memchr::memchr_iter(b'\n', &all).count();
    let pieces = if offset > 0 { vec![Bytes::from(after_lines(&all, offset))] } else { file.pieces.clone() };
    let (pieces, encoding) =
        if state.faults.take(Fault::ContentGzip) { (gzip(&pieces), Some("gzip")) } else { (pieces, None) };
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let cut = state.faults.take(Fault::ContentCut);
    let sent = if cut { length / 2 } else { length };
    let mut response = Response::new(chunked(pieces, sent, cut));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", file.filename)) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    if is_partial {
        headers.insert("x-incomplete", HeaderValue::from_static(if file.incomplete { "true" } else { "false" }));
        headers.insert("x-last-line", lines.into());
    }
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// What comes after `count` lines.
fn after_lines(text: &[u8], count: usize) -> Vec<u8> {
    let end = memchr::memchr_iter(b'\n', text).nth(count.saturating_sub(1)).map_or(text.len(), |at| at + 1);
    text.get(end..).unwrap_or_default().to_vec()
}

/// The first `sent` bytes of `pieces`; then the end, or a cut.
pub(super) fn chunked(pieces: Vec<Bytes>, sent: usize, cut: bool) -> Body {
    let start = (pieces.into_iter(), Bytes::new(), sent, cut);
    let frames = stream::unfold(start, |(mut pieces, mut piece, mut left, cut)| async move {
        while piece.is_empty() && left > 0 {
            piece = pieces.next()?;
        }
        if left == 0 {
            let error: BoxError = io::Error::from(io::ErrorKind::ConnectionReset).into();
            return cut.then(|| (Err(error), (pieces, piece, left, false)));
        }
        let chunk = piece.split_to(piece.len().min(CHUNK).min(left));
        left -= chunk.len();
        Some((Ok(Frame::data(chunk)), (pieces, piece, left, cut)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The same bytes in gzip's framing (RFC 1952) with stored blocks: what a client must be able to undo, without a
/// compressor in the product for the sake of one fault.
fn gzip(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut framed = vec![Bytes::from_static(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])];
    let (mut crc, mut length) = (u32::MAX, 0_u32);
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let block = rest.split_to(rest.len().min(usize::from(u16::MAX)));
            let size = u16::try_from(block.len()).unwrap_or(u16::MAX);
            let [low, high] = size.to_le_bytes();
            framed.push(Bytes::from(vec![0, low, high, !low, !high]));
            crc = crc_of(crc, &block);
            length = length.wrapping_add(u32::from(size));
            framed.push(block);
        }
    }
    framed.push(Bytes::from_static(&[1, 0, 0, 255, 255]));
    framed.push(Bytes::from([(!crc).to_le_bytes(), length.to_le_bytes()].concat()));
    framed
}

fn crc_of(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_standard() {
        assert_eq!(!crc_of(u32::MAX, b"123456789"), 0xcbf4_3926);
    }

    #[tokio::test]
    async fn chunks_are_the_file_whatever_its_pieces() {
        let pieces = vec![Bytes::from(vec![b'a'; 100_000]), Bytes::new(), Bytes::from_static(b"end")];
        let all = chunked(pieces.clone(), 100_003, false).collect().await.unwrap().to_bytes();
        assert_eq!((all.len(), &all[99_999..]), (100_003, &b"aend"[..]));
        assert!(chunked(pieces, 50_000, true).collect().await.is_err());
        assert!(chunked(vec![], 0, false).collect().await.unwrap().to_bytes().is_empty());
    }
}
