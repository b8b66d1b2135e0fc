//! From an executed answer to its charge: usage and service as the answer tells them, priced once.
//!
//! The one place where a deferred request's money is made, for lines of a batch and for live answers alike: what the
//! request object and the headers show is taken from the same charge that enters the ledger. An error is not billed
//! (providers.md, section 1.12), and an unknown price stays unknown.

use std::sync::Arc;

use crate::domain::lane::LaneKey;
use crate::domain::pricing::{Price, Seller};
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::store::OutcomeSummary;
use crate::store::ledger::{Charge, Execution};
use crate::wire::usage::consumption;

/// An answer that is billed.
#[derive(Clone, Debug)]
pub(crate) struct Billed {
    /// For the ledger.
    pub(crate) charge: Charge,
    /// As the provider wrote it, for the request object.
    pub(crate) usage_json: Option<String>,
}

/// What an answer of `status` is charged with, when `asked` was to serve it; none: it is not billed.
pub(crate) fn charge(
    context: &Context,
    lane: &LaneKey,
    execution: Execution,
    asked: Service,
    status: u16,
    body: &[u8],
) -> Option<Billed> {
    if !(200..300).contains(&status) {
        return None;
    }
    let consumed = consumption(lane.endpoint.api(), body);
    let tier = consumed.service_tier.as_deref();
    let priced_as = asked.priced_as(tier);
    let kind = context.provider_configs.get(&*lane.provider).map_or("", |config| config.kind.as_str());
    let seller = Seller { name: &lane.provider, kind, model: &lane.model };
    let price = consumed
        .usage
        .zip(priced_as)
        .and_then(|(usage, service)| context.settings().prices.price(seller, service, &usage));
    let charge = Charge {
        provider: Arc::clone(&lane.provider),
        account: lane.account,
        model: Arc::clone(&lane.model),
        service: asked.used(tier),
        execution,
        usage: consumed.usage,
        price,
    };
    Some(Billed { charge, usage_json: consumed.usage_json })
}

/// An execution whose answer cannot be read: billed, but nobody can tell how much.
pub(crate) fn unreadable(lane: &LaneKey, (service, execution): (Service, Execution)) -> Charge {
    Charge {
        provider: Arc::clone(&lane.provider),
        account: lane.account,
        model: Arc::clone(&lane.model),
        service: service.as_str(),
        execution,
        usage: None,
        price: None,
    }
}

/// The summary of an answer. `asked`: the service it is from, where nothing is billed.
pub(crate) fn summary(
    status: u16,
    asked: Service,
    provider_request_id: Option<String>,
    billed: Option<&Billed>,
) -> OutcomeSummary {
    let price = billed.and_then(|billed| billed.charge.price);
    OutcomeSummary {
        status_code: status,
        service: Some(billed.map_or(asked.as_str(), |billed| billed.charge.service).to_owned()),
        provider_request_id,
        error: None,
        usage_json: billed.and_then(|billed| billed.usage_json.clone()),
        cost_nanos: price.map(|price| price.paid_nanos),
        saved_nanos: price.map(Price::saved_nanos),
    }
}
