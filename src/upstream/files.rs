//! A Files API in OpenAI's shape (providers.md, section 1.2), as several kinds have it: what their batches are made of, and
//! where the results are. What differs is data ([`Upload`] and the rest of [`Capability`]).

use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::time::Instant;

use crate::body::Body;
use crate::upstream::capability::Capability;
use crate::upstream::exchange::{Content, Exchange, unreadable};
use crate::upstream::multipart::upload_form;
use crate::upstream::provider::{Credentials, InputFile, PartialResults, ProviderError, UPLOAD};
use crate::wire::openai::batch::{FileStatus, parse_file};

/// How long a creation waits for a file that the provider looks at first; then it is tried again like any other.
const SETTLING: Duration = Duration::from_secs(30);
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// Result lines that can be read before a batch has ended (section 4.11): whether there will be more, and how many there are.
const INCOMPLETE: &str = "x-incomplete";
const LAST_LINE: &str = "x-last-line";

/// The form of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Below the base URL.
    pub path: &'static str,
    /// The part `purpose`.
    pub purpose: &'static str,
    /// The content type of the part with the file.
    pub file_type: &'static str,
    /// The file's name stands in a part `file_name` as well.
    pub names_file: bool,
}

impl Upload {
    /// OpenAI's.
    pub const OPENAI: Self =
        Self { path: "/files", purpose: "batch", file_type: "application/jsonl", names_file: false };
}

/// The files of one provider.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) exchange: Exchange,
    pub(super) capability: Capability,
}

impl Files {
    pub(super) async fn upload(&self, credentials: &Credentials, file: InputFile) -> Result<String, ProviderError> {
        let boundary = format!("nightbus-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let upload = self.capability.upload;
        let form = upload_form(file, upload, self.capability.file_expiry_seconds, &boundary);
        let content = Content { length: form.length, content_type: form.content_type, body: form.body };
        let body = self.exchange.post_content(UPLOAD, upload.path, credentials, content).await?;
        parse_file(&body).map(|file| file.id).map_err(|error| unreadable(UPLOAD, &error))
    }

    /// Waits until a batch can be made of the file, where the provider looks at files first ([`Capability::files_settle`]).
    /// An error means that nothing was created.
    pub(super) async fn settle(&self, credentials: &Credentials, file: &str) -> Result<(), ProviderError> {
        if !self.capability.files_settle {
            return Ok(());
        }
        match self.until_usable(credentials, file).await {
            // The creation tells what it means that the file is not there.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.may_have_taken_effect() => {
                let cause = error.to_string();
                Err(ProviderError::NoAnswer { operation: FILE, cause, may_have_taken_effect: false })
            }
            settled => settled,
        }
    }

    async fn until_usable(&self, credentials: &Credentials, file: &str) -> Result<(), ProviderError> {
        let [mut pause, longest] = LOOK_AGAIN;
        let until = Instant::now() + SETTLING;
        loop {
            let path = format!("/files/{file}");
            let body = self.exchange.call_json(FILE, Method::GET, &path, credentials, None).await?;
            match parse_file(&body).map_err(|error| unreadable(FILE, &error))?.status {
                FileStatus::Usable => return Ok(()),
                FileStatus::Refused => {
                    let (status, code, retry_after) = (400, "file_error".to_owned(), None);
                    let message = "the provider cannot use the input file".to_owned();
                    return Err(ProviderError::Refused { operation: FILE, status, code, message, body, retry_after });
                }
                FileStatus::Pending if Instant::now() >= until => {
                    let cause = "the provider has not finished looking at the input file".to_owned();
                    return Err(ProviderError::NoAnswer { operation: FILE, cause, may_have_taken_effect: false });
                }
                FileStatus::Pending => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(longest);
        }
    }

    pub(super) async fn download(&self, credentials: &Credentials, file: &str) -> Result<Body, ProviderError> {
        self.exchange.open(&content_of(file), credentials).await.map(|(_, body)| body)
    }

    /// What a running batch has written after its first `lines` lines.
    pub(super) async fn download_from(
        &self,
        credentials: &Credentials,
        file: &str,
        lines: u64,
    ) -> Result<PartialResults, ProviderError> {
        let path = format!("{}?offset={lines}", content_of(file));
        let (headers, body) = self.exchange.open(&path, credentials).await?;
        let text = |headers: &HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
        let lines = text(&headers, LAST_LINE).unwrap_or(lines);
        let ends = headers.get(INCOMPLETE).is_some_and(|value| value == "false");
        Ok(PartialResults { body, lines, ends })
    }

    pub(super) async fn delete(&self, credentials: &Credentials, file: &str) -> Result<(), ProviderError> {
        let path = format!("/files/{file}");
        match self.exchange.call_json("delete file", Method::DELETE, &path, credentials, None).await {
            Ok(_deleted) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The look at an input file, as it stands in errors.
const FILE: &str = "look at file";

fn content_of(file: &str) -> String {
    format!("/files/{file}/content")
}
