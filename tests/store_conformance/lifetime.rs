//! What stays, what goes, and what is counted: restarts, expiry, the end of a store.

use bytes::Bytes;
use nightbus::config::StoreKind;
use nightbus::domain::ids::RequestId;
use nightbus::domain::request::RequestState;
use nightbus::store::{RequestOptions, StoreError};

use super::{at, bench};

pub(super) async fn a_restart_finds_what_is_not_over(kind: StoreKind) {
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

pub(super) async fn what_is_old_goes_with_its_batch(kind: StoreKind) {
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

pub(super) async fn what_is_not_over_does_not_expire(kind: StoreKind) {
    let bench = bench(kind);
    let ids = bench.accepted(3).await;
    let open = bench.batch(&ids[..2]).await;
    assert!(bench.finish(ids[0], RequestState::Completed, 20, Some("{}")).await);
    assert_eq!(bench.store.expire(at(1_000), 10).await.unwrap(), 1);
    assert!(bench.store.batch(open).await.unwrap().is_some(), "a batch that has not ended stays");
    assert_eq!(bench.state(ids[1]).await, RequestState::Submitted);
    assert_eq!(bench.state(ids[2]).await, RequestState::Queued);
}

pub(super) async fn numbers_are_never_given_out_twice(kind: StoreKind) {
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

pub(super) async fn counts_are_right(kind: StoreKind) {
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

pub(super) async fn a_closed_store_says_so(kind: StoreKind) {
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
