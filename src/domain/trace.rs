//! The trace that a call is part of, as its caller told it: `traceparent` of W3C Trace Context.
//!
//! Read by `intake`, kept by the store with the request, so that a span which ends a day and a restart later still hangs
//! where it belongs.

use std::fmt;

const TRACE_LEN: usize = 16;
const SPAN_LEN: usize = 8;

/// The caller's span, and whether it is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zeros.
    pub trace_id: [u8; TRACE_LEN],
    /// The caller's span in it; never all zeros.
    pub span_id: [u8; SPAN_LEN],
    /// `trace-flags`: bit 0 says that the caller records its span.
    pub flags: u8,
}

impl TraceContext {
    /// Length of its stored form in bytes.
    pub const LEN: usize = TRACE_LEN + SPAN_LEN + 1;

    /// What a `traceparent` says, of version 00 and later ones that begin alike. None: it is not as it should be, and then
    /// nobody can be told by it.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex::<1>(version)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let [flags] = hex::<1>(flags)?;
        let context = Self { trace_id: hex(trace)?, span_id: hex(span)?, flags };
        (context.trace_id != [0; TRACE_LEN] && context.span_id != [0; SPAN_LEN]).then_some(context)
    }

    /// Its stored form: trace, span, flags.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let all = self.trace_id.into_iter().chain(self.span_id).chain([self.flags]);
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }

    /// From its stored form.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (span_id, rest) = rest.split_first_chunk()?;
        Some(Self { trace_id: *trace_id, span_id: *span_id, flags: *rest.first()? })
    }
}

/// The trace's id, as logs name it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Exactly so many bytes in lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_comes_back_whole() {
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03").unwrap();
        assert_eq!(context.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span_id, context.flags), ([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7], 3));
        assert_eq!(TraceContext::from_bytes(context.to_bytes()), Some(context));
    }
}
