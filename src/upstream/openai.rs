//! OpenAI's Files and Batches (providers.md, sections 1.1 to 1.9), and those of providers with the same wire.

use http::{Method, Uri};
use serde::Serialize;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Content, Exchange, unreadable};
use crate::upstream::multipart::upload_form;
use crate::upstream::provider::{
    BatchInput, BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderError,
    ProviderFuture, Sought, UPLOAD,
};
use crate::wire::batch::BatchObject;
use crate::wire::openai::batch::{parse_batch, parse_batch_list, parse_file_id};

/// Pages of 100 batches that a look-up reads at most: 2,000 batches an hour is the provider's limit (section 1.8).
const MAX_PAGES: usize = 60;
/// How far the provider's clock may be off when batches are looked up by time.
const CLOCK_TOLERANCE_SECONDS: i64 = 3600;

/// A provider that speaks OpenAI's Files and Batches.
#[derive(Debug)]
pub struct OpenAiProvider {
    exchange: Exchange,
    capability: Capability,
}

impl OpenAiProvider {
    /// At `base_url` (with `/v1` at its end); `api_version` goes with every call.
    pub fn new(client: UpstreamClient, base_url: &Uri, api_version: Option<&str>, capability: Capability) -> Self {
        Self { exchange: Exchange::new(client, base_url).with_version(api_version), capability }
    }

    async fn upload_file(&self, credentials: &Credentials, file: InputFile) -> Result<String, ProviderError> {
        let boundary = format!("nightbus-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let form = upload_form(file, self.capability.file_expiry_seconds, &boundary);
        let content = Content { length: form.length, content_type: form.content_type, body: form.body };
        let body = self.exchange.post_content(UPLOAD, "/files", credentials, content).await?;
        parse_file_id(&body).map_err(|error| unreadable(UPLOAD, &error))
    }

    async fn find_batch(
        &self,
        credentials: &Credentials,
        sought: &Sought,
    ) -> Result<Option<BatchObject>, ProviderError> {
        let wanted = sought.id.to_string();
        let oldest = sought.since.unix_seconds() - CLOCK_TOLERANCE_SECONDS;
        let mut after: Option<String> = None;
        for _page in 0..MAX_PAGES {
            let path = after
                .as_ref()
                .map_or_else(|| "/batches?limit=100".to_owned(), |after| format!("/batches?limit=100&after={after}"));
            let body = self.exchange.call_json("look-up", Method::GET, &path, credentials, None).await?;
            let (batches, has_more) = parse_batch_list(&body).map_err(|error| unreadable("look-up", &error))?;
            let last = batches.last().map(|batch| (batch.id.clone(), batch.created_at));
            if let Some(found) = batches.into_iter().find(|batch| batch.nightbus_batch.as_ref() == Some(&wanted)) {
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
        &self.capability
    }

    fn upload<'a>(&'a self, credentials: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(self.upload_file(credentials, file))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        #[derive(Serialize)]
        struct Call<'a> {
            input_file_id: &'a str,
            endpoint: &'static str,
            completion_window: &'static str,
            metadata: Metadata,
        }
        #[derive(Serialize)]
        struct Metadata {
            nightbus_batch: String,
        }
        Box::pin(async move {
            let BatchInput::Uploaded(file) = &batch.input else {
                return Err(unreadable("create", &"this kind of provider takes its lines in a file"));
            };
            let call = Call {
                input_file_id: file,
                endpoint: batch.endpoint.as_str(),
                completion_window: "24h",
                metadata: Metadata { nightbus_batch: batch.id.to_string() },
            };
            let json = serde_json::to_vec(&call).unwrap_or_default();
            let body = self.exchange.call_json("create", Method::POST, "/batches", credentials, Some(json)).await?;
            parse_batch(&body).map_err(|error| unreadable("create", &error))
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_batch(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let body =
                self.exchange.call_json("poll", Method::GET, &format!("/batches/{batch}"), credentials, None).await?;
            parse_batch(&body).map_err(|error| unreadable("poll", &error))
        })
    }

    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("/batches/{batch}/cancel");
            let body = self.exchange.call_json("cancel", Method::POST, &path, credentials, None).await?;
            parse_batch(&body).map_err(|error| unreadable("cancel", &error))
        })
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async move { self.exchange.open(&format!("/files/{file}/content"), credentials).await })
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.exchange.call_live(credentials, call))
    }

    fn delete_file<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(async move {
            match self
                .exchange
                .call_json("delete file", Method::DELETE, &format!("/files/{file}"), credentials, None)
                .await
            {
                Ok(_deleted) => Ok(()),
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}
