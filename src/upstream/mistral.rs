//! Mistral's batch jobs (providers.md, section 4.5): OpenAI's files, with lines of `custom_id` and `body` alone, and a job that
//! names the model for all of them.

use http::{Method, Uri};
use serde::Serialize;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Exchange, unreadable};
use crate::upstream::files::Files;
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, Metadata, ProviderError,
    ProviderFuture, Sought,
};
use crate::wire::batch::BatchObject;
use crate::wire::mistral::{parse_job, parse_jobs};

const JOBS: &str = "/batch/jobs";
const PAGE: usize = 100;
/// Pages that a look-up reads at most.
const MAX_PAGES: usize = 60;

/// A provider that speaks Mistral's batch jobs.
#[derive(Debug)]
pub struct MistralProvider {
    files: Files,
}

#[derive(Serialize)]
struct CreateJob<'a> {
    endpoint: &'static str,
    model: &'a str,
    input_files: [&'a str; 1],
    timeout_hours: u32,
    metadata: Metadata,
}

impl MistralProvider {
    /// At `base_url` (with `/v1` at its end).
    pub fn new(client: UpstreamClient, base_url: &Uri, capability: Capability) -> Self {
        Self { files: Files { exchange: Exchange::new(client, base_url), capability } }
    }

    async fn find_job(&self, credentials: &Credentials, sought: &Sought) -> Result<Option<BatchObject>, ProviderError> {
        // In which order jobs are listed is not documented: every page is read.
        for page in 0..MAX_PAGES {
            let path = format!("{JOBS}?page={page}&page_size={PAGE}&created_after={}", sought.not_before());
            let (jobs, listed) =
                self.files.exchange.ask("look-up", (Method::GET, &path), credentials, None, parse_jobs).await?;
            if let Some(found) = jobs.into_iter().find(|job| sought.is(job)) {
                return Ok(Some(found));
            }
            if listed < PAGE {
                return Ok(None);
            }
        }
        Err(unreadable("look-up", &"the list of jobs does not end"))
    }
}

impl BatchProvider for MistralProvider {
    fn capability(&self) -> &Capability {
        &self.files.capability
    }

    fn upload<'a>(&'a self, credentials: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(self.files.upload(credentials, file))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let file = batch.input.file()?;
            let call = CreateJob {
                endpoint: batch.endpoint.as_str(),
                model: &batch.model,
                input_files: [file],
                timeout_hours: self.files.capability.window_hours(),
                metadata: Metadata::of(batch.id),
            };
            let json = serde_json::to_vec(&call).unwrap_or_default();
            self.files.exchange.ask("create", (Method::POST, JOBS), credentials, Some(json), parse_job).await
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_job(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("{JOBS}/{batch}");
            self.files.exchange.ask("poll", (Method::GET, &path), credentials, None, parse_job).await
        })
    }

    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("{JOBS}/{batch}/cancel");
            self.files.exchange.ask("cancel", (Method::POST, &path), credentials, None, parse_job).await
        })
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(self.files.download(credentials, file))
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.files.exchange.call_live(credentials, call))
    }

    fn delete_file<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(self.files.delete(credentials, file))
    }
}
