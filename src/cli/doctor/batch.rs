//! `nightbus doctor --batch MODEL`: one call in one batch, from its file to its answer, at the provider itself.
//!
//! The only check that costs anything: it names the price and asks first. It creates at most one batch, never tries a creation
//! again, cancels what it leaves behind, and deletes its files. Errors hold no keys.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;

use super::{ANTHROPIC_VERSION, Finding, Verdict};
use crate::app;
use crate::body::full;
use crate::cli::output::note;
use crate::cli::progress::Progress;
use crate::cli::{UsageError, human, signals};
use crate::config::{BatchWire, Config, ProviderConfig, ProviderKind};
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::ids::IdSource;
use crate::domain::lane::{Api, Endpoint};
use crate::domain::service::Service;
use crate::domain::usage::Usage;
use crate::upstream::client::UpstreamClient;
use crate::upstream::headers::set_credential;
use crate::upstream::provider::{BatchInput, BatchProvider, CreateBatch, Credentials, InputFile, ProviderError};
use crate::wire::batch::{BatchObject, BatchStatus};
use crate::wire::line::{LineOutcome, Place, frame, parse, push_line};

/// What the call may answer, and about what it asks: tokens.
const OUTPUT: u64 = 16;
const PROMPT: u64 = 16;
/// Between two looks at the batch.
const LOOK: Duration = Duration::from_secs(2);
/// What is done after an end that was not waited for, and no longer.
const TIDYING: Duration = Duration::from_secs(20);
/// A result file with one answer is not longer.
const MOST_BYTES: usize = 4 << 20;

/// What is tried.
pub(super) struct Trial<'a> {
    pub(super) config: &'a Config,
    pub(super) provider: &'a ProviderConfig,
    pub(super) model: &'a str,
    pub(super) key: &'a str,
    /// Nobody has to be asked.
    pub(super) yes: bool,
    /// The batch is given up after this.
    pub(super) wait: Duration,
}

/// What exists at the provider, and must not stay.
#[derive(Default)]
struct Left {
    batch: Option<String>,
    /// A creation is on its way: whether there is a batch is not known.
    creating: bool,
    files: Vec<String>,
    ended: bool,
}

impl Trial<'_> {
    /// Asks, and tries.
    ///
    /// # Errors
    /// Declined, or nobody there to ask; the provider has no batches for one small call.
    pub(super) async fn run(&self) -> anyhow::Result<Finding> {
        let client = UpstreamClient::new(&self.config.upstream)?;
        let provider = app::batch_provider(self.provider, &self.config.batching, &client);
        let endpoints = &provider.capability().endpoints;
        let known = [Endpoint::ChatCompletions, Endpoint::Messages];
        let endpoint = known.into_iter().find(|endpoint| endpoints.contains(endpoint));
        let has_batches = !matches!(self.provider.kind.batch_wire(), BatchWire::None)
            || self.provider.endpoints.as_ref().is_some_and(|endpoints| !endpoints.is_empty());
        let Some(endpoint) = endpoint.filter(|_| has_batches) else {
            let name = &self.provider.name;
            return Err(UsageError(format!("{name} has no batches of chat completions or messages to try")).into());
        };
        self.agree()?;
        let stopped = signals::until_stopped()?;
        let mut left = Left::default();
        let credentials = self.credentials();
        let trying = self.attempt(provider.as_ref(), &credentials, endpoint, &mut left);
        let found = tokio::select! {
            found = tokio::time::timeout(self.wait, trying) => found.unwrap_or_else(|_elapsed| Err(format!(
                "no answer within {} s: its batch is cancelled; batches may take a day, which says nothing against them",
                self.wait.as_secs()
            ))),
            () = stopped => Err("stopped: its batch is cancelled".to_owned()),
        };
        if tokio::time::timeout(TIDYING, tidy(provider.as_ref(), &credentials, &left)).await.is_err() {
            note("the provider did not answer while the trial was tidied up: look for its batch and its file there");
        }
        Ok(match found {
            Ok(what) => Finding::new("one batch", Verdict::Ok, what),
            Err(why) => Finding::new("one batch", Verdict::Fail, why),
        })
    }

    /// Names the price; what nobody agrees to is not sent.
    fn agree(&self) -> anyhow::Result<()> {
        let usage = Usage { input: PROMPT, output: OUTPUT, ..Usage::default() };
        let price = self.config.prices.find(&self.provider.name, self.provider.kind.as_str(), self.model);
        let cost = price.and_then(|price| price.cost(Service::Batch, &usage));
        let cost = cost.map_or_else(|| "an unknown price".to_owned(), |cost| human::usd(cost.as_usd_f64()));
        note(&format!(
            "One batch with one call of {} is sent to {}, for about {cost}.",
            self.model, self.provider.name
        ));
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(UsageError("a batch that costs something has to be agreed to: add --yes".to_owned()).into());
        }
        note("Go on? [y/N]");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was sent") }
    }

    fn credentials(&self) -> Credentials {
        let mut headers = HeaderMap::new();
        set_credential(&mut headers, self.provider.kind, &SecretString::from(self.key));
        if self.provider.kind.api() == Api::Anthropic {
            headers.insert(ProviderKind::VERSION_HEADER, HeaderValue::from_static(ANTHROPIC_VERSION));
        }
        Credentials(headers)
    }

    fn body(&self) -> Vec<u8> {
        // Models of OpenAI's that think refuse the older name.
        let is_new = matches!(self.provider.kind, ProviderKind::OpenAi | ProviderKind::Azure | ProviderKind::Groq);
        let limit = if is_new { "max_completion_tokens" } else { "max_tokens" };
        let messages = json!([{"role": "user", "content": "Say OK."}]);
        json!({"model": self.model, "messages": messages, limit: OUTPUT}).to_string().into_bytes()
    }

    /// From the lines to the answer. `left` has at each moment what is there.
    async fn attempt(
        &self,
        provider: &dyn BatchProvider,
        credentials: &Credentials,
        endpoint: Endpoint,
        left: &mut Left,
    ) -> Result<String, String> {
        let started = Instant::now();
        let (ids, now) = (IdSource::default(), SystemClock.now());
        let (id, request) = (ids.batch_id(now, fastrand::u64(..)), ids.request_id(now, fastrand::u64(..)));
        let capability = provider.capability();
        let (open, close) = frame(endpoint.api());
        let mut lines = open.to_vec();
        push_line(&mut lines, capability.line_form, Place { batch: id, endpoint, first: true }, request, &self.body());
        lines.extend_from_slice(close);
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let input = if capability.inline {
            BatchInput::Inline { length, content: full(lines) }
        } else {
            let file = InputFile { name: format!("{id}.jsonl"), length, content: full(lines) };
            let file = provider.upload(credentials, file).await.map_err(|error| error.to_string())?;
            left.files.push(file.clone());
            BatchInput::Uploaded(file)
        };
        let call = CreateBatch { id, input, endpoint, model: Arc::from(self.model) };
        left.creating = true;
        let created = provider.create(credentials, call).await;
        left.creating = false;
        let batch = created.map_err(|error| {
            let unknown =
                if error.may_have_taken_effect() { " (it may exist: look there; it is not tried again)" } else { "" };
            format!("{error}{unknown}")
        })?;
        left.batch = Some(batch.id.clone());
        let ended = self.watch(provider, credentials, &batch.id).await?;
        left.ended = true;
        left.files.extend([&ended.output_file_id, &ended.error_file_id].into_iter().flatten().cloned());
        let status = answer(provider, credentials, endpoint, &ended).await?;
        let seconds = started.elapsed().as_secs();
        if (200..300).contains(&status) {
            return Ok(format!("{} answered one call of {} after {seconds} s", self.provider.name, self.model));
        }
        Err(format!("the batch ended, and its call was answered {status}: try another model"))
    }

    async fn watch(
        &self,
        provider: &dyn BatchProvider,
        credentials: &Credentials,
        batch: &str,
    ) -> Result<BatchObject, String> {
        let pause = provider.capability().min_poll.max(LOOK);
        let mut progress = Progress::new(1);
        loop {
            match provider.get(credentials, batch).await {
                Ok(object) if object.status == BatchStatus::Running || object.results_pending => {
                    progress.show(0, &format!("{batch}: {}", object.status_text));
                }
                Ok(object) => {
                    progress.finish();
                    return Ok(object);
                }
                Err(error) if error.is_lasting() => return Err(error.to_string()),
                // A batch may not be shown at once, and a look may fail.
                Err(error) => progress.show(0, &error.to_string()),
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// The status of the one answer.
async fn answer(
    provider: &dyn BatchProvider,
    credentials: &Credentials,
    endpoint: Endpoint,
    ended: &BatchObject,
) -> Result<u16, String> {
    if let Some(fault) = ended.errors.first() {
        return Err(format!("the batch was refused: {} {}", fault.code, fault.message));
    }
    for file in [&ended.output_file_id, &ended.error_file_id].into_iter().flatten() {
        let mut body = provider.download(credentials, file).await.map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame.map_err(|error| error.to_string())?.into_data().unwrap_or_default());
            if text.len() > MOST_BYTES {
                return Err("the results are longer than one answer can be".to_owned());
            }
        }
        for line in text.split(|byte| *byte == b'\n') {
            match parse(endpoint.api(), &Bytes::copy_from_slice(line)) {
                Ok((_, LineOutcome::Answered { status, .. })) => return Ok(status),
                Ok((_, LineOutcome::NotExecuted { code, message })) => {
                    return Err(format!("the batch ended ({}) without the call: {code} {message}", ended.status_text));
                }
                Err(_no_line) => {}
            }
        }
    }
    Err(format!("the batch ended ({}) without an answer", ended.status_text))
}

/// Cancels what runs, deletes what is there.
async fn tidy(provider: &dyn BatchProvider, credentials: &Credentials, left: &Left) {
    if left.creating {
        note("stopped before the provider had said whether it has the batch: look for it there");
    }
    let failed = |what: &str, error: &ProviderError| note(&format!("{what} stays at the provider: {error}"));
    if let Some(batch) = left.batch.as_ref().filter(|_| !left.ended)
        && let Err(error) = provider.cancel(credentials, batch).await
    {
        failed(&format!("batch {batch}"), &error);
    }
    for file in &left.files {
        if let Err(error) = provider.delete_file(credentials, file).await {
            failed(&format!("file {file}"), &error);
        }
    }
}
