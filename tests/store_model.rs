//! The same random actions against the store in memory and the store on disk, which is closed and opened again in between:
//! everything that can be seen must be the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nightbus::config::StoreKind;
use nightbus::domain::batch::BatchEvent;
use nightbus::domain::clock::Micros;
use nightbus::domain::ids::{BatchId, IdSource, RequestId};
use nightbus::domain::lane::{Endpoint, Fingerprint, LaneKey};
use nightbus::domain::pricing::Price;
use nightbus::domain::request::RequestState;
use nightbus::domain::service::Service;
use nightbus::domain::usage::Usage;
use nightbus::store::ledger::{Charge, Dimension, Execution, Group, LedgerSums, PassedCall, PassedCalls};
use nightbus::store::{
    self, Account, BatchUpdate, Finish, LearnedDurations, ListFilter, LiveCall, NewBatch, NewRequest, OutcomeSummary,
    ProviderBatch, RequestOptions, SharedStore,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// What is done, with choices among what is there at that time.
#[derive(Clone, Debug)]
enum Action {
    Accept { caller: u8, model: u8, tag: Option<u8>, deadline: Option<i64>, options: u32, len: usize, taken: bool },
    CreateBatch { lines: Vec<Index> },
    UpdateBatch { batch: Index, event: Option<BatchEvent>, news: Box<ProviderBatch> },
    Finish { ends: Vec<(Index, RequestState, Option<usize>)> },
    Requeue { batch: Index, ids: Vec<Index> },
    MarkLive { ids: Vec<Index>, flex: bool, sent: bool },
    KeepDurations { model: u8, size_class: u32, recent: Vec<u32> },
    KeepResponse { request: Index, response: String },
    SetOptions { ids: Vec<Index>, bits: u32 },
    SaveAccount { fingerprint: u8, value: u8 },
    Expire { age: i64, limit: usize },
    RecordCalls { models: Vec<u8> },
    ExpireLedger { age: i64, limit: usize },
    Check,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let index = any::<Index>;
    let state = prop_oneof![
        4 => Just(RequestState::Completed),
        1 => Just(RequestState::Failed),
        1 => Just(RequestState::Cancelled),
        1 => Just(RequestState::Queued),
    ];
    let event = proptest::option::weighted(
        0.8,
        proptest::sample::select(vec![
            BatchEvent::Upload,
            BatchEvent::Create,
            BatchEvent::Complete,
            BatchEvent::Fail,
            BatchEvent::Expire,
            BatchEvent::Cancel,
        ]),
    );
    prop_oneof![
        8 => (0..3_u8, 0..3_u8, proptest::option::of(0..2_u8), proptest::option::of(0..1_000_i64), 0..16_u32, 0..3_000_usize, proptest::bool::weighted(0.05))
            .prop_map(|(caller, model, tag, deadline, options, len, taken)| Action::Accept {
                caller, model, tag, deadline, options, len, taken
            }),
        3 => proptest::collection::vec(index(), 0..12).prop_map(|lines| Action::CreateBatch { lines }),
        6 => (index(), event, news()).prop_map(|(batch, event, news)| Action::UpdateBatch { batch, event, news }),
        4 => proptest::collection::vec((index(), state, proptest::option::of(0..3_000_usize)), 0..6)
            .prop_map(|ends| Action::Finish { ends }),
        2 => (index(), proptest::collection::vec(index(), 0..6)).prop_map(|(batch, ids)| Action::Requeue { batch, ids }),
        2 => (proptest::collection::vec(index(), 0..6), any::<bool>(), any::<bool>())
            .prop_map(|(ids, flex, sent)| Action::MarkLive { ids, flex, sent }),
        2 => (index(), "[a-z]{1,4}").prop_map(|(request, response)| Action::KeepResponse { request, response }),
        1 => (0..3_u8, 0..3_u32, proptest::collection::vec(any::<u32>(), 0..4))
            .prop_map(|(model, size_class, recent)| Action::KeepDurations { model, size_class, recent }),
        2 => (proptest::collection::vec(index(), 0..6), 0..32_u32).prop_map(|(ids, bits)| Action::SetOptions { ids, bits }),
        1 => (0..3_u8, 0..2_u8).prop_map(|(fingerprint, value)| Action::SaveAccount { fingerprint, value }),
        2 => (0..40_i64, 0..5_usize).prop_map(|(age, limit)| Action::Expire { age, limit }),
        2 => proptest::collection::vec(0..3_u8, 0..4).prop_map(|models| Action::RecordCalls { models }),
        1 => (0..40_i64, 0..5_usize).prop_map(|(age, limit)| Action::ExpireLedger { age, limit }),
        1 => Just(Action::Check),
        1 => Just(Action::Reopen),
    ]
}

fn news() -> impl Strategy<Value = Box<ProviderBatch>> {
    let text = || proptest::option::weighted(0.3, "[a-z]{1,6}");
    let number = || proptest::option::weighted(0.3, any::<u32>());
    (text(), text(), text(), number(), number(), text(), text(), text()).prop_map(
        |(input_file_id, batch_id, status, completed, failed, output_file_id, error_file_id, error)| {
            Box::new(ProviderBatch {
                input_file_id,
                batch_id,
                status,
                completed,
                failed,
                output_file_id,
                error_file_id,
                error,
            })
        },
    )
}

/// The two stores, and what the actions know of them.
struct Pair {
    memory: SharedStore,
    sqlite: SharedStore,
    dir: PathBuf,
    ids: IdSource,
    requests: Vec<RequestId>,
    batches: Vec<BatchId>,
    now: Micros,
}

fn open(kind: StoreKind, dir: &std::path::Path) -> SharedStore {
    store::open(kind, dir, None, store::no_observer()).unwrap()
}

fn lane(model: u8) -> Arc<LaneKey> {
    Arc::new(LaneKey {
        provider: "openai".into(),
        account: Fingerprint([model / 2; 16]),
        endpoint: Endpoint::ChatCompletions,
        model: format!("model-{model}").into(),
        deadline_class: 0,
    })
}

fn charge(len: usize, execution: Execution) -> Charge {
    let amount = i64::try_from(len).unwrap();
    let usage = Usage { input: len.try_into().unwrap(), output: 1, ..Usage::default() };
    Charge {
        provider: "openai".into(),
        account: Fingerprint([1; 16]),
        model: format!("model-{}", len % 3).into(),
        service: "batch",
        execution,
        usage: (!len.is_multiple_of(5)).then_some(usage),
        price: (!len.is_multiple_of(3)).then_some(Price { paid_nanos: amount, live_nanos: 2 * amount }),
    }
}

fn text(seed: &RequestId, len: usize) -> Bytes {
    seed.to_string().into_bytes().into_iter().cycle().take(len).collect()
}

/// Compares what both answered: values, and whether there was an error.
fn same<T: std::fmt::Debug>(what: &str, memory: Result<T, store::StoreError>, sqlite: Result<T, store::StoreError>) {
    let (memory, sqlite) = (memory.map_err(|_error| "refused"), sqlite.map_err(|_error| "refused"));
    assert_eq!(format!("{memory:?}"), format!("{sqlite:?}"), "{what}: memory against sqlite");
}

/// Calls the same method on both and compares.
macro_rules! both {
    ($pair:expr, $method:ident($($argument:expr),*)) => {{
        let memory = $pair.memory.$method($($argument.clone()),*).await;
        let sqlite = $pair.sqlite.$method($($argument.clone()),*).await;
        same(stringify!($method), memory, sqlite);
    }};
}

impl Pair {
    fn new(dir: PathBuf) -> Self {
        Self {
            memory: open(StoreKind::Memory, &dir),
            sqlite: open(StoreKind::Sqlite, &dir),
            dir,
            ids: IdSource::default(),
            requests: Vec::new(),
            batches: Vec::new(),
            now: Micros::from_unix_seconds(1_795_420_800),
        }
    }

    /// Some request that was accepted at some time, or one that never was.
    fn request(&self, index: Index) -> RequestId {
        let at = index.index(self.requests.len() + 1);
        self.requests.get(at).copied().unwrap_or_else(|| self.ids.request_id(self.now, 1))
    }

    fn some(&self, indexes: &[Index]) -> Vec<RequestId> {
        indexes.iter().map(|index| self.request(*index)).collect()
    }

    fn batch(&self, index: Index) -> BatchId {
        let at = index.index(self.batches.len() + 1);
        self.batches.get(at).copied().unwrap_or_else(|| self.ids.batch_id(self.now, 1))
    }

    async fn act(&mut self, action: Action) {
        self.now = Micros(self.now.0 + 1_000_000);
        match action {
            Action::Accept { caller, model, tag, deadline, options, len, taken } => {
                let id = match self.requests.last() {
                    Some(last) if taken => *last,
                    _ => self.ids.request_id(self.now, fastrand::u64(..)),
                };
                let new = NewRequest {
                    id,
                    caller: Fingerprint([caller; 16]),
                    lane: lane(model),
                    tag: tag.map(|tag| format!("tag-{tag}")),
                    key: tag.map(|tag| format!("key-{tag}")),
                    created_at: self.now,
                    deadline_at: deadline.map(|after| Micros(self.now.0 + after)),
                    options: RequestOptions(options.into()),
                    body_hash: Fingerprint([model; 16]),
                    idempotency: deadline.map(|_| Fingerprint([caller; 16])),
                    body_len: u32::try_from(len).unwrap(),
                    template: tag.map(|tag| Fingerprint([tag; 16])),
                    most_output: deadline.map(|_| 512),
                    trace: None,
                };
                both!(self, accept(new, text(&id, len)));
                self.requests.push(id);
            }
            Action::CreateBatch { lines } => self.create_batch(&lines).await,
            Action::UpdateBatch { batch, event, news } => {
                let update = BatchUpdate { id: self.batch(batch), at: self.now, event, provider: *news, lines: None };
                both!(self, update_batch(update));
            }
            Action::Finish { ends } => self.finish(ends).await,
            Action::Requeue { batch, ids } => {
                both!(self, requeue(self.batch(batch), self.some(&ids), ids.len() % 2 == 0));
            }
            Action::MarkLive { ids, flex, sent } => self.mark_live(&ids, flex, sent).await,
            Action::KeepResponse { request, response } => self.keep_response(request, response).await,
            Action::KeepDurations { model, size_class, recent } => self.keep_durations(model, size_class, recent).await,
            Action::SetOptions { ids, bits } => both!(self, set_options(self.some(&ids), i64::from(bits))),
            Action::SaveAccount { fingerprint, value } => self.save_account(fingerprint, value).await,
            Action::Expire { age, limit } => self.expire(age, limit).await,
            Action::RecordCalls { models } => self.record(models).await,
            Action::ExpireLedger { age, limit } => self.expire_ledger(age, limit).await,
            Action::Check => both!(self, check()),
            Action::Reopen => {
                self.sqlite.close().await.unwrap();
                self.sqlite = open(StoreKind::Sqlite, &self.dir);
            }
        }
    }

    async fn record(&self, models: Vec<u8>) {
        let calls: Vec<PassedCalls> = models.into_iter().map(|model| self.calls(model)).collect();
        both!(self, record_calls(calls));
    }

    async fn finish(&self, ends: Vec<(Index, RequestState, Option<usize>)>) {
        let ends: Vec<_> = ends.into_iter().map(|(index, state, len)| self.end(index, state, len)).collect();
        both!(self, finish(ends));
    }

    async fn expire(&self, age: i64, limit: usize) {
        both!(self, expire(Micros(self.now.0 - age * 1_000_000), limit));
    }

    async fn expire_ledger(&self, age: i64, limit: usize) {
        both!(self, expire_ledger(Micros(self.now.0 - age * 1_000_000), limit));
    }

    async fn create_batch(&mut self, lines: &[Index]) {
        let id = self.ids.batch_id(self.now, fastrand::u64(..));
        let batch = NewBatch { id, lane: lane(1), created_at: self.now, lines: self.some(lines) };
        both!(self, create_batch(batch));
        self.batches.push(id);
    }

    async fn save_account(&self, fingerprint: u8, value: u8) {
        let headers = vec![("authorization".to_owned(), vec![value; 20])];
        let account = Account { fingerprint: Fingerprint([fingerprint; 16]), provider: "openai".to_owned(), headers };
        both!(self, save_account(account));
    }

    async fn mark_live(&self, ids: &[Index], flex: bool, sent: bool) {
        let service = if flex { Service::Flex } else { Service::Sync };
        let call = LiveCall { service, since: self.now, sent_at: sent.then_some(self.now) };
        both!(self, mark_live(self.some(ids), call));
    }

    async fn keep_response(&self, index: Index, response: String) {
        let id = self.request(index);
        both!(self, keep_response(id, response.clone()));
    }

    async fn keep_durations(&self, model: u8, size_class: u32, recent_ms: Vec<u32>) {
        let learned = LearnedDurations {
            provider: "openai".to_owned(),
            account: Fingerprint([model / 2; 16]),
            model: format!("model-{model}"),
            size_class,
            at: self.now,
            recent_ms,
        };
        both!(self, keep_durations(learned));
    }

    fn end(&self, index: Index, state: RequestState, len: Option<usize>) -> Finish {
        let id = self.request(index);
        let executed = len.is_some();
        let summary = OutcomeSummary {
            status_code: if executed { 200 } else { 504 },
            service: executed.then(|| "batch".to_owned()),
            provider_request_id: executed.then(|| format!("upstream-{id}")),
            error: (!executed).then(|| ("batch_failed".to_owned(), "it failed".to_owned())),
            usage_json: executed.then(|| "{}".to_owned()),
            cost_nanos: len.map(|len| i64::try_from(len).unwrap()),
            saved_nanos: None,
        };
        let batch = len.and_then(|len| self.batches.get(len % (self.batches.len() + 1)));
        let execution = batch.map_or(Execution::Live(1), |batch| Execution::Batch(*batch));
        let charge = executed.then(|| charge(len.unwrap_or(0), execution));
        Finish { id, state, at: self.now, summary, body: len.map(|len| text(&id, len)), charge }
    }

    fn calls(&self, model: u8) -> PassedCalls {
        let Charge { provider, account, model: name, usage, price, .. } =
            charge(usize::from(model), Execution::Live(1));
        let group = Group {
            provider,
            account,
            model: name,
            service: "sync".to_owned(),
            tag: (model == 1).then(|| "tag-1".to_owned()),
            key: (model == 2).then(|| "key-2".to_owned()),
            agent: None,
        };
        let call = PassedCall { usage, price, observed: (model == 0).then_some(Some(7)) };
        PassedCalls { hour: self.now.hour(), group, sums: LedgerSums::of_call(&call) }
    }

    /// Everything that can be asked.
    async fn compare(&self) {
        let (memory, sqlite) = (self.memory.stats().await.unwrap(), self.sqlite.stats().await.unwrap());
        assert_eq!(memory.requests, sqlite.requests, "stats");
        both!(self, last_sequence());
        both!(self, accounts());
        both!(self, durations());
        both!(self, bodies(self.requests));
        for id in &self.requests {
            both!(self, request(id));
            both!(self, result(id));
        }
        for id in &self.batches {
            both!(self, batch(id));
            both!(self, batch_lines(id));
        }
        self.compare_lists().await;
        self.compare_ledgers().await;
    }

    async fn compare_ledgers(&self) {
        both!(self, charges(self.requests));
        for (_, by) in Dimension::ALL {
            both!(self, ledger(Micros::from_unix_seconds(0), Some(by)));
        }
    }

    async fn compare_lists(&self) {
        let middle = self.requests.get(self.requests.len() / 2).copied();
        for (after, limit) in [(None, 1_000), (middle, 3), (middle, 0)] {
            both!(self, unfinished(after, limit));
            for (caller, state, tag) in
                [(None, None, None), (Some(1), Some(RequestState::Completed), None), (None, None, Some(0))]
            {
                let filter = ListFilter {
                    caller: caller.map(|caller| Fingerprint([caller; 16])),
                    state,
                    tag: tag.map(|tag: u8| format!("tag-{tag}")),
                    after,
                    limit,
                };
                both!(self, list(filter));
            }
        }
        let middle = self.batches.get(self.batches.len() / 2).copied();
        for open in [true, false] {
            both!(self, batches(open, None::<BatchId>, 1_000));
            both!(self, batches(open, middle, 2));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_cannot_be_told_apart(actions in proptest::collection::vec(action(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new(dir.path().to_owned());
            for action in actions {
                pair.act(action).await;
            }
            pair.compare().await;
            pair.act(Action::Reopen).await;
            pair.compare().await;
            pair.sqlite.close().await.unwrap();
        });
    }
}
