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
