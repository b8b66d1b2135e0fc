//! Batches: what they take, their way, and what they give back.

use nightbus::config::StoreKind;
use nightbus::domain::batch::{BatchEvent, BatchState};
use nightbus::domain::ids::BatchId;
use nightbus::domain::request::RequestState;
use nightbus::store::{BatchUpdate, NewBatch, ProviderBatch};

use super::{at, bench, body_of, finish, lane};

pub(super) async fn a_batch_takes_only_what_is_queued(kind: StoreKind) {
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

pub(super) async fn a_batch_goes_its_way_and_remembers_what_the_provider_told(kind: StoreKind) {
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

pub(super) async fn a_batch_has_the_lines_that_were_really_uploaded(kind: StoreKind) {
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

pub(super) async fn batches_are_listed_newest_first(kind: StoreKind) {
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

pub(super) async fn only_the_lines_of_that_batch_are_requeued(kind: StoreKind) {
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

pub(super) async fn a_large_batch_is_one_intent(kind: StoreKind) {
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
