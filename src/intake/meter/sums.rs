//! Live calls, added up in memory by hour and group, and written a few times a second.
//!
//! Invariants: entering never blocks and never waits for the store; what is kept is bounded by [`GROUPS`], and what does not
//! fit, or cannot be written, is counted as lost. A process that is killed loses the calls of its last moment ([`GATHER`])
//! from the ledger; one that stops writes them first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::domain::pricing::{PriceTable, Seller};
use crate::domain::service::Service;
use crate::engine::Engine;
use crate::intake::meter::Metered;
use crate::store::ledger::{Group, LedgerSums, PassedCall, PassedCalls};
use crate::tasks::Tasks;
use crate::wire::openai::usage::Consumption;

/// So long calls are added up before they are written.
const GATHER: Duration = Duration::from_millis(250);
/// Groups of one such time; calls of further ones are lost to the ledger.
const GROUPS: usize = 8_192;

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
        if !tasks.is_stopping() {
            tokio::select! {
                () = tasks.stop_token().cancelled() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
        }
        let taken = std::mem::take(&mut *unwritten.lock());
        let calls: Vec<_> =
            taken.0.into_iter().map(|((hour, group), sums)| PassedCalls { hour, group, sums }).collect();
        let count: u64 = calls.iter().map(|calls| calls.sums.requests).sum();
        if let Err(error) = engine.store().record_calls(calls).await {
            engine.telemetry().store_failed(&error);
            engine.telemetry().ledger_lost(usize::try_from(count).unwrap_or(usize::MAX));
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
}
