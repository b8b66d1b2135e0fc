//! `POST /files`: the multipart form (providers.md, section 1.2), parts in any order.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use tokio::time::Instant;

use crate::sim::dialect::Rules;
use crate::sim::faults::Fault;
use crate::sim::files::{self, DEFAULT_LIFETIME, LIFETIMES, StoredFile};
use crate::sim::limits::MAX_FILE_BYTES;
use crate::sim::reply::{ApiFailure, Failure, Outcome, bad_request};
use crate::sim::state::{Account, State};

/// Purposes that an upload may have (the API reference's list).
const PURPOSES: [&str; 6] = ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"];
/// The largest text part.
const MAX_TEXT_PART: usize = 4_096;

/// Reads the form and stores the file.
pub(super) async fn upload(state: &State, account: &Account, headers: &HeaderMap, body: Incoming) -> Outcome {
    let form = read_form(headers, body).await?;
    let now = state.clock.unix_now();
    let (purpose, filename, content, expires_at) = form.checked(account.dialect.rules(), now)?;
    if state.faults.take(Fault::Upload500) {
        return Err(ApiFailure::server().into());
    }
    if state.faults.take(Fault::UploadTimeout) {
        std::future::pending::<()>().await;
    }
    let file = store(state, account, (filename, purpose), content, expires_at)?;
    Ok(files::object(state, &file))
}

/// Stores a file whose form is right.
pub(super) fn store(
    state: &State,
    account: &Account,
    (filename, purpose): (String, String),
    content: Bytes,
    expires_at: Option<i64>,
) -> Result<Arc<StoredFile>, Failure> {
    if !state.files.has_room(account, expires_at.is_some()) {
        return Err(ApiFailure::rate_limit(60).into());
    }
    if state.faults.take(Fault::Upload413) {
        return Err(ApiFailure::invalid(413, None, None, "The file is larger than an injected fault allows.").into());
    }
    let file = StoredFile {
        id: state.ids.long("file-"),
        account: account.clone(),
        filename,
        purpose,
        created_at: state.clock.unix_now(),
        expires_at,
        pieces: vec![content],
        uploaded: Some(Instant::now()),
        incomplete: false,
    };
    state.counters.file_uploaded(file.len());
    let file = state.files.insert(state, file);
    if state.faults.take(Fault::UploadLost) {
        return Err(Failure::Cut);
    }
    Ok(file)
}

#[derive(Default)]
struct Form {
    purpose: Option<String>,
    file: Option<(String, Bytes)>,
    file_type: Option<String>,
    is_named: bool,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl Form {
    /// Purpose, file name, content, and when it expires.
    fn checked(self, rules: &Rules, now: i64) -> Result<(String, String, Bytes, Option<i64>), Failure> {
        let missing = |name: &str| {
            bad_request("missing_required_parameter", name, format!("Missing required parameter: '{name}'."))
        };
        let purpose = self.purpose.ok_or_else(|| missing("purpose"))?;
        let (filename, content) = self.file.ok_or_else(|| missing("file"))?;
        if let Some(wanted) = rules.file_type.filter(|wanted| self.file_type.as_deref() != Some(wanted)) {
            return Err(bad_request("invalid_value", "file", format!("The file must have the content type {wanted}.")));
        }
        if self.is_named != (rules.purpose == "batch-api") {
            return Err(bad_request("unknown_parameter", "file_name", "'file_name' is missing, or unknown here."));
        }
        if !PURPOSES.contains(&purpose.as_str()) && purpose != rules.purpose {
            let message = format!("'{purpose}' is not one of {PURPOSES:?} - 'purpose'");
            return Err(bad_request("invalid_value", "purpose", message));
        }
        if purpose == "batch" && !filename.ends_with(".jsonl") {
            let message = "Invalid file format for Batch API. Must be .jsonl";
            return Err(bad_request("invalid_value", "file", message));
        }
        if rules.lifetimes.is_none() && (self.anchor.is_some() || self.seconds.is_some()) {
            return Err(bad_request("unknown_parameter", "expires_after", "Unknown parameter: 'expires_after'."));
        }
        let lifetime = match (self.anchor.as_deref(), self.seconds) {
            (None, None) => (purpose == "batch" && rules.most_files.is_none()).then_some(DEFAULT_LIFETIME),
            (Some("created_at"), Some(seconds)) => Some(checked_lifetime(rules, &seconds)?),
            (Some("created_at"), None) => return Err(missing("expires_after.seconds")),
            (None, Some(_)) => return Err(missing("expires_after.anchor")),
            (Some(_), _) => {
                let message = "Invalid value for 'expires_after.anchor': must be 'created_at'.";
                return Err(bad_request("invalid_value", "expires_after.anchor", message));
            }
        };
        Ok((purpose, filename, content, lifetime.map(|seconds| now + seconds)))
    }
}

fn checked_lifetime(rules: &Rules, seconds: &str) -> Result<i64, Failure> {
    let bounds = rules.lifetimes.clone().unwrap_or(LIFETIMES);
    seconds.parse().ok().filter(|seconds| bounds.contains(seconds)).ok_or_else(|| {
        let message = format!(
            "Invalid value for 'expires_after.seconds': must be between {} and {}.",
            bounds.start(),
            bounds.end()
        );
        bad_request("invalid_value", "expires_after.seconds", message)
    })
}

async fn read_form(headers: &HeaderMap, body: Incoming) -> Result<Form, Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(content_type)
        .map_err(|_error| malformed("the request must be multipart/form-data with a boundary"))?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut parts = multer::Multipart::new(body.into_data_stream(), boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(unreadable)? {
        let name = part.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file_name" => form.is_named = !read_text(part).await?.is_empty(),
            "file" => {
                form.file_type = part.content_type().map(ToString::to_string);
                form.file = Some(read_file(part, announced.unwrap_or(0)).await?);
            }
            "purpose" => form.purpose = Some(read_text(part).await?),
            "expires_after[anchor]" | "expires_after.anchor" => form.anchor = Some(read_text(part).await?),
            "expires_after[seconds]" | "expires_after.seconds" => form.seconds = Some(read_text(part).await?),
            _ => return Err(bad_request("unknown_parameter", &name, format!("Unknown parameter: '{name}'."))),
        }
    }
    Ok(form)
}

async fn read_file(mut part: multer::Field<'_>, announced: usize) -> Result<(String, Bytes), Failure> {
    let Some(filename) = part.file_name().filter(|name| !name.is_empty()).map(str::to_owned) else {
        return Err(bad_request("invalid_value", "file", "The part 'file' has no filename."));
    };
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
    let mut content = Vec::with_capacity(announced.min(limit));
    while let Some(chunk) = part.chunk().await.map_err(unreadable)? {
        if content.len() + chunk.len() > limit {
            return Err(ApiFailure::invalid(413, None, Some("file"), "The file is larger than 512 MB.").into());
        }
        content.extend_from_slice(&chunk);
    }
    Ok((filename, Bytes::from(content)))
}

async fn read_text(mut part: multer::Field<'_>) -> Result<String, Failure> {
    let mut text = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(unreadable)? {
        if text.len() + chunk.len() > MAX_TEXT_PART {
            return Err(malformed("a text part is too long"));
        }
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).map_err(|_error| malformed("a text part is not UTF-8"))
}

fn malformed(what: &str) -> Failure {
    ApiFailure::invalid(400, None, None, format!("Could not parse multipart form: {what}.")).into()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unreadable(error: multer::Error) -> Failure {
    if matches!(error, multer::Error::StreamReadFailed(_)) { Failure::Cut } else { malformed(&error.to_string()) }
}
