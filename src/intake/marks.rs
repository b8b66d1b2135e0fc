//! What a caller asks of nightbus by headers (contract, section 3). A value that cannot be understood is refused with
//! the header's name: guessing could spend money or lose a deadline.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use crate::config::CallbacksConfig;
use crate::domain::clock::Micros;
use crate::domain::service::Service;
use crate::domain::trace::TraceContext;
use crate::upstream::callback::Target;
use crate::upstream::headers::{IDEMPOTENCY_KEY, PREFER, is_own};
use crate::wire::api_error::ApiError;

/// The wishes of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// `x-nightbus-defer`
    pub(crate) defer: Option<bool>,
    /// `x-nightbus-deadline`, as a moment.
    pub(crate) deadline_at: Option<Micros>,
    /// `x-nightbus-fallback`; empty: none.
    pub(crate) fallback: Option<Vec<Service>>,
    /// `x-nightbus-tag`
    pub(crate) tag: Option<String>,
    /// `x-nightbus-flight: off`
    pub(crate) no_flight: bool,
    /// `Prefer: respond-async`
    pub(crate) respond_async: bool,
    /// `Prefer: wait=N`
    pub(crate) wait: Option<Duration>,
    /// `x-stainless-retry-count`: how often an SDK has sent this call before (providers.md, section 6.1).
    pub(crate) attempt: u32,
}

impl Marks {
    /// Whether the caller stays on the line.
    pub(crate) const fn waits(&self) -> bool {
        !self.respond_async || self.wait.is_some()
    }
}

/// The longest `Prefer: wait` (contract, section 6).
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
const MAX_TAG: usize = 64;
const MAX_IDEMPOTENCY_KEY: usize = 255;

const DEFER: HeaderName = HeaderName::from_static("x-nightbus-defer");
const DEADLINE: HeaderName = HeaderName::from_static("x-nightbus-deadline");
const FALLBACK: HeaderName = HeaderName::from_static("x-nightbus-fallback");
const TAG: HeaderName = HeaderName::from_static("x-nightbus-tag");
const FLIGHT: HeaderName = HeaderName::from_static("x-nightbus-flight");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const CALLBACK: HeaderName = HeaderName::from_static("x-nightbus-callback");
/// How often an SDK has sent a call before.
pub(crate) const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// Reads all of them.
pub(crate) fn read(headers: &HeaderMap, now: Micros) -> Result<Marks, ApiError> {
    let (respond_async, wait) = prefer(headers);
    if !headers.keys().any(is_own) {
        // Most live calls: nothing has to be looked for by name.
        return Ok(Marks { respond_async, wait, attempt: attempt(headers), ..Marks::default() });
    }
    let no_flight = match single(headers, &FLIGHT)? {
        None | Some("on") => false,
        Some("off") => true,
        Some(_) => return Err(bad(&FLIGHT, "use \"off\"")),
    };
    Ok(Marks {
        defer: single(headers, &DEFER)?.map(boolean).transpose()?,
        deadline_at: single(headers, &DEADLINE)?.map(|value| deadline(value, now)).transpose()?,
        fallback: single(headers, &FALLBACK)?.map(fallback).transpose()?,
        tag: single(headers, &TAG)?.map(tag).transpose()?,
        no_flight,
        respond_async,
        wait,
        attempt: attempt(headers),
    })
}

/// What concerns deferred calls only; on live calls `Idempotency-Key` belongs to the provider. The key, unquoted.
pub(crate) fn of_deferred(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    single(headers, &IDEMPOTENCY_KEY)?.map(idempotency_key).transpose()
}

/// `x-nightbus-callback`: the URL that is called when the request has ended, as far as it can be checked now.
pub(crate) fn callback(headers: &HeaderMap, policy: &CallbacksConfig) -> Result<Option<String>, ApiError> {
    let Some(url) = single(headers, &CALLBACK)? else { return Ok(None) };
    if policy.signer.is_none() {
        let message = "callbacks need a secret that signs them: set callbacks.secret_env in proxy.toml, or fetch the \
                       result from result_url";
        return Err(bad(&CALLBACK, message));
    }
    Target::new(url, policy).map_err(|error| bad(&CALLBACK, error))?;
    Ok(Some(url.to_owned()))
}

/// The trace that a call is part of. None: there is no `traceparent`, more than one, or it is not as it should be.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    TraceContext::parse(value.to_str().ok()?)
}

fn bad(header: &HeaderName, what: impl std::fmt::Display) -> ApiError {
    ApiError::invalid_request(format!("{header}: {what}")).about(header.as_str())
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(name, "sent more than once"));
    }
    value.to_str().map(|value| Some(value.trim())).map_err(|_not_ascii| bad(name, "not plain ASCII text"))
}

fn boolean(value: &str) -> Result<bool, ApiError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(bad(&DEFER, format!("{value:?} is neither true nor false"))),
    }
}

/// A duration from now, or an RFC 3339 time.
fn deadline(value: &str, now: Micros) -> Result<Micros, ApiError> {
    let at = if let Ok(time) = value.parse::<jiff::Timestamp>() {
        Micros(time.as_microsecond())
    } else {
        let duration = crate::config::parse_duration(value).ok_or_else(|| {
            bad(&DEADLINE, format!("{value:?} is neither a duration such as 90m nor an RFC 3339 time"))
        })?;
        now.plus(duration)
    };
    if at <= now { Err(bad(&DEADLINE, format!("{value:?} is in the past"))) } else { Ok(at) }
}

fn fallback(value: &str) -> Result<Vec<Service>, ApiError> {
    if value.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    value
        .split(',')
        .map(|name| match name.trim().parse() {
            Ok(Service::Batch) | Err(_) => Err(bad(
                &FALLBACK,
                format!("{name:?}: use flex, background_8h, background_2h and sync in the order to try, or none"),
            )),
            Ok(service) => Ok(service),
        })
        .collect()
}

fn tag(value: &str) -> Result<String, ApiError> {
    let fits = (1..=MAX_TAG).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits { Ok(value.to_owned()) } else { Err(bad(&TAG, "1 to 64 of A-Z a-z 0-9 . _ -")) }
}

/// A structured-field string (quoted) or a bare value: both forms are in use (providers.md, section 7).
fn idempotency_key(value: &str) -> Result<String, ApiError> {
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    if (1..=MAX_IDEMPOTENCY_KEY).contains(&bare.len()) {
        Ok(bare.to_owned())
    } else {
        Err(bad(&IDEMPOTENCY_KEY, format!("1 to {MAX_IDEMPOTENCY_KEY} characters")))
    }
}

/// Not a header of ours: what cannot be read counts as a first attempt.
fn attempt(headers: &HeaderMap) -> u32 {
    let count = headers.get(RETRY_COUNT).and_then(|value| value.to_str().ok());
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// RFC 7240: several lines are one list, names ignore case, values may be quoted, the first occurrence wins, what is
/// unknown or malformed is ignored.
fn prefer(headers: &HeaderMap) -> (bool, Option<Duration>) {
    let mut respond_async = false;
    let mut wait = None;
    for value in headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()) {
        for preference in value.split(',') {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => respond_async = true,
                "wait" if wait.is_none() => wait = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
    }
    (respond_async, wait.map(|wait: Duration| wait.min(MAX_WAIT)))
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    const NOW: Micros = Micros::from_unix_seconds(1_795_420_800);

    fn marks(lines: &[(&'static str, &'static str)]) -> Result<Marks, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        read(&headers, NOW)
    }

    #[test]
    fn reads_everything() {
        let read = marks(&[
            ("x-nightbus-defer", "Yes"),
            ("x-nightbus-deadline", "90m"),
            ("x-nightbus-fallback", "flex, background_2h, sync"),
            ("x-nightbus-tag", "nightly-eval"),
            ("x-nightbus-flight", "off"),
            ("prefer", "return=minimal, Respond-Async"),
            ("prefer", "wait=\"10\", wait=99"),
            ("x-stainless-retry-count", "2"),
        ])
        .unwrap();
        let expected = Marks {
            defer: Some(true),
            deadline_at: Some(NOW.plus(Duration::from_secs(5400))),
            fallback: Some(vec![Service::Flex, Service::Background2h, Service::Sync]),
            tag: Some("nightly-eval".to_owned()),
            no_flight: true,
            respond_async: true,
            wait: Some(Duration::from_secs(10)),
            attempt: 2,
        };
        assert_eq!(read, expected);
        assert_eq!(marks(&[]).unwrap(), Marks::default());
    }

    #[test]
    fn a_deadline_may_be_a_time() {
        let read = marks(&[("x-nightbus-deadline", "2027-01-01T00:00:00Z")]).unwrap();
        assert_eq!(read.deadline_at.map(Micros::unix_seconds), Some(1_798_761_600));
    }

    #[test]
    fn garbage_is_refused_with_the_headers_name() {
        for (name, value) in [
            ("x-nightbus-defer", "maybe"),
            ("x-nightbus-deadline", "soon"),
            ("x-nightbus-deadline", "2020-01-01T00:00:00Z"),
            ("x-nightbus-deadline", "0s"),
            ("x-nightbus-fallback", "batch"),
            ("x-nightbus-fallback", ""),
            ("x-nightbus-tag", "a b"),
            ("x-nightbus-tag", ""),
            ("x-nightbus-flight", "maybe"),
        ] {
            let error = marks(&[(name, value)]).expect_err(value);
            assert_eq!((error.status, error.param.as_deref()), (400, Some(name)), "{value}");
        }
        assert!(marks(&[("x-nightbus-tag", "a"), ("x-nightbus-tag", "b")]).is_err());
    }

    #[test]
    fn idempotency_keys_concern_deferred_calls_only() {
        for (name, value, key) in [
            ("idempotency-key", "\"abc\"", Ok(Some("abc"))),
            ("idempotency-key", "abc", Ok(Some("abc"))),
            ("idempotency-key", "", Err(())),
        ] {
            assert!(marks(&[(name, value)]).is_ok());
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(of_deferred(&headers).map_err(drop).as_ref().map(Option::as_deref), key.as_ref().copied());
        }
    }
    #[test]
    fn a_callback_needs_a_secret_and_a_public_https_url() {
        let config = |secret: &str| {
            crate::config::parse(Some(("proxy.toml", secret)), [], &Default::default()).unwrap().callbacks
        };
        let secret = "[callbacks]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";
        for (url, secret, taken) in [
            ("https://example.org/hook", secret, true),
            ("https://example.org/hook", "", false),
            ("http://example.org/hook", secret, false),
            ("https://192.168.0.1/hook", secret, false),
            ("soon", secret, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append("x-nightbus-callback", HeaderValue::from_static(url));
            assert!(read(&headers, NOW).is_ok(), "it concerns deferred calls only");
            match callback(&headers, &config(secret)) {
                Ok(read) => assert!(taken && read.as_deref() == Some(url), "{url}"),
                Err(error) => assert!(!taken && error.message.starts_with("x-nightbus-callback: "), "{error:?}"),
            }
        }
    }

    #[test]
    fn a_trace_is_told_by_a_whole_traceparent_alone() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let id = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("traceparent", value.parse().unwrap());
            }
            trace(&headers).map(|trace| trace.to_string())
        };
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(id(&[&good]).as_deref(), Some(TRACE));
        assert_eq!(id(&[&good.replacen("00", "cc", 1),]).as_deref(), Some(TRACE), "a later version");
        assert_eq!(id(&[&(good.replacen("00", "cc", 1) + "-more")]).as_deref(), Some(TRACE));
        for bad in [
            String::new(),
            good.clone() + "-more",
            good.to_uppercase(),
            good.replacen("00", "ff", 1),
            good.replace(TRACE, &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace("-01", ""),
            good.replace(TRACE, "4bf9"),
        ] {
            assert_eq!(id(&[&bad]), None, "{bad}");
        }
        assert_eq!(id(&[]), None);
        assert_eq!(id(&[&good, &good]), None);
    }
}
