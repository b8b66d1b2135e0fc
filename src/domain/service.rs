//! The services by which a request can in the end be served (contract, section 1).

use std::fmt;
use std::str::FromStr;

/// How a request is in the end served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// The provider's Batch API.
    Batch,
    /// A live call with `service_tier: "flex"`.
    Flex,
    /// The live call at full price.
    Sync,
}

/// A text that names no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a service: expected \"batch\", \"flex\" or \"sync\"")]
pub struct UnknownService;

impl Service {
    /// All of them, cheapest first.
    pub const ALL: [Self; 3] = [Self::Batch, Self::Flex, Self::Sync];

    /// The name in headers, configuration, store and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Sync => "sync",
        }
    }

    /// The service whose price applies, given the `service_tier` the answer reports: the answer's word counts, not
    /// what was asked for (providers.md, sections 1.12 and 5.1). None for tiers without a known price.
    pub fn priced_as(self, answered_tier: Option<&str>) -> Option<Self> {
        match (self, answered_tier) {
            (Self::Batch, _) => Some(Self::Batch),
            (asked, None | Some("auto")) => Some(asked),
            (_, Some("default")) => Some(Self::Sync),
            (_, Some("flex")) => Some(Self::Flex),
            (_, Some(_)) => None,
        }
    }

    /// The service that was really used, by the same rule: one of ours, or the provider's tier, or `other`.
    pub fn used(self, answered_tier: Option<&str>) -> &'static str {
        const TIERS: [&str; 4] = ["priority", "scale", "fast", "ultrafast"];
        match self.priced_as(answered_tier) {
            Some(service) => service.as_str(),
            None => TIERS.into_iter().find(|tier| Some(*tier) == answered_tier).unwrap_or("other"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        Self::ALL.into_iter().find(|service| service.as_str() == text).ok_or(UnknownService)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_others_are_refused() {
        for service in Service::ALL {
            assert_eq!(service.to_string().parse(), Ok(service));
        }
        assert_eq!("Batch".parse::<Service>(), Err(UnknownService));
    }

    #[test]
    fn the_answers_tier_decides_the_price() {
        assert_eq!(Service::Flex.priced_as(Some("default")), Some(Service::Sync));
        assert_eq!(Service::Sync.priced_as(Some("flex")), Some(Service::Flex));
        assert_eq!(Service::Sync.priced_as(Some("priority")), None);
        assert_eq!(Service::Flex.priced_as(None), Some(Service::Flex));
        assert_eq!(Service::Batch.priced_as(Some("default")), Some(Service::Batch));
        assert_eq!(Service::Sync.used(Some("priority")), "priority");
        assert_eq!(Service::Sync.used(Some("tomorrow")), "other");
        assert_eq!(Service::Flex.used(Some("default")), "sync");
    }
}
