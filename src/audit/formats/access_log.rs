//! Access logs: nginx's `combined` (<https://nginx.org/en/docs/http/ngx_http_log_module.html>), which Apache writes, too, and
//! AWS Application Load Balancers
//! (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html>).
//!
//! They have neither models nor tokens: calls are counted by hour and user agent, and no money is made up for them.
//! Client addresses are not looked at.

use super::time::{from_access_log, unix_seconds};
use crate::audit::call::{Call, Format, Problem, Reading};
use crate::audit::shape::Scalar;

/// The ends of the paths that are model calls.
const ENDPOINTS: [&str; 6] =
    ["/chat/completions", "/completions", "/responses", "/embeddings", "/moderations", "/messages"];

/// What a line says, however it is laid out.
struct Line<'a> {
    at: Option<i64>,
    request: &'a str,
    status: &'a str,
    agent: &'a str,
}

/// The line, if it is one of an access log.
pub(super) fn read(bytes: &[u8]) -> Option<Reading> {
    let text = String::from_utf8_lossy(bytes);
    let line = load_balancer(&text).or_else(|| combined(&text))?;
    let mut words = line.request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if method != "POST" || !ENDPOINTS.iter().any(|endpoint| path.trim_end_matches('/').ends_with(endpoint)) {
        return Some(Reading::Skip(Problem::NotACall));
    }
    let mut call = Call::new(Format::AccessLog);
    call.at = line.at;
    call.agent = Some(line.agent).filter(|agent| !matches!(*agent, "" | "-")).map(ToOwned::to_owned);
    call.failed = super::is_failure(&Scalar::Text(line.status.into()));
    super::call(call)
}

/// `ADDRESS - USER [TIME] "REQUEST" STATUS BYTES "REFERER" "AGENT"`
fn combined(text: &str) -> Option<Line<'_>> {
    let (_client, rest) = text.split_once(" [")?;
    let (time, rest) = rest.split_once("] \"")?;
    let (request, rest) = quoted(rest)?;
    let status = rest.trim_start().split(' ').next()?;
    if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let referer = rest.split_once('"').and_then(|(_, rest)| quoted(rest));
    let agent = referer.and_then(|(_, rest)| quoted(rest.split_once('"')?.1)).map_or("", |(agent, _)| agent);
    Some(Line { at: from_access_log(time), request, status, agent })
}

/// `TYPE TIME LB CLIENT TARGET t t t STATUS TARGET_STATUS RECEIVED SENT "REQUEST" "AGENT" …`
fn load_balancer(text: &str) -> Option<Line<'_>> {
    let (fields, rest) = text.split_once(" \"")?;
    let mut fields = fields.split(' ');
    if !matches!(fields.next()?, "http" | "https" | "h2" | "grpcs" | "ws" | "wss") {
        return None;
    }
    let at = unix_seconds(&Scalar::Text(fields.next()?.into()));
    let status = fields.nth(6)?;
    let (request, rest) = quoted(rest)?;
    let agent = rest.split_once('"').and_then(|(_, rest)| quoted(rest)).map_or("", |(agent, _)| agent);
    Some(Line { at, request, status, agent })
}

/// The text up to the quote that ends it, and what follows; the quote that began it was taken off.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, character)| {
        let ends = *character == '"' && !escaped;
        escaped = *character == '\\' && !escaped;
        ends
    })?;
    Some((text.get(..end.0)?, text.get(end.0 + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        let Some(Reading::Call(call)) = read(line.as_bytes()) else { panic!("no call: {line}") };
        *call
    }

    #[test]
    fn nginx_and_apache() {
        let line = r#"192.0.2.7 - - [23/Nov/2026:08:00:00 +0000] "POST /v1/chat/completions?x=1 HTTP/1.1" 200 512 "-" "OpenAI/Python 2.3.0""#;
        let read = call(line);
        assert_eq!((read.at, read.agent.as_deref()), (Some(1_795_420_800), Some("OpenAI/Python 2.3.0")));
        assert!(!read.failed && read.usage.is_none() && read.model.is_none() && read.cost.is_none());
        assert!(call(&line.replace(" 200 ", " 502 ")).failed);
        let common = r#"192.0.2.7 - - [23/Nov/2026:08:00:00 +0000] "POST /v1/responses HTTP/1.1" 200 512"#;
        assert_eq!(call(common).agent, None, "without referer and user agent");
        assert_eq!(call(&line.replace("OpenAI/Python 2.3.0", r#"a \"b\" c"#)).agent.as_deref(), Some(r#"a \"b\" c"#));
    }

    #[test]
    fn load_balancers() {
        let line = r#"https 2026-11-23T08:00:00.186641Z app/llm/50dc6c495c0c9188 192.0.2.7:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 34 366 "POST https://llm.example.org:443/v1/embeddings HTTP/2.0" "python-requests/2.32" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:x "Root=1-x" "-" "-" 0 2026-11-23T08:00:00.100000Z "forward" "-" "-""#;
        let read = call(line);
        assert_eq!(
            (read.at, read.agent.as_deref(), read.failed),
            (Some(1_795_420_800), Some("python-requests/2.32"), false)
        );
        assert!(call(&line.replace(" 200 200 ", " 504 - ")).failed);
    }

    #[test]
    fn other_requests_are_no_calls_and_other_lines_no_access_log() {
        let other = r#"192.0.2.7 - - [23/Nov/2026:08:00:00 +0000] "GET /v1/models HTTP/1.1" 200 512 "-" "curl""#;
        assert!(matches!(read(other.as_bytes()), Some(Reading::Skip(Problem::NotACall))));
        for line in
            ["", "rubbish", "a [b] \"c", "a [b] \"c\" d", "2026-11-23 started \"x\"", "http x", "\u{fffd}[\" \"["]
        {
            assert!(read(line.as_bytes()).is_none(), "{line}");
        }
    }
}
