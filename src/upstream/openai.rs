//! OpenAI's Files and Batches (providers.md, sections 1.1 to 1.9), and those of providers with the same wire.
//!
//! Every call has a bound in time; bodies of answers other than downloads are read up to 8 MiB.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::Value;

use crate::body::{Body, empty, full};
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::multipart::upload_form;
use crate::upstream::provider::{
    BatchInput, BatchProvider, CreateBatch, Credentials, InputFile, ProviderError, ProviderFuture, Sought, UPLOAD,
};
use crate::wire::batch::BatchObject;
use crate::wire::openai::batch::{parse_batch, parse_batch_list, parse_file_id, text_of};

/// A small call and its answer, whole.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// An upload gets this long and a second for each [`UPLOAD_BYTES_PER_SECOND`].
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);
const UPLOAD_BYTES_PER_SECOND: u64 = 100_000;
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Pages of 100 batches that a look-up reads at most: 2,000 batches an hour is the provider's limit (section 1.8).
const MAX_PAGES: usize = 60;
/// How far the provider's clock may be off when batches are looked up by time.
const CLOCK_TOLERANCE_SECONDS: i64 = 3600;

/// A provider that speaks OpenAI's Files and Batches.
#[derive(Debug)]
pub struct OpenAiProvider {
    client: UpstreamClient,
    base_url: Uri,
    capability: Capability,
}

impl OpenAiProvider {
    /// At `base_url` (with `/v1` at its end).
    pub fn new(client: UpstreamClient, base_url: Uri, capability: Capability) -> Self {
        Self { client, base_url, capability }
    }

    fn request(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        credentials: &Credentials,
        body: Body,
    ) -> Result<Request<Body>, ProviderError> {
        let base = self.base_url.to_string();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", base.trim_end_matches('/')))
            .body(body)
            .map_err(|error| no_answer(operation, error.to_string(), false))?;
        *request.headers_mut() = credentials.0.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(request)
    }

    /// Sends and reads the whole answer; statuses other than 2xx are errors.
    async fn call(
        &self,
        operation: &'static str,
        request: Request<Body>,
        bound: Duration,
    ) -> Result<Bytes, ProviderError> {
        let exchange = async {
            let response = self.send(operation, request).await?;
            let (parts, body) = response.into_parts();
            let body = read(operation, body).await?;
            if parts.status.is_success() {
                Ok(body)
            } else {
                Err(refused(operation, parts.status, &parts.headers, body))
            }
        };
        tokio::time::timeout(bound, exchange).await.unwrap_or_else(|_elapsed| {
            Err(no_answer(operation, format!("no answer within {} s", bound.as_secs()), true))
        })
    }

    async fn send(&self, operation: &'static str, request: Request<Body>) -> Result<Response<Body>, ProviderError> {
        self.client.send(request).await.map_err(|error| no_answer(operation, error.cause(), error.may_have_been_sent()))
    }

    async fn call_json(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        credentials: &Credentials,
        json: Option<Vec<u8>>,
    ) -> Result<Bytes, ProviderError> {
        let has_body = json.is_some();
        let body = json.map_or_else(empty, full);
        let mut request = self.request(operation, method, path, credentials, body)?;
        if has_body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        self.call(operation, request, CALL_TIMEOUT).await
    }

    async fn upload_file(&self, credentials: &Credentials, file: InputFile) -> Result<String, ProviderError> {
        let bound = UPLOAD_TIMEOUT + Duration::from_secs(file.length / UPLOAD_BYTES_PER_SECOND);
        let boundary = format!("nightbus-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let form = upload_form(file, self.capability.file_expiry_seconds, &boundary);
        let mut request = self.request(UPLOAD, Method::POST, "/files", credentials, form.body)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(form.length));
        if let Ok(value) = HeaderValue::from_str(&form.content_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        let body = self.call(UPLOAD, request, bound).await?;
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
            let body = self.call_json("look-up", Method::GET, &path, credentials, None).await?;
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

    async fn open_file(&self, credentials: &Credentials, file: &str) -> Result<Body, ProviderError> {
        let request = self.request("download", Method::GET, &format!("/files/{file}/content"), credentials, empty())?;
        let response = tokio::time::timeout(CALL_TIMEOUT, self.send("download", request))
            .await
            .unwrap_or_else(|_elapsed| Err(no_answer("download", "no answer in time".to_owned(), true)))?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return match parts.headers.get(CONTENT_ENCODING) {
                Some(encoding) if encoding != "identity" => {
                    Err(unreadable("download", &format!("encoded as {encoding:?}, which was not asked for")))
                }
                _ => Ok(body),
            };
        }
        let body = tokio::time::timeout(CALL_TIMEOUT, read("download", body))
            .await
            .unwrap_or_else(|_elapsed| Ok(Bytes::new()))?;
        Err(refused("download", parts.status, &parts.headers, body))
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
            let body = self.call_json("create", Method::POST, "/batches", credentials, Some(json)).await?;
            parse_batch(&body).map_err(|error| unreadable("create", &error))
        })
    }

    fn find<'a>(&'a self, credentials: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(self.find_batch(credentials, sought))
    }

    fn get<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let body = self.call_json("poll", Method::GET, &format!("/batches/{batch}"), credentials, None).await?;
            parse_batch(&body).map_err(|error| unreadable("poll", &error))
        })
    }

    fn cancel<'a>(&'a self, credentials: &'a Credentials, batch: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            let path = format!("/batches/{batch}/cancel");
            let body = self.call_json("cancel", Method::POST, &path, credentials, None).await?;
            parse_batch(&body).map_err(|error| unreadable("cancel", &error))
        })
    }

    fn download<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(self.open_file(credentials, file))
    }

    fn delete_file<'a>(&'a self, credentials: &'a Credentials, file: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(async move {
            match self.call_json("delete file", Method::DELETE, &format!("/files/{file}"), credentials, None).await {
                Ok(_deleted) => Ok(()),
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

async fn read(operation: &'static str, mut body: Body) -> Result<Bytes, ProviderError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| no_answer(operation, error.to_string(), true))?;
        whole.extend_from_slice(&frame.into_data().unwrap_or_default());
        if whole.len() > MAX_ANSWER_BYTES {
            return Err(unreadable(operation, &"the answer is too long"));
        }
    }
    Ok(whole.freeze())
}

const fn no_answer(operation: &'static str, cause: String, may_have_taken_effect: bool) -> ProviderError {
    ProviderError::NoAnswer { operation, cause, may_have_taken_effect }
}

fn unreadable(operation: &'static str, cause: &dyn std::fmt::Display) -> ProviderError {
    ProviderError::Unreadable { operation, cause: cause.to_string() }
}

/// Each member of the error is read by itself: a number where a text should be must not hide the others.
fn refused(operation: &'static str, status: StatusCode, headers: &HeaderMap, body: Bytes) -> ProviderError {
    let envelope = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let error = envelope.get("error").unwrap_or(&Value::Null);
    let text = |name| error.get(name).and_then(text_of);
    ProviderError::Refused {
        operation,
        status: status.as_u16(),
        code: text("code").or_else(|| text("type")).unwrap_or_default(),
        message: text("message").or_else(|| text_of(error)).unwrap_or_default().chars().take(500).collect(),
        body,
        retry_after: headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().parse().ok())
            .map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_with_odd_types_is_read_as_far_as_it_goes() {
        for (body, expected) in [
            (
                r#"{"error":{"message":"no money","type":"t","code":"insufficient_quota"}}"#,
                ("insufficient_quota", "no money"),
            ),
            (r#"{"error":{"message":"no model","code":404,"param":3}}"#, ("404", "no model")),
            (r#"{"error":{"message":["a"],"type":"insufficient_quota","code":null}}"#, ("insufficient_quota", "")),
            (r#"{"error":{"message":12,"code":{}}}"#, ("", "12")),
            (r#"{"error":"not today"}"#, ("", "not today")),
            ("<html>", ("", "")),
        ] {
            let error = refused("create", StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), Bytes::from(body));
            let ProviderError::Refused { code, message, .. } = &error else { panic!("{error:?}") };
            assert_eq!((code.as_str(), message.as_str()), expected, "{body}");
        }
    }
}
