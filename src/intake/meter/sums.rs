//! Live calls, added up in memory by hour and group, and written a few times a second.
//!
//! Invariants: entering never blocks and never waits for the store; what is kept is bounded by [`GROUPS`], and what does not
//! fit is counted as lost. What a full disk did not take is kept and tried again ([`RETRY`]). A process that is killed loses
//! what is not written from the ledger: the calls of its last moment ([`GATHER`]), or those since the disk is full; one that stops
//! tries once more, and counts as lost what cannot be written then.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::domain::backoff::backoff;
use crate::domain::pricing::{PriceTable, Seller};
use crate::domain::service::Service;
use crate::engine::Engine;
use crate::intake::meter::Metered;
use crate::store::StoreError;
use crate::store::ledger::{Group, LedgerSums, PassedCall, PassedCalls};
use crate::tasks::Tasks;
use crate::wire::openai::usage::Consumption;

/// So long calls are added up before they are written.
const GATHER: Duration = Duration::from_millis(250);
/// Groups that are not written yet; calls of further ones are lost to the ledger.
const GROUPS: usize = 8_192;
/// So long after a write that failed it is tried again …
const RETRY: Duration = Duration::from_secs(1);
/// … twice as long after each further one, up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(8);

/// Sums by hour and group.
#[derive(Debug, Default)]
struct Unwritten(HashMap<(i64, Group), LedgerSums>);

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
enum Added {
    /// It is all that is to be written.
    First,
    /// It is among others.
    More,
    /// There are too many groups.
    NoRoom,
}

impl Unwritten {
    fn add(&mut self, hour: i64, group: Group, added: LedgerSums) -> Added {
        let groups = self.0.len();
        match self.0.entry((hour, group)) {
            Entry::Occupied(mut sums) => *sums.get_mut() += added,
            Entry::Vacant(_) if groups >= GROUPS => return Added::NoRoom,
            Entry::Vacant(place) => {
                place.insert(added);
            }
        }
        if groups == 0 { Added::First } else { Added::More }
    }

    fn take(&mut self) -> Vec<PassedCalls> {
        self.0.drain().map(|((hour, group), sums)| PassedCalls { hour, group, sums }).collect()
    }

    /// What was not written comes back to what was added since. How many calls find no room.
    fn put_back(&mut self, calls: Vec<PassedCalls>) -> u64 {
        let lost = |calls: PassedCalls| {
            let became = self.add(calls.hour, calls.group, calls.sums);
            if became == Added::NoRoom { calls.sums.requests } else { 0 }
        };
        calls.into_iter().map(lost).fold(0, u64::saturating_add)
    }
}

/// What is not written yet.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    unwritten: Arc<Mutex<Unwritten>>,
    /// Tells the writer that there is something. It ends with the last sender.
    filled: mpsc::Sender<()>,
    engine: Engine,
    prices: Arc<PriceTable>,
}

impl Sums {
    /// Starts the task that writes.
    pub(super) fn start(engine: Engine, prices: Arc<PriceTable>, tasks: &Tasks) -> Self {
        let unwritten = Arc::<Mutex<Unwritten>>::default();
        let (filled, signs) = mpsc::channel(1);
        tasks.spawn("live calls", write(engine.clone(), Arc::clone(&unwritten), signs, tasks.clone()));
        Self { unwritten, filled, engine, prices }
    }

    /// Adds a call whose answer has ended.
    pub(super) fn enter(&self, call: Metered, consumed: &Consumption) {
        let tier = consumed.service_tier.as_deref();
        let model = call.model.as_deref().or(consumed.model.as_deref()).unwrap_or_default();
        let seller = Seller { name: &call.provider, kind: call.kind, model };
        let priced = |service| consumed.usage.and_then(|usage| self.prices.price(seller, service, &usage));
        let added = LedgerSums::of_call(&PassedCall {
            usage: consumed.usage,
            price: Service::Sync.priced_as(tier).and_then(priced),
            observed: call.observed.is_some().then(|| priced(Service::Batch).map(|price| price.paid_nanos)),
        });
        let group = Group {
            model: Arc::from(model),
            provider: call.provider,
            account: call.account,
            service: Service::Sync.used(tier).to_owned(),
            tag: call.tag,
            key: call.key,
            agent: call.observed.flatten(),
        };
        let hour = self.engine.clock().now().hour();
        let became = self.unwritten.lock().add(hour, group, added);
        match became {
            // A sign that is there already is taken before what was added is: none is missing.
            Added::First if self.filled.try_send(()).is_err() => {
                tracing::trace!("the writer has not taken the last sign yet");
            }
            Added::First | Added::More => {}
            Added::NoRoom => self.engine.telemetry().ledger_lost(1),
        }
    }
}

/// Writes what was added up until nobody can add any more.
async fn write(engine: Engine, unwritten: Arc<Mutex<Unwritten>>, mut filled: mpsc::Receiver<()>, tasks: Tasks) {
    while filled.recv().await.is_some() {
        let mut wait = GATHER;
        for failures in 0.. {
            if !tasks.is_stopping() {
                tokio::select! {
                    () = tasks.stop_token().cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            let is_last = tasks.is_stopping();
            let calls = unwritten.lock().take();
            let Err(error) = engine.store().record_calls(calls.clone()).await else { break };
            engine.telemetry().store_failed(&error);
            // Anything but a full disk gets no better.
            let may_pass = matches!(error, StoreError::Unwritable(_)) && !is_last;
            let lost = match may_pass {
                true => unwritten.lock().put_back(calls),
                false => calls.iter().map(|calls| calls.sums.requests).fold(0, u64::saturating_add),
            };
            engine.telemetry().ledger_lost(usize::try_from(lost).unwrap_or(usize::MAX));
            if !may_pass {
                break;
            }
            wait = backoff(failures, RETRY, LONGEST_RETRY, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Fingerprint;

    fn group(model: usize) -> Group {
        Group {
            provider: Arc::from("openai"),
            account: Fingerprint([1; 16]),
            model: Arc::from(model.to_string()),
            service: "sync".to_owned(),
            tag: None,
            key: None,
            agent: None,
        }
    }

    #[test]
    fn calls_of_one_hour_and_group_are_one_sum_and_groups_have_a_bound() {
        let call = LedgerSums::of_call(&PassedCall { usage: None, price: None, observed: None });
        let mut unwritten = Unwritten::default();
        assert_eq!(unwritten.add(7, group(0), call), Added::First);
        assert_eq!(unwritten.add(7, group(0), call), Added::More);
        assert_eq!(unwritten.add(8, group(0), call), Added::More);
        assert_eq!((unwritten.0.len(), unwritten.0[&(7, group(0))].requests), (2, 2));
        for model in 2..GROUPS {
            assert_eq!(unwritten.add(7, group(model), call), Added::More);
        }
        assert_eq!(unwritten.add(7, group(GROUPS), call), Added::NoRoom);
        assert_eq!(unwritten.add(8, group(0), call), Added::More, "one that is there has its place");
        assert_eq!((unwritten.0.len(), unwritten.0[&(8, group(0))].requests), (GROUPS, 2));
    }

    #[test]
    fn what_was_not_written_comes_back_and_what_finds_no_room_is_counted() {
        let call = LedgerSums::of_call(&PassedCall { usage: None, price: None, observed: None });
        let mut unwritten = Unwritten::default();
        unwritten.add(7, group(0), call);
        unwritten.add(7, group(0), call);
        unwritten.add(7, group(1), call);
        let taken = unwritten.take();
        assert_eq!((taken.len(), unwritten.0.len()), (2, 0));
        assert_eq!(unwritten.add(7, group(0), call), Added::First, "its sign is waited for");
        assert_eq!(unwritten.put_back(taken.clone()), 0);
        assert_eq!((unwritten.0[&(7, group(0))].requests, unwritten.0[&(7, group(1))].requests), (3, 1));
        let mut full = Unwritten::default();
        for model in 1..=GROUPS {
            full.add(7, group(model), call);
        }
        assert_eq!(full.put_back(taken), 2, "both calls of the one group that is not there");
        assert_eq!(full.0[&(7, group(1))].requests, 2);
    }
}
