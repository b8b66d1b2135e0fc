//! `nightbus doctor`: what would keep nightbus from working here, each with the next thing to try.
//!
//! Spends nothing, but for `--batch` (in `batch`): it reads lists. Never prints a key. The checks of the machine are in `machine`.

mod batch;
mod machine;

use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode, Uri};
use jiff::fmt::rfc2822;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::UsageError;
use super::configure::ServeArgs;
use super::http::{Answer, HttpClient};
use super::output;
use crate::config::{BatchWire, Config, KeyHeader, ProviderConfig, ProviderKind};
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::lane::Api;

const PATIENCE: Duration = Duration::from_secs(15);
/// Deadlines and expiries are compared with the provider's times.
const MOST_SKEW_SECONDS: u64 = 30;
/// What the wire formats were written for (providers.md, section 2.1).
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// `nightbus doctor`
#[derive(Args, Clone, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Check this provider [default: the default one]
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Prove its batches by one tiny one with a call of this model; names the price and asks first
    #[arg(long, value_name = "MODEL")]
    batch: Option<String>,
    /// Send the batch without a question
    #[arg(long, requires = "batch")]
    yes: bool,
    /// Give the batch up, and cancel it, after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1_800, requires = "batch")]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// What was found, and what to try next.
    pub(super) what: String,
}

impl Finding {
    /// A check's result.
    pub(super) fn new(check: &'static str, verdict: Verdict, what: impl Into<String>) -> Self {
        Self { check, verdict, what: what.into() }
    }
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// Runs all checks.
pub(super) async fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let config = args.serve.load()?;
    let name = args.provider.as_ref().unwrap_or(&config.default_provider);
    let Some(provider) = config.providers.get(name) else {
        let names: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        return Err(UsageError(format!("no provider is called {name:?}; there are: {}", names.join(", "))).into());
    };
    let mut findings = vec![Finding::new("configuration", Verdict::Ok, "valid (`nightbus check-config` shows it)")];
    findings.extend(machine::findings(&config));
    findings.extend(upstream(&config, provider).await?);
    if let Some(model) = &args.batch {
        let (usual, key) = key_of(provider);
        let Some(key) = key else {
            return Err(UsageError(format!("no key to try a batch with: set {usual}, or api_key_env")).into());
        };
        let wait = Duration::from_secs(args.wait);
        let trial = batch::Trial { config: &config, provider, model, key: &key, yes: args.yes, wait };
        findings.push(Box::pin(trial.run()).await?);
    }
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    show(&findings, args.json)?;
    if failed > 0 {
        bail!("{failed} of {} checks failed", findings.len());
    }
    Ok(())
}

fn show(findings: &[Finding], json: bool) -> anyhow::Result<()> {
    if json {
        let rows: Vec<Value> = findings
            .iter()
            .map(|finding| json!({"check": finding.check, "result": finding.verdict.as_str(), "message": finding.what}))
            .collect();
        return Ok(output::json(&json!({"object": "nightbus.doctor", "checks": rows}))?);
    }
    // Whole lines, not a table: what to try next must not be cut off.
    for finding in findings {
        output::line(&format!("{:<4}  {:<14}  {}", finding.verdict.as_str(), finding.check, finding.what))?;
    }
    Ok(())
}

/// The variable in which a key is usual, and the key.
fn key_of(provider: &ProviderConfig) -> (String, Option<String>) {
    let usual = format!("{}_API_KEY", provider.name.to_uppercase().replace('-', "_"));
    let key = match &provider.api_key {
        Some(key) => Some(key.value.expose_secret().to_owned()),
        None => std::env::var(&usual).ok().filter(|key| !key.is_empty()),
    };
    (usual, key)
}

/// The provider: there, with this key, and with batches.
async fn upstream(config: &Config, provider: &ProviderConfig) -> anyhow::Result<Vec<Finding>> {
    let (usual, key) = key_of(provider);
    let http = HttpClient::new(config.upstream.tls_roots.clone())?;
    let models = ask(&http, provider, "/models", key.as_deref()).await;
    let mut findings = vec![reachable(provider, &models)];
    let Ok(answer) = models else { return Ok(findings) };
    findings.extend(skew(&answer));
    let Some(key) = key else {
        let what = format!("no key to try: set {usual}, or api_key_env in proxy.toml");
        findings.push(Finding::new("key", Verdict::Warn, what));
        return Ok(findings);
    };
    findings.push(key_works(&answer, &usual));
    let list = match provider.kind.batch_wire() {
        BatchWire::OpenAi | BatchWire::Xai => "/batches?limit=1",
        BatchWire::Together => "/batches",
        BatchWire::Mistral => "/batch/jobs?page_size=1",
        BatchWire::Anthropic => "/messages/batches?limit=1",
        wire @ (BatchWire::Gemini | BatchWire::OpenRouter) => {
            let why =
                if wire == BatchWire::Gemini { "its list is not where the others' are" } else { "it has no list" };
            let what = format!("not asked for: {why}; `--batch MODEL` proves them");
            findings.push(Finding::new("batches", Verdict::Ok, what));
            return Ok(findings);
        }
        BatchWire::None => {
            let what = "none that nightbus speaks: marked calls go live, at the full price".to_owned();
            findings.push(Finding::new("batches", Verdict::Warn, what));
            return Ok(findings);
        }
    };
    findings.push(match ask(&http, provider, list, Some(&key)).await {
        Err(why) => Finding::new("batches", Verdict::Fail, why),
        Ok(answer) if answer.status.is_success() => Finding::new("batches", Verdict::Ok, "can be listed"),
        Ok(answer) => {
            let what = format!("{}: this key cannot list batches; allow it Batches and Files", answer.status);
            Finding::new("batches", Verdict::Fail, what)
        }
    });
    Ok(findings)
}

async fn ask(http: &HttpClient, provider: &ProviderConfig, path: &str, key: Option<&str>) -> Result<Answer, String> {
    let base = provider.base_url.to_string();
    let uri: Uri = format!("{}{path}", base.trim_end_matches('/')).parse().map_err(|_bad| "no URL".to_owned())?;
    let mut headers = match provider.kind.api() {
        Api::OpenAi => Vec::new(),
        Api::Anthropic => vec![(ProviderKind::ANTHROPIC_VERSION, ANTHROPIC_VERSION)],
    };
    let bearer = match provider.kind.key_header() {
        KeyHeader::Bearer => key,
        KeyHeader::ApiKey => {
            headers.extend(key.map(|key| ("api-key", key)));
            None
        }
        KeyHeader::XApiKey => {
            headers.extend(key.map(|key| ("x-api-key", key)));
            None
        }
    };
    let sent = http.send(Method::GET, uri, bearer, &headers, Bytes::new(), PATIENCE).await;
    sent.map_err(|error| error.to_string())
}

fn reachable(provider: &ProviderConfig, models: &Result<Answer, String>) -> Finding {
    let host = provider.base_url.host().unwrap_or_default();
    match models {
        Ok(answer) if answer.status.is_server_error() => {
            Finding::new("upstream", Verdict::Fail, format!("{host} answers {}: try again later", answer.status))
        }
        Ok(_) => Finding::new("upstream", Verdict::Ok, format!("{} at {host} answers", provider.name)),
        Err(why) => {
            let what = format!(
                "{host}: {why}. Try `curl -i` on it; look at providers.{}.base_url. Outbound proxies are not tried here.",
                provider.name
            );
            Finding::new("upstream", Verdict::Fail, what)
        }
    }
}

fn key_works(answer: &Answer, variable: &str) -> Finding {
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Finding::new(
            "key",
            Verdict::Fail,
            format!("refused ({}): look at {variable}, or at api_key_env in proxy.toml", answer.status.as_u16()),
        ),
        status if status.is_success() => Finding::new("key", Verdict::Ok, "accepted"),
        status => Finding::new("key", Verdict::Warn, format!("the list of models answers {status}")),
    }
}

/// How far this clock is from the provider's, as its `Date` tells.
fn skew(answer: &Answer) -> Option<Finding> {
    let date = answer.headers.get(http::header::DATE)?.to_str().ok()?;
    let there = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?.as_second();
    let seconds = SystemClock.now().unix_seconds().abs_diff(there);
    Some(if seconds <= MOST_SKEW_SECONDS {
        Finding::new("clock", Verdict::Ok, format!("within {seconds} s of the provider's"))
    } else {
        let what =
            format!("{seconds} s off the provider's: set it (`timedatectl set-ntp true`), or deadlines are missed");
        Finding::new("clock", Verdict::Warn, what)
    })
}
