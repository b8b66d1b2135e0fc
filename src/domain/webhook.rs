//! The signature of Standard Webhooks: HMAC-SHA256 over id, time and body, under a `whsec_` secret.
//!
//! Used by the callbacks (`engine::callbacks`); the configuration checks the secret with it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

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
        let encoded = secret.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(encoded).map_err(|_error| InvalidSecret)?);
        if !LENGTHS.contains(&bytes.len()) {
            return Err(InvalidSecret);
        }
        Ok(Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes)) })
    }

    /// The value of `webhook-signature` for a message of this id, sent at this time (Unix seconds).
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
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
