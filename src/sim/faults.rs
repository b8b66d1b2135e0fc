//! Faults by name: what is meant to go wrong, and how many times more.
//!
//! One list makes the names, their meanings and the type, so none can be forgotten. A fault is taken where it is
//! acted upon; what cannot apply (a poll fault without a poll) stays armed.

use parking_lot::Mutex;

/// How often a fault written `name:always` fires.
const ALWAYS: u64 = u64::MAX;

macro_rules! faults {
    ($($variant:ident = $name:literal: $meaning:literal;)+) => {
        /// Something that can be made to go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Fault { $(#[doc = $meaning] $variant,)+ }

        /// All faults: name and meaning, in the order of [`Fault`].
        pub(super) const TABLE: &[(&str, &str)] = &[$(($name, $meaning),)+];
    };
}

faults! {
    CreateLost = "create-lost": "create: the batch exists, but the connection is cut before the answer";
    Create500After = "create-500-after": "create: the batch exists, but the answer is 500";
    Create500 = "create-500": "create: 500, nothing exists";
    Create429 = "create-429": "create: 429 with Retry-After 120, nothing exists";
    Quota = "quota": "create: 429 insufficient_quota, nothing exists";
    Billing = "billing": "create: 400 billing_hard_limit_reached, nothing exists";
    Upload500 = "upload-500": "upload: 500, no file exists";
    Upload413 = "upload-413": "upload: 413, no file exists";
    UploadLost = "upload-lost": "upload: the file exists, but the connection is cut before the answer";
    UploadTimeout = "upload-timeout": "upload: the file is read and never answered, no file exists";
    Poll500 = "poll-500": "reading a batch: 500";
    Poll404 = "poll-404": "reading a batch: 404 although it exists";
    PollCut = "poll-cut": "reading a batch: the connection is cut before the answer";
    List500 = "list-500": "listing batches: 500";
    ListStale = "list-stale": "listing batches: the newest one is not shown yet";
    StatusUnknown = "status-unknown": "reading a batch: a status that nobody knows";
    StatusBackwards = "status-backwards": "reading a batch that runs or ran: validating again (a stale replica)";
    Capitals = "capitals": "reading a batch: the status in capitals";
    Rfc3339Times = "rfc3339-times": "reading a batch: times as RFC 3339 text";
    MissingFields = "missing-fields": "reading a batch: only id, status and file ids";
    NullFileIds = "null-file-ids": "reading a completed batch: both file ids null for three polls, then set";
    Cancel500 = "cancel-500": "cancel: 500, nothing is cancelled";
    ValidationOneBad = "validation-one-bad": "validation: one good line is called bad, with its number";
    ValidationTenBad = "validation-ten-bad": "validation: up to ten good lines are called bad, with their numbers";
    ValidationAllBad = "validation-all-bad": "validation: every line is called bad";
    ValidationNoLine = "validation-no-line": "validation: fails with an error whose line is null";
    ValidationUnnamed = "validation-unnamed": "validation: a file with a line that says BAD-LINE fails with an error whose line is null";
    ValidationMarked = "validation-marked": "validation: each line that says BAD-LINE is called bad, with its number";
    ValidationWrongLine = "validation-wrong-line": "validation: fails with a line number past the end of the file";
    ValidationTruncated = "validation-truncated": "validation: every line is bad, but the list names only the first";
    ModelNotFound = "model-not-found": "validation: model_not_found with line null";
    FileNotFound = "file-not-found": "validation: the input file cannot be found although it exists";
    QueueFull = "queue-full": "validation: token_limit_exceeded whatever the queue holds";
    StuckValidating = "stuck-validating": "a batch stays validating until it is cancelled";
    StuckInProgress = "stuck-in-progress": "a batch stays in_progress, half done, until it is cancelled";
    ExpireNone = "expire-none": "a batch expires with no line done";
    ExpireHalf = "expire-half": "a batch expires with half of its lines done";
    ExpireMost = "expire-most": "a batch expires with all but a tenth of its lines done";
    MissingLine = "missing-line": "results: one line did not run and is in neither file";
    DuplicateLine = "duplicate-line": "results: one line is there twice";
    DuplicateDiffers = "duplicate-differs": "results: one line is there again, later, with another content";
    UnknownId = "unknown-id": "results: one more line, with a custom_id that nobody sent";
    HalfLastLine = "half-last-line": "results: the last line of the output file ends in the middle";
    BlankLines = "blank-lines": "results: blank lines in between";
    Crlf = "crlf": "results: lines end in CR LF";
    InvalidUtf8 = "invalid-utf8": "results: one line is not UTF-8";
    LongLine = "long-line": "results: one line of 20 MB";
    NullResponse = "null-response": "results: one line did not run and has response and error both null";
    RequestTimeout = "request-timeout": "results: one line did not run, with error request_timeout";
    Line429 = "line-429": "results: one line did not run, status_code 429 in the error file";
    Line500 = "line-500": "results: one line did not run, status_code 500 in the error file";
    EmptyErrorFile = "empty-error-file": "results: an error file without a line although nothing failed";
    ContentCut = "content-cut": "download: the connection is cut in the middle";
    Content404 = "content-404": "download: 404 although the file exists";
    Content500 = "content-500": "download: 500";
    ContentGzip = "content-gzip": "download: content-encoding gzip, asked for or not";
    Live500 = "live-500": "live call: 500, not executed";
    Live429 = "live-429": "live call: 429 with Retry-After 1, not executed";
    LiveCut = "live-cut": "live call: executed, but the connection is cut (in the middle of a stream)";
    LiveSilent = "live-silent": "live call: never answered, not executed";
    FlexUnavailable = "flex-unavailable": "live call with service_tier flex: 429 resource_unavailable, not executed";
    BackgroundRefused = "background-refused": "background response: 400 for its completion window, nothing is begun";
    Background429 = "background-429": "background response: 429 with Retry-After 1, nothing is begun";
    BackgroundLost = "background-lost": "background response: begun, but the connection is cut before the answer";
    BackgroundFail = "background-fail": "background response: ends failed, with error server_error, not executed";
    BackgroundCancelled = "background-cancelled": "background response: ends cancelled although nobody asked for it, not executed";
    BackgroundSlow = "background-slow": "background response: in progress until it is cancelled";
    BackgroundPoll500 = "background-poll-500": "reading a background response: 500";
    BackgroundPoll404 = "background-poll-404": "reading a background response: 404 although it exists";
    BackgroundCancel500 = "background-cancel-500": "cancelling a background response: 500, nothing is cancelled";
}

/// What is armed, and what has fired.
#[derive(Debug)]
pub(super) struct Faults {
    /// For each fault of [`TABLE`]: times left, times fired.
    counts: Mutex<Vec<(u64, u64)>>,
}

impl Faults {
    /// Arms `faults`: `name`, `name:count` or `name:always`.
    pub(super) fn new(faults: &[String]) -> Result<Self, String> {
        let left = parse(faults)?;
        Ok(Self { counts: Mutex::new(left.into_iter().map(|left| (left, 0)).collect()) })
    }

    /// Arms exactly `faults`; what fired so far stays counted.
    pub(super) fn replace(&self, faults: &[String]) -> Result<(), String> {
        let left = parse(faults)?;
        for (count, left) in self.counts.lock().iter_mut().zip(left) {
            count.0 = left;
        }
        Ok(())
    }

    /// Whether `fault` is to happen now; if so, one time less is left.
    pub(super) fn take(&self, fault: Fault) -> bool {
        let mut counts = self.counts.lock();
        let Some((left, fired)) = counts.get_mut(fault as usize) else { return false };
        if *left == 0 {
            return false;
        }
        if *left != ALWAYS {
            *left -= 1;
        }
        *fired += 1;
        true
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.counts.lock().fill((0, 0));
    }

    /// What fired so far, by name.
    pub(super) fn fired(&self) -> serde_json::Value {
        let counts = self.counts.lock();
        let pairs = TABLE.iter().zip(counts.iter()).filter(|(_, (_, fired))| *fired > 0);
        pairs.map(|((name, _), (_, fired))| ((*name).to_owned(), serde_json::Value::from(*fired))).collect()
    }

    /// What is still armed, as it would be written.
    pub(super) fn armed(&self) -> Vec<String> {
        let counts = self.counts.lock();
        let pairs = TABLE.iter().zip(counts.iter()).filter(|(_, (left, _))| *left > 0);
        pairs
            .map(
                |((name, _), (left, _))| {
                    if *left == ALWAYS { format!("{name}:always") } else { format!("{name}:{left}") }
                },
            )
            .collect()
    }
}

fn parse(faults: &[String]) -> Result<Vec<u64>, String> {
    let mut left = vec![0_u64; TABLE.len()];
    for text in faults {
        let (name, count) = text.trim().split_once(':').unwrap_or_else(|| (text.trim(), "1"));
        let slot = TABLE.iter().position(|(known, _)| *known == name).and_then(|at| left.get_mut(at));
        let Some(slot) = slot else {
            let nearest = TABLE.iter().max_by(|(one, _), (other, _)| {
                strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other))
            });
            let nearest = nearest.map(|(known, _)| format!(", perhaps {known}?")).unwrap_or_default();
            return Err(format!("unknown fault '{name}'{nearest} `nightbus simulate --fault list` shows all"));
        };
        *slot = match count {
            "always" => ALWAYS,
            count => count.parse().map_err(|_error| {
                format!("fault '{text}': the count must be a number or 'always', as in '{name}:3'")
            })?,
        };
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_as_often_as_written_and_counts_it() {
        let faults = Faults::new(&["poll-500:2".into(), "quota".into(), "crlf:always".into()]).unwrap();
        assert!(faults.take(Fault::Poll500) && faults.take(Fault::Poll500) && !faults.take(Fault::Poll500));
        assert!(faults.take(Fault::Quota) && !faults.take(Fault::Quota));
        assert!((0..100).all(|_| faults.take(Fault::Crlf)));
        assert!(!faults.take(Fault::CreateLost));
        assert_eq!(faults.fired(), serde_json::json!({"poll-500": 2, "quota": 1, "crlf": 100}));
        assert_eq!(faults.armed(), ["crlf:always"]);
    }

    #[test]
    fn unknown_name_is_told_the_nearest_one_and_changes_nothing() {
        let faults = Faults::new(&["quota".into()]).unwrap();
        let error = faults.replace(&["poll-500".into(), "pol-500".into()]).unwrap_err();
        assert!(error.contains("'pol-500', perhaps poll-500?"), "{error}");
        assert!(faults.replace(&["poll-500:x".into()]).is_err());
        assert!(!faults.take(Fault::Poll500) && faults.take(Fault::Quota));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
