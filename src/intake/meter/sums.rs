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

type Unwritten = HashMap<(i64, Group), LedgerSums>;

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
        if !self.add(hour, group, added) {
            self.engine.telemetry().ledger_lost(1);
        }
    }

    /// Whether there was room.
    fn add(&self, hour: i64, group: Group, added: LedgerSums) -> bool {
        let mut unwritten = self.unwritten.lock();
        let groups = unwritten.len();
        match unwritten.entry((hour, group)) {
            Entry::Occupied(mut sums) => *sums.get_mut() += added,
            Entry::Vacant(_) if groups >= GROUPS => return false,
            Entry::Vacant(place) => {
                place.insert(added);
                drop(unwritten);
                // A sign that is there already is taken before what was added is: none is missing.
                if groups == 0 && self.filled.try_send(()).is_err() {
                    tracing::trace!("the writer has not taken the last sign yet");
                }
            }
        }
        true
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
        let calls: Vec<_> = taken.into_iter().map(|((hour, group), sums)| PassedCalls { hour, group, sums }).collect();
        let count: u64 = calls.iter().map(|calls| calls.sums.requests).sum();
        if let Err(error) = engine.store().record_calls(calls).await {
            engine.telemetry().store_failed(&error);
            engine.telemetry().ledger_lost(usize::try_from(count).unwrap_or(usize::MAX));
        }
    }
}
