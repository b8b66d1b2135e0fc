use bytes::Bytes;

use super::*;
use crate::domain::clock::Micros;
use crate::domain::ids::IdSource;
use crate::domain::lane::Endpoint;
use crate::domain::request::RequestState;
use crate::domain::service::Fallback;
use crate::store::{NewRequest, RequestOptions};

fn record(services: &[Service], deadline_at: Option<Micros>) -> RequestRecord {
    let lane = LaneKey {
        provider: "openai".into(),
        account: Fingerprint([3; 16]),
        endpoint: Endpoint::Responses,
        model: "m".into(),
        deadline_class: 0,
    };
    RequestRecord {
        request: NewRequest {
            id: IdSource::default().request_id(Micros(1), 0),
            caller: Fingerprint([1; 16]),
            lane: Arc::new(lane),
            tag: None,
            key: None,
            created_at: Micros(0),
            deadline_at,
            options: RequestOptions::default().with_fallback(Fallback::of(services)),
            body_hash: Fingerprint([2; 16]),
            idempotency: None,
            body_len: 9,
            template: None,
            most_output: None,
            trace: None,
        },
        state: RequestState::Submitted,
        submitted_at: None,
        finished_at: None,
        batch_id: None,
        attempts: 0,
        live: None,
        response: None,
        outcome: None,
    }
}

fn refused(status: u16, code: &str, retry_after: Option<u64>) -> ProviderError {
    ProviderError::Refused {
        operation: "live call",
        status,
        code: code.to_owned(),
        message: String::new(),
        body: Bytes::new(),
        retry_after: retry_after.map(Duration::from_secs),
    }
}

fn after(record: &RequestRecord, service: Service, error: &ProviderError, tries: u32) -> After {
    super::after(record, record.request.options.fallback().after(service).first(), error, tries)
}

#[test]
fn flex_without_room_gives_way_at_once_and_alone_waits() {
    let full = refused(429, "resource_unavailable", None);
    let both = record(&[Service::Flex, Service::Sync], None);
    assert_eq!(after(&both, Service::Flex, &full, 1), After::By(Service::Sync));
    let alone = record(&[Service::Flex], None);
    assert!(matches!(after(&alone, Service::Flex, &full, 1), After::Again(_)));
    assert_eq!(after(&alone, Service::Flex, &full, MOST_TRIES), After::Never);
    let urgent = record(&[Service::Flex], Some(Micros(9)));
    assert!(matches!(after(&urgent, Service::Flex, &full, 1_000), After::Again(_)), "until its deadline");
}

#[test]
fn what_may_get_better_is_tried_again_as_the_provider_asks() {
    let sync = record(&[Service::Sync], None);
    for (error, least) in [(refused(429, "", Some(30)), 30), (refused(500, "", None), 0), (refused(503, "", None), 0)] {
        let After::Again(pause) = after(&sync, Service::Sync, &error, 1) else { panic!("{error}") };
        assert!(pause.as_secs() >= least, "{error}: {pause:?}");
    }
    for error in [refused(400, "", None), refused(404, "", None), refused(429, "insufficient_quota", None)] {
        assert_eq!(after(&sync, Service::Sync, &error, 1), After::Never, "{error}");
        let both = record(&[Service::Flex, Service::Sync], None);
        assert_eq!(after(&both, Service::Flex, &error, 1), After::By(Service::Sync), "a model may have no flex");
    }
    let both = record(&[Service::Flex, Service::Sync], None);
    assert!(matches!(after(&both, Service::Flex, &refused(500, "", None), 1), After::Again(_)));
    assert_eq!(after(&both, Service::Flex, &refused(500, "", None), TRIES_BEFORE_NEXT), After::By(Service::Sync));
}

#[test]
fn a_provider_that_cannot_be_reached_is_waited_for() {
    let cause = "connection refused".to_owned();
    let unsent = ProviderError::NoAnswer { operation: "live call", cause, may_have_taken_effect: false };
    let sync = record(&[Service::Sync], None);
    assert!(matches!(after(&sync, Service::Sync, &unsent, 1_000), After::Again(_)));
    assert_eq!(after(&sync, Service::Sync, &refused(500, "", None), MOST_TRIES), After::Never);
}

#[test]
fn an_answer_that_cannot_be_read_was_executed_and_is_not_bought_again() {
    let both = record(&[Service::Flex, Service::Sync], Some(Micros(9)));
    let unreadable = ProviderError::Unreadable { operation: "live call", cause: String::new() };
    assert_eq!(after(&both, Service::Flex, &unreadable, 1), After::Never);
}

#[test]
fn pauses_grow_and_no_provider_may_ask_for_more_than_ten_minutes() {
    let sync = record(&[Service::Sync], Some(Micros(9)));
    for (tries, most) in [(1, 1), (2, 2), (3, 4), (20, 60)] {
        let After::Again(pause) = after(&sync, Service::Sync, &refused(500, "", None), tries) else {
            panic!("{tries}")
        };
        let most = Duration::from_secs(most);
        assert!((most * 3 / 4..=most).contains(&pause), "{tries}: {pause:?}");
    }
    let asks = refused(429, "", Some(86_400));
    assert_eq!(after(&sync, Service::Sync, &asks, 1), After::Again(Duration::from_secs(600)));
    for status in [409, 425] {
        assert!(matches!(after(&sync, Service::Sync, &refused(status, "", None), 1), After::Again(_)), "{status}");
    }
    let both = record(&[Service::Flex, Service::Sync], None);
    for other in [refused(429, "rate_limit_exceeded", None), refused(503, "resource_unavailable", None)] {
        assert!(matches!(after(&both, Service::Flex, &other, 1), After::Again(_)), "it has room: {other}");
    }
}

#[test]
fn places_in_the_ledger_are_what_is_stored_already() {
    use Service::{Background2h, Background8h, Flex, Sync};
    assert_eq!([Sync, Flex, Background8h, Background2h].map(|by| execution_of(by).place()), [-1, -1, -2, -3]);
}

#[test]
fn room_is_shared_by_credential_and_model_or_by_all_and_forgotten_when_free() {
    let lane = |model: &str| LaneKey { model: model.into(), ..(*record(&[], None).request.lane).clone() };
    let rooms = LiveRoom::default();
    let (one, again) = (rooms.of(&lane("m"), None), rooms.of(&LaneKey { deadline_class: 7, ..lane("m") }, None));
    assert!(Arc::ptr_eq(&one, &again) && one.available_permits() == LIVE_CALLS_AT_ONCE);
    drop(again);
    assert!(!Arc::ptr_eq(&one, &rooms.of(&lane("n"), None)));
    let all = rooms.of(&lane("m"), Some(3));
    assert!(Arc::ptr_eq(&all, &rooms.of(&lane("n"), Some(3))) && all.available_permits() == 3);
    let known = rooms.places.lock().len();
    for number in known..MANY {
        rooms.of(&lane(&format!("m{number}")), None);
    }
    assert_eq!(rooms.places.lock().len(), MANY);
    assert!(Arc::ptr_eq(&one, &rooms.of(&lane("m"), None)), "calls are out in it");
    assert_eq!(rooms.places.lock().len(), 2, "the others are free");
}
