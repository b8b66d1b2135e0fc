//! The data directory's root key, and what is derived from it.
//!
//! The root comes from `NIGHTBUS_MASTER_KEY` or from the file `key` (32 random bytes, mode 0600). Two keys are derived
//! by HKDF-SHA256: one seals what is at rest (see [`super::seal`]), one makes fingerprints.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use aws_lc_rs::hkdf;
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::domain::lane::Fingerprint;
use crate::store::StoreError;
use crate::store::seal::Sealer;

/// Passphrases shorter than this are refused.
const MIN_PASSPHRASE_CHARS: usize = 16;
const ROOT_LEN: usize = 32;

/// The key from which all others are derived.
pub(crate) type RootKey = Zeroizing<[u8; ROOT_LEN]>;

/// The derived keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Seals and unseals.
    pub(crate) sealer: Sealer,
    mac: hmac::Key,
}

impl Keys {
    /// Derives the keys from `root`.
    pub(crate) fn derive(root: &RootKey) -> Result<Self, StoreError> {
        let seal = expand(root.as_slice(), b"nightbus seal v1")?;
        let mac = expand(root.as_slice(), b"nightbus fingerprint v1")?;
        Ok(Self { sealer: Sealer::new(&seal)?, mac: hmac::Key::new(hmac::HMAC_SHA256, mac.as_slice()) })
    }

    /// HMAC-SHA256 over the parts, each with its length before it, cut to 16 bytes.
    pub(crate) fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Fingerprint(short)
    }
}

/// A fresh random root key.
pub(crate) fn random_root() -> Result<RootKey, StoreError> {
    let mut root = Zeroizing::new([0; ROOT_LEN]);
    aws_lc_rs::rand::fill(root.as_mut_slice())
        .map_err(|_unspecified| StoreError::Unwritable("the system gives no random numbers".to_owned()))?;
    Ok(root)
}

/// The root key out of `NIGHTBUS_MASTER_KEY`: 64 hex digits are the key, anything else of 16 characters or more is a passphrase.
pub(crate) fn root_of_master_key(master: &SecretString) -> Result<RootKey, StoreError> {
    let text = master.expose_secret().trim();
    if let Some(root) = parse_hex(text) {
        return Ok(root);
    }
    if text.chars().count() < MIN_PASSPHRASE_CHARS {
        return Err(StoreError::Unreadable(format!(
            "NIGHTBUS_MASTER_KEY is too short: use 64 hex digits (openssl rand -hex 32) or at least {MIN_PASSPHRASE_CHARS} characters"
        )));
    }
    expand(text.as_bytes(), b"nightbus passphrase v1")
}

/// The root key in the file `path`. When there is no such file it is made, unless `must_exist`: then the data that
/// it sealed is already there, and a new key could not read it.
pub(crate) fn root_of_file(path: &Path, must_exist: bool) -> Result<RootKey, StoreError> {
    match fs::File::open(path) {
        Ok(mut file) => read_root(path, &mut file),
        Err(error) if error.kind() == ErrorKind::NotFound && must_exist => Err(StoreError::Unreadable(format!(
            "{} is missing, but the database beside it was sealed with a key: put the key file back, or set NIGHTBUS_MASTER_KEY to the value it was created with",
            path.display()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let root = random_root()?;
            write_root(path, &root)
                .map_err(|error| StoreError::Unwritable(format!("cannot create {}: {error}", path.display())))?;
            Ok(root)
        }
        Err(error) => Err(StoreError::Unreadable(format!("cannot open {}: {error}", path.display()))),
    }
}

fn read_root(path: &Path, file: &mut fs::File) -> Result<RootKey, StoreError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(ROOT_LEN + 1));
    file.take(ROOT_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| StoreError::Unreadable(format!("cannot read {}: {error}", path.display())))?;
    let root = <[u8; ROOT_LEN]>::try_from(bytes.as_slice()).map_err(|_wrong_length| {
        StoreError::Unreadable(format!(
            "{} is damaged: it must hold exactly {ROOT_LEN} bytes; restore it from a backup",
            path.display()
        ))
    })?;
    Ok(Zeroizing::new(root))
}

/// Written beside and renamed, so that a crash leaves either no key or a whole one.
fn write_root(path: &Path, root: &RootKey) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = super::files::create_private(&beside)?;
    file.write_all(root.as_slice())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    super::files::sync_parent(path)
}

fn parse_hex(text: &str) -> Option<RootKey> {
    if text.len() != 2 * ROOT_LEN {
        return None;
    }
    let mut root = Zeroizing::new([0; ROOT_LEN]);
    for (byte, pair) in root.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    // `from_str_radix` takes a sign; a key does not.
    text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(root)
}

struct RootLength;

impl hkdf::KeyType for RootLength {
    fn len(&self) -> usize {
        ROOT_LEN
    }
}

fn expand(secret: &[u8], purpose: &[u8]) -> Result<RootKey, StoreError> {
    let mut derived = Zeroizing::new([0; ROOT_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"nightbus")
        .extract(secret)
        .expand(&[purpose], RootLength)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .map_err(|_unspecified| StoreError::Unreadable("the key cannot be derived".to_owned()))?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_the_key_itself_and_a_passphrase_is_hashed() {
        let hex = SecretString::from("00".repeat(31) + "Ff");
        let root = root_of_master_key(&hex).unwrap();
        assert_eq!((root[0], root[31]), (0, 255));
        let words = root_of_master_key(&SecretString::from("correct horse battery")).unwrap();
        let others = root_of_master_key(&SecretString::from("correct horse batterz")).unwrap();
        assert_ne!(*words, *others);
        let signed = SecretString::from("+f".repeat(32));
        assert_ne!(root_of_master_key(&signed).unwrap()[0], 15, "a sign is no hex digit");
    }

    #[test]
    fn a_short_passphrase_is_refused_with_the_way_out() {
        let error = root_of_master_key(&SecretString::from("fifteen letters")).unwrap_err().to_string();
        assert!(error.contains("64 hex digits"), "{error}");
    }

    #[test]
    fn parts_of_a_fingerprint_cannot_be_shifted() {
        let keys = Keys::derive(&random_root().unwrap()).unwrap();
        assert_eq!(keys.fingerprint(&[b"ab", b"c"]), keys.fingerprint(&[b"ab", b"c"]));
        assert_ne!(keys.fingerprint(&[b"ab", b"c"]), keys.fingerprint(&[b"a", b"bc"]));
        let others = Keys::derive(&random_root().unwrap()).unwrap();
        assert_ne!(keys.fingerprint(&[b"ab", b"c"]), others.fingerprint(&[b"ab", b"c"]));
    }

    #[test]
    fn the_key_file_is_made_once_and_must_be_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(root_of_file(&path, true).is_err());
        assert!(!path.exists());
        let made = root_of_file(&path, false).unwrap();
        assert_eq!(*made, *root_of_file(&path, true).unwrap());
        fs::write(&path, [7; 33]).unwrap();
        assert!(root_of_file(&path, false).unwrap_err().to_string().contains("damaged"));
    }
}
