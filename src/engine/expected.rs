//! When requests and batches are expected to be answered, from what `learned` knows of batches like theirs.
//!
//! Only looks: nothing is decided by it. Where something else than the provider's pace holds a request up (a test flight,
//! a budget, a full queue, a live call), nothing is said: a forecast that is sure to be wrong is worse than none.

use crate::domain::clock::Micros;
use crate::domain::forecast::Expected;
use crate::domain::lane::LaneKey;
use crate::domain::request::RequestState;
use crate::domain::service::Service;
use crate::engine::Engine;
use crate::engine::context::Context;
use crate::engine::flight::Standing;
use crate::engine::object::{GroundedObject, RequestObject};
use crate::store::{BatchRecord, NewRequest, RequestRecord};

impl Engine {
    /// The request object of the contract (section 6) of a stored request, as of now.
    pub fn object<'a>(&self, record: &'a RequestRecord) -> RequestObject<'a> {
        let object = RequestObject::new(record, self.context.retention, self.context.expected(record));
        object.held_by(self.context.grounded(record))
    }

    /// When a batch is expected to have ended; none: it has, or nothing is known.
    pub fn expected_end(&self, batch: &BatchRecord) -> Option<Expected> {
        let context = &self.context;
        if batch.state.is_terminal() {
            return None;
        }
        context.expected_running(&batch.lane, batch.line_count, batch.created_at)
    }
}

impl Context {
    /// The grounded test flight that a queued request waits for.
    fn grounded(&self, record: &RequestRecord) -> Option<GroundedObject> {
        let template = record.request.template.filter(|_| record.state == RequestState::Queued)?;
        let flight = self.flights.grounded(template)?;
        let landed_at = flight.landed_at.unwrap_or(flight.created_at);
        Some(GroundedObject {
            id: flight.id.to_string(),
            state: flight.state.as_str(),
            reasons: flight.reasons,
            decide_by: landed_at.plus(self.flight.ground_timeout).unix_seconds(),
        })
    }

    /// Of a request that has not ended.
    fn expected(&self, record: &RequestRecord) -> Option<Expected> {
        let lane = &record.request.lane;
        // The pace of live calls is the provider's alone.
        if record.live.is_some() {
            return None;
        }
        let expected = match record.state {
            RequestState::Queued => self.expected_queued(&record.request),
            RequestState::Submitted => {
                let lines = self.running.lines(record.batch_id?)?;
                self.expected_running(lane, lines, record.submitted_at?)
            }
            RequestState::Completed | RequestState::Failed | RequestState::Cancelled => None,
        }?;
        let deadline = record.request.deadline_at.filter(|_| is_rescued(lane));
        Some(deadline.map_or(expected, |deadline| expected.no_later_than(deadline)))
    }

    /// Of a batch whose intent was written then.
    fn expected_running(&self, lane: &LaneKey, lines: u32, began: Micros) -> Option<Expected> {
        let now = self.now();
        let expected = Expected::of_running(began, now, self.learned.recent(lane, lines, now))?;
        let class = Micros::from_unix_seconds(lane.deadline_class);
        Some(if is_rescued(lane) { expected.no_later_than(class) } else { expected })
    }

    /// Of a request in its lane's queue, which leaves when nothing more comes, or when it has waited for long enough.
    fn expected_queued(&self, request: &NewRequest) -> Option<Expected> {
        let now = self.now();
        if self.refused.knows(&request.lane, Service::Batch) {
            return None;
        }
        if let Some(template) = request.template
            && matches!(
                self.flights.standing(template, request.created_at, now),
                Standing::Waits | Standing::Refused(_)
            )
        {
            return None;
        }
        let waiting = {
            let lanes = self.lanes.read();
            let at = lanes.binary_search_by(|view| view.lane.cmp(&request.lane));
            match at.ok().and_then(|at| lanes.get(at)) {
                Some(lane) if lane.held_back.is_some() => return None,
                Some(lane) => lane.queued_requests.max(1),
                None => 1,
            }
        };
        let took = self.learned.recent(&request.lane, u32::try_from(waiting).unwrap_or(u32::MAX), now);
        let settings = self.settings();
        let latest = request.created_at.plus(settings.batching.max_age).max(now);
        let soonest = now.plus(settings.batching.idle).min(latest);
        Expected::of_waiting(soonest, latest, took)
    }
}

/// Whether another service takes its lines over before their deadline.
fn is_rescued(lane: &LaneKey) -> bool {
    lane.deadline_class > 0
}
