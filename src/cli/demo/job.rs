//! The demonstration's job: label customer reviews, each by one real chat call that may wait.
//!
//! Every call asks for its own review to be repeated, so that an answer that went to the wrong caller is noticed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::http::{Answer, HttpClient, HttpError};
use crate::config::TlsRoots;
use crate::domain::money::Money;

/// What the simulator charges for.
pub(super) const MODEL: &str = "gpt-6-luna";

const GUIDE: &str = "You label customer reviews for a shop that sells by post. Read the review once and decide how the \
customer feels about what was bought, not about the price, the weather or the carrier, unless the review speaks of nothing \
else. Answer `positive` when the customer would buy it again, `negative` when it was or should be sent back, and `mixed` \
when praise and complaint are both there. Sarcasm counts as what is meant. A review in another language is labelled like any \
other. Repeat the review word for word in `review`, so that the label can be filed with it, and add nothing to it.";

const THINGS: [&str; 8] =
    ["kettle", "desk lamp", "rucksack", "pair of boots", "coffee grinder", "bicycle bell", "rain jacket", "radio"];
const PRAISE: [&str; 6] = [
    "works every morning without a sound",
    "looks better than in the picture",
    "survived two weeks in the mountains",
    "was a present and is loved",
    "is exactly what I was looking for",
    "came with a clear manual for once",
];
const COMPLAINTS: [&str; 6] = [
    "the handle came off on the third day",
    "it smells of rubber",
    "one screw was missing",
    "the colour is nowhere near the one I ordered",
    "it is half the size I expected",
    "nobody answers my letters",
];

/// How the job went.
#[derive(Debug, Default)]
pub(super) struct JobReport {
    /// Calls that got an answer of their own.
    pub(super) answered: u64,
    /// Calls that got somebody else's answer, or one that cannot be read.
    pub(super) wrong: u64,
    /// Calls that got an error.
    pub(super) failed: u64,
    /// The first of those, for people.
    pub(super) first_failure: Option<String>,
    /// How often each label was given.
    pub(super) labels: BTreeMap<String, u64>,
    /// Answers of live calls: the test flight.
    pub(super) flown: u64,
    /// Answers that came with their price.
    pub(super) priced: u64,
    /// Sum of `x-nightbus-cost-usd`.
    pub(super) paid: Money,
    /// Sum of `x-nightbus-saved-usd`.
    pub(super) saved: Money,
    /// From the first call to the last answer.
    pub(super) took: Duration,
}

impl JobReport {
    /// Calls that have ended.
    pub(super) const fn ended(&self) -> u64 {
        self.answered + self.wrong + self.failed
    }

    fn add(&mut self, review: &str, outcome: Result<Answer, HttpError>) {
        let answer = match outcome {
            Ok(answer) if answer.status.is_success() => answer,
            Ok(answer) => return self.fail(format!("{}: {}", answer.status, excerpt(&answer.body))),
            Err(error) => return self.fail(error.to_string()),
        };
        let Some((label, repeated)) = read(&answer.body) else {
            self.wrong += 1;
            return;
        };
        // The simulator puts a mark of the request in front of what it repeats.
        if !repeated.ends_with(review) {
            self.wrong += 1;
            return;
        }
        self.answered += 1;
        self.flown += u64::from(answer.headers.get("x-nightbus-service").is_some_and(|service| service == "sync"));
        *self.labels.entry(label).or_default() += 1;
        let prices = (usd(&answer.headers, "x-nightbus-cost-usd"), usd(&answer.headers, "x-nightbus-saved-usd"));
        if let (Some(paid), Some(saved)) = prices {
            self.priced += 1;
            self.paid += paid;
            self.saved += saved;
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(why);
    }
}

/// Sends `calls` calls to the proxy at `main`, `at_once` of them at the same time, and tells after each what there is so far.
pub(super) async fn run(
    main: SocketAddr,
    calls: u64,
    at_once: usize,
    patience: Duration,
    mut told: impl FnMut(&JobReport),
) -> anyhow::Result<JobReport> {
    let uri: Uri = format!("http://{main}/v1/chat/completions").parse()?;
    let http = HttpClient::new(TlsRoots::Auto)?;
    let started = Instant::now();
    let mut report = JobReport::default();
    let outcomes = stream::iter(0..calls).map(|number| {
        let (http, uri, review) = (http.clone(), uri.clone(), review(number));
        async move {
            let body = Bytes::from(body(&review).to_string());
            let headers = [("x-nightbus-defer", "true"), ("x-nightbus-tag", "demo")];
            let sent = http.send(Method::POST, uri, Some("sk-demo"), &headers, body, patience).await;
            (review, sent)
        }
    });
    let mut outcomes = Box::pin(outcomes.buffer_unordered(at_once.max(1)));
    while let Some((review, outcome)) = outcomes.next().await {
        report.add(&review, outcome);
        told(&report);
    }
    report.took = started.elapsed();
    Ok(report)
}

/// The review with this number; no two are equal.
fn review(number: u64) -> String {
    let pick = |from: &[&'static str], divisor: u64| {
        let at = usize::try_from(number / divisor).unwrap_or(0) % from.len().max(1);
        from.get(at).copied().unwrap_or_default()
    };
    let thing = pick(&THINGS, 1);
    let praise = pick(&PRAISE, 3);
    let complaint = pick(&COMPLAINTS, 7);
    match number % 3 {
        0 => format!("Order {number:05}. The {thing} {praise}. I would buy it again."),
        1 => format!("Order {number:05}. About the {thing}: {complaint}. Please take it back."),
        _ => format!("Order {number:05}. The {thing} {praise}, but {complaint}."),
    }
}

fn body(review: &str) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "system", "content": GUIDE}, {"role": "user", "content": review}],
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "label",
            "strict": true,
            "schema": {
                "type": "object",
                "properties": {
                    "label": {"type": "string", "enum": ["positive", "negative", "mixed"]},
                    "review": {"type": "string"},
                },
                "required": ["label", "review"],
                "additionalProperties": false,
            },
        }},
    })
}

/// Label and review of an answer.
fn read(body: &[u8]) -> Option<(String, String)> {
    let completion: Value = serde_json::from_slice(body).ok()?;
    let content = completion.pointer("/choices/0/message/content")?.as_str()?;
    let answer: Value = serde_json::from_str(content).ok()?;
    Some((answer.get("label")?.as_str()?.to_owned(), answer.get("review")?.as_str()?.to_owned()))
}

fn usd(headers: &HeaderMap, name: &str) -> Option<Money> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn excerpt(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value.pointer("/error/message").and_then(Value::as_str);
    message.map_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answer(label: &str, review: &str, headers: HeaderMap) -> Answer {
        let content = json!({"label": label, "review": review}).to_string();
        let body = json!({"choices": [{"message": {"content": content}}]}).to_string();
        Answer { status: StatusCode::OK, headers, body: body.into() }
    }

    #[test]
    fn no_two_reviews_are_equal() {
        let all: std::collections::BTreeSet<String> = (0..2_000).map(review).collect();
        assert_eq!(all.len(), 2_000);
    }

    #[test]
    fn an_answer_of_another_caller_is_noticed() {
        let mut report = JobReport::default();
        report.add(&review(1), Ok(answer("mixed", &format!("[1a2b] {}", review(1)), HeaderMap::new())));
        report.add(&review(2), Ok(answer("mixed", &review(1), HeaderMap::new())));
        report.add(&review(3), Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() }));
        assert_eq!((report.answered, report.wrong, report.ended()), (1, 2, 3));
    }

    #[test]
    fn an_error_counts_as_failed_and_is_kept_for_people() {
        let mut report = JobReport::default();
        let body = json!({"error": {"message": "the queue is full"}}).to_string().into();
        report.add("x", Ok(Answer { status: StatusCode::TOO_MANY_REQUESTS, headers: HeaderMap::new(), body }));
        report.add("y", Err(HttpError::Late(Duration::from_secs(1))));
        assert_eq!(report.failed, 2);
        assert_eq!(report.first_failure.as_deref(), Some("429 Too Many Requests: the queue is full"));
    }

    #[test]
    fn prices_are_summed_only_where_both_are_given() {
        let mut report = JobReport::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-nightbus-cost-usd", "0.5".parse().unwrap());
        report.add("a", Ok(answer("mixed", "a", headers.clone())));
        headers.insert("x-nightbus-saved-usd", "0.25".parse().unwrap());
        report.add("b", Ok(answer("mixed", "b", headers)));
        assert_eq!((report.priced, report.paid.as_usd_f64(), report.saved.as_usd_f64()), (1, 0.5, 0.25));
    }
}
