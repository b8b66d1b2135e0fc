//! Deadlines: whoever has none of its services' answers by then is told so, 504 `deadline_exceeded`.
//!
//! The last resort: batches and live calls have their own schedules before it, and what they bring later changes nothing
//! for the caller. Each request with a deadline is entered once, when it is queued or found at start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::request::RequestState;
use crate::engine::context::Context;
use crate::engine::dispatch::Message;
use crate::engine::run::StepError;
use crate::engine::settle::{self, Refusal};
use crate::store::{Finish, RequestRecord};

/// The wall clock may be set: it is looked at this often.
const LOOK: Duration = Duration::from_secs(30);
const GROUP: usize = 1_000;

/// Runs until the process stops.
pub(crate) async fn run(context: Arc<Context>, mut entered: mpsc::UnboundedReceiver<(Micros, RequestId)>) {
    let mut waiting: BTreeSet<(Micros, RequestId)> = BTreeSet::new();
    let stop = context.tasks.stop_token().clone();
    loop {
        let next = waiting.first().map_or(LOOK, |(at, _)| at.since(context.now()).min(LOOK));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            one = entered.recv() => match one {
                Some(one) => {
                    waiting.insert(one);
                    continue;
                }
                None => return,
            },
            () = tokio::time::sleep(next) => {}
        }
        let now = context.now();
        let mut due = Vec::new();
        while let Some(first) = waiting.pop_first() {
            if first.0 > now || due.len() >= GROUP {
                waiting.insert(first);
                break;
            }
            due.push(first);
        }
        if due.is_empty() {
            continue;
        }
        if let Err(StepError::Store(error)) = end(&context, due.iter().map(|(_, id)| *id).collect()).await {
            context.telemetry.store_failed(&error);
            // They are late already: again in a moment.
            let later = now.plus(Duration::from_secs(1));
            waiting.extend(due.into_iter().map(|(_, id)| (later, id)));
        }
    }
}

async fn end(context: &Context, ids: Vec<RequestId>) -> Result<(), StepError> {
    let mut open = context.store.records(ids).await?;
    open.retain(|record| !record.state.is_terminal());
    let mut by_batch: BTreeMap<Option<BatchId>, Vec<RequestRecord>> = BTreeMap::new();
    for record in open {
        by_batch.entry(record.batch_id).or_default().push(record);
    }
    for (batch, records) in by_batch {
        let accepted = records.iter().map(|record| record.request.created_at).min().unwrap_or_default();
        let finished = records.iter().map(|record| exceeded(context, record)).collect();
        settle::finish(context, accepted, batch, finished).await?;
        for record in records.iter().filter(|record| record.state == RequestState::Queued) {
            context.tell(Message::Withdrawn(Arc::clone(&record.request.lane), record.request.id));
        }
    }
    Ok(())
}

fn exceeded(context: &Context, record: &RequestRecord) -> Finish {
    let message = match record.live {
        Some(call) if call.sent_at.is_some() => {
            "the deadline passed while a live call was out: it may have been executed and billed; send the call again only if it may be bought once more"
        }
        Some(_) => "the deadline passed while the provider refused the live call: send it again, or with more time",
        None if record.state == RequestState::Submitted => {
            "the deadline passed while the request was in a batch, and nothing else may serve it: allow a fallback (x-nightbus-fallback), or more time"
        }
        None => "the deadline passed before the request could be served: give it more time, or send it live",
    };
    let refusal = Refusal { status: 504, code: "deadline_exceeded".to_owned(), ..Refusal::own(message) };
    refusal.finish(context, record.request.id)
}
