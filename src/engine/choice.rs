//! Which service comes next: the first of a request's fallback that may still answer in time (contract, section 7).
//!
//! Live calls always may. A background window may where the provider has it, where it did not refuse this credential and
//! model lately, and where its whole time fits before the moment from which the rest would have to be bought: what a window
//! promises is counted, not what it is hoped to take. Called by `dispatch`, `fallback`, `live` and `background`.

use crate::domain::clock::Micros;
use crate::domain::lane::LaneKey;
use crate::domain::service::{Fallback, Service};
use crate::engine::context::Context;
use crate::engine::deadline::Schedule;
use crate::store::RequestRecord;

/// The first of `fallback` that may serve a request with this deadline.
pub(crate) fn first(
    context: &Context,
    lane: &LaneKey,
    fallback: Fallback,
    deadline: Option<Micros>,
) -> Option<Service> {
    fallback.iter().find(|service| may_serve(context, lane, *service, deadline))
}

/// The one to try after `service`.
pub(crate) fn after(context: &Context, record: &RequestRecord, service: Service) -> Option<Service> {
    let request = &record.request;
    first(context, &request.lane, request.options.fallback().after(service), request.deadline_at)
}

/// The one to begin with now: what was written down, unless it is a window that is shut by now.
pub(crate) fn of(context: &Context, record: &RequestRecord) -> Option<Service> {
    let request = &record.request;
    let fallback = request.options.fallback();
    match record.live.map(|live| live.service) {
        Some(service) if may_serve(context, &request.lane, service, request.deadline_at) => Some(service),
        Some(shut) => after(context, record, shut).or(Some(shut)),
        None => first(context, &request.lane, fallback, request.deadline_at).or_else(|| fallback.first()),
    }
}

fn may_serve(context: &Context, lane: &LaneKey, service: Service, deadline: Option<Micros>) -> bool {
    let Some((window, _)) = service.window() else { return true };
    let is_offered = context.provider(lane).is_some_and(|provider| provider.capability().windows.contains(&service));
    is_offered && !context.refused.knows(lane, service) && deadline.is_none_or(|at| fits(context.now(), window, at))
}

fn fits(now: Micros, window: std::time::Duration, deadline: Micros) -> bool {
    now.plus(window) <= Schedule::new(now, deadline, 1).cancel_at
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_windows_whole_time_has_to_fit_before_the_rest_is_bought() {
        let now = Micros::from_unix_seconds(1_795_420_800);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let fits = |window, left| fits(now, minutes(window), now.plus(minutes(left)));
        assert!(fits(120, 131), "to the microsecond");
        assert!(fits(120, 132) && !fits(120, 130), "eleven minutes to cancel and to buy");
        assert!(fits(480, 491) && !fits(480, 490) && !fits(480, 120));
    }
}
