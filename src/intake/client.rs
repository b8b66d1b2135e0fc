//! What is known of the client on the line: which sign of life it understands, and when it needs one (contract,
//! section 4; providers.md, section 6.3).

use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONNECTION, HeaderName, USER_AGENT};
use http::{HeaderMap, Version};

use crate::config::HoldConfig;
use crate::engine::line::Carrier;
use crate::intake::interim::InterimSender;
use crate::intake::marks::RETRY_COUNT;

/// How a held connection is kept alive.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Interim `102` responses, and their cadence; none: the client or the way to it may break on them.
    pub(crate) interim: Option<(InterimSender, Duration)>,
    /// When the `200` of a client without interim responses goes out.
    pub(crate) commit_after: Duration,
    /// Between two signs of life after that.
    pub(crate) heartbeat: Duration,
    /// It gives up on a chat stream in which only comments come: it needs chunks, too.
    pub(crate) needs_chunks: bool,
    /// Half of the time-out that the client announced.
    pub(crate) bearable: Option<Duration>,
    /// A body can break off visibly: not on HTTP/1.0, where its end is the end of the connection.
    pub(crate) chunked: bool,
    /// Tells when what was written is with the socket; none on HTTP/2.
    pub(crate) connection: Option<InterimSender>,
    /// The connection that it came on.
    pub(crate) carrier: Option<Carrier>,
}

/// User agents that read past any number of interim responses (measured; providers.md, section 6.2).
const READS_INTERIM: [&str; 5] =
    ["OpenAI/Python", "AsyncOpenAI/Python", "Anthropic/Python", "AsyncAnthropic/Python", "python-httpx/"];
/// LangChain's asynchronous client is openai-python on the wire, but times each chunk of a stream, for which comments do
/// not count. Unlike openai-python itself it sets no time-out by default, and so announces none.
const ASYNC_OPENAI: &str = "AsyncOpenAI/Python ";
/// A version of openai-python from which on an announced time-out is there unless there is none (measured with 1.109).
const ANNOUNCES: (u32, u32) = (1, 109);
/// Signs of an intermediary, which may swallow interim responses.
const INTERMEDIARY: [&str; 3] = ["via", "forwarded", "x-real-ip"];
/// Time-outs that the SDKs announce, in seconds (providers.md, section 6.1).
const READ_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-read-timeout");
const TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-timeout");
const SHORTEST: Duration = Duration::from_secs(1);

impl Client {
    /// Reads the request's head. What carries it is left open.
    pub(crate) fn of(
        headers: &HeaderMap,
        version: Version,
        interim: Option<&InterimSender>,
        config: &HoldConfig,
    ) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let seconds = |name: HeaderName| text(name).and_then(|value| value.parse::<f64>().ok()).and_then(positive);
        let read_timeout = seconds(READ_TIMEOUT);
        let announced = read_timeout.into_iter().chain(seconds(TIMEOUT)).min();
        let user_agent = text(USER_AGENT).unwrap_or_default();
        let direct = !passed_on(headers)
            && !headers
                .keys()
                .any(|name| INTERMEDIARY.contains(&name.as_str()) || name.as_str().starts_with("x-forwarded-"));
        let understands = config.interim_102
            && version == Version::HTTP_11
            && direct
            && READS_INTERIM.iter().any(|prefix| user_agent.starts_with(prefix));
        let cadence =
            read_timeout.map_or(config.heartbeat, |timeout| config.heartbeat.min((timeout / 3).max(SHORTEST)));
        let retried = text(RETRY_COUNT).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0) > 0;
        Self {
            interim: interim.filter(|_| understands).map(|sender| (sender.clone(), cadence)),
            commit_after: if retried {
                Duration::ZERO
            } else {
                announced.map_or(config.commit_after, |timeout| config.commit_after.min(timeout / 2))
            },
            heartbeat: cadence,
            needs_chunks: read_timeout.is_none() && is_async_openai_that_announces(user_agent),
            bearable: announced.map(|timeout| timeout / 2),
            chunked: version >= Version::HTTP_11,
            connection: interim.cloned(),
            carrier: None,
        }
    }
}

fn is_async_openai_that_announces(user_agent: &str) -> bool {
    let version = user_agent.strip_prefix(ASYNC_OPENAI).map(|version| version.split('.').map(str::parse::<u32>));
    version.is_some_and(|mut numbers| match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= ANNOUNCES,
        _ => false,
    })
}

/// All clients that read interim responses write `Connection: keep-alive` beside `Accept-Encoding`, and an intermediary
/// takes it away or says `close` (RFC 9110, section 7.6.1): the only sign of an nginx that adds no header, and that hands
/// a `102` on as the final response.
fn passed_on(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).peekable();
    if options.peek().is_none() {
        return headers.contains_key(ACCEPT_ENCODING);
    }
    !options.any(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("keep-alive")))
}

fn positive(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;
    use crate::intake::interim;

    fn client(lines: &[(&'static str, &'static str)], version: Version) -> Client {
        let all = lines.iter().chain(&[("connection", "Keep-Alive")]);
        client_that_sent(all.copied(), version)
    }

    fn client_that_sent(lines: impl Iterator<Item = (&'static str, &'static str)>, version: Version) -> Client {
        let config = HoldConfig {
            commit_after: Duration::from_secs(25),
            heartbeat: Duration::from_secs(15),
            orphan_grace: Duration::from_secs(600),
            interim_102: true,
        };
        let headers =
            lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        let (_io, calls) = interim::wrap(());
        let (sender, _open) = calls.open();
        Client::of(&headers, version, Some(&sender), &config)
    }

    #[test]
    fn python_clients_get_interim_responses_within_a_third_of_their_read_timeout() {
        let python = [("user-agent", "AsyncOpenAI/Python 3.54.0"), ("x-stainless-read-timeout", "30")];
        let (_, cadence) = client(&python, Version::HTTP_11).interim.unwrap();
        assert_eq!(cadence, Duration::from_secs(10));
        let (_, cadence) =
            client(&[("user-agent", "OpenAI/Python 3"), ("x-stainless-read-timeout", "0.9")], Version::HTTP_11)
                .interim
                .unwrap();
        assert_eq!(cadence, Duration::from_secs(1));
    }

    #[test]
    fn others_and_those_behind_an_intermediary_do_not() {
        assert!(client(&[("user-agent", "OpenAI/JS 6.49.0")], Version::HTTP_11).interim.is_none());
        assert!(client(&[("user-agent", "python-requests/2")], Version::HTTP_11).interim.is_none());
        assert!(client(&[("user-agent", "OpenAI/Python 3")], Version::HTTP_2).interim.is_none());
        for name in ["via", "forwarded", "x-forwarded-for"] {
            assert!(client(&[("user-agent", "OpenAI/Python 3"), (name, "x")], Version::HTTP_11).interim.is_none());
        }
    }

    #[test]
    fn an_intermediary_is_known_by_the_connection_header_that_it_took_away() {
        let python = || [("user-agent", "OpenAI/Python 3.54.0"), ("accept-encoding", "gzip, deflate")].into_iter();
        let sent = |line| client_that_sent(python().chain([line]), Version::HTTP_11).interim.is_some();
        assert!(client_that_sent(python(), Version::HTTP_11).interim.is_none());
        assert!(sent(("connection", "keep-alive")) && sent(("connection", "x, keep-alive")));
        assert!(!sent(("connection", "close")) && !sent(("connection", "upgrade")));
        let plain = [("user-agent", "OpenAI/Python 3.54.0")].into_iter();
        assert!(client_that_sent(plain, Version::HTTP_11).interim.is_some(), "it never had more headers");
    }

    #[test]
    fn only_a_recent_async_openai_without_a_time_out_needs_chunks() {
        let needs =
            |agent, lines: &[_]| client(&[&[("user-agent", agent)], lines].concat(), Version::HTTP_11).needs_chunks;
        assert!(needs("AsyncOpenAI/Python 3.54.0", &[]) && needs("AsyncOpenAI/Python 1.109.1", &[]));
        assert!(!needs("AsyncOpenAI/Python 3.54.0", &[("x-stainless-read-timeout", "600")]), "openai-python itself");
        for agent in ["AsyncOpenAI/Python 1.59.0", "AsyncOpenAI/Python x", "OpenAI/Python 3.54.0", "OpenAI/JS 6.49.0"] {
            assert!(!needs(agent, &[]), "{agent}");
        }
    }

    #[test]
    fn http_1_0_gets_no_early_200_because_its_body_cannot_break_off_visibly() {
        let python = [("user-agent", "OpenAI/Python 3.54.0")];
        let old = client(&python, Version::HTTP_10);
        assert!(!old.chunked && old.interim.is_none());
        assert!(client(&python, Version::HTTP_11).chunked && client(&python, Version::HTTP_2).chunked);
    }

    #[test]
    fn the_commit_is_half_of_an_announced_timeout_and_at_once_for_a_retry() {
        let after = |lines: &[(&'static str, &'static str)]| client(lines, Version::HTTP_11).commit_after;
        assert_eq!(after(&[]), Duration::from_secs(25));
        assert_eq!(after(&[("x-stainless-timeout", "600")]), Duration::from_secs(25));
        assert_eq!(after(&[("x-stainless-timeout", "10")]), Duration::from_secs(5));
        assert_eq!(after(&[("x-stainless-timeout", "NOT_GIVEN")]), Duration::from_secs(25));
        assert_eq!(after(&[("x-stainless-retry-count", "1")]), Duration::ZERO);
        assert_eq!(after(&[("x-stainless-retry-count", "0")]), Duration::from_secs(25));
    }
}
