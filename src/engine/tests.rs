//! What the tests of the engine's parts share: a wall clock that goes with paused time, and a request that waits.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::clock::{Clock, Micros};
use crate::domain::ids::IdSource;
use crate::domain::lane::Fingerprint;
use crate::domain::service::Fallback;
use crate::engine::budget::Purses;
use crate::engine::plan::Queued;

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Wall clock that goes with the paused one, from the moment it was made.
#[derive(Debug)]
pub(super) struct Paused(pub(super) Instant);

impl Clock for Paused {
    fn now(&self) -> Micros {
        Micros::from_unix_seconds(1_795_420_800).plus(self.0.elapsed())
    }
}

/// The next small request: it waits since now, costs nothing, and nothing may take it over.
pub(super) fn queued(ids: &IdSource) -> Queued {
    Queued {
        id: ids.request_id(Micros(1), 0),
        line_bytes: 10,
        inputs: 0,
        caller: Fingerprint([0; 16]),
        accepted_at: Micros(0),
        fallback: Fallback::default(),
        since: Instant::now(),
        leave_by: None,
        apart: None,
        template: None,
        most_output: None,
        estimate: 0,
        purses: Purses::default(),
    }
}
