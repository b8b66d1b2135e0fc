//! Lines of result files. Whatever a provider or a broken transfer makes of a line, reading it says something about at
//! most one request; an answer that was written whole is read byte for byte.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nightbus::wire::openai::output_line::{BadLine, LineOutcome, parse};
use nightbus::wire::openai::usage::consumption;
use serde_json::value::RawValue;

const ID: &str = "req_0198f2c05a6b7c8d9e0f112233445566";

fuzz_target!(|input: &[u8]| {
    anything(input);
    in_its_place(input);
    if let Ok(body) = std::str::from_utf8(input) {
        a_whole_line(body);
    }
});

fn anything(line: &[u8]) {
    match parse(&Bytes::copy_from_slice(line)) {
        Ok((_, LineOutcome::Answered { status, body, .. })) => {
            assert!((100..=599).contains(&status));
            let _: &RawValue = serde_json::from_slice(&body).expect("an answer's body is JSON");
            if let Ok(text) = std::str::from_utf8(line) {
                assert!(text.contains(std::str::from_utf8(&body).expect("a part of text")));
            }
            let _ = consumption(&body);
        }
        Ok((_, LineOutcome::NotExecuted { .. })) | Err(_) => {}
    }
}

/// Behind an id that is there, the line is this request's, or not readable as anybody's.
fn in_its_place(rest: &[u8]) {
    let line = [br#"{"custom_id":""#, ID.as_bytes(), br#"","#, rest].concat();
    match parse(&Bytes::from(line)) {
        // Another `custom_id` may follow, and then the line is nobody's.
        Ok((id, _)) | Err(BadLine::Damaged(id)) => assert_eq!(id.to_string(), ID),
        Err(_) => {}
    }
}

fn a_whole_line(body: &str) {
    let line = format!(
        r#"{{"id":"b","custom_id":"{ID}","response":{{"status_code":200,"request_id":"r","body":{body}}},"error":null}}"#
    );
    let is_json = serde_json::from_str::<&RawValue>(body).is_ok();
    let parsed = parse(&Bytes::from(line));
    if !is_json {
        return;
    }
    let body = body.trim_matches([' ', '\t', '\n', '\r']);
    match parsed {
        Ok((id, LineOutcome::Answered { status, body: read, .. })) => {
            assert_eq!((id.to_string().as_str(), status, &*read), (ID, 200, body.as_bytes()));
        }
        // No body is no answer.
        Err(BadLine::Empty) => assert_eq!(body, "null"),
        other => panic!("{other:?}"),
    }
}
