//! What batch, or a background window, cannot serve: which refusals last, how long they are remembered, and the way from a batch to live calls.
//!
//! The memory is per credential and model and in this process only: after a restart one more batch is refused, which
//! costs nothing, and nothing that has become possible stays shut out by an old file. Called by `settle`, `poll` and
//! `dispatch`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::ids::RequestId;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::domain::service::Service;
use crate::engine::choice;
use crate::engine::context::Context;
use crate::engine::live;
use crate::engine::run::StepError;
use crate::store::{LiveCall, RequestRecord};

/// For hours, not for good (contract, section 7).
const REMEMBERED_FOR: Duration = Duration::from_secs(6 * 3600);

/// A window that is full may have room again soon.
const FULL_FOR: Duration = Duration::from_secs(600);

/// Models are callers' texts: from so many on, those that count no more are forgotten.
const MANY: usize = 1_024;

type Key = (Arc<str>, Fingerprint, Arc<str>, Service);

/// Credentials and models that batch, or a background window, refused for a lasting reason.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    until: Mutex<HashMap<Key, (Instant, u32)>>,
}

impl Refused {
    /// The service was refused for a lasting reason.
    pub(crate) fn remember(&self, lane: &LaneKey, service: Service, reason: &str) {
        let times = self.keep(lane, service, REMEMBERED_FOR);
        let hours = REMEMBERED_FOR.as_secs() / 3600;
        if times == 1 {
            tracing::warn!(%lane, %service, reason, hours, "the service cannot serve this model: new requests go to the next one");
        } else {
            tracing::warn!(
                %lane,
                %service,
                reason,
                times,
                hours,
                "this lane always falls back: do not mark such calls, or exclude the model by a rule"
            );
        }
    }

    /// The service has no room for this credential and model at the moment.
    pub(crate) fn remember_full(&self, lane: &LaneKey, service: Service) {
        let times = self.keep(lane, service, FULL_FOR);
        tracing::info!(%lane, %service, times, minutes = FULL_FOR.as_secs() / 60, "the service has no room: requests go to the next one");
    }

    fn keep(&self, lane: &LaneKey, service: Service, how_long: Duration) -> u32 {
        let (now, mut known) = (Instant::now(), self.until.lock());
        if known.len() >= MANY {
            known.retain(|_, (until, _)| *until > now);
        }
        let (until, times) = known.entry(key(lane, service)).or_insert_with(|| (now, 0));
        *until = (*until).max(now + how_long);
        *times += 1;
        *times
    }

    /// Whether the service refused this credential and model lately.
    pub(crate) fn knows(&self, lane: &LaneKey, service: Service) -> bool {
        self.until.lock().get(&key(lane, service)).is_some_and(|(until, _)| *until > Instant::now())
    }
}

fn key(lane: &LaneKey, service: Service) -> Key {
    (Arc::clone(&lane.provider), lane.account, Arc::clone(&lane.model), service)
}

/// Hands requests over from a batch to live calls, those that allow it: durable first. Returns the others, and how many
/// were handed over.
pub(crate) async fn take_over(
    context: &Arc<Context>,
    lane: &Arc<LaneKey>,
    records: Vec<RequestRecord>,
    why: &'static str,
) -> Result<(Vec<RequestRecord>, usize), StepError> {
    let (mut rest, mut handed) = (Vec::new(), 0);
    let mut by_service: Vec<(LiveCall, Vec<RequestId>)> = Vec::new();
    let since = context.now();
    for record in records {
        let fallback = record.request.options.fallback();
        let Some(service) = choice::first(context, lane, fallback, record.request.deadline_at) else {
            rest.push(record);
            continue;
        };
        let call = LiveCall { service, since, sent_at: None };
        match by_service.iter_mut().find(|(listed, _)| *listed == call) {
            Some((_, ids)) => ids.push(record.request.id),
            None => by_service.push((call, vec![record.request.id])),
        }
    }
    for (call, ids) in by_service {
        let marked = context.store.mark_live(ids, call).await?;
        crate::crash::point("live-handed");
        handed += marked.len();
        if !marked.is_empty() {
            tracing::warn!(%lane, service = %call.service, requests = marked.len(), why, "a batch's requests go to live calls");
            context.telemetry.fallback(call.service.as_str(), marked.len(), why);
            live::start(context, lane, marked, false);
        }
    }
    Ok((rest, handed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Endpoint;
    use Service::{Background8h, Batch};

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_hours_and_for_its_model_only() {
        let lane = |model: &str, account| LaneKey {
            provider: "openai".into(),
            account: Fingerprint([account; 16]),
            endpoint: Endpoint::Responses,
            model: model.into(),
            deadline_class: 0,
        };
        let refused = Refused::default();
        refused.remember(&lane("m", 1), Batch, "no");
        assert!(refused.knows(&LaneKey { deadline_class: 7, ..lane("m", 1) }, Batch));
        assert!(!refused.knows(&lane("n", 1), Batch) && !refused.knows(&lane("m", 2), Batch));
        tokio::time::advance(REMEMBERED_FOR - Duration::from_secs(1)).await;
        assert!(refused.knows(&lane("m", 1), Batch));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!refused.knows(&lane("m", 1), Batch), "it is tried again");
        assert!(!refused.knows(&lane("m", 1), Background8h), "another service's business");
        refused.remember_full(&lane("m", 1), Background8h);
        tokio::time::advance(FULL_FOR - Duration::from_secs(1)).await;
        assert!(refused.knows(&lane("m", 1), Background8h));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!refused.knows(&lane("m", 1), Background8h), "there may be room again");
        refused.remember(&lane("m", 1), Batch, "no");
        assert!(refused.knows(&lane("m", 1), Batch));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_and_a_short_one_does_not_end_a_long_one() {
        let lane = |model: &str| LaneKey {
            provider: "openai".into(),
            account: Fingerprint([1; 16]),
            endpoint: Endpoint::Responses,
            model: model.into(),
            deadline_class: 0,
        };
        let refused = Refused::default();
        let keep = |model: &str, how_long| refused.keep(&lane(model), Batch, how_long);
        assert_eq!([keep("m", REMEMBERED_FOR), keep("m", FULL_FOR), keep("n", FULL_FOR)], [1, 2, 1]);
        tokio::time::advance(FULL_FOR).await;
        assert!(refused.knows(&lane("m"), Batch), "the longer of the two");
        let known = refused.until.lock().len();
        for number in known..MANY {
            keep(&format!("m{number}"), FULL_FOR);
        }
        tokio::time::advance(FULL_FOR).await;
        assert_eq!(refused.until.lock().len(), MANY);
        keep("o", FULL_FOR);
        assert_eq!(refused.until.lock().len(), 2, "what is over is forgotten when there are many");
    }
}
