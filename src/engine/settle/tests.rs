use super::*;

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
fn what_a_live_call_would_meet_as_well_goes_to_no_other_service() {
    let by = |status, code: &str| {
        let (code, message, body) = (code.to_owned(), "m".to_owned(), Bytes::from_static(b"{}"));
        let operation = "create";
        let error = ProviderError::Refused { operation, status, code, message, body, retry_after: None };
        Refusal::from_provider(&error).fall_back
    };
    assert_eq!([by(403, "c"), by(402, "c"), by(400, "c")], [Some(BATCH_REFUSED); 3]);
    assert_eq!([by(401, "c"), by(403, "insufficient_quota"), by(400, "billing_error")], [None; 3]);
    let unheard = ProviderError::Unreadable { operation: "create", cause: String::new() };
    let unheard = Refusal::from_provider(&unheard);
    assert_eq!((unheard.status, unheard.fall_back, unheard.executed), (502, None, false));

    let fault = |code: &str| BatchFault {
        code: code.to_owned(),
        message: "m".to_owned(),
        param: Some("body.model".to_owned()),
        line: None,
    };
    let whole = |code| Refusal::from_whole_fault(&fault(code));
    assert_eq!((whole("model_not_found").status, whole("model_not_found").fall_back), (400, Some(BATCH_REFUSED)));
    assert_eq!(whole("insufficient_quota").fall_back, None);
    let own = Refusal::from_fault(&fault("model_not_found"));
    assert_eq!(own.fall_back, None, "a line's own fault is its caller's");
    let body: serde_json::Value = serde_json::from_slice(&own.body.unwrap()).unwrap();
    assert_eq!(
        (body["error"]["param"].as_str(), body["error"]["code"].as_str()),
        (Some("model"), Some("model_not_found"))
    );
}

#[test]
fn tallies_are_added_number_by_number() {
    let mut tally = Tally { answered: 1, requeued: 2, handed: 3, failed: 4 };
    tally.add(Tally { answered: 10, requeued: 20, handed: 30, failed: 40 });
    assert_eq!((tally.answered, tally.requeued, tally.handed, tally.failed), (11, 22, 33, 44));
}
