//! Live calls in place of a batch, test flights, and how long batches took.

use nightbus::config::StoreKind;
use nightbus::domain::lane::{Endpoint, Fingerprint};
use nightbus::domain::request::RequestState;
use nightbus::domain::service::Service;
use nightbus::store::flights::{FlightRecord, FlightState};
use nightbus::store::{LearnedCeiling, LearnedDurations, Limited, LiveCall};

use super::{at, bench, finish};

pub(super) async fn what_a_live_call_answers_is_no_batchs_business(kind: StoreKind) {
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

pub(super) async fn a_live_call_is_known_from_its_first_mark_to_after_its_end(kind: StoreKind) {
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

pub(super) async fn a_background_response_belongs_to_a_call_that_was_sent(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accepted(1).await[0];
    let keep = async |id, text: &str| bench.store.keep_response(id, text.to_owned()).await.unwrap();
    assert!(!keep(id, "resp_0").await, "no call is out");
    let handed = LiveCall { service: Service::Background8h, since: at(30), sent_at: None };
    bench.store.mark_live(vec![id], handed).await.unwrap();
    assert!(!keep(id, "resp_1").await, "it was not sent");
    let sent = LiveCall { sent_at: Some(at(31)), ..handed };
    bench.store.mark_live(vec![id], sent).await.unwrap();
    assert!(!keep(bench.request().id, "resp_2").await, "of nobody");
    assert!(keep(id, "resp_3").await);
    let record = bench.store.request(id).await.unwrap().unwrap();
    assert_eq!((record.response.as_deref(), record.live), (Some("resp_3"), Some(sent)));
}

pub(super) async fn a_background_response_is_known_until_another_call_is_marked(kind: StoreKind) {
    let bench = bench(kind);
    let id = bench.accepted(1).await[0];
    let keep = async |text: &str| bench.store.keep_response(id, text.to_owned()).await.unwrap();
    let known = async || bench.store.request(id).await.unwrap().unwrap().response;
    for (service, minute) in [(Service::Background8h, 30), (Service::Background2h, 40)] {
        let call = LiveCall { service, since: at(minute), sent_at: Some(at(minute)) };
        bench.store.mark_live(vec![id], call).await.unwrap();
        assert_eq!(known().await, None, "another call's");
        assert!(keep(service.as_str()).await);
        assert_eq!(known().await.as_deref(), Some(service.as_str()));
    }
    assert!(bench.finish(id, RequestState::Completed, 50, Some("{}")).await);
    assert!(!keep("resp_5").await);
    assert_eq!(known().await.as_deref(), Some(Service::Background2h.as_str()), "kept");
}

pub(super) async fn the_last_flight_of_a_template_is_kept(kind: StoreKind) {
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
        shared_prefix: (template == 1).then_some(u32::MAX),
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

pub(super) async fn durations_are_kept_and_replaced(kind: StoreKind) {
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

pub(super) async fn ceilings_are_kept_replaced_and_forgotten(kind: StoreKind) {
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
