//! What the store keeps for the choice between services: a request's wishes, its live call, how long batches take, and how
//! much of them a provider takes.

use crate::domain::clock::Micros;
use crate::domain::lane::Fingerprint;
use crate::domain::service::{Fallback, Service};

/// Flags of a request, its fallback, and its number of embedding inputs, kept as one integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestOptions(pub i64);

impl RequestOptions {
    /// The caller wanted a stream.
    pub const STREAM: i64 = 1;
    /// … with usage at its end.
    pub const INCLUDE_USAGE: i64 = 2;
    /// The caller asked for a held connection (not 202): without a waiter it is an orphan.
    pub const HOLD: i64 = 4;
    /// The answer was written to a waiter and flushed.
    pub const DELIVERED: i64 = 16;
    /// The caller sent chat completions; the stored body and the stored answer are Messages.
    pub const FROM_CHAT: i64 = 128;
    /// Its provider has no batches: a live call answers it, at the full price, when there is a place for it.
    pub const NO_DISCOUNT: i64 = 64;
    const INPUTS_SHIFT: u32 = 8;
    const INPUTS_MOST: i64 = 0xffff;
    const FALLBACK_SHIFTS: [u32; 4] = [24, 28, 32, 36];
    const SERVICE_BITS: i64 = 0xf;

    /// Whether all of `bits` are set.
    pub const fn has(self, bits: i64) -> bool {
        self.0 & bits == bits
    }

    /// How many embedding inputs the request holds (0 elsewhere).
    pub fn inputs(self) -> u32 {
        u32::try_from((self.0 >> Self::INPUTS_SHIFT) & Self::INPUTS_MOST).unwrap_or(0)
    }

    /// With so many embedding inputs. More than 65,535, which is more than a provider takes, count as that many.
    #[must_use]
    pub fn with_inputs(self, inputs: u32) -> Self {
        let inputs = i64::from(inputs).min(Self::INPUTS_MOST);
        Self((self.0 & !(Self::INPUTS_MOST << Self::INPUTS_SHIFT)) | (inputs << Self::INPUTS_SHIFT))
    }

    /// The services that may take over.
    pub fn fallback(self) -> Fallback {
        let codes = Self::FALLBACK_SHIFTS.map(|shift| (self.0 >> shift) & Self::SERVICE_BITS);
        let services: Vec<Service> = codes.into_iter().filter_map(service_of).collect();
        Fallback::of(&services)
    }

    /// With these services to take over.
    #[must_use]
    pub fn with_fallback(self, fallback: Fallback) -> Self {
        let cleared = Self::FALLBACK_SHIFTS.iter().fold(self.0, |bits, shift| bits & !(Self::SERVICE_BITS << shift));
        let listed = Self::FALLBACK_SHIFTS.iter().zip(fallback.iter());
        Self(listed.fold(cleared, |bits, (shift, service)| bits | (i64::from(service_code(service)) << shift)))
    }

    /// With `bits` set.
    #[must_use]
    pub const fn with(self, bits: i64) -> Self {
        Self(self.0 | bits)
    }
}

/// The number of a service. Numbers are on disk: they never change.
pub(super) const fn service_code(service: Service) -> u32 {
    match service {
        Service::Flex => 1,
        Service::Sync => 2,
        Service::Batch => 3,
        Service::Background8h => 4,
        Service::Background2h => 5,
    }
}

/// The service with this number.
pub(super) fn service_of(code: i64) -> Option<Service> {
    Service::ALL.into_iter().find(|service| i64::from(service_code(*service)) == code)
}

/// A live call that answers a request. Written before it is sent, so that a death in between is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCall {
    /// By which service.
    pub service: Service,
    /// Since when the request is answered by live calls.
    pub since: Micros,
    /// When the call was sent, or was about to be; none: certainly no call is out whose answer is not known.
    pub sent_at: Option<Micros>,
}

/// How long the last batches of one credential and model took, from their intent to their results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedDurations {
    /// Provider name.
    pub provider: String,
    /// Credential.
    pub account: Fingerprint,
    /// Model.
    pub model: String,
    /// Batches of about the same number of lines: its decimal digits.
    pub size_class: u32,
    /// When the last of them ended.
    pub at: Micros,
    /// Milliseconds, oldest first.
    pub recent_ms: Vec<u32>,
}

/// How much a provider takes of one credential, as its refusals taught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedCeiling {
    /// Provider name.
    pub provider: String,
    /// Credential.
    pub account: Fingerprint,
    /// What is limited.
    pub limited: Limited,
    /// So much is tried at most.
    pub most: u64,
    /// The provider's own number, where it named one.
    pub told: Option<u64>,
    /// When it was refused.
    pub at: Micros,
}

/// What a learned ceiling is a limit of. In the order of their numbers on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// Prompt tokens in the queue of this model.
    Tokens(String),
    /// Bytes of an input file, whatever its model.
    FileBytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_do_not_touch_each_other() {
        let flags = RequestOptions::HOLD | RequestOptions::STREAM;
        let fallback = Fallback::of(&[Service::Sync, Service::Flex]);
        let options = RequestOptions(flags).with_fallback(fallback).with_inputs(50_000);
        assert!(options.has(flags) && !options.has(RequestOptions::DELIVERED));
        assert_eq!((options.inputs(), options.fallback()), (50_000, fallback));
        let changed = options.with_inputs(u32::MAX).with_fallback(Fallback::of(&[Service::Flex]));
        assert_eq!((changed.inputs(), changed.fallback()), (65_535, Fallback::of(&[Service::Flex])));
        let all = Fallback::of(&[Service::Background2h, Service::Sync, Service::Background8h, Service::Flex]);
        assert_eq!((changed.with_fallback(all).fallback(), changed.with_fallback(all).inputs()), (all, 65_535));
        assert!(changed.with_fallback(Fallback::default()).fallback().is_empty());
        assert!(RequestOptions(flags).fallback().is_empty());
    }
}
