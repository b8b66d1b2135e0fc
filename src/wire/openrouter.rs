//! OpenRouter's batches (providers.md, section 4.12): the call that creates one, and an object that has the results inside it.
//!
//! The object is as large as its results, and is read as it comes: [`ResultScanner`] parts what is known of the batch, which is short,
//! from the results, each of which becomes a line. No result is held. Called by `upstream::openrouter`.

use serde::Serialize;

use crate::wire::batch::{BatchObject, BatchStatus};
use crate::wire::openai::batch;

/// What stands behind the last line of a creation.
pub const CREATION_END: &[u8] = b"]}";
/// All that is not results.
const MAX_REST: usize = 8 << 20;
/// No name that matters is longer.
const MAX_NAME: usize = 64;

/// The members before the lines. Their order is the order of the call, and the service reads it as it comes: what follows `requests`
/// is not seen.
#[derive(Serialize)]
struct Head<'a> {
    endpoint: String,
    model: &'a str,
    completion_window: &'a str,
    requests: [(); 0],
}

/// The beginning of a creation, up to its first line. `prefix` stands before `relative`, the endpoint's path.
pub fn creation_head(prefix: &str, relative: &str, model: &str, window: &str) -> Result<Vec<u8>, serde_json::Error> {
    let endpoint = format!("{prefix}{relative}");
    let mut head = serde_json::to_vec(&Head { endpoint, model, completion_window: window, requests: [] })?;
    head.truncate(head.len().saturating_sub(CREATION_END.len()));
    Ok(head)
}

/// Why an object cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// It is not over, and nothing more comes.
    #[error("the batch object breaks off")]
    Cut,
    /// What is known of the batch beside its results is longer than anything that makes sense.
    #[error("the batch object is too long")]
    TooLong,
}

/// A batch object on its way in.
#[derive(Debug, Default)]
pub struct ResultScanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
    /// A member of the object has its name, and its value comes.
    named: bool,
    name: Vec<u8>,
    in_results: bool,
    in_result: bool,
    results: u64,
    rest: Vec<u8>,
}

impl ResultScanner {
    /// Takes the next piece; results in it are appended to `lines`, each with a line end, where somebody wants them.
    ///
    /// # Errors
    /// [`ScanError::TooLong`].
    pub fn feed(&mut self, piece: &[u8], mut lines: Option<&mut Vec<u8>>) -> Result<(), ScanError> {
        for byte in piece {
            let was_result = self.in_result;
            let was_results = self.in_results;
            self.step(*byte);
            if was_result || self.in_result {
                if let Some(lines) = lines.as_deref_mut() {
                    // White space between tokens: inside of a text it would have to be escaped.
                    lines.push(if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte });
                    if !self.in_result {
                        lines.push(b'\n');
                    }
                }
            } else if !(was_results && self.in_results) {
                self.rest.push(*byte);
            }
        }
        if self.rest.len() > MAX_REST { Err(ScanError::TooLong) } else { Ok(()) }
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.in_text(byte);
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 && !self.named {
                    self.name.clear();
                }
            }
            b':' if self.depth == 1 => self.named = true,
            b',' if self.depth == 1 => self.named = false,
            b'{' | b'[' => {
                self.begun = true;
                self.depth += 1;
                if self.depth == 2 && byte == b'[' && self.named && self.name == b"results" {
                    self.in_results = true;
                } else if self.depth == 3 && byte == b'{' && self.in_results {
                    self.in_result = true;
                    self.results += 1;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.in_result &= self.depth > 2;
                self.in_results &= self.depth > 1;
            }
            _ => {}
        }
    }

    fn in_text(&mut self, byte: u8) {
        if std::mem::take(&mut self.escaped) {
            return;
        }
        match byte {
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.depth == 1 && !self.named && self.name.len() < MAX_NAME => self.name.push(byte),
            _ => {}
        }
    }

    /// Whether all of it was there: what is known of the batch, with an empty array in the place of its results, and their number.
    ///
    /// # Errors
    /// [`ScanError::Cut`].
    pub fn end(self) -> Result<(Vec<u8>, u64), ScanError> {
        if self.begun && self.depth == 0 { Ok((self.rest, self.results)) } else { Err(ScanError::Cut) }
    }
}

/// Reads what [`ResultScanner::end`] gives. The results are "in a file" that is called as the batch; one that has ended without those
/// that it should have is read again.
pub fn parse_batch(rest: &[u8], results: u64) -> Result<BatchObject, serde_json::Error> {
    let object = batch::parse_batch(rest)?;
    let promised = object.completed.unwrap_or(0) > 0 || object.failed.unwrap_or(0) > 0;
    let results_pending = results == 0
        && match object.status {
            BatchStatus::Completed => true,
            BatchStatus::Expired | BatchStatus::Cancelled => promised,
            BatchStatus::Running | BatchStatus::Failed => false,
        };
    let output_file_id = (results > 0).then(|| object.id.clone());
    Ok(BatchObject { output_file_id, error_file_id: None, results_pending, ..object })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"id":"b","meta":{"results":[{"not":"one"}],"x":"results"},"results" : [
        {"custom_id":"a\"]}{","response":{"body":{"n":[1,{"m":2}]}}},
        {"custom_id":
         "b"} , 7, "x", null],"status":"completed","request_counts":{"total":2,"completed":2,"failed":0},"tail":"results"}"#;

    fn scan(text: &str, step: usize) -> (Vec<u8>, Vec<u8>, u64) {
        let (mut scanner, mut lines) = (ResultScanner::default(), Vec::new());
        for piece in text.as_bytes().chunks(step) {
            scanner.feed(piece, Some(&mut lines)).unwrap();
        }
        let (rest, results) = scanner.end().unwrap();
        (rest, lines, results)
    }

    #[test]
    fn results_are_lines_wherever_the_object_is_cut_into_pieces() {
        for step in [1, 2, 7, 64, 4096] {
            let (rest, lines, results) = scan(OBJECT, step);
            let lines = String::from_utf8(lines).unwrap();
            let read: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!((read.len(), results), (2, 2), "{lines}");
            assert_eq!((&read[0]["custom_id"], &read[1]["custom_id"]), (&"a\"]}{".into(), &"b".into()));
            let rest: serde_json::Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!((&rest["results"], &rest["meta"]["x"]), (&serde_json::json!([]), &"results".into()));
            assert_eq!(rest["meta"]["results"][0]["not"], "one");
        }
    }

    #[test]
    fn an_object_that_breaks_off_is_none() {
        for end in [0, 1, 40, 120, OBJECT.len() - 1] {
            let mut scanner = ResultScanner::default();
            scanner.feed(&OBJECT.as_bytes()[..end], None).unwrap();
            assert_eq!(scanner.end(), Err(ScanError::Cut), "{end}");
        }
        let mut scanner = ResultScanner::default();
        assert_eq!(scanner.feed(&vec![b' '; MAX_REST + 1], None), Err(ScanError::TooLong));
    }

    #[test]
    fn an_end_without_its_results_is_waited_for() {
        let read = |text: &str, results| parse_batch(text.as_bytes(), results).unwrap();
        let done = read(r#"{"id":"b","status":"completed"}"#, 2);
        assert_eq!((done.output_file_id.as_deref(), done.results_pending), (Some("b"), false));
        assert!(read(r#"{"id":"b","status":"completed"}"#, 0).results_pending);
        assert!(!read(r#"{"id":"b","status":"expired"}"#, 0).results_pending, "nothing ran");
        assert!(read(r#"{"id":"b","status":"expired","request_counts":{"completed":1}}"#, 0).results_pending);
        // Errors are among the results.
        assert!(!read(r#"{"id":"b","status":"completed","request_counts":{"failed":1}}"#, 1).results_pending);
    }

    #[test]
    fn a_creation_names_everything_before_its_lines() {
        let mut call = creation_head("/api/v1", "/chat/completions", "a/\"m\"", "24h").unwrap();
        assert!(call.ends_with(b"\"requests\":["));
        call.extend_from_slice(CREATION_END);
        let call: serde_json::Value = serde_json::from_slice(&call).unwrap();
        let (endpoint, model) = ("/api/v1/chat/completions", "a/\"m\"");
        let whole =
            serde_json::json!({"endpoint": endpoint, "model": model, "completion_window": "24h", "requests": []});
        assert_eq!(call, whole);
    }
}
