//! What every store promises, run against each of them: what the trait's documentation says, said again as tests.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "store_conformance/callbacks.rs"]
mod callbacks;
#[path = "store_conformance/ledger.rs"]
mod ledger;

use std::sync::Arc;

use bytes::Bytes;
use nightbus::config::StoreKind;
use nightbus::domain::batch::{BatchEvent, BatchState};
use nightbus::domain::clock::Micros;
use nightbus::domain::ids::{BatchId, IdSource, RequestId};
use nightbus::domain::lane::{Endpoint, Fingerprint, LaneKey};
use nightbus::domain::request::RequestState;
use nightbus::domain::service::Service;
use nightbus::store::flights::{FlightRecord, FlightState};
use nightbus::store::{
    self, Account, BatchUpdate, Finish, LearnedCeiling, LearnedDurations, Limited, ListFilter, LiveCall, NewBatch,
    NewRequest, OutcomeSummary, ProviderBatch, RequestOptions, SharedStore, StoreError,
};

/// A store under test, with a source of ids; the directory goes with it.
struct Bench {
    store: SharedStore,
    ids: IdSource,
    _dir: tempfile::TempDir,
}

fn bench(kind: StoreKind) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(kind, dir.path(), None, store::no_observer()).unwrap();
    Bench { store, ids: IdSource::default(), _dir: dir }
}

const fn at(seconds: i64) -> Micros {
    Micros::from_unix_seconds(1_795_420_800 + seconds)
}

fn lane(model: &str) -> Arc<LaneKey> {
    Arc::new(LaneKey {
        provider: "openai".into(),
        account: Fingerprint([3; 16]),
        endpoint: Endpoint::Responses,
        model: model.into(),
        deadline_class: 7,
    })
}

fn body_of(id: RequestId) -> Bytes {
    format!("{{\"input\":\"{id}\",\"text\":\"{}\"}}", "words ".repeat(200)).into()
}

impl Bench {
    fn request(&self) -> NewRequest {
        NewRequest {
            id: self.ids.request_id(at(0), fastrand::u64(..)),
            caller: Fingerprint([1; 16]),
            lane: lane("m"),
            tag: None,
            key: None,
            created_at: at(0),
            deadline_at: None,
            options: RequestOptions::default(),
            body_hash: Fingerprint([2; 16]),
            idempotency: None,
            body_len: 9,
            template: None,
            most_output: None,
        }
    }

    async fn accept(&self, request: NewRequest) -> RequestId {
        let id = request.id;
        self.store.accept(request, body_of(id)).await.unwrap();
        id
    }

    async fn accepted(&self, count: usize) -> Vec<RequestId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.accept(self.request()).await);
        }
        ids
    }

    async fn batch(&self, lines: &[RequestId]) -> BatchId {
        let id = self.ids.batch_id(at(10), fastrand::u64(..));
        let batch = NewBatch { id, lane: lane("m"), created_at: at(10), lines: lines.to_vec() };
        assert_eq!(self.store.create_batch(batch).await.unwrap(), lines);
        id
    }

    async fn update(&self, id: BatchId, seconds: i64, event: BatchEvent) -> bool {
        let update =
            BatchUpdate { id, at: at(seconds), event: Some(event), provider: ProviderBatch::default(), lines: None };
        self.store.update_batch(update).await.unwrap()
    }

    async fn end_batch(&self, id: BatchId) {
        for event in [BatchEvent::Upload, BatchEvent::Create, BatchEvent::Complete] {
            assert!(self.update(id, 30, event).await);
        }
    }

    async fn finish(&self, id: RequestId, state: RequestState, seconds: i64, body: Option<&str>) -> bool {
        self.store.finish(vec![finish(id, state, seconds, body)]).await.unwrap() == [true]
    }

    async fn state(&self, id: RequestId) -> RequestState {
        self.store.request(id).await.unwrap().unwrap().state
    }
}

fn finish(id: RequestId, state: RequestState, seconds: i64, body: Option<&str>) -> Finish {
    let summary = OutcomeSummary {
        status_code: 200,
        service: Some("batch".to_owned()),
        provider_request_id: Some("req_abc".to_owned()),
        error: None,
        usage_json: Some("{\"input\":5}".to_owned()),
        cost_nanos: Some(-3),
        saved_nanos: Some(i64::MAX),
    };
    Finish {
        id,
        state,
        at: at(seconds),
        summary,
        body: body.map(|text| Bytes::copy_from_slice(text.as_bytes())),
        charge: None,
    }
}

async fn what_was_accepted_comes_back(kind: StoreKind) {
    let bench = bench(kind);
    let plain = bench.request();
    let full = NewRequest {
        lane: lane("another-model"),
        tag: Some("nightly-eval".to_owned()),
        key: Some("ci".to_owned()),
        deadline_at: Some(at(3_600)),
        options: RequestOptions(RequestOptions::STREAM | RequestOptions::HOLD),
        idempotency: Some(Fingerprint([9; 16])),
        body_len: u32::MAX,
        template: Some(Fingerprint([8; 16])),
        most_output: Some(u32::MAX),
        ..bench.request()
    };
    for request in [plain, full] {
        bench.accept(request.clone()).await;
        let record = bench.store.request(request.id).await.unwrap().unwrap();
        assert_eq!(format!("{:?}", record.request), format!("{request:?}"));
        assert_eq!((record.state, record.attempts), (RequestState::Queued, 0));
        assert_eq!((record.submitted_at, record.finished_at, record.batch_id), (None, None, None));
        assert_eq!(record.outcome, None);
        let bodies = bench.store.bodies(vec![request.id]).await.unwrap();
        assert_eq!(bodies, [(request.id, body_of(request.id))]);
        assert!(bench.store.result(request.id).await.unwrap().unwrap().body.is_none());
    }
}

async fn bodies_come_in_the_order_asked_for(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(3).await;
    let unknown = bench.request().id;
    let bodies = bench.store.bodies(vec![ids[2], unknown, ids[0], ids[2]]).await.unwrap();
    let expected: Vec<_> = [ids[2], ids[0], ids[2]].into_iter().map(|id| (id, body_of(id))).collect();
    assert_eq!(bodies, expected);
}

async fn bodies_of_any_size_are_kept(kind: StoreKind) {
    let bench = bench(kind);
    for len in [0, 1, 600, 9_000, 300_000] {
        let request = bench.request();
        let body: Bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(len).collect();
        bench.store.accept(request.clone(), body.clone()).await.unwrap();
        assert_eq!(bench.store.bodies(vec![request.id]).await.unwrap(), [(request.id, body)]);
    }
}

async fn an_id_that_only_shares_the_sequence_number_finds_nothing(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accepted(1).await[0];
    let mut bytes = *id.as_bytes();
    bytes[15] ^= 1;
    let guessed = RequestId::from_bytes(bytes);
    assert_eq!(guessed.sequence(), id.sequence());
    assert!(bench.store.request(guessed).await.unwrap().is_none());
    assert!(bench.store.result(guessed).await.unwrap().is_none());
    assert!(bench.store.bodies(vec![guessed]).await.unwrap().is_empty());
    assert!(!bench.finish(guessed, RequestState::Failed, 1, None).await);
    bench.store.set_options(vec![guessed], RequestOptions::DELIVERED).await.unwrap();
    assert!(!bench.store.request(id).await.unwrap().unwrap().request.options.has(RequestOptions::DELIVERED));
    let twin = NewRequest { id: guessed, ..bench.request() };
    assert!(matches!(bench.store.accept(twin, Bytes::new()).await, Err(StoreError::Unwritable(_))));
    assert_eq!(bench.state(id).await, RequestState::Queued);
}

async fn one_that_is_refused_does_not_fail_the_others(kind: StoreKind) {
    let bench = bench(kind);
    let first = bench.request();
    bench.accept(first.clone()).await;
    let fresh: Vec<_> = (0..50).map(|_| bench.request()).collect();
    let all = fresh.iter().flat_map(|request| [request.clone(), first.clone()]);
    let outcomes = futures_util::future::join_all(all.map(|new| bench.store.accept(new, Bytes::from("{}")))).await;
    for pair in outcomes.chunks(2) {
        assert!(pair[0].is_ok());
        assert!(pair[1].is_err(), "the second use of an id is refused");
    }
    for request in fresh {
        assert_eq!(bench.state(request.id).await, RequestState::Queued);
    }
}

async fn a_batch_takes_only_what_is_queued(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(5).await;
    assert!(bench.finish(ids[1], RequestState::Cancelled, 1, None).await);
    bench.batch(&[ids[3]]).await;
    let unknown = bench.request().id;
    let id = bench.ids.batch_id(at(20), 1);
    let lines = vec![ids[4], ids[1], unknown, ids[0], ids[3], ids[4], ids[2]];
    let batch = NewBatch { id, lane: lane("m"), created_at: at(20), lines };
    let kept = vec![ids[4], ids[0], ids[2]];
    assert_eq!(bench.store.create_batch(batch.clone()).await.unwrap(), kept);
    assert_eq!(bench.store.batch_lines(id).await.unwrap(), kept);
    let record = bench.store.batch(id).await.unwrap().unwrap();
    assert_eq!((record.state, record.line_count, record.created_at), (BatchState::Prepared, 3, at(20)));
    assert_eq!(record.lane, lane("m"));
    let request = bench.store.request(ids[0]).await.unwrap().unwrap();
    assert_eq!((request.state, request.attempts), (RequestState::Submitted, 1));
    assert_eq!((request.batch_id, request.submitted_at), (Some(id), Some(at(20))));
    assert_eq!(bench.state(ids[1]).await, RequestState::Cancelled);

    assert!(bench.store.create_batch(batch).await.is_err(), "a batch is written once");
    let empty = bench.ids.batch_id(at(21), 1);
    let batch = NewBatch { id: empty, lane: lane("m"), created_at: at(21), lines: vec![ids[0], ids[1]] };
    assert!(bench.store.create_batch(batch).await.unwrap().is_empty());
    assert!(bench.store.batch(empty).await.unwrap().is_none());
    assert!(bench.store.batch_lines(empty).await.unwrap().is_empty());
}

async fn a_batch_goes_its_way_and_remembers_what_the_provider_told(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.batch(&bench.accepted(2).await).await;
    assert!(!bench.update(id, 11, BatchEvent::Create).await, "nothing was uploaded");
    let news = |event, seconds, provider| BatchUpdate { id, at: at(seconds), event, provider, lines: None };
    assert!(bench.update(id, 12, BatchEvent::Upload).await);
    let file = ProviderBatch { input_file_id: Some("file-1".to_owned()), ..ProviderBatch::default() };
    assert!(bench.store.update_batch(news(None, 12, file)).await.unwrap());
    assert!(bench.update(id, 13, BatchEvent::Create).await);
    let progress = ProviderBatch {
        batch_id: Some("batch_1".to_owned()),
        status: Some("in_progress".to_owned()),
        completed: Some(1),
        failed: Some(0),
        error: Some("try again".to_owned()),
        ..ProviderBatch::default()
    };
    assert!(bench.store.update_batch(news(None, 13, progress)).await.unwrap());
    let end = ProviderBatch {
        status: Some("completed".to_owned()),
        completed: Some(2),
        output_file_id: Some("file-2".to_owned()),
        error_file_id: Some("file-3".to_owned()),
        ..ProviderBatch::default()
    };
    let done = news(Some(BatchEvent::Complete), 14, end);
    assert!(bench.store.update_batch(done.clone()).await.unwrap());
    assert!(!bench.store.update_batch(done).await.unwrap(), "an end is an end");
    let late = ProviderBatch { status: Some("failed".to_owned()), ..ProviderBatch::default() };
    assert!(!bench.store.update_batch(news(Some(BatchEvent::Fail), 15, late)).await.unwrap());

    let record = bench.store.batch(id).await.unwrap().unwrap();
    assert_eq!(record.state, BatchState::Completed);
    assert_eq!((record.submitted_at, record.ended_at), (Some(at(13)), Some(at(14))));
    let expected = ProviderBatch {
        input_file_id: Some("file-1".to_owned()),
        batch_id: Some("batch_1".to_owned()),
        status: Some("completed".to_owned()),
        completed: Some(2),
        failed: Some(0),
        output_file_id: Some("file-2".to_owned()),
        error_file_id: Some("file-3".to_owned()),
        error: Some("try again".to_owned()),
    };
    assert_eq!(record.provider, expected);
    assert!(!bench.update(bench.ids.batch_id(at(0), 0), 1, BatchEvent::Upload).await, "it is unknown");
}

async fn a_batch_has_the_lines_that_were_really_uploaded(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(3).await;
    let id = bench.batch(&ids).await;
    let left = vec![ids[0], ids[2]];
    let update = |event, lines| {
        let provider = ProviderBatch::default();
        BatchUpdate { id, at: at(12), event: Some(event), provider, lines }
    };
    assert!(!bench.store.update_batch(update(BatchEvent::Create, Some(left.clone()))).await.unwrap());
    assert_eq!(bench.store.batch_lines(id).await.unwrap(), ids, "an illegal change changes nothing");
    assert!(bench.store.update_batch(update(BatchEvent::Upload, Some(left.clone()))).await.unwrap());
    assert!(bench.store.update_batch(update(BatchEvent::Create, None)).await.unwrap());
    assert_eq!(bench.store.batch_lines(id).await.unwrap(), left);
    assert_eq!(bench.store.batch(id).await.unwrap().unwrap().line_count, 2);
    assert_eq!(bench.store.batches(true, None, 9).await.unwrap()[0].line_count, 2);
}

async fn batches_are_listed_newest_first(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(4).await;
    let mut batches = Vec::new();
    for id in &ids {
        batches.push(bench.batch(&[*id]).await);
    }
    bench.end_batch(batches[1]).await;
    let list = async |open, after, limit| -> Vec<BatchId> {
        bench.store.batches(open, after, limit).await.unwrap().into_iter().map(|batch| batch.id).collect()
    };
    assert_eq!(list(false, None, 10).await, [batches[3], batches[2], batches[1], batches[0]]);
    assert_eq!(list(true, None, 10).await, [batches[3], batches[2], batches[0]]);
    assert_eq!(list(false, Some(batches[2]), 1).await, [batches[1]]);
    assert_eq!(list(true, Some(batches[2]), 10).await, [batches[0]]);
    assert!(list(false, None, 0).await.is_empty());
}

async fn the_first_result_stands(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(2).await;
    bench.batch(&[ids[0]]).await;
    let unknown = bench.request().id;
    let too_late = OutcomeSummary {
        status_code: 504,
        service: None,
        provider_request_id: None,
        error: Some(("deadline_exceeded".to_owned(), "too late".to_owned())),
        usage_json: None,
        cost_nanos: None,
        saved_nanos: None,
    };
    let finished = vec![
        finish(ids[0], RequestState::Completed, 40, Some("the answer")),
        finish(unknown, RequestState::Completed, 40, Some("whose?")),
        finish(ids[0], RequestState::Failed, 41, Some("another answer")),
        finish(ids[1], RequestState::Queued, 42, Some("not an end")),
        Finish { summary: too_late.clone(), ..finish(ids[1], RequestState::Failed, 43, None) },
    ];
    let answered = finished[0].summary.clone();
    assert_eq!(bench.store.finish(finished).await.unwrap(), [true, false, false, false, true]);
    assert!(!bench.finish(ids[0], RequestState::Completed, 44, Some("later")).await);

    let first = bench.store.result(ids[0]).await.unwrap().unwrap();
    assert_eq!(first.body.as_deref(), Some(b"the answer".as_slice()));
    assert_eq!((first.record.state, first.record.finished_at), (RequestState::Completed, Some(at(40))));
    assert_eq!(first.record.outcome, Some(answered));
    let second = bench.store.result(ids[1]).await.unwrap().unwrap();
    assert_eq!((second.body, second.record.state), (None, RequestState::Failed));
    assert_eq!(second.record.outcome.as_ref(), Some(&too_late));
    assert_eq!(bench.store.request(ids[1]).await.unwrap().unwrap().outcome, Some(too_late));
}

async fn a_submitted_request_cannot_be_cancelled(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(2).await;
    bench.batch(&[ids[0]]).await;
    let cancel = ids.iter().map(|id| finish(*id, RequestState::Cancelled, 5, None)).collect();
    assert_eq!(bench.store.finish(cancel).await.unwrap(), [false, true]);
    assert_eq!(bench.state(ids[0]).await, RequestState::Submitted);
}

async fn only_the_lines_of_that_batch_are_requeued(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(5).await;
    let (first, second) = (bench.batch(&ids[..3]).await, bench.batch(&ids[3..4]).await);
    assert!(bench.finish(ids[1], RequestState::Completed, 20, Some("{}")).await);
    let requeued =
        bench.store.requeue(first, vec![ids[4], ids[3], ids[2], ids[1], ids[0], ids[0]], true).await.unwrap();
    assert_eq!(requeued, [ids[2], ids[0]]);
    assert_eq!(bench.state(ids[3]).await, RequestState::Submitted);
    let again = bench.batch(&[ids[0]]).await;
    assert!(bench.store.requeue(first, vec![ids[0]], true).await.unwrap().is_empty(), "it rides in another batch now");
    let record = bench.store.request(ids[0]).await.unwrap().unwrap();
    assert_eq!((record.batch_id, record.attempts, record.state), (Some(again), 2, RequestState::Submitted));
    let waiting = bench.store.request(ids[2]).await.unwrap().unwrap();
    assert_eq!((waiting.batch_id, waiting.attempts, waiting.state), (Some(first), 1, RequestState::Queued));
    let attempts = bench.store.request(ids[3]).await.unwrap().unwrap().attempts;
    assert_eq!(bench.store.requeue(second, vec![ids[3]], false).await.unwrap(), [ids[3]]);
    let given_back = bench.store.request(ids[3]).await.unwrap().unwrap().attempts;
    assert_eq!(given_back + 1, attempts, "a batch in which it could not run is no attempt");
}

async fn options_are_added(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accept(NewRequest { options: RequestOptions(RequestOptions::HOLD), ..bench.request() }).await;
    for _ in 0..2 {
        bench.store.set_options(vec![id, bench.request().id], RequestOptions::DELIVERED).await.unwrap();
        let options = bench.store.request(id).await.unwrap().unwrap().request.options;
        assert_eq!(options.0, RequestOptions::HOLD | RequestOptions::DELIVERED);
    }
}

async fn a_list_is_filtered_and_paged(kind: StoreKind) {
    let bench = bench(kind);
    let (mine, theirs) = (Fingerprint([5; 16]), Fingerprint([6; 16]));
    let mut ids = Vec::new();
    for number in 0..8 {
        let caller = if number % 2 == 0 { mine } else { theirs };
        let tag = (number < 4).then(|| "early".to_owned());
        ids.push(bench.accept(NewRequest { caller, tag, ..bench.request() }).await);
    }
    bench.batch(&ids[4..6]).await;
    let list = async |filter| -> Vec<RequestId> {
        bench.store.list(filter).await.unwrap().into_iter().map(|record| record.request.id).collect()
    };
    let all = ListFilter { limit: 100, ..ListFilter::default() };
    assert_eq!(list(all.clone()).await, ids.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(list(ListFilter { caller: Some(mine), ..all.clone() }).await, [ids[6], ids[4], ids[2], ids[0]]);
    let page = ListFilter { caller: Some(theirs), after: Some(ids[5]), limit: 1, ..ListFilter::default() };
    assert_eq!(list(page).await, [ids[3]]);
    let tagged = ListFilter { tag: Some("early".to_owned()), caller: Some(mine), ..all.clone() };
    assert_eq!(list(tagged).await, [ids[2], ids[0]]);
    let submitted = ListFilter { state: Some(RequestState::Submitted), ..all.clone() };
    assert_eq!(list(submitted).await, [ids[5], ids[4]]);
    assert!(list(ListFilter { caller: Some(Fingerprint([7; 16])), ..all }).await.is_empty());
}

async fn a_restart_finds_what_is_not_over(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(5).await;
    bench.batch(&ids[..3]).await;
    assert!(bench.finish(ids[0], RequestState::Completed, 20, Some("{}")).await);
    assert!(bench.finish(ids[1], RequestState::Completed, 20, Some("{}")).await);
    bench.store.set_options(vec![ids[1], ids[3]], RequestOptions::DELIVERED).await.unwrap();
    let page = async |after, limit| -> Vec<RequestId> {
        bench.store.unfinished(after, limit).await.unwrap().into_iter().map(|record| record.request.id).collect()
    };
    assert_eq!(page(None, 10).await, [ids[0], ids[2], ids[3], ids[4]]);
    assert_eq!(page(Some(ids[0]), 2).await, [ids[2], ids[3]]);
    assert_eq!(page(Some(ids[4]), 2).await, []);
}

async fn what_is_old_goes_with_its_batch(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(4).await;
    let ended = bench.batch(&ids[..2]).await;
    for (id, seconds) in [(ids[0], 100), (ids[1], 90)] {
        assert!(bench.finish(id, RequestState::Completed, seconds, Some("{}")).await);
    }
    bench.end_batch(ended).await;
    assert_eq!(bench.store.expire(at(90), 10).await.unwrap(), 0, "not before its time");
    assert_eq!(bench.store.expire(at(150), 1).await.unwrap(), 1);
    assert!(bench.store.request(ids[1]).await.unwrap().is_none(), "the oldest end goes first");
    assert!(bench.store.batch(ended).await.unwrap().is_some(), "a line of it is left");
    assert_eq!(bench.store.batch_lines(ended).await.unwrap(), ids[..2], "whatever became of them");
    assert_eq!(bench.store.expire(at(150), 10).await.unwrap(), 1);
    assert!(bench.store.batch(ended).await.unwrap().is_none());
    assert!(bench.store.result(ids[0]).await.unwrap().is_none());
    assert_eq!(bench.store.bodies(ids.clone()).await.unwrap().len(), 2);
}

async fn what_is_not_over_does_not_expire(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(3).await;
    let open = bench.batch(&ids[..2]).await;
    assert!(bench.finish(ids[0], RequestState::Completed, 20, Some("{}")).await);
    assert_eq!(bench.store.expire(at(1_000), 10).await.unwrap(), 1);
    assert!(bench.store.batch(open).await.unwrap().is_some(), "a batch that has not ended stays");
    assert_eq!(bench.state(ids[1]).await, RequestState::Submitted);
    assert_eq!(bench.state(ids[2]).await, RequestState::Queued);
}

async fn numbers_are_never_given_out_twice(kind: StoreKind) {
    let bench = bench(kind);
    assert_eq!(bench.store.last_sequence().await.unwrap(), 0);
    let ids = bench.accepted(2).await;
    assert_eq!(bench.store.last_sequence().await.unwrap(), ids[1].sequence());
    let batch = bench.batch(&ids[1..]).await;
    assert_eq!(bench.store.last_sequence().await.unwrap(), batch.sequence());
    assert!(bench.finish(ids[1], RequestState::Completed, 20, None).await);
    bench.end_batch(batch).await;
    assert_eq!(bench.store.expire(at(100), 10).await.unwrap(), 1);
    assert!(bench.store.batch(batch).await.unwrap().is_none());
    assert_eq!(bench.store.last_sequence().await.unwrap(), batch.sequence());
}

async fn counts_are_right(kind: StoreKind) {
    let bench = bench(kind);
    assert_eq!(bench.store.stats().await.unwrap().requests, [0; 5]);
    let ids = bench.accepted(6).await;
    let batch = bench.batch(&ids[..3]).await;
    assert!(bench.finish(ids[0], RequestState::Completed, 20, Some("{}")).await);
    assert!(bench.finish(ids[3], RequestState::Failed, 20, None).await);
    assert!(bench.finish(ids[4], RequestState::Cancelled, 20, None).await);
    let stats = bench.store.stats().await.unwrap();
    assert_eq!(stats.requests, [1, 2, 1, 1, 1]);
    assert!(stats.bytes > 0);
    bench.store.requeue(batch, ids.clone(), true).await.unwrap();
    assert_eq!(bench.store.stats().await.unwrap().requests, [3, 0, 1, 1, 1]);
    bench.store.expire(at(100), 2).await.unwrap();
    assert_eq!(bench.store.stats().await.unwrap().requests.iter().sum::<u64>(), 4);
}

async fn credentials_are_kept(kind: StoreKind) {
    let bench = bench(kind);
    let account = |fingerprint, provider: &str, value: &[u8]| Account {
        fingerprint: Fingerprint([fingerprint; 16]),
        provider: provider.to_owned(),
        headers: vec![("authorization".to_owned(), value.to_vec()), ("openai-project".to_owned(), vec![0xff, 0])],
    };
    for account in [account(2, "openai", b"Bearer two"), account(1, "openai", b"old"), account(1, "openai", b"new")] {
        for _ in 0..2 {
            bench.store.save_account(account.clone()).await.unwrap();
        }
    }
    bench.store.save_account(account(1, "groq", b"Bearer one")).await.unwrap();
    let kept = bench.store.accounts().await.unwrap();
    let kept: Vec<_> = kept
        .iter()
        .map(|account| (account.fingerprint.0[0], account.provider.as_str(), account.headers[0].1.as_slice()))
        .collect();
    let expected: [(u8, &str, &[u8]); 3] =
        [(1, "groq", b"Bearer one"), (1, "openai", b"new"), (2, "openai", b"Bearer two")];
    assert_eq!(kept, expected);
}

async fn a_large_batch_is_one_intent(kind: StoreKind) {
    let bench = bench(kind);
    let requests: Vec<_> = (0..3_000).map(|_| bench.request()).collect();
    let accepts = requests.iter().map(|request| bench.store.accept(request.clone(), body_of(request.id)));
    assert!(futures_util::future::join_all(accepts).await.iter().all(Result::is_ok));
    let ids: Vec<_> = requests.iter().map(|request| request.id).collect();
    let batch = bench.batch(&ids).await;
    assert_eq!(bench.store.batch_lines(batch).await.unwrap(), ids);
    let bodies = bench.store.bodies(ids.clone()).await.unwrap();
    assert_eq!(bodies.len(), ids.len());
    assert!(bodies.iter().zip(&ids).all(|((id, body), wanted)| id == wanted && *body == body_of(*wanted)));
    let finished = ids.iter().map(|id| finish(*id, RequestState::Completed, 60, Some("{}"))).collect();
    assert_eq!(bench.store.finish(finished).await.unwrap(), vec![true; 3_000]);
    assert_eq!(bench.store.stats().await.unwrap().requests, [0, 0, 3_000, 0, 0]);
}

async fn a_closed_store_says_so(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accepted(1).await[0];
    bench.store.check().await.unwrap();
    bench.store.close().await.unwrap();
    bench.store.close().await.unwrap();
    assert!(matches!(bench.store.accept(bench.request(), Bytes::new()).await, Err(StoreError::Closed)));
    assert!(matches!(bench.store.request(id).await, Err(StoreError::Closed)));
    assert!(matches!(bench.store.check().await, Err(StoreError::Closed)));
    assert!(matches!(bench.store.stats().await, Err(StoreError::Closed)));
}

async fn what_a_live_call_answers_is_no_batchs_business(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(4).await;
    let batch = bench.batch(&ids[..2]).await;
    assert!(bench.finish(ids[1], RequestState::Completed, 20, Some("{}")).await);
    let handed = LiveCall { service: Service::Flex, since: at(30), sent_at: None };
    let marked = bench.store.mark_live(vec![ids[0], ids[1], ids[2], bench.request().id], handed).await.unwrap();
    assert_eq!(marked, [ids[0], ids[2]], "neither what has ended nor what is unknown");
    assert!(bench.store.requeue(batch, vec![ids[0]], true).await.unwrap().is_empty(), "its batch has lost it");
    let ridden = bench.store.request(ids[0]).await.unwrap().unwrap();
    assert_eq!((ridden.live, ridden.batch_id, ridden.submitted_at), (Some(handed), Some(batch), Some(at(10))));
    let queued = bench.store.request(ids[2]).await.unwrap().unwrap();
    assert_eq!((queued.state, queued.batch_id), (RequestState::Submitted, None));
    assert_eq!((queued.submitted_at, queued.attempts), (Some(at(30)), 0));
    assert_eq!(bench.store.stats().await.unwrap().requests, [1, 2, 1, 0, 0]);
}

async fn a_live_call_is_known_from_its_first_mark_to_after_its_end(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accepted(1).await[0];
    let handed = LiveCall { service: Service::Flex, since: at(30), sent_at: None };
    assert_eq!(bench.store.mark_live(vec![id], handed).await.unwrap(), [id]);
    let cancel = finish(id, RequestState::Cancelled, 31, None);
    assert_eq!(bench.store.finish(vec![cancel]).await.unwrap(), [false], "it may be billed");
    let sent = LiveCall { service: Service::Sync, since: at(40), sent_at: Some(at(40)) };
    assert_eq!(bench.store.mark_live(vec![id], sent).await.unwrap(), [id]);
    let stored = bench.store.request(id).await.unwrap().unwrap();
    assert_eq!((stored.live, stored.submitted_at), (Some(LiveCall { since: at(30), ..sent }), Some(at(30))));
    assert!(bench.finish(id, RequestState::Completed, 50, Some("{}")).await);
    assert!(bench.store.mark_live(vec![id], handed).await.unwrap().is_empty());
    assert_eq!(bench.store.request(id).await.unwrap().unwrap().live.unwrap().sent_at, Some(at(40)), "kept");
}

async fn the_last_flight_of_a_template_is_kept(kind: StoreKind) {
    let bench = bench(kind);
    let flight = |template: u8, state, decided_at| FlightRecord {
        id: bench.ids.flight_id(at(1), fastrand::u64(..)),
        template: Fingerprint([template; 16]),
        state,
        provider: "openai".into(),
        account: Fingerprint([3; 16]),
        endpoint: Endpoint::Responses,
        model: "m".into(),
        tag: (template == 1).then(|| "nightly".to_owned()),
        created_at: at(1),
        landed_at: Some(at(2)),
        decided_at,
        pilots: (0..template).map(|_| bench.ids.request_id(at(0), fastrand::u64(..))).collect(),
        reasons: vec!["cut off \"so\"".to_owned()],
    };
    let (old, open) = (flight(1, FlightState::Cleared, Some(at(5))), flight(2, FlightState::Grounded, None));
    for one in [&old, &open] {
        bench.store.keep_flight(one.clone(), at(0)).await.unwrap();
    }
    assert_eq!(bench.store.flights().await.unwrap(), [old.clone(), open.clone()]);
    let closed = FlightRecord { state: FlightState::Rejected, decided_at: Some(at(9)), ..open };
    bench.store.keep_flight(closed.clone(), at(5)).await.unwrap();
    assert_eq!(bench.store.flights().await.unwrap(), [old, closed.clone()]);
    bench.store.keep_flight(closed.clone(), at(6)).await.unwrap();
    assert_eq!(bench.store.flights().await.unwrap(), [closed], "what was decided long ago is forgotten");
}

async fn durations_are_kept_and_replaced(kind: StoreKind) {
    let bench = bench(kind);
    let learned = |size_class, seconds, recent_ms: &[u32]| LearnedDurations {
        provider: "openai".to_owned(),
        account: Fingerprint([3; 16]),
        model: "m".to_owned(),
        size_class,
        at: at(seconds),
        recent_ms: recent_ms.to_vec(),
    };
    for one in [learned(2, 1, &[7]), learned(1, 2, &[]), learned(2, 3, &[7, u32::MAX])] {
        bench.store.keep_durations(one).await.unwrap();
    }
    assert_eq!(bench.store.durations().await.unwrap(), [learned(1, 2, &[]), learned(2, 3, &[7, u32::MAX])]);
}

async fn ceilings_are_kept_replaced_and_forgotten(kind: StoreKind) {
    let bench = bench(kind);
    let learned = |limited, most, seconds| LearnedCeiling {
        provider: "openai".to_owned(),
        account: Fingerprint([3; 16]),
        limited,
        most,
        told: (most > 5).then_some(most + 1),
        at: at(seconds),
    };
    let (tokens, file) = (|model: &str| Limited::Tokens(model.to_owned()), Limited::FileBytes);
    for one in [learned(file.clone(), 7, 2), learned(tokens("n"), 4, 1), learned(tokens(""), 9, 2)] {
        bench.store.keep_ceiling(one, at(0)).await.unwrap();
    }
    let all = [learned(tokens(""), 9, 2), learned(tokens("n"), 4, 1), learned(file.clone(), 7, 2)];
    assert_eq!(bench.store.ceilings().await.unwrap(), all);
    bench.store.keep_ceiling(learned(file.clone(), 3, 5), at(2)).await.unwrap();
    let left = [learned(tokens(""), 9, 2), learned(file, 3, 5)];
    assert_eq!(bench.store.ceilings().await.unwrap(), left, "what was learned long ago is forgotten");
}

async fn fingerprints_are_keyed(kind: StoreKind) {
    let (one, two) = (bench(kind), bench(kind));
    let of = |bench: &Bench| bench.store.fingerprint(&[b"caller", b"body"]);
    assert_eq!(of(&one), of(&one));
    assert_ne!(of(&one), of(&two), "another directory, another key");
}

use callbacks::{
    a_callback_is_due_when_its_request_ends, attempts_are_kept_and_decide_what_is_due,
    callbacks_are_listed_in_pages_and_go_with_their_requests,
};
use ledger::{
    a_report_is_divided_and_begins_with_an_hour, an_answer_that_came_too_late_is_waste,
    an_execution_is_in_the_ledger_once, an_execution_without_a_usable_answer_is_waste,
    an_unknown_price_is_counted_and_adds_nothing, nonsense_does_not_spoil_the_sums, rows_go_and_their_sums_stay,
};

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $case() { super::$case(super::StoreKind::Memory).await; })*
        }
        mod sqlite {
            $(#[tokio::test] async fn $case() { super::$case(super::StoreKind::Sqlite).await; })*
        }
    };
}

conformance!(
    what_was_accepted_comes_back,
    bodies_come_in_the_order_asked_for,
    bodies_of_any_size_are_kept,
    an_id_that_only_shares_the_sequence_number_finds_nothing,
    one_that_is_refused_does_not_fail_the_others,
    a_batch_takes_only_what_is_queued,
    a_batch_goes_its_way_and_remembers_what_the_provider_told,
    a_batch_has_the_lines_that_were_really_uploaded,
    batches_are_listed_newest_first,
    the_first_result_stands,
    a_submitted_request_cannot_be_cancelled,
    only_the_lines_of_that_batch_are_requeued,
    options_are_added,
    a_list_is_filtered_and_paged,
    a_restart_finds_what_is_not_over,
    what_is_old_goes_with_its_batch,
    what_is_not_over_does_not_expire,
    numbers_are_never_given_out_twice,
    counts_are_right,
    credentials_are_kept,
    a_large_batch_is_one_intent,
    a_closed_store_says_so,
    what_a_live_call_answers_is_no_batchs_business,
    a_live_call_is_known_from_its_first_mark_to_after_its_end,
    durations_are_kept_and_replaced,
    ceilings_are_kept_replaced_and_forgotten,
    the_last_flight_of_a_template_is_kept,
    fingerprints_are_keyed,
    an_execution_is_in_the_ledger_once,
    an_answer_that_came_too_late_is_waste,
    an_unknown_price_is_counted_and_adds_nothing,
    an_execution_without_a_usable_answer_is_waste,
    a_report_is_divided_and_begins_with_an_hour,
    rows_go_and_their_sums_stay,
    nonsense_does_not_spoil_the_sums,
    a_callback_is_due_when_its_request_ends,
    attempts_are_kept_and_decide_what_is_due,
    callbacks_are_listed_in_pages_and_go_with_their_requests,
);
