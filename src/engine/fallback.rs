//! What batch cannot serve: which refusals last, how long they are remembered, and the way from a batch to live calls.
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
use crate::engine::context::Context;
use crate::engine::live;
use crate::engine::run::StepError;
use crate::store::{LiveCall, RequestRecord};

/// For hours, not for good (contract, section 7).
const REMEMBERED_FOR: Duration = Duration::from_secs(6 * 3600);

/// Models are callers' texts: from so many on, those that count no more are forgotten.
const MANY: usize = 1_024;

type Key = (Arc<str>, Fingerprint, Arc<str>);

/// Credentials and models whose batches were refused for a lasting reason.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    since: Mutex<HashMap<Key, (Instant, u32)>>,
}

impl Refused {
    /// A batch was refused for a lasting reason.
    pub(crate) fn remember(&self, lane: &LaneKey, reason: &str) {
        let mut known = self.since.lock();
        if known.len() >= MANY {
            known.retain(|_, (since, _)| since.elapsed() < REMEMBERED_FOR);
        }
        let (since, times) = known.entry(key(lane)).or_insert_with(|| (Instant::now(), 0));
        *since = Instant::now();
        *times += 1;
        let (times, hours) = (*times, REMEMBERED_FOR.as_secs() / 3600);
        drop(known);
        if times == 1 {
            tracing::warn!(%lane, reason, hours, "batch cannot serve this model: new requests go to their fallback");
        } else {
            tracing::warn!(
                %lane,
                reason,
                times,
                hours,
                "this lane always falls back: do not mark such calls, or exclude the model by a rule"
            );
        }
    }

    /// Whether a batch of this credential and model was refused in the last hours.
    pub(crate) fn knows(&self, lane: &LaneKey) -> bool {
        let known = self.since.lock();
        known.get(&key(lane)).is_some_and(|(since, _)| since.elapsed() < REMEMBERED_FOR)
    }
}

fn key(lane: &LaneKey) -> Key {
    (Arc::clone(&lane.provider), lane.account, Arc::clone(&lane.model))
}

/// Hands requests over from a batch to live calls, those that allow it: durable first. Returns the others, and how many
/// were handed over.
pub(crate) async fn take_over(
    context: &Arc<Context>,
    lane: &Arc<LaneKey>,
    records: Vec<RequestRecord>,
    why: &'static str,
) -> Result<(Vec<RequestRecord>, usize), StepError> {
    let (able, rest): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| !record.request.options.fallback().is_empty());
    let mut handed = 0;
    let mut by_service: Vec<(LiveCall, Vec<RequestId>)> = Vec::new();
    let since = context.now();
    for record in &able {
        let Some(service) = record.request.options.fallback().first() else { continue };
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
        refused.remember(&lane("m", 1), "no");
        assert!(refused.knows(&LaneKey { deadline_class: 7, ..lane("m", 1) }));
        assert!(!refused.knows(&lane("n", 1)) && !refused.knows(&lane("m", 2)));
        tokio::time::advance(REMEMBERED_FOR - Duration::from_secs(1)).await;
        assert!(refused.knows(&lane("m", 1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!refused.knows(&lane("m", 1)), "it is tried again");
        refused.remember(&lane("m", 1), "no");
        assert!(refused.knows(&lane("m", 1)));
    }
}
