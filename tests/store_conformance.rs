//! What every store promises, run against each of them: what the trait's documentation says, said again as tests.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "store_conformance/batches.rs"]
mod batches;
#[path = "store_conformance/callbacks.rs"]
mod callbacks;
#[path = "store_conformance/credentials.rs"]
mod credentials;
#[path = "store_conformance/ledger.rs"]
mod ledger;
#[path = "store_conformance/lifetime.rs"]
mod lifetime;
#[path = "store_conformance/live.rs"]
mod live;
#[path = "store_conformance/requests.rs"]
mod requests;

use std::sync::Arc;

use bytes::Bytes;
use nightbus::config::StoreKind;
use nightbus::domain::batch::BatchEvent;
use nightbus::domain::clock::Micros;
use nightbus::domain::ids::{BatchId, IdSource, RequestId};
use nightbus::domain::lane::{Endpoint, Fingerprint, LaneKey};
use nightbus::domain::request::RequestState;
use nightbus::store::{
    self, BatchUpdate, Finish, NewBatch, NewRequest, OutcomeSummary, ProviderBatch, RequestOptions, SharedStore,
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
            trace: None,
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

macro_rules! conformance {
    ($($theme:ident: $($case:ident),* $(,)?;)*) => {
        mod memory {
            $($(#[tokio::test] async fn $case() { super::$theme::$case(super::StoreKind::Memory).await; })*)*
        }
        mod sqlite {
            $($(#[tokio::test] async fn $case() { super::$theme::$case(super::StoreKind::Sqlite).await; })*)*
        }
    };
}

conformance!(
    requests:
        what_was_accepted_comes_back,
        bodies_come_in_the_order_asked_for,
        bodies_of_any_size_are_kept,
        an_id_that_only_shares_the_sequence_number_finds_nothing,
        one_that_is_refused_does_not_fail_the_others,
        the_first_result_stands,
        a_submitted_request_cannot_be_cancelled,
        options_are_added,
        a_list_is_filtered_and_paged;
    batches:
        a_batch_takes_only_what_is_queued,
        a_batch_goes_its_way_and_remembers_what_the_provider_told,
        a_batch_has_the_lines_that_were_really_uploaded,
        batches_are_listed_newest_first,
        only_the_lines_of_that_batch_are_requeued,
        a_large_batch_is_one_intent;
    lifetime:
        a_restart_finds_what_is_not_over,
        what_is_old_goes_with_its_batch,
        what_is_not_over_does_not_expire,
        numbers_are_never_given_out_twice,
        counts_are_right,
        a_closed_store_says_so;
    live:
        what_a_live_call_answers_is_no_batchs_business,
        a_live_call_is_known_from_its_first_mark_to_after_its_end,
        a_background_response_belongs_to_a_call_that_was_sent,
        a_background_response_is_known_until_another_call_is_marked,
        the_last_flight_of_a_template_is_kept,
        durations_are_kept_and_replaced,
        ceilings_are_kept_replaced_and_forgotten;
    credentials:
        credentials_are_kept,
        fingerprints_are_keyed;
    ledger:
        an_execution_is_in_the_ledger_once,
        an_answer_that_came_too_late_is_waste,
        an_unknown_price_is_counted_and_adds_nothing,
        an_execution_without_a_usable_answer_is_waste,
        a_report_is_divided_and_begins_with_an_hour,
        rows_go_and_their_sums_stay,
        nonsense_does_not_spoil_the_sums;
    callbacks:
        a_callback_is_due_when_its_request_ends,
        attempts_are_kept_and_decide_what_is_due,
        callbacks_are_listed_in_pages_and_go_with_their_requests;
);
