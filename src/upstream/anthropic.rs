//! Anthropic's Message Batches (providers.md, sections 2.1 to 2.5): lines inline, no files, no metadata.
//!
//! A batch carries its stamp in the `custom_id`s of its lines, which can be read only in the results of one that has
//! ended. So a batch whose creation got no answer is looked for by time and by count; while one that fits is still
//! running, nothing is decided: creating again could buy twice, and its results could not be had any earlier anyway.

use http::{Method, Uri};
use http_body_util::BodyExt as _;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Content, Exchange, unreadable};
use crate::upstream::provider::{
    BatchInput, BatchProvider, CreateBatch, Credentials, LiveAnswer, LiveRequest, ProviderError, ProviderFuture,
    SUBMIT, Sought,
};
use crate::wire::anthropic::batch::{parse_batch, parse_batch_list};
use crate::wire::anthropic::line::{stamp, stamp_in};
use crate::wire::batch::{BatchObject, BatchStatus};

const BATCHES: &str = "/messages/batches";
/// Pages of 100 batches that a look-up reads at most.
const MAX_PAGES: usize = 60;
/// A result line is not longer than this.
const MAX_LINE_BYTES: usize = 64 << 20;

/// A provider that speaks Message Batches.
#[derive(Debug)]
pub struct AnthropicProvider {
    exchange: Exchange,
    capability: Capability,
}

impl AnthropicProvider {
    /// At `base_url` (with `/v1` at its end).
    pub fn new(client: UpstreamClient, base_url: &Uri, capability: Capability) -> Self {
        Self { exchange: Exchange::new(client, base_url), capability }
    }

    /// Where the results are, below the base URL. The key goes nowhere else, whatever address an answer names.
    fn located(&self, mut object: BatchObject) -> BatchObject {
        object.output_file_id = object.output_file_id.map(|url| {
            let own = self.exchange.path_of(&url).map(ToOwned::to_owned);
            own.unwrap_or_else(|| format!("{BATCHES}/{}/results", object.id))
        });
        object
    }

    async fn ask(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        credentials: &Credentials,
    ) -> Result<BatchObject, ProviderError> {
        let object = self.exchange.ask(operation, (method, path), credentials, None, parse_batch).await?;
        Ok(self.located(object))
    }

    async fn find_batch(
        &self,
        credentials: &Credentials,
        sought: &Sought,
    ) -> Result<Option<BatchObject>, ProviderError> {
        let oldest = sought.oldest();
        let mut undecided = false;
        let mut after: Option<String> = None;
        for _page in 0..MAX_PAGES {
            let cursor = after.as_ref().map_or_else(String::new, |after| format!("&after_id={after}"));
            let path = format!("{BATCHES}?limit=100{cursor}");
            let (batches, has_more) =
                self.exchange.ask("look-up", (Method::GET, &path), credentials, None, parse_batch_list).await?;
            let last = batches.last().map(|batch| (batch.id.clone(), batch.created_at));
            for batch in batches.into_iter().filter(|batch| may_be(batch, sought, oldest)) {
                if batch.status == BatchStatus::Running || batch.results_pending {
                    undecided = true;
                } else if self.is_stamped(credentials, &batch, sought).await? {
                    return Ok(Some(self.located(batch)));
                }
            }
            match last {
                Some((last_id, created_at)) if has_more && created_at.is_none_or(|at| at >= oldest) => {
                    after = Some(last_id);
                }
                _ if undecided => {
                    return Err(unreadable("look-up", &"a batch that may be ours is running: its results will tell"));
                }
                _ => return Ok(None),
            }
        }
        Err(unreadable("look-up", &"the list of batches does not end"))
    }

    /// Whether the first line of an ended batch's results is one of the sought batch.
    async fn is_stamped(
        &self,
        credentials: &Credentials,
        batch: &BatchObject,
        sought: &Sought,
    ) -> Result<bool, ProviderError> {
        let mut body = self.exchange.open(&format!("{BATCHES}/{}/results", batch.id), credentials).await?.1;
        let mut line = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|error| unreadable("look-up", &error))?.into_data().unwrap_or_default();
            let end = memchr::memchr(b'\n', &data);
            line.extend_from_slice(data.get(..end.unwrap_or(data.len())).unwrap_or_default());
            if end.is_some() && !line.trim_ascii().is_empty() || line.len() > MAX_LINE_BYTES {
                break;
            }
        }
        Ok(stamp_in(&line).is_some_and(|found| found == stamp(sought.id)))
    }
}

/// By time and by count (providers.md, section 2.2). What an answer leaves out does not rule it out.
fn may_be(batch: &BatchObject, sought: &Sought, oldest: i64) -> bool {
    batch.created_at.is_none_or(|at| at >= oldest)
        && batch.total.is_none_or(|total| sought.lines.contains(&total))
        && !sought.others.contains(&batch.id)
}

impl BatchProvider for AnthropicProvider {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.exchange.call_live(credentials, call))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let BatchInput::Inline { length, content } = batch.input else {
                return Err(unreadable(SUBMIT, &"this kind of provider takes its lines inline"));
            };
            let content = Content { length, content_type: "application/json".to_owned(), body: content };
            let body = self.exchange.post_content(SUBMIT, BATCHES, credentials, content).await?;
            let object = parse_batch(&body).map_err(|error| unreadable(SUBMIT, &error))?;
            Ok(self.located(object))
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_batch(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move { self.ask("poll", Method::GET, &format!("{BATCHES}/{batch}"), credentials).await })
    }

    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(
            async move { self.ask("cancel", Method::POST, &format!("{BATCHES}/{batch}/cancel"), credentials).await },
        )
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async move { self.exchange.open(file, credentials).await.map(|(_, body)| body) })
    }
}
