//! xAI's batches (providers.md, section 4.9): OpenAI's lines in an uploaded file, a batch that has a name and counts but no status,
//! and results in pages.
//!
//! The lines go up as a file, and not by the route that adds them to a batch: so there is one creation that is not idempotent, and
//! not one for each group of lines. A batch is known by its name.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Uri};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use crate::body::{Body, BoxError};
use crate::domain::clock::{Clock as _, SystemClock};
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Exchange, query_value, unreadable};
use crate::upstream::files::Files;
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderError, ProviderFuture, Sought,
};
use crate::wire::batch::BatchObject;
use crate::wire::xai::{parse_batch, parse_batches, result_lines};

const BATCHES: &str = "/batches";
/// Pages of 100 batches that a look-up reads at most.
const MAX_PAGES: usize = 100;

/// A provider that speaks xAI's batches.
#[derive(Debug)]
pub struct XaiProvider {
    files: Files,
    /// The same way, for downloads, which outlive the call that begins them.
    results: Arc<Exchange>,
}

#[derive(Serialize)]
struct CreateCall<'a> {
    name: String,
    input_file_id: &'a str,
}

/// Pages of results that are still to be read.
struct Pages {
    exchange: Arc<Exchange>,
    credentials: Credentials,
    path: String,
    /// What was read and not handed on.
    lines: Option<Vec<u8>>,
    next: Option<String>,
}

impl XaiProvider {
    /// At `base_url` (with `/v1` at its end).
    pub fn new(client: UpstreamClient, base_url: &Uri, capability: Capability) -> Self {
        let results = Arc::new(Exchange::new(client.clone(), base_url));
        Self { files: Files { exchange: Exchange::new(client, base_url), capability }, results }
    }

    async fn read(&self, credentials: &Credentials, batch: &str) -> Result<BatchObject, ProviderError> {
        let path = format!("{BATCHES}/{batch}");
        let read = |body: &[u8]| parse_batch(body, SystemClock.now().unix_seconds());
        self.files.exchange.ask("poll", (Method::GET, &path), credentials, None, read).await
    }

    async fn find_batch(
        &self,
        credentials: &Credentials,
        sought: &Sought,
    ) -> Result<Option<BatchObject>, ProviderError> {
        let mut token = String::new();
        for _page in 0..MAX_PAGES {
            let path = format!("{BATCHES}?limit=100{token}");
            let read = |body: &[u8]| parse_batches(body, SystemClock.now().unix_seconds());
            let (batches, next) =
                self.files.exchange.ask("look-up", (Method::GET, &path), credentials, None, read).await?;
            if let Some(found) = batches.into_iter().find(|batch| sought.is(batch)) {
                return Ok(Some(found));
            }
            match next {
                Some(next) => token = format!("&pagination_token={}", query_value(&next)),
                None => return Ok(None),
            }
        }
        Err(unreadable("look-up", &"the list of batches does not end"))
    }
}

impl Pages {
    /// Reads the page that is named, the first one without a name.
    async fn read(mut self) -> Result<Self, ProviderError> {
        let token = self.next.as_ref().map(|token| format!("&pagination_token={}", query_value(token)));
        let path = format!("{}?limit=100{}", self.path, token.unwrap_or_default());
        let body = self.exchange.read_page(&path, &self.credentials).await?;
        let (lines, next) = result_lines(&body).map_err(|error| unreadable("download", &error))?;
        if next.is_some() && next == self.next {
            return Err(unreadable("download", &"the pages of results do not end"));
        }
        (self.lines, self.next) = (Some(lines), next);
        Ok(self)
    }

    /// The lines of all pages, each read when those before it were taken.
    async fn next(mut self) -> Result<Option<(Frame<Bytes>, Self)>, BoxError> {
        loop {
            if let Some(lines) = self.lines.take() {
                return Ok(Some((Frame::data(Bytes::from(lines)), self)));
            }
            if self.next.is_none() {
                return Ok(None);
            }
            self = self.read().await?;
        }
    }
}

impl BatchProvider for XaiProvider {
    fn capability(&self) -> &Capability {
        &self.files.capability
    }

    fn upload<'a>(&'a self, credentials: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(self.files.upload(credentials, file))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let call = CreateCall { name: batch.id.to_string(), input_file_id: batch.input.file()? };
            let json = serde_json::to_vec(&call).unwrap_or_default();
            let read = |body: &[u8]| parse_batch(body, SystemClock.now().unix_seconds());
            self.files.exchange.ask("create", (Method::POST, BATCHES), credentials, Some(json), read).await
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_batch(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(self.read(credentials, batch))
    }

    /// What the call answers is not documented: the batch is read after it.
    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("{BATCHES}/{batch}:cancel");
            self.files.exchange.call_json("cancel", Method::POST, &path, credentials, None).await?;
            self.read(credentials, batch).await
        })
    }

    /// The first page is read at once, so that its failure is the download's.
    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        let (exchange, credentials) = (Arc::clone(&self.results), credentials.clone());
        let pages = Pages { exchange, credentials, path: file.to_owned(), lines: None, next: None };
        Box::pin(async move {
            let first = pages.read().await?;
            Ok(StreamBody::new(stream::try_unfold(first, Pages::next)).boxed_unsync())
        })
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.files.exchange.call_live(credentials, call))
    }

    /// Results are no files.
    fn delete_file<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(async move {
            if file.starts_with(BATCHES) {
                return Ok(());
            }
            self.files.delete(credentials, file).await
        })
    }
}
