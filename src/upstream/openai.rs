//! OpenAI's Files and Batches (providers.md, sections 1.1 to 1.9), and those of providers with the same wire.

use http::{Method, Uri};
use serde::Serialize;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Exchange, unreadable};
use crate::upstream::files::Files;
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, Metadata, PartialResults,
    ProviderError, ProviderFuture, Sought,
};
use crate::wire::batch::BatchObject;
use crate::wire::openai::batch::{parse_batch, parse_batch_list};
use crate::wire::openai::response::BackgroundResponse;

/// Pages of 100 batches that a look-up reads at most: 2,000 batches an hour is the provider's limit (section 1.8).
const MAX_PAGES: usize = 60;

/// A provider that speaks OpenAI's Files and Batches.
#[derive(Debug)]
pub struct OpenAiProvider {
    files: Files,
}

impl OpenAiProvider {
    /// At `base_url` (with `/v1` at its end); `api_version` goes with every call.
    pub fn new(client: UpstreamClient, base_url: &Uri, api_version: Option<&str>, capability: Capability) -> Self {
        Self { files: Files { exchange: Exchange::new(client, base_url).with_version(api_version), capability } }
    }

    async fn find_batch(
        &self,
        credentials: &Credentials,
        sought: &Sought,
    ) -> Result<Option<BatchObject>, ProviderError> {
        let oldest = sought.oldest();
        let mut after: Option<String> = None;
        for _page in 0..MAX_PAGES {
            let path = after
                .as_ref()
                .map_or_else(|| "/batches?limit=100".to_owned(), |after| format!("/batches?limit=100&after={after}"));
            let (batches, has_more) =
                self.files.exchange.ask("look-up", (Method::GET, &path), credentials, None, parse_batch_list).await?;
            let last = batches.last().map(|batch| (batch.id.clone(), batch.created_at));
            if let Some(found) = batches.into_iter().find(|batch| sought.is(batch)) {
                return Ok(Some(found));
            }
            match last {
                Some((last_id, created_at)) if has_more && created_at.is_none_or(|at| at >= oldest) => {
                    after = Some(last_id);
                }
                _ => return Ok(None),
            }
        }
        Err(unreadable("look-up", &"the list of batches does not end"))
    }
}

impl BatchProvider for OpenAiProvider {
    fn capability(&self) -> &Capability {
        &self.files.capability
    }

    fn upload<'a>(&'a self, credentials: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(self.files.upload(credentials, file))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        #[derive(Serialize)]
        struct Call<'a> {
            input_file_id: &'a str,
            endpoint: &'static str,
            completion_window: &'a str,
            metadata: Metadata,
        }
        Box::pin(async move {
            let file = batch.input.file()?;
            self.files.settle(credentials, file).await?;
            let call = Call {
                input_file_id: file,
                endpoint: batch.endpoint.as_str(),
                completion_window: &self.files.capability.completion_window,
                metadata: Metadata::of(batch.id),
            };
            let json = serde_json::to_vec(&call).unwrap_or_default();
            self.files.exchange.ask("create", (Method::POST, "/batches"), credentials, Some(json), parse_batch).await
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_batch(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("/batches/{batch}");
            self.files.exchange.ask("poll", (Method::GET, &path), credentials, None, parse_batch).await
        })
    }

    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("/batches/{batch}/cancel");
            self.files.exchange.ask("cancel", (Method::POST, &path), credentials, None, parse_batch).await
        })
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(self.files.download(credentials, file))
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.files.exchange.call_live(credentials, call))
    }

    fn response<'a>(&'a self, credentials: &'a Credentials, id: &'a str) -> ProviderFuture<'a, BackgroundResponse> {
        Box::pin(self.files.exchange.response(credentials, Method::GET, format!("/responses/{id}")))
    }

    fn cancel_response<'a>(
        &'a self,
        credentials: &'a Credentials,
        id: &'a str,
    ) -> ProviderFuture<'a, BackgroundResponse> {
        Box::pin(self.files.exchange.response(credentials, Method::POST, format!("/responses/{id}/cancel")))
    }

    fn download_from<'a>(
        &'a self,
        credentials: &'a Credentials,
        file: &'a str,
        lines: u64,
    ) -> ProviderFuture<'a, PartialResults> {
        Box::pin(self.files.download_from(credentials, file, lines))
    }

    fn delete_file<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(self.files.delete(credentials, file))
    }
}
