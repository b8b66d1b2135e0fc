//! The services by which a request can in the end be served (contract, section 1).

use std::fmt;
use std::str::FromStr;

/// How a request is in the end served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// The services that may take over a request that batch cannot serve, in the order to try. Empty: none may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallback([Option<Service>; 2]);

impl Fallback {
    /// Those of `services` that are no batch, each once.
    pub fn of(services: &[Service]) -> Self {
        let mut fallback = Self::default();
        let live = services.iter().copied().filter(|service| *service != Service::Batch);
        for service in live {
            let slot = fallback.0.iter_mut().find(|slot| slot.is_none_or(|taken| taken == service));
            if let Some(slot) = slot {
                *slot = Some(service);
            }
        }
        fallback
    }

    /// The one to try first.
    pub fn first(self) -> Option<Service> {
        self.iter().next()
    }

    /// The one to try after `service`.
    pub fn after(self, service: Service) -> Option<Service> {
        self.iter().skip_while(|listed| *listed != service).nth(1)
    }

    /// Whether nothing may take over.
    pub const fn is_empty(self) -> bool {
        self.0[0].is_none()
    }

    /// In the order to try.
    pub fn iter(self) -> impl Iterator<Item = Service> {
        self.0.into_iter().flatten()
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
    fn a_fallback_keeps_its_order_and_names_each_service_once() {
        use Service::{Batch, Flex, Sync};
        let both = Fallback::of(&[Flex, Batch, Flex, Sync, Flex]);
        assert_eq!(both.iter().collect::<Vec<_>>(), [Flex, Sync]);
        assert_eq!((both.first(), both.after(Flex), both.after(Sync)), (Some(Flex), Some(Sync), None));
        assert_eq!(Fallback::of(&[Sync, Flex]).after(Sync), Some(Flex));
        assert!(Fallback::of(&[Batch]).is_empty() && Fallback::default().first().is_none());
        assert_eq!(Fallback::of(&[Sync]).after(Flex), None, "what is not listed has no successor");
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
