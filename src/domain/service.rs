//! The services by which a request can in the end be served (contract, section 1).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How a request is in the end served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// The provider's Batch API.
    Batch,
    /// A live call with `service_tier: "flex"`.
    Flex,
    /// A Responses call in the background, to be answered within 8 hours.
    Background8h,
    /// The same within 2 hours.
    Background2h,
    /// The live call at full price.
    Sync,
}

/// A text that names no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a service: expected \"batch\", \"flex\", \"background_8h\", \"background_2h\" or \"sync\"")]
pub struct UnknownService;

impl Service {
    /// All of them, cheapest first.
    pub const ALL: [Self; 5] = [Self::Batch, Self::Flex, Self::Background8h, Self::Background2h, Self::Sync];

    /// The name in headers, configuration, store and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Background8h => "background_8h",
            Self::Background2h => "background_2h",
            Self::Sync => "sync",
        }
    }

    /// The background window: how long the provider may take, and as the call and the configuration name it (providers.md,
    /// section 1.12). None for services without one.
    pub const fn window(self) -> Option<(Duration, &'static str)> {
        match self {
            Self::Background8h => Some((Duration::from_secs(8 * 3600), "8h")),
            Self::Background2h => Some((Duration::from_secs(2 * 3600), "2h")),
            Self::Batch | Self::Flex | Self::Sync => None,
        }
    }

    /// The service whose price applies, given the `service_tier` the answer reports: the answer's word counts, not
    /// what was asked for (providers.md, sections 1.12 and 5.1). None for tiers without a known price.
    pub fn priced_as(self, answered_tier: Option<&str>) -> Option<Self> {
        match (self, answered_tier) {
            (Self::Batch, _) => Some(Self::Batch),
            (asked, None | Some("auto")) => Some(asked),
            // Windows are of standard processing (section 1.12).
            (Self::Background8h | Self::Background2h, Some("default")) => Some(self),
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
pub struct Fallback([Option<Service>; 4]);

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

    /// Those to try after `service`.
    #[must_use]
    pub fn after(self, service: Service) -> Self {
        Self::of(&self.iter().skip_while(|listed| *listed != service).skip(1).collect::<Vec<_>>())
    }

    /// Whether one of them answers at once, and so may rescue what runs late.
    pub fn may_rescue(self) -> bool {
        self.iter().any(|service| service.window().is_none())
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
        use Service::{Background2h, Background8h, Batch, Flex, Sync};
        let both = Fallback::of(&[Flex, Batch, Flex, Sync, Flex]);
        assert_eq!(both.iter().collect::<Vec<_>>(), [Flex, Sync]);
        assert_eq!((both.first(), Fallback::of(&[Sync, Flex]).first()), (Some(Flex), Some(Sync)));
        assert_eq!((both.after(Flex).first(), both.after(Sync).first()), (Some(Sync), None));
        assert!(both.after(Background8h).is_empty(), "what is not listed has no successor");
        assert!(Fallback::of(&[Batch]).is_empty() && Fallback::default().first().is_none());
        let all = [Background2h, Sync, Flex, Background8h];
        assert_eq!(Fallback::of(&all).iter().collect::<Vec<_>>(), all);
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
        assert_eq!(Service::Background8h.used(Some("default")), "background_8h");
        assert_eq!(Service::Background2h.priced_as(Some("flex")), Some(Service::Flex));
        assert_eq!(Service::Background2h.priced_as(Some("priority")), None);
    }
}
