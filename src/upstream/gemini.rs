//! Gemini's batches through its compatible endpoint (providers.md, section 4.2): OpenAI's lines and batch object, but no file
//! routes there. Files go through the native Files API beside it, with the key in a header of its own.
//!
//! A batch keeps no metadata of ours. One whose creation got no answer is looked for in the native list, by the file it was made
//! of; while a batch of that time says of no file, nothing is decided.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use serde::Serialize;
use serde_json::json;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::exchange::{Content, Exchange, query_value, unreadable};
use crate::upstream::provider::{
    BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderError, ProviderFuture, Sought,
    UPLOAD,
};
use crate::wire::batch::BatchObject;
use crate::wire::gemini::{parse_batch, parse_operations, parse_uploaded};

const BATCHES: &str = "/batches";
/// Pages of 100 batches that a look-up reads at most: in which order they are listed is not documented.
const MAX_PAGES: usize = 100;
const LINES: &str = "application/jsonl";
/// The second half of an upload: a 404 there is a session that is over, not a route that is missing.
const CONTENT: &str = "upload content";

const KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const UPLOAD_URL: &str = "x-goog-upload-url";
/// How tokens of Google's OAuth begin: they are no keys.
const OAUTH_TOKEN: &str = "ya29.";

/// Gemini: the compatible endpoint, and the native API beside it.
#[derive(Debug)]
pub struct GeminiProvider {
    exchange: Exchange,
    /// Without the version, which stands behind `/upload` and `/download`.
    native: Exchange,
    version: String,
    capability: Capability,
}

#[derive(Serialize)]
struct CreateCall<'a> {
    input_file_id: &'a str,
    endpoint: &'static str,
    completion_window: &'a str,
}

impl GeminiProvider {
    /// At `base_url` (with `/v1beta/openai` at its end; the native API is taken to begin where that does).
    pub fn new(client: UpstreamClient, base_url: &Uri, capability: Capability) -> Self {
        let base = base_url.to_string();
        let base = base.trim_end_matches('/');
        let versioned = base.strip_suffix("/openai").unwrap_or(base);
        let (root, version) = versioned.rsplit_once('/').unwrap_or((versioned, ""));
        let native = Exchange::new(client.clone(), &root);
        Self { exchange: Exchange::new(client, &base), native, version: version.to_owned(), capability }
    }

    /// Asks for a place, and sends the lines there: the key goes to no other host than the base URL's.
    async fn upload_file(&self, credentials: &Credentials, file: InputFile) -> Result<String, ProviderError> {
        let length = file.length.to_string();
        let start = with(
            credentials,
            &[
                ("x-goog-upload-protocol", "resumable"),
                ("x-goog-upload-command", "start"),
                ("x-goog-upload-header-content-length", &length),
                ("x-goog-upload-header-content-type", LINES),
            ],
        );
        let path = format!("/upload/{}/files", self.version);
        let json = json!({"file": {"display_name": file.name}}).to_string().into_bytes();
        let (headers, _) = self.native.call_for_headers(UPLOAD, (Method::POST, &path), &start, Some(json)).await?;
        let place = headers.get(UPLOAD_URL).and_then(|url| url.to_str().ok()).and_then(|url| self.native.path_of(url));
        let place =
            place.ok_or_else(|| unreadable(UPLOAD, &"the answer names no place to upload to, or another host"))?;
        let finish = with(credentials, &[("x-goog-upload-offset", "0"), ("x-goog-upload-command", "upload, finalize")]);
        let content = Content { length: file.length, content_type: LINES.to_owned(), body: file.content };
        let body = self.native.post_content(CONTENT, place, &finish, content).await?;
        parse_uploaded(&body).map_err(|error| unreadable(CONTENT, &error))
    }

    async fn find_batch(
        &self,
        credentials: &Credentials,
        sought: &Sought,
    ) -> Result<Option<BatchObject>, ProviderError> {
        let credentials = with(credentials, &[]);
        let oldest = sought.oldest();
        let mut undecided = false;
        let mut token = String::new();
        for _page in 0..MAX_PAGES {
            let path = format!("/{}{BATCHES}?pageSize=100{token}", self.version);
            let page = self.native.ask("look-up", (Method::GET, &path), &credentials, None, parse_operations).await?;
            undecided |= page
                .batches
                .iter()
                .any(|batch| batch.input_file_id.is_none() && batch.created_at.is_none_or(|created| created >= oldest));
            if let Some(found) = page.batches.into_iter().find(|batch| sought.is(batch)) {
                return Ok(Some(found));
            }
            match page.next {
                Some(next) => token = format!("&pageToken={}", query_value(&next)),
                None if undecided => {
                    return Err(unreadable("look-up", &"a batch of that time does not say what file it was made of"));
                }
                None => return Ok(None),
            }
        }
        Err(unreadable("look-up", &"the list of batches does not end"))
    }

    async fn read(&self, credentials: &Credentials, batch: &str) -> Result<BatchObject, ProviderError> {
        self.exchange.ask("poll", (Method::GET, &format!("{BATCHES}/{batch}")), credentials, None, parse_batch).await
    }
}

/// The credentials as the native API wants them, with more headers: a key in a header of its own, a token as a bearer.
fn with(credentials: &Credentials, more: &[(&'static str, &str)]) -> Credentials {
    let mut headers: HeaderMap = credentials.0.clone();
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = bearer.and_then(|value| value.split_once(' ')).map(|(_, key)| key.trim());
    let key = key.filter(|key| !key.starts_with(OAUTH_TOKEN)).and_then(|key| HeaderValue::try_from(key).ok());
    if let Some(mut key) = key {
        key.set_sensitive(true);
        headers.remove(AUTHORIZATION);
        headers.insert(KEY, key);
    }
    for (name, value) in more {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    Credentials(headers)
}

/// The name of a thing as the native API has it.
fn named(collection: &str, id: &str) -> String {
    if id.starts_with(collection) { id.to_owned() } else { format!("{collection}/{id}") }
}

impl BatchProvider for GeminiProvider {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn upload<'a>(&'a self, credentials: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(self.upload_file(credentials, file))
    }

    fn create<'a>(&'a self, credentials: &'a Credentials, batch: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let call = CreateCall {
                input_file_id: batch.input.file()?,
                endpoint: batch.endpoint.as_str(),
                completion_window: &self.capability.completion_window,
            };
            let json = serde_json::to_vec(&call).unwrap_or_default();
            self.exchange.ask("create", (Method::POST, BATCHES), credentials, Some(json), parse_batch).await
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_batch(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(self.read(credentials, batch))
    }

    /// The native route: whether the compatible endpoint has one is not documented. Its answer is empty.
    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("/{}/{}:cancel", self.version, named("batches", batch));
            self.native.call_json("cancel", Method::POST, &path, &with(credentials, &[]), None).await?;
            self.read(credentials, batch).await
        })
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async move {
            let path = format!("/download/{}/{}:download?alt=media", self.version, named("files", file));
            self.native.open(&path, &with(credentials, &[])).await.map(|(_, body)| body)
        })
    }

    fn call<'a>(&'a self, credentials: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(self.exchange.call_live(credentials, call))
    }

    fn delete_file<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(async move {
            let path = format!("/{}/{}", self.version, named("files", file));
            match self.native.call_json("delete file", Method::DELETE, &path, &with(credentials, &[]), None).await {
                Ok(_deleted) => Ok(()),
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &'static str) -> Vec<(String, String)> {
        let mut map = HeaderMap::new();
        map.insert(AUTHORIZATION, HeaderValue::from_static(authorization));
        let native = with(&Credentials(map), &[("x-goog-upload-offset", "0")]).0;
        native.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_key_moves_to_its_own_header_and_a_token_stays() {
        let offset = || ("x-goog-upload-offset".to_owned(), "0".to_owned());
        assert_eq!(headers("Bearer AIza-key"), [("x-goog-api-key".to_owned(), "AIza-key".to_owned()), offset()]);
        let token = ("authorization".to_owned(), "Bearer ya29.token".to_owned());
        assert_eq!(headers("Bearer ya29.token"), [token, offset()]);
    }

    #[test]
    fn names_have_their_collection_once() {
        assert_eq!((named("files", "files/a"), named("files", "a")), ("files/a".to_owned(), "files/a".to_owned()));
    }
}
