//! Together's batches (providers.md, section 4.7): OpenAI's lines in a file that is uploaded elsewhere, a job inside the answer to its
//! creation, and no metadata. A job is known by the file it was made of, which no other batch has.

use http::{Method, Uri};
use serde::Serialize;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::Exchange;
use crate::upstream::files::Files;
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderFuture, Sought,
};
use crate::wire::batch::BatchObject;
use crate::wire::together::{parse_created, parse_job, parse_jobs};

const BATCHES: &str = "/batches";

/// A provider that speaks Together's batches.
#[derive(Debug)]
pub struct TogetherProvider {
    files: Files,
}

#[derive(Serialize)]
struct CreateJob<'a> {
    input_file_id: &'a str,
    endpoint: &'static str,
    completion_window: &'a str,
}

impl TogetherProvider {
    /// At `base_url` (with `/v1` at its end).
    pub fn new(client: UpstreamClient, base_url: &Uri, capability: Capability) -> Self {
        Self { files: Files { exchange: Exchange::new(client, base_url), capability } }
    }
}

impl BatchProvider for TogetherProvider {
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
                input_file_id: file,
                endpoint: batch.endpoint.as_str(),
                completion_window: &self.files.capability.completion_window,
            };
            let json = serde_json::to_vec(&call).unwrap_or_default();
            self.files.exchange.ask("create", (Method::POST, BATCHES), credentials, Some(json), parse_created).await
        })
    }

    /// All jobs are listed at once.
    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(async move {
            let jobs =
                self.files.exchange.ask("look-up", (Method::GET, BATCHES), credentials, None, parse_jobs).await?;
            Ok(jobs.into_iter().find(|job| sought.is(job)))
        })
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("{BATCHES}/{batch}");
            self.files.exchange.ask("poll", (Method::GET, &path), credentials, None, parse_job).await
        })
    }

    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("{BATCHES}/{batch}/cancel");
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
