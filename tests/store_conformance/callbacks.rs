//! Callbacks' promises: due in the transaction that ends their request, asked for once, kept as long as the request.

use nightbus::config::StoreKind;
use nightbus::domain::ids::{CallbackId, RequestId};
use nightbus::domain::request::RequestState;
use nightbus::store::{Callback, CallbackAttempt, CallbackState, CallbackUpdate, NewCallback};

use super::{Bench, at, bench};

fn id(number: u8) -> CallbackId {
    CallbackId::from_bytes([number; 16])
}

impl Bench {
    async fn call_back(&self, number: u8, request: RequestId, seconds: i64) {
        let url = format!("https://example.org/{number}?token=s3cret");
        self.store.add_callback(NewCallback { id: id(number), request, url, at: at(seconds) }).await.unwrap();
    }

    async fn due(&self) -> Vec<(CallbackId, i64)> {
        let due = self.store.due_callbacks(9).await.unwrap();
        due.iter().map(|callback| (callback.id, (callback.due_at.unwrap().0 - at(0).0) / 1_000_000)).collect()
    }

    async fn listed(&self, state: Option<CallbackState>, after: Option<CallbackId>, limit: usize) -> Vec<CallbackId> {
        self.store.callbacks(state, after, limit).await.unwrap().iter().map(|callback| callback.id).collect()
    }

    async fn the_callback(&self) -> Callback {
        self.store.callbacks(None, None, 1).await.unwrap().remove(0)
    }
}

pub(super) async fn a_callback_is_due_when_its_request_ends(kind: StoreKind) {
    let bench = bench(kind);
    let [first, second] = [bench.request(), bench.request()];
    // Asked for before the request is there, and asked for twice.
    bench.call_back(1, first.id, 0).await;
    bench.call_back(1, first.id, 5).await;
    let (first, second) = (bench.accept(first).await, bench.accept(second).await);
    bench.call_back(2, second, 0).await;
    assert!(bench.due().await.is_empty());
    assert_eq!(bench.store.redeliver_callback(id(1), at(1)).await.unwrap(), Some(false), "nothing to tell yet");
    assert!(bench.finish(first, RequestState::Cancelled, 40, None).await);
    assert!(!bench.finish(first, RequestState::Cancelled, 90, None).await);
    assert_eq!(bench.due().await, [(id(1), 40)]);
    // Asked for by somebody who came later.
    bench.call_back(3, first, 50).await;
    assert_eq!(bench.due().await, [(id(1), 40), (id(3), 50)]);
    let kept = bench.the_callback().await;
    assert_eq!((kept.request, kept.state, kept.created_at, kept.since), (second, CallbackState::Waiting, at(0), None));
    assert_eq!(kept.url, "https://example.org/2?token=s3cret");
}

pub(super) async fn attempts_are_kept_and_decide_what_is_due(kind: StoreKind) {
    let bench = bench(kind);
    let request = bench.accept(bench.request()).await;
    bench.call_back(1, request, 0).await;
    bench.finish(request, RequestState::Failed, 10, None).await;
    let tried = |seconds: i64, status, state, due: Option<i64>| CallbackUpdate {
        id: id(1),
        attempt: CallbackAttempt {
            at: at(seconds).0,
            status,
            error: status.is_none().then(|| "no\nanswer".to_owned()),
        },
        state,
        due_at: due.map(at),
    };
    let update = tried(11, None, CallbackState::Pending, Some(20));
    assert!(bench.store.record_callback(update.clone()).await.unwrap());
    assert_eq!(bench.due().await, [(id(1), 20)]);
    assert!(bench.store.record_callback(tried(20, Some(200), CallbackState::Delivered, None)).await.unwrap());
    assert!(bench.due().await.is_empty());
    let kept = bench.the_callback().await;
    assert_eq!((kept.state, kept.attempts.len(), &kept.attempts[0]), (CallbackState::Delivered, 2, &update.attempt));
    assert_eq!(kept.attempts[1].status, Some(200));
    assert_eq!(bench.store.redeliver_callback(id(1), at(70)).await.unwrap(), Some(true));
    assert_eq!(bench.due().await, [(id(1), 70)]);
    assert_eq!(bench.the_callback().await.since, Some(at(70)));
    assert_eq!(bench.store.redeliver_callback(id(9), at(70)).await.unwrap(), None);
    assert!(!bench.store.record_callback(CallbackUpdate { id: id(9), ..update }).await.unwrap());
}

pub(super) async fn callbacks_are_listed_in_pages_and_go_with_their_requests(kind: StoreKind) {
    let bench = bench(kind);
    let requests = bench.accepted(3).await;
    for (number, request) in (1..).zip(&requests) {
        bench.call_back(number, *request, 0).await;
    }
    bench.call_back(4, bench.request().id, 0).await;
    bench.finish(requests[0], RequestState::Completed, 10, None).await;
    assert_eq!(bench.listed(None, None, 9).await, [4, 3, 2, 1].map(id));
    assert_eq!(bench.listed(None, None, 2).await, [4, 3].map(id));
    assert_eq!(bench.listed(None, Some(id(3)), 9).await, [2, 1].map(id));
    assert_eq!(bench.listed(Some(CallbackState::Waiting), Some(id(4)), 9).await, [3, 2].map(id));
    assert_eq!(bench.listed(Some(CallbackState::Pending), None, 9).await, [id(1)]);
    assert_eq!(bench.store.expire(at(11), 9).await.unwrap(), 1);
    assert_eq!(
        bench.listed(None, None, 9).await,
        [3, 2].map(id),
        "of a request that is gone, and of one that never came"
    );
}
