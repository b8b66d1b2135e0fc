//! Ids: UUIDv7 with a prefix (`req_…`, `bat_…`), ordered by time of creation.
//!
//! A request's UUID also carries its sequence number: 48 bits of milliseconds and a 15-bit counter that never
//! goes back within one data directory. The store uses that number as its row key, so that arrival order, the
//! public id and the primary key are one thing and inserts always append. The other bits are random, so ids cannot be guessed.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use uuid::Uuid;

use crate::domain::clock::Micros;

/// A text that is not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id")]
pub struct InvalidId;

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// From the 16 bytes of its UUID.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of its UUID.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The sequence number inside: positive, rising with time of creation.
            pub fn sequence(&self) -> i64 {
                sequence_of(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let hex = text.strip_prefix($prefix).ok_or(InvalidId)?;
                if hex.len() != 32 {
                    return Err(InvalidId);
                }
                Uuid::try_parse(hex).map(Self).map_err(|_error| InvalidId)
            }
        }
    };
}

prefixed_id!(
    /// A deferred request: `req_` + UUIDv7 without dashes. Also its `custom_id` in the provider's batch file.
    RequestId,
    "req_"
);
prefixed_id!(
    /// A batch: `bat_` + UUIDv7 without dashes. Also the value of the provider's `metadata.nightbus_batch`.
    BatchId,
    "bat_"
);
prefixed_id!(
    /// A test flight: `flt_` + UUIDv7 without dashes.
    FlightId,
    "flt_"
);
prefixed_id!(
    /// A callback of a request: `cb_` + 32 hexadecimal digits, made of the request's id and the URL; also its
    /// `webhook-id`. It is no UUIDv7: it has no sequence number.
    CallbackId,
    "cb_"
);

/// Makes ids. One per data directory and kind: sequence numbers never repeat and never go back, whatever the clock does.
#[derive(Debug, Default)]
pub struct IdSource {
    last: AtomicI64,
}

impl IdSource {
    /// A source whose ids all come after `last_sequence` (the largest one already stored, or 0).
    pub fn after(last_sequence: i64) -> Self {
        Self { last: AtomicI64::new(last_sequence) }
    }

    /// The next request id. `random` fills the rest of the id and must be unguessable.
    pub fn request_id(&self, now: Micros, random: u64) -> RequestId {
        RequestId(self.next(now, random))
    }

    /// The next batch id.
    pub fn batch_id(&self, now: Micros, random: u64) -> BatchId {
        BatchId(self.next(now, random))
    }

    /// The next id of a test flight.
    pub fn flight_id(&self, now: Micros, random: u64) -> FlightId {
        FlightId(self.next(now, random))
    }

    fn next(&self, now: Micros, random: u64) -> Uuid {
        let at_least = first_sequence(now);
        let previous = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(at_least.max(last.saturating_add(1))))
            .unwrap_or_default();
        compose(at_least.max(previous.saturating_add(1)), random)
    }
}

/// The smallest sequence number that an id of this time can have.
pub fn first_sequence(at: Micros) -> i64 {
    at.0.div_euclid(1_000).clamp(0, (1 << 47) - 1) << COUNTER_BITS
}

const COUNTER_BITS: u32 = 15;

/// Lays a sequence number into a UUIDv7: 48 bits of time, version, 12 bits of counter, variant, 3 bits of
/// counter, 59 random bits (RFC 9562, section 5.7 and method 1 of section 6.2).
fn compose(sequence: i64, random: u64) -> Uuid {
    let sequence = sequence.cast_unsigned();
    let milliseconds = sequence >> COUNTER_BITS;
    let counter = sequence & ((1 << COUNTER_BITS) - 1);
    let high = (milliseconds << 16) | (0x7 << 12) | (counter >> 3);
    let low = (0b10 << 62) | ((counter & 0b111) << 59) | (random & ((1 << 59) - 1));
    Uuid::from_u64_pair(high, low)
}

fn sequence_of(uuid: Uuid) -> i64 {
    let (high, low) = uuid.as_u64_pair();
    let milliseconds = (high >> 16) & ((1 << 48) - 1);
    let counter = ((high & 0xfff) << 3) | ((low >> 59) & 0b111);
    ((milliseconds << COUNTER_BITS) | counter).cast_signed() & i64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_prefix_and_32_hex_digits_and_parses_back() {
        let id = IdSource::default().request_id(Micros::from_unix_seconds(1_795_420_800), 42);
        let text = id.to_string();
        assert!(text.starts_with("req_") && text.len() == 36, "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.parse::<BatchId>(), Err(InvalidId));
        assert_eq!(format!("{text}0").parse::<RequestId>(), Err(InvalidId));
    }

    #[test]
    fn is_a_version_7_uuid_of_the_given_time() {
        let id = IdSource::default().request_id(Micros::from_unix_seconds(1_795_420_800), u64::MAX);
        let uuid = Uuid::from_bytes(*id.as_bytes());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(uuid.get_timestamp().map(|t| t.to_unix().0), Some(1_795_420_800));
    }

    #[test]
    fn sequence_rises_even_when_the_clock_stands_or_goes_back() {
        let source = IdSource::default();
        let late = Micros::from_unix_seconds(2_000_000_000);
        let early = Micros::from_unix_seconds(1_000_000_000);
        let mut last = 0;
        for round in 0..70_000 {
            let id = source.request_id(if round % 2 == 0 { late } else { early }, 7);
            assert!(id.sequence() > last);
            last = id.sequence();
        }
        let restarted = IdSource::after(last);
        assert!(restarted.request_id(early, 7).sequence() > last);
    }

    #[test]
    fn ids_of_one_moment_follow_each_other_whatever_is_random() {
        let source = IdSource::default();
        let now = Micros::from_unix_seconds(1_795_420_800);
        let first = first_sequence(now);
        let made: Vec<i64> = [u64::MAX, 0, 1 << 59].map(|random| source.batch_id(now, random).sequence()).into();
        assert_eq!(made, [first, first + 1, first + 2]);
        let low_bits =
            |random| Uuid::from_bytes(*source.request_id(now, random).as_bytes()).as_u64_pair().1 & ((1 << 59) - 1);
        assert_eq!([u64::MAX, 1, 0].map(low_bits), [(1 << 59) - 1, 1, 0], "all that is random is in it");
    }

    #[test]
    fn times_beyond_what_an_id_holds_are_the_nearest_that_it_does() {
        assert_eq!([Micros(-1), Micros(999), Micros(1_000)].map(first_sequence), [0, 0, 1 << COUNTER_BITS]);
        assert_eq!(first_sequence(Micros(i64::MAX)), (1 << 62) - (1 << COUNTER_BITS));
    }
}
