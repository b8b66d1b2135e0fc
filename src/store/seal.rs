//! The envelope in which bodies, answers and credentials lie at rest: compressed (zstd), then sealed (AES-256-GCM).
//!
//! ```text
//!  0       1        2      3..15    15..19            19..          last 16
//!  version key id   flags  nonce    length, plain     ciphertext    tag
//! ```
//!
//! Invariants:
//! - The header, the kind and the owner's id are authenticated with the content: an envelope cannot be moved to another
//!   row, nor an answer be shown as a question.
//! - A nonce never repeats under one key: 48 random bits for each opening of the store, then a 48-bit counter. A copied
//!   data directory that is opened twice gets two prefixes.
//! - Opening never allocates more than [`MAX_PLAIN`].
//!
//! Sealing costs about as much as compressing and is done in the caller's task, never in the writer's thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zstd::bulk::{Compressor, Decompressor};

use crate::store::StoreError;

/// Larger content is neither sealed nor opened: 256 MiB.
pub(crate) const MAX_PLAIN: usize = 256 << 20;
/// Smaller content is not worth a compressor's time.
const MIN_COMPRESSED: usize = 512;
/// Chosen by measurement, see `benches/store_insert.rs`.
const LEVEL: i32 = 1;

const VERSION: u8 = 1;
const KEY_ID: u8 = 1;
const FLAG_ZSTD: u8 = 1;
const NONCE_LEN: usize = 12;
const HEADER_LEN: usize = 3 + NONCE_LEN + 4;
const TAG_LEN: usize = 16;
const COUNTER_BITS: u32 = 48;

/// What an envelope holds; authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request's body.
    Body = 1,
    /// A request's answer.
    Result = 2,
    /// An upstream credential.
    Account = 3,
    /// The value by which a wrong key is noticed.
    Check = 4,
    /// The address of a callback.
    Callback = 5,
}

/// Seals and opens envelopes under one key.
pub(crate) struct Sealer {
    key: LessSafeKey,
    /// 48 random bits, shifted up.
    prefix: u128,
    counter: AtomicU64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// Under the key of 32 bytes.
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self, StoreError> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_unspecified| unsealable())?;
        let prefix = (u128::from_le_bytes(random) >> (128 - COUNTER_BITS)) << COUNTER_BITS;
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_unspecified| unsealable())?;
        Ok(Self { key: LessSafeKey::new(key), prefix, counter: AtomicU64::new(0) })
    }

    /// Compresses and seals `plain` for `owner`.
    pub(crate) fn seal(&self, kind: Kind, owner: &[u8; 16], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let envelope = compressed(plain).map_or_else(|| (uncompressed(plain), 0), |envelope| (envelope, FLAG_ZSTD));
        self.close(kind, owner, plain.len(), envelope)
    }

    /// Seals `plain` as it is: a tenth of the time for small content, twice the room.
    pub(crate) fn seal_in_haste(&self, kind: Kind, owner: &[u8; 16], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.close(kind, owner, plain.len(), (uncompressed(plain), 0))
    }

    fn close(
        &self,
        kind: Kind,
        owner: &[u8; 16],
        plain_len: usize,
        (mut envelope, flags): (Vec<u8>, u8),
    ) -> Result<Vec<u8>, StoreError> {
        let plain_len = u32::try_from(plain_len)
            .ok()
            .filter(|_| plain_len <= MAX_PLAIN)
            .ok_or_else(|| StoreError::Unwritable(format!("{plain_len} bytes are more than one row may hold")))?;
        let nonce = self.next_nonce()?;
        let (header, content) = envelope.split_first_chunk_mut::<HEADER_LEN>().ok_or_else(unsealable)?;
        *header = header_bytes(flags, nonce, plain_len);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated(header, kind, owner)),
                content,
            )
            .map_err(|_unspecified| unsealable())?;
        envelope.extend_from_slice(tag.as_ref());
        Ok(envelope)
    }

    /// Opens what [`Self::seal`] made for the same kind and owner.
    pub(crate) fn open(&self, kind: Kind, owner: &[u8; 16], envelope: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = || StoreError::Unreadable("a stored body is damaged or sealed with another key".to_owned());
        let (header, content) = envelope.split_first_chunk::<HEADER_LEN>().ok_or_else(damaged)?;
        let [version, key_id, flags, rest @ ..] = header;
        if (*version, *key_id) != (VERSION, KEY_ID) {
            return Err(StoreError::Unreadable("a stored body was sealed by a newer nightbus: upgrade".to_owned()));
        }
        let (nonce, plain_len) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let plain_len = plain_len.try_into().map(u32::from_le_bytes).map_err(|_length| damaged())? as usize;
        if plain_len > MAX_PLAIN {
            return Err(damaged());
        }
        let mut content = content.to_vec();
        let opened = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated(header, kind, owner)),
                &mut content,
            )
            .map_err(|_unspecified| damaged())?;
        if flags & FLAG_ZSTD != 0 {
            return decompressed(opened, plain_len).ok_or_else(damaged);
        }
        content.truncate(content.len().saturating_sub(TAG_LEN));
        Ok(content)
    }

    fn next_nonce(&self) -> Result<[u8; NONCE_LEN], StoreError> {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        if count >> COUNTER_BITS != 0 {
            return Err(unsealable());
        }
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip((self.prefix | u128::from(count)).to_le_bytes()) {
            *to = from;
        }
        Ok(nonce)
    }
}

fn unsealable() -> StoreError {
    StoreError::Unwritable("the content cannot be sealed".to_owned())
}

fn header_bytes(flags: u8, nonce: [u8; NONCE_LEN], plain_len: u32) -> [u8; HEADER_LEN] {
    let fields = [VERSION, KEY_ID, flags].into_iter().chain(nonce).chain(plain_len.to_le_bytes());
    let mut header = [0; HEADER_LEN];
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    header
}

fn associated(header: &[u8; HEADER_LEN], kind: Kind, owner: &[u8; 16]) -> [u8; HEADER_LEN + 17] {
    let mut all = [0; HEADER_LEN + 17];
    for (to, from) in all.iter_mut().zip(header.iter().chain(&[kind as u8]).chain(owner)) {
        *to = *from;
    }
    all
}

thread_local! {
    // A context is some hundred kilobytes and costs more to make than a small body to compress: one for each thread.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Room for the header, then the compressed content; none when compressing does not pay.
fn compressed(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < MIN_COMPRESSED {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(LEVEL).ok();
        }
        // No larger than the plain content: what does not shrink fails here and is stored as it is.
        let mut envelope = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
        envelope.resize(HEADER_LEN + plain.len(), 0);
        let written = slot.as_mut()?.compress_to_buffer(plain, envelope.get_mut(HEADER_LEN..)?).ok()?;
        envelope.truncate(HEADER_LEN + written);
        Some(envelope)
    })
}

fn uncompressed(plain: &[u8]) -> Vec<u8> {
    let mut envelope = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
    envelope.resize(HEADER_LEN, 0);
    envelope.extend_from_slice(plain);
    envelope
}

fn decompressed(content: &[u8], plain_len: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        let plain = slot.as_mut()?.decompress(content, plain_len).ok()?;
        (plain.len() == plain_len).then_some(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&[key; 32]).unwrap()
    }

    #[test]
    fn content_of_any_size_comes_back() {
        let sealer = sealer(1);
        for len in [0, 1, 511, 512, 513, 2_048, 70_000, 1 << 20] {
            let text = b"{\"role\":\"user\"}".iter().cycle().take(len).copied().collect::<Vec<_>>();
            let noise = std::iter::repeat_with(|| fastrand::u8(..)).take(len).collect::<Vec<_>>();
            for plain in [text, noise] {
                let envelope = sealer.seal_in_haste(Kind::Body, &[9; 16], &plain).unwrap();
                assert_eq!(sealer.open(Kind::Body, &[9; 16], &envelope).unwrap(), plain);
                let envelope = sealer.seal(Kind::Body, &[9; 16], &plain).unwrap();
                assert!(envelope.len() <= plain.len() + HEADER_LEN + TAG_LEN);
                assert_eq!(sealer.open(Kind::Body, &[9; 16], &envelope).unwrap(), plain);
            }
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let sealer = sealer(1);
        let envelope = sealer.seal(Kind::Body, &[9; 16], &b"night bus ".repeat(80)).unwrap();
        for at in 0..envelope.len() {
            let mut tampered = envelope.clone();
            tampered[at] ^= 0x10;
            assert!(sealer.open(Kind::Body, &[9; 16], &tampered).is_err(), "byte {at}");
            assert!(sealer.open(Kind::Body, &[9; 16], &envelope[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_envelope_opens_only_for_its_owner_kind_and_key() {
        let envelope = sealer(1).seal(Kind::Body, &[9; 16], b"mine").unwrap();
        assert!(sealer(1).open(Kind::Body, &[9; 16], &envelope).is_ok());
        assert!(sealer(1).open(Kind::Body, &[8; 16], &envelope).is_err());
        assert!(sealer(1).open(Kind::Result, &[9; 16], &envelope).is_err());
        assert!(sealer(2).open(Kind::Body, &[9; 16], &envelope).is_err());
    }

    #[test]
    fn nonces_differ_within_an_opening_and_between_openings() {
        let (one, two) = (sealer(1), sealer(1));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(one.next_nonce().unwrap()));
            assert!(seen.insert(two.next_nonce().unwrap()));
        }
        one.counter.store((1 << COUNTER_BITS) - 1, Ordering::Relaxed);
        assert!(one.next_nonce().is_ok());
        assert!(one.next_nonce().is_err(), "it refuses rather than repeats");
    }
}
