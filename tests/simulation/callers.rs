//! Callers: they ask, wait, leave, come back, withdraw, and ask again after the process died.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nightbus::domain::clock::Micros;
use nightbus::domain::ids::RequestId;
use nightbus::domain::lane::{Fingerprint, LaneKey};
use nightbus::domain::service::{Fallback, Service};
use nightbus::engine::deadline::deadline_class;
use nightbus::engine::orphans::Attachment;
use nightbus::engine::waiters::Waiter;
use nightbus::engine::{ABANDONED, CancelOutcome, Engine};
use nightbus::store::{Account, NewRequest, RequestOptions, RequestRecord};

use crate::world::{Asked, BEGIN, End, MINUTE, SECOND, World};

pub(crate) const ACCOUNT: Fingerprint = Fingerprint([3; 16]);

/// What one caller means to do; drawn once, and kept over the deaths of the process.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    number: usize,
    comes_at: Micros,
    model: u8,
    deadline: Option<Duration>,
    fallback: Fallback,
    /// It stays on the line (the others ask for the result later).
    held: bool,
    /// It leaves after so long, and is away for the second time.
    leaves: Option<(Duration, Duration)>,
    withdraws_after: Option<Duration>,
    /// Its `Idempotency-Key`. Callers with the same one send the same body.
    key: Option<u8>,
    /// How many requests it made.
    attempts: u32,
    over: bool,
}

impl Caller {
    pub(crate) fn draw(world: &World, number: usize, crowd: &mut Micros) -> Self {
        world.with(|state| {
            let rng = &mut state.rng;
            if rng.f64() < 0.3 {
                *crowd = BEGIN.plus(SECOND * rng.u32(0..3_000));
            }
            let fallbacks = [
                Fallback::of(&[]),
                Fallback::of(&[Service::Sync]),
                Fallback::of(&[Service::Flex, Service::Sync]),
                Fallback::of(&[Service::Flex]),
            ];
            let longest = if rng.bool() { 300 } else { 5_000 };
            Self {
                number,
                comes_at: crowd.plus(Duration::from_millis(rng.u64(0..4_000))),
                model: rng.u8(0..2),
                deadline: (rng.f64() < 0.5).then(|| SECOND * rng.u32(15..longest)),
                fallback: fallbacks[rng.usize(..fallbacks.len())],
                held: rng.bool(),
                leaves: (rng.f64() < 0.3).then(|| (SECOND * rng.u32(1..600), SECOND * rng.u32(1..1_500))),
                withdraws_after: (rng.f64() < 0.15).then(|| SECOND * rng.u32(0..30)),
                key: (rng.f64() < 0.3).then(|| rng.u8(0..3)),
                attempts: 0,
                over: false,
            }
        })
    }

    /// One that comes at once and stays.
    pub(crate) fn patient(number: usize, deadline: Option<Duration>, fallback: &[Service]) -> Self {
        Self {
            number,
            comes_at: BEGIN,
            model: 0,
            deadline,
            fallback: Fallback::of(fallback),
            held: true,
            leaves: None,
            withdraws_after: None,
            key: None,
            attempts: 0,
            over: false,
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }

    fn body_hash(&self) -> Fingerprint {
        let mut bytes = [7; 16];
        bytes[0] = self.key.map_or_else(|| u8::try_from(self.number).expect("few"), |key| 200 + key);
        Fingerprint(bytes)
    }

    fn key_hash(&self) -> Option<Fingerprint> {
        self.key.map(|key| Fingerprint([100 + key; 16]))
    }
}

/// One process's view of a caller.
pub(crate) struct Visit {
    pub(crate) world: Arc<World>,
    pub(crate) engine: Engine,
    pub(crate) caller: Arc<parking_lot::Mutex<Caller>>,
}

impl Visit {
    fn plan(&self) -> Caller {
        self.caller.lock().clone()
    }

    /// Until it has what it came for, or has given up.
    pub(crate) async fn run(self) {
        let plan = self.plan();
        if plan.over {
            return;
        }
        tokio::time::sleep(plan.comes_at.since(self.world.true_now())).await;
        let (id, mut attachment) = self.ask().await;
        let mut waiter = self.engine.waiters().register(id);
        if plan.withdraws_after.is_some() && self.withdraws(id, plan.withdraws_after.unwrap_or_default()).await {
            return self.is_over();
        }
        if let Some((after, away)) = plan.leaves {
            if self.hears(&mut waiter, after).await {
                return self.delivered(attachment);
            }
            drop((waiter, attachment));
            self.caller.lock().leaves = None;
            tokio::time::sleep(away).await;
            let (id, again) = self.ask().await;
            waiter = self.engine.waiters().register(id);
            attachment = again;
        }
        // An answer that was there before the waiter is in the store.
        loop {
            let stored = self.engine.store().request(waiter.id()).await;
            if stored.is_ok_and(|stored| stored.is_none_or(|record| record.state.is_terminal()))
                || self.hears(&mut waiter, MINUTE * 10).await
            {
                return self.delivered(attachment);
            }
        }
    }

    fn delivered(&self, attachment: Option<Attachment>) {
        if let Some(attachment) = attachment {
            attachment.delivered();
        }
        self.is_over();
    }

    fn is_over(&self) {
        self.caller.lock().over = true;
    }

    /// The request that answers this caller: the one it made before, if it can be found, else a new one.
    async fn ask(&self) -> (RequestId, Option<Attachment>) {
        let plan = self.plan();
        let mut attempt = plan.attempts;
        loop {
            if let Some(key) = plan.key_hash() {
                match self.find_by_key(&plan, key, attempt).await {
                    Some(found) => return found,
                    None => {
                        attempt = self.caller.lock().attempts;
                        tokio::time::sleep(SECOND * 5).await;
                        continue;
                    }
                }
            }
            let mine = self.world.with(|state| state.asked.get(&nonce(plan.number, attempt)).cloned());
            if plan.held {
                if let Some(found) = self.engine.orphans().adopt(plan.body_hash(), 1) {
                    self.world.note(&format!("caller {} is back for {}", plan.number, self.world.name(&found.id())));
                    self.is_mine(found.id());
                    return (found.id(), Some(found));
                }
            } else if let Some(asked) = mine.filter(|asked| asked.accepted) {
                return (asked.id, None);
            }
            attempt += 1;
            self.caller.lock().attempts = attempt;
            let id = self.engine.new_request_id();
            if let Some(accepted) = self.accept(&plan, id, nonce(plan.number, attempt)).await {
                return accepted;
            }
            tokio::time::sleep(SECOND * 5).await;
        }
    }

    /// As intake finds the request of an `Idempotency-Key`; none: the store failed.
    async fn find_by_key(
        &self,
        plan: &Caller,
        key: Fingerprint,
        attempt: u32,
    ) -> Option<(RequestId, Option<Attachment>)> {
        let id = self.engine.new_request_id();
        let join = |id| (id, plan.held.then(|| self.engine.orphans().join(id)));
        let reservation = match self.engine.keys().reserve(key, id, plan.body_hash()) {
            Ok(reservation) => reservation,
            Err((holder, _)) => return Some(join(holder)),
        };
        let stored = self.engine.store().find_idempotent(key).await.ok()?;
        if let Some(record) = stored.filter(|record| !was_abandoned(record)) {
            self.world.note(&format!("caller {} has {} by its key", plan.number, self.world.name(&record.request.id)));
            return Some(join(record.request.id));
        }
        self.caller.lock().attempts = attempt + 1;
        let accepted = self.accept(plan, id, nonce(plan.number, attempt + 1)).await;
        drop(reservation);
        accepted
    }

    fn is_mine(&self, id: RequestId) {
        let caller = self.caller.lock().number;
        let asked =
            self.world.with(|state| state.asked.values().find(|asked| asked.id == id).map(|asked| asked.caller));
        if asked != Some(caller) {
            self.world.broke(format!("caller {caller} was given the request of {asked:?}"));
        }
    }

    /// As intake does it: durable first, then queued.
    async fn accept(&self, plan: &Caller, id: RequestId, nonce: String) -> Option<(RequestId, Option<Attachment>)> {
        let (provider, endpoint) = self.world.with(|state| state.wire);
        let account = Account { fingerprint: ACCOUNT, provider: provider.to_owned(), headers: Vec::new() };
        if self.engine.keep_account(account).await.is_err() {
            return None;
        }
        let now = self.engine.clock().now();
        let body = Bytes::from(format!("{{\"model\":\"m{}\",\"nonce\":\"{nonce}\"}}", plan.model));
        let deadline_at = plan.deadline.map(|deadline| now.plus(deadline));
        let has_fallback = !plan.fallback.is_empty();
        let hold = if plan.held { RequestOptions::HOLD } else { 0 };
        let request = NewRequest {
            id,
            caller: Fingerprint([1; 16]),
            lane: Arc::new(LaneKey {
                provider: provider.into(),
                account: ACCOUNT,
                endpoint,
                model: format!("m{}", plan.model).into(),
                deadline_class: deadline_at.map_or(0, |at| deadline_class(at, now, has_fallback)),
            }),
            tag: None,
            key: None,
            created_at: now,
            deadline_at,
            options: RequestOptions::default().with(hold).with_fallback(plan.fallback),
            body_hash: plan.body_hash(),
            idempotency: plan.key_hash(),
            body_len: u32::try_from(body.len()).expect("small"),
            template: None,
            most_output: None,
            trace: None,
        };
        let asked = Asked {
            id,
            caller: plan.number,
            key: plan.key,
            deadline: deadline_at,
            may_fall_back: has_fallback,
            accepted: false,
            withdrawn: false,
        };
        self.world.with(|state| state.asked.insert(nonce.clone(), asked));
        let attachment = plan
            .held
            .then(|| self.engine.orphans().attach_new(id, plan.key_hash().unwrap_or_else(|| plan.body_hash()), 0));
        if self.engine.store().accept(request.clone(), body).await.is_err() {
            self.engine.refused(id, "no space");
            return None;
        }
        self.engine.enqueue(&request);
        self.world.note(&format!("caller {} asked {nonce}, deadline {:?}", plan.number, plan.deadline));
        self.world.with(|state| {
            state.asked.entry(nonce).and_modify(|asked| asked.accepted = true);
        });
        Some((id, attachment))
    }

    /// Whether the answer came within that time; it must be the one that was recorded.
    async fn hears(&self, waiter: &mut Waiter, most: Duration) -> bool {
        let id = waiter.id();
        let Ok(heard) = tokio::time::timeout(most, waiter.answer()).await else { return false };
        let Some(answer) = heard else { return true };
        let name = self.world.name(&id);
        let heard = End { state: answer.state, summary: answer.summary.clone(), body: answer.body.clone() };
        let recorded = self.world.with(|state| state.ended.get(&id).cloned());
        self.world.note(&format!("{name} is answered: {} {}", heard.state, heard.summary.status_code));
        // Whoever joined a request that the store then refused is told so.
        let refused = heard.summary.error.as_ref().is_some_and(|(code, _)| code == "store_unavailable");
        if recorded.as_ref() != Some(&heard) && !(refused && recorded.is_none()) {
            self.world.broke(format!("{name} was told {heard:?}, and recorded is {recorded:?}"));
        }
        true
    }

    async fn withdraws(&self, id: RequestId, after: Duration) -> bool {
        tokio::time::sleep(after).await;
        let outcome = self.engine.cancel_request(id, None).await;
        self.world.note(&format!("withdraw {}: {outcome:?}", self.world.name(&id)));
        let withdrawn = matches!(outcome, Ok(CancelOutcome::Cancelled));
        if withdrawn {
            self.world.with(|state| {
                state.asked.values_mut().filter(|asked| asked.id == id).for_each(|asked| asked.withdrawn = true);
            });
        }
        withdrawn
    }
}

/// It was dropped because nobody waited for it: its key is free again.
fn was_abandoned(record: &RequestRecord) -> bool {
    let error = record.outcome.as_ref().and_then(|outcome| outcome.error.as_ref());
    error.is_some_and(|(code, _)| code == ABANDONED)
}

fn nonce(caller: usize, attempt: u32) -> String {
    format!("c{caller}-{attempt}")
}
