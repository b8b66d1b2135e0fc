//! The admin API as the commands see it: JSON in, or an error that says what to try next.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode, Uri};
use serde_json::Value;

use super::UsageError;
use super::http::{Answer, HttpClient, HttpError};
use crate::config::TlsRoots;

/// A flush of many lanes takes a while; nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which nightbus to talk to.
#[derive(Args, Clone, Debug)]
pub(super) struct AdminArgs {
    /// Admin listener of the running nightbus
    #[arg(long, env = "NIGHTBUS_ADMIN", default_value = "http://127.0.0.1:5051", value_name = "URL")]
    admin: String,
    /// PEM file of the authority of its certificate, where the system does not trust it
    #[arg(long = "admin-ca", env = "NIGHTBUS_ADMIN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Its admin token, if it has one
    #[arg(
        long = "admin-token",
        env = "NIGHTBUS_ADMIN_TOKEN",
        hide_env_values = true,
        hide = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
}

/// Talks to one admin listener.
#[derive(Debug)]
pub(super) struct AdminClient {
    http: HttpClient,
    base: String,
    token: Option<String>,
}

impl AdminClient {
    /// # Errors
    /// A URL that is neither `http://` nor `https://`, or a file of certificates that cannot be used.
    pub(super) fn new(args: &AdminArgs) -> Result<Self, UsageError> {
        let given = args.admin.trim();
        let base = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let valid = base.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.query().is_none()
        });
        if !valid {
            let message =
                format!("{given:?} is not the URL of an admin listener: write http://HOST:PORT or https://HOST:PORT");
            return Err(UsageError(message));
        }
        let base = base.trim_end_matches('/').to_owned();
        let roots =
            args.ca.as_ref().filter(|ca| !ca.as_os_str().is_empty()).cloned().map_or(TlsRoots::Auto, TlsRoots::File);
        let http = HttpClient::new(roots).map_err(|error| UsageError(format!("--admin-ca: {error}")))?;
        Ok(Self { http, base, token: args.token.clone().filter(|token| !token.is_empty()) })
    }

    /// `GET`.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path).await
    }

    /// `POST` without a body.
    pub(super) async fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::POST, path).await
    }

    /// `DELETE`.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path).await
    }

    /// Whether `/healthz` answers 200 within `patience`.
    pub(super) async fn is_alive(&self, patience: Duration) -> anyhow::Result<()> {
        let answer = self.exchange(Method::GET, "/healthz", patience).await?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(refused(&answer)) }
    }

    async fn call(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let answer = self.exchange(method, path, PATIENCE).await?;
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_not_json| anyhow!("{} does not answer like nightbus: is it the admin listener?", self.base))
    }

    async fn exchange(&self, method: Method, path: &str, patience: Duration) -> anyhow::Result<Answer> {
        let uri: Uri = format!("{}{path}", self.base).parse()?;
        let sent = self.http.send(method, uri, self.token.as_deref(), &[], Bytes::new(), patience).await;
        sent.map_err(|error| match error {
            HttpError::Unreachable(cause) => anyhow!(
                "no nightbus answers at {} ({cause}). Start one with `nightbus serve`, or name its admin listener with --admin or NIGHTBUS_ADMIN.",
                self.base
            ),
            late @ HttpError::Late(_) => anyhow!("{} gives {late}. Its log may say why.", self.base),
            HttpError::Request(error) => anyhow!("the admin token cannot be sent: {error}"),
        })
    }
}

/// The API's own words, and the next command where one helps.
fn refused(answer: &Answer) -> anyhow::Error {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = body.pointer("/error/message").and_then(Value::as_str);
    match (answer.status, message) {
        (StatusCode::UNAUTHORIZED, _) => {
            anyhow!("the admin token is missing or wrong. Set NIGHTBUS_ADMIN_TOKEN to the value of admin.token.")
        }
        (_, Some(message)) => anyhow!("{}", in_commands(message)),
        (status, None) => anyhow!("the admin listener answered {status}. Does --admin name nightbus's admin listener?"),
    }
}

/// The API names its routes; who reads this has commands.
fn in_commands(message: &str) -> String {
    [
        ("GET /api/requests", "`nightbus requests`"),
        ("GET /api/batches", "`nightbus batches`"),
        ("GET /api/flights", "`nightbus flights`"),
    ]
    .into_iter()
    .fold(message.to_owned(), |message, (route, command)| message.replace(route, command))
}

/// `text` as one segment of a path or value of a query.
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(admin: &str) -> Result<AdminClient, UsageError> {
        AdminClient::new(&AdminArgs { admin: admin.to_owned(), ca: None, token: Some(String::new()) })
    }

    #[test]
    fn an_address_alone_is_enough() {
        assert_eq!(client("127.0.0.1:5051").unwrap().base, "http://127.0.0.1:5051");
        assert_eq!(client("http://[::1]:5051/").unwrap().base, "http://[::1]:5051");
        assert!(client("http://[::1]:5051").unwrap().token.is_none(), "an empty token is none");
        assert_eq!(client("https://nightbus.internal:5051").unwrap().base, "https://nightbus.internal:5051");
        for bad in ["ftp://127.0.0.1:5051", "", "http://", "a b"] {
            assert!(client(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_cannot_leave_its_path_segment() {
        assert_eq!(encode("req_1/../x?y"), "req_1%2F..%2Fx%3Fy");
    }
}
