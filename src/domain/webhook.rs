//! The signature of Standard Webhooks: HMAC-SHA256 over id, time and body, under a `whsec_` secret.
//!
//! Callbacks are signed with it (`engine::callbacks`), and providers' webhooks checked (`intake::webhook`); the
//! configuration checks the secrets with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::domain::clock::Micros;

const PREFIX: &str = "whsec_";
/// The lengths of a secret that the specification asks for, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A text that is no secret. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected whsec_ and 24 to 64 bytes in base64: make one with `echo whsec_$(openssl rand -base64 32)`")]
pub struct InvalidSecret;

/// Signs under one secret, which it never shows.
#[derive(Clone)]
pub struct Signer {
    key: Arc<hmac::Key>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// From the text form of a secret.
    pub fn new(secret: &str) -> Result<Self, InvalidSecret> {
        let bytes = decoded(secret).filter(|bytes| LENGTHS.contains(&bytes.len())).ok_or(InvalidSecret)?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)) }
    }

    /// The value of `webhook-signature` for a message of this id, sent at this time (Unix seconds).
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

fn decoded(secret: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = BASE64_STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    Some(Zeroizing::new(bytes))
}

/// Checks messages that somebody else signed, under a secret which it never shows.
#[derive(Clone, Debug)]
pub struct Verifier {
    signer: Signer,
}

impl Verifier {
    /// How far a message's time may be from now (providers.md, section 1.11).
    pub const TOLERANCE: Duration = Duration::from_secs(300);

    /// From the text form of a secret that somebody else made, who may have made it of another length. None: it is none.
    pub fn new(secret: &str) -> Option<Self> {
        let bytes = decoded(secret).filter(|bytes| !bytes.is_empty())?;
        Some(Self { signer: Signer::of(&bytes) })
    }

    /// Whether a message was signed by who has the secret, a short time ago. `timestamp` and `signatures` are the headers
    /// `webhook-timestamp` and `webhook-signature` as they came: Unix seconds, and one or more signatures apart by blanks.
    pub fn accepts(&self, id: &str, timestamp: &str, signatures: &str, body: &[u8], now: Micros) -> bool {
        let Ok(seconds) = timestamp.parse::<i64>() else { return false };
        let at = Micros::from_unix_seconds(seconds);
        if now.since(at).max(at.since(now)) > Self::TOLERANCE {
            return false;
        }
        let expected = self.signer.sign(id, seconds, body);
        // All are compared, so that the time tells nothing about which one fits.
        signatures
            .split(' ')
            .fold(false, |fits, given| fits | verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn signs_as_the_specification_does() {
        let signed = Signer::new(SECRET).unwrap().sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn takes_what_was_signed_just_now_and_nothing_else() {
        const AT: i64 = 1_614_265_330;
        const RIGHT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let verifier = Verifier::new(SECRET).unwrap();
        let accepts = |id: &str, timestamp: &str, signatures: &str, body: &str, after: i64| {
            verifier.accepts(id, timestamp, signatures, body.as_bytes(), Micros::from_unix_seconds(AT + after))
        };
        let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert!(accepts(id, timestamp, RIGHT, body, 0));
        assert!(accepts(id, timestamp, &format!("v1,b2xk {RIGHT} v2,eA=="), body, 0), "one of several");
        assert!(accepts(id, timestamp, RIGHT, body, 300) && accepts(id, timestamp, RIGHT, body, -300));
        assert!(!accepts(id, timestamp, RIGHT, body, 301) && !accepts(id, timestamp, RIGHT, body, -301), "replayed");
        assert!(!accepts("msg_other", timestamp, RIGHT, body, 0));
        assert!(!accepts(id, "1614265331", RIGHT, body, 0));
        assert!(!accepts(id, timestamp, RIGHT, r#"{"test": 2432232315}"#, 0));
        for wrong in ["", "v1,", RIGHT.trim_start_matches("v1,"), "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
            assert!(!accepts(id, timestamp, wrong, body, 0), "{wrong}");
        }
        for no_time in ["", "now", "9223372036854775808", "-9223372036854775808", "1614265330.0"] {
            assert!(!accepts(id, no_time, RIGHT, body, 0), "{no_time}");
        }
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?"] {
            assert!(Verifier::new(bad).is_none(), "{bad}");
        }
        assert!(!format!("{verifier:?}").contains("MfKQ"));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_shown() {
        for bad in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_not base64 at all, is it?????"]
        {
            let error = Signer::new(bad).unwrap_err();
            assert!(bad.len() < 8 || !error.to_string().contains(bad), "{error}");
        }
        assert!(!format!("{:?}", Signer::new(SECRET).unwrap()).contains("MfKQ"));
    }
}
