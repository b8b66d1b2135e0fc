//! What is accepted, found, listed and answered: single requests.

use bytes::Bytes;
use nightbus::config::StoreKind;
use nightbus::domain::ids::RequestId;
use nightbus::domain::lane::Fingerprint;
use nightbus::domain::request::RequestState;
use nightbus::domain::trace::TraceContext;
use nightbus::store::{Finish, ListFilter, NewRequest, OutcomeSummary, RequestOptions, StoreError};

use super::{at, bench, body_of, finish, lane};

pub(super) async fn what_was_accepted_comes_back(kind: StoreKind) {
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
        trace: TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
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

pub(super) async fn bodies_come_in_the_order_asked_for(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(3).await;
    let unknown = bench.request().id;
    let bodies = bench.store.bodies(vec![ids[2], unknown, ids[0], ids[2]]).await.unwrap();
    let expected: Vec<_> = [ids[2], ids[0], ids[2]].into_iter().map(|id| (id, body_of(id))).collect();
    assert_eq!(bodies, expected);
}

pub(super) async fn bodies_of_any_size_are_kept(kind: StoreKind) {
    let bench = bench(kind);
    for len in [0, 1, 600, 9_000, 300_000] {
        let request = bench.request();
        let body: Bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(len).collect();
        bench.store.accept(request.clone(), body.clone()).await.unwrap();
        assert_eq!(bench.store.bodies(vec![request.id]).await.unwrap(), [(request.id, body)]);
    }
}

pub(super) async fn an_id_that_only_shares_the_sequence_number_finds_nothing(kind: StoreKind) {
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

pub(super) async fn one_that_is_refused_does_not_fail_the_others(kind: StoreKind) {
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

pub(super) async fn the_first_result_stands(kind: StoreKind) {
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

pub(super) async fn a_submitted_request_cannot_be_cancelled(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(2).await;
    bench.batch(&[ids[0]]).await;
    let cancel = ids.iter().map(|id| finish(*id, RequestState::Cancelled, 5, None)).collect();
    assert_eq!(bench.store.finish(cancel).await.unwrap(), [false, true]);
    assert_eq!(bench.state(ids[0]).await, RequestState::Submitted);
}

pub(super) async fn options_are_added(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accept(NewRequest { options: RequestOptions(RequestOptions::HOLD), ..bench.request() }).await;
    for _ in 0..2 {
        bench.store.set_options(vec![id, bench.request().id], RequestOptions::DELIVERED).await.unwrap();
        let options = bench.store.request(id).await.unwrap().unwrap().request.options;
        assert_eq!(options.0, RequestOptions::HOLD | RequestOptions::DELIVERED);
    }
}

pub(super) async fn a_list_is_filtered_and_paged(kind: StoreKind) {
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
