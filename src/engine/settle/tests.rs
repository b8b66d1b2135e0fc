use super::*;
use crate::domain::clock::Micros;
use crate::domain::ids::IdSource;
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};
use crate::store::{NewRequest, RequestOptions};

fn at(seconds: i64) -> Micros {
    Micros::from_unix_seconds(1_795_420_800 + seconds)
}

fn refused(operation: &'static str, status: u16, body: &'static str) -> Refusal {
    Refusal::from_provider(&ProviderError::Refused {
        operation,
        status,
        code: "c".to_owned(),
        message: "m".to_owned(),
        body: Bytes::from_static(body.as_bytes()),
        retry_after: None,
    })
}

#[test]
fn what_the_object_says_of_a_refusal_is_what_the_caller_gets() {
    let api = refused("create", 403, r#"{"error":{"message":"m","code":"c"}}"#);
    assert_eq!((api.status, api.code.as_str(), api.body.is_some()), (403, "c", true));
    // A page that is not JSON is not given to the caller, who gets 502: so says the object.
    for page in ["<html>forbidden</html>", ""] {
        let page = refused("create", 403, page);
        assert_eq!((page.status, page.code.as_str(), page.body), (502, "batch_failed", None));
        assert!(page.message.contains("create with 403"), "{}", page.message);
    }
}

#[test]
fn a_provider_without_a_batch_api_is_named_as_such_whatever_its_404_says() {
    let refusal = refused("upload", 404, r#"{"detail":"Not Found"}"#);
    assert_eq!((refusal.status, refusal.code.as_str(), refusal.body), (502, "batch_failed", None));
    assert!(refusal.message.contains("no Batch API") && refusal.message.contains("live"), "{}", refusal.message);
}

#[test]
fn line_numbers_are_those_of_the_uploaded_file() {
    let ids = IdSource::after(0);
    let lane = Arc::new(LaneKey {
        provider: "openai".into(),
        account: Fingerprint([3; 16]),
        endpoint: Endpoint::Embeddings,
        model: "m".into(),
        deadline_class: 0,
    });
    let record = |state, finished_at| RequestRecord {
        request: NewRequest {
            id: ids.request_id(at(0), fastrand::u64(..)),
            caller: Fingerprint([1; 16]),
            lane: Arc::clone(&lane),
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
        },
        state,
        submitted_at: None,
        finished_at,
        batch_id: None,
        attempts: 1,
        live: None,
        outcome: None,
    };
    let lines = [
        record(RequestState::Submitted, None),
        // Ended before the upload, and is not in the file.
        record(RequestState::Cancelled, Some(at(10))),
        record(RequestState::Submitted, None),
        // Ended after it (by an earlier run of this very step), and has its number.
        record(RequestState::Failed, Some(at(30))),
        record(RequestState::Submitted, None),
    ];
    let batch = BatchRecord {
        id: ids.batch_id(at(5), 7),
        lane: Arc::clone(&lane),
        state: crate::domain::batch::BatchState::Submitted,
        line_count: 5,
        created_at: at(5),
        submitted_at: Some(at(20)),
        ended_at: None,
        provider: ProviderBatch::default(),
    };
    let expected: Vec<RequestId> = [0, 2, 3, 4].map(|line: usize| lines[line].request.id).to_vec();
    assert_eq!(file_lines(&batch, &lines), expected);
}
