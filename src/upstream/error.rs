//! What can go wrong on the way to a provider: in which phase, whether the call can have reached it, and why.
//!
//! Invariant: an error that says [`UpstreamError::may_have_been_sent`] is `false` is about a request of which not
//! one byte was written to the provider, so it may be sent again without a second charge. Causes never hold
//! credentials: they are the texts of network errors, never headers or URLs with user names.

use std::error::Error as StdError;
use std::time::Duration;

/// Where a time-out struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Name look-up, TCP, outbound proxy, TLS.
    Connect,
    /// From the end of the upload to the response head.
    FirstByte,
    /// Between two frames of the response body.
    Body,
}

impl Phase {
    /// For messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstByte => "first byte",
            Self::Body => "body",
        }
    }
}

/// A call that got no complete response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The client was configured with something that cannot work (certificates that cannot be read).
    #[error("configuration: {cause}")]
    Config {
        /// Why.
        cause: String,
    },
    /// The name does not resolve.
    #[error("the host name cannot be resolved: {cause}")]
    Dns {
        /// Why.
        cause: String,
    },
    /// No TCP connection.
    #[error("cannot connect: {cause}")]
    Connect {
        /// Why.
        cause: String,
    },
    /// The outbound proxy (`HTTPS_PROXY`) did not open a tunnel.
    #[error("the outbound proxy did not connect: {cause}")]
    Proxy {
        /// Why.
        cause: String,
    },
    /// No TLS session, most often a certificate that is not trusted.
    #[error("TLS: {cause}")]
    Tls {
        /// Why.
        cause: String,
    },
    /// Nothing came in time.
    #[error("no answer within {after:?} ({})", phase.as_str())]
    Timeout {
        /// What was waited for.
        phase: Phase,
        /// The limit.
        after: Duration,
    },
    /// The connection ended before the response head.
    #[error("the connection was closed: {cause}")]
    Closed {
        /// Why.
        cause: String,
        /// False when not one byte of the request was written.
        sent: bool,
    },
    /// The request's own body failed: the caller went away in the middle of it.
    #[error("the request body broke off: {cause}")]
    RequestBody {
        /// Why.
        cause: String,
    },
    /// The response body broke off.
    #[error("the response body broke off: {cause}")]
    Body {
        /// Why.
        cause: String,
    },
    /// The request cannot be expressed in HTTP/1.1 (a URI that cannot be built).
    #[error("the request cannot be sent: {cause}")]
    InvalidRequest {
        /// Why.
        cause: String,
    },
}

impl UpstreamError {
    /// Whether there was never a usable connection to the provider.
    pub const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::Dns { .. }
                | Self::Connect { .. }
                | Self::Proxy { .. }
                | Self::Tls { .. }
                | Self::Timeout { phase: Phase::Connect, .. }
        )
    }

    /// Whether the provider can have seen the request, and so may execute and bill it.
    pub const fn may_have_been_sent(&self) -> bool {
        !(self.is_unreachable() || matches!(self, Self::InvalidRequest { .. } | Self::Closed { sent: false, .. }))
    }

    /// The error in one line, for people and logs. Holds no secrets.
    pub fn cause(&self) -> String {
        self.to_string()
    }

    /// The error inside `error`, if it is one of ours, else the closest kind for a failed send.
    pub(super) fn from_send(error: &(dyn StdError + 'static)) -> Self {
        if let Some(known) = find::<Self>(error) {
            return known.clone();
        }
        let cause = chain(error);
        match find::<hyper::Error>(error) {
            // hyper reports a cancelled message only together with the message itself, unsent.
            Some(hyper) if hyper.is_canceled() => Self::Closed { cause, sent: false },
            Some(hyper) if hyper.is_user() => Self::RequestBody { cause },
            _ => Self::Closed { cause, sent: true },
        }
    }

    /// The error inside `error`, if it is one of ours, else a broken response body.
    pub(super) fn from_body(error: &(dyn StdError + 'static)) -> Self {
        find::<Self>(error).cloned().unwrap_or_else(|| Self::Body { cause: chain(error) })
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    sources(error).find_map(|error| error.downcast_ref::<E>())
}

/// An error and what it came from.
fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The texts of an error and its sources, each said once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for source in sources(error).skip(1) {
        let next = source.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_before_the_first_byte_are_safe_to_send_again() {
        let cause = String::new;
        let safe = [
            UpstreamError::Dns { cause: cause() },
            UpstreamError::Connect { cause: cause() },
            UpstreamError::Tls { cause: cause() },
            UpstreamError::Proxy { cause: cause() },
            UpstreamError::Timeout { phase: Phase::Connect, after: Duration::ZERO },
            UpstreamError::Closed { cause: cause(), sent: false },
        ];
        let unsafe_ones = [
            UpstreamError::Timeout { phase: Phase::FirstByte, after: Duration::ZERO },
            UpstreamError::Timeout { phase: Phase::Body, after: Duration::ZERO },
            UpstreamError::Closed { cause: cause(), sent: true },
            UpstreamError::RequestBody { cause: cause() },
            UpstreamError::Body { cause: cause() },
        ];
        assert!(safe.iter().all(|error| !error.may_have_been_sent()));
        assert!(unsafe_ones.iter().all(UpstreamError::may_have_been_sent));
    }

    #[test]
    fn our_own_error_is_found_inside_others() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Outer(#[source] UpstreamError);
        let inner = UpstreamError::Tls { cause: "unknown issuer".into() };
        let outer = Outer(inner.clone());
        assert_eq!(chain(&outer), "client error (Connect): TLS: unknown issuer");
        assert_eq!(UpstreamError::from_send(&outer), inner);
        assert_eq!(
            UpstreamError::from_send(&std::io::Error::other("reset")),
            UpstreamError::Closed { cause: "reset".into(), sent: true }
        );
    }
}
