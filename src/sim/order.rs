//! The body of `POST /batches` (providers.md, section 1.3): what is refused at once, with a 400.

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sim::answers::{Endpoint, Usage};
use crate::sim::batches::{Batch, Progress, Status};
use crate::sim::dialect::Dialect;
use crate::sim::files::LIFETIMES;
use crate::sim::reply::{ApiFailure, Failure, bad_request};
use crate::sim::state::{Account, State};
use crate::sim::{gemini, mistral, openrouter, together, xai};

/// What a create call asks for.
pub(super) struct Order {
    endpoint: Endpoint,
    input_file_id: String,
    metadata: Value,
    output_lifetime: Option<i64>,
    window: String,
    /// The model of all lines, where it is the batch's.
    job_model: Option<String>,
}

impl Order {
    /// Reads and checks the body of the call.
    pub(super) fn checked(state: &State, account: &Account, body: &[u8]) -> Result<Self, Failure> {
        let dialect = account.dialect;
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            let message = "We could not parse the JSON body of your request.";
            return Err(ApiFailure::invalid(400, None, None, message).into());
        };
        match dialect {
            Dialect::Mistral => mistral::order(&fields),
            Dialect::Together => together::order(&fields),
            Dialect::Gemini => gemini::order(&fields),
            Dialect::Xai => xai::order(&fields),
            Dialect::OpenRouter => openrouter::order(state, account, body),
            Dialect::OpenAi | Dialect::Azure | Dialect::Groq | Dialect::DashScope | Dialect::Doubleword => {
                Self::of_files_and_batches(dialect, &fields)
            }
        }
    }

    /// With what every dialect's call has.
    pub(super) fn new(dialect: Dialect, endpoint: &str, file: &str, metadata: Option<&Value>) -> Result<Self, Failure> {
        let Some(endpoint) = dialect.endpoint(endpoint).and_then(|name| Endpoint::from_path(&name)) else {
            let known = dialect.rules().endpoints.join(", ");
            let message = format!("Invalid value for 'endpoint': '{endpoint}'. Supported values are: {known}.");
            return Err(bad_request("invalid_value", "endpoint", message));
        };
        Ok(Self {
            endpoint,
            input_file_id: file.to_owned(),
            metadata: checked_metadata(metadata)?,
            output_lifetime: None,
            window: "24h".to_owned(),
            job_model: None,
        })
    }

    /// With one model for all lines.
    pub(super) fn with_model(self, model: &str) -> Self {
        Self { job_model: Some(model.to_owned()), ..self }
    }

    fn of_files_and_batches(dialect: Dialect, fields: &Map<String, Value>) -> Result<Self, Failure> {
        const KNOWN: [&str; 5] = ["input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"];
        let rules = dialect.rules();
        let is_known =
            |name: &str| KNOWN.contains(&name) && (name != "output_expires_after" || rules.lifetimes.is_some());
        if let Some(unknown) = fields.keys().find(|name| !is_known(name)) {
            return Err(bad_request("unknown_parameter", unknown, format!("Unknown parameter: '{unknown}'.")));
        }
        let file = required(fields, "input_file_id")?;
        let endpoint = required(fields, "endpoint")?;
        let window = required(fields, "completion_window")?;
        if !rules.windows.contains(&window) {
            let message = format!("Invalid value for 'completion_window'. Supported values are: {:?}.", rules.windows);
            return Err(bad_request("invalid_value", "completion_window", message));
        }
        let output_lifetime = checked_lifetime(fields.get("output_expires_after"))?;
        let order = Self::new(dialect, endpoint, file, fields.get("metadata"))?;
        Ok(Self { output_lifetime, window: window.to_owned(), ..order })
    }

    /// The batch, as it is created.
    pub(super) fn into_batch(self, state: &State, account: &Account) -> Batch {
        let progress = Progress {
            status: Status::Validating,
            model: None,
            errors: Vec::new(),
            total: 0,
            completed: 0,
            failed: 0,
            usage: Usage::default(),
            running_since: None,
            stuck: false,
            times: Vec::new(),
            output_file_id: None,
            error_file_id: None,
            hidden_reads: 0,
        };
        let file = state.files.get(state, account, &self.input_file_id);
        Batch {
            file_was_not_settled: file.is_some_and(|file| !file.is_settled(state)),
            id: state.ids.long("batch_"),
            number: state.ids.number(),
            account: account.clone(),
            endpoint: self.endpoint,
            window: self.window,
            job_model: self.job_model,
            input_file_id: self.input_file_id,
            metadata: self.metadata,
            output_lifetime: self.output_lifetime,
            created_at: state.clock.unix_now(),
            started: Instant::now(),
            progress: Mutex::new(progress),
            cancel: CancellationToken::new(),
            forget: CancellationToken::new(),
        }
    }
}

/// The text `name`, which must be there.
pub(super) fn required<'f>(fields: &'f Map<String, Value>, name: &str) -> Result<&'f str, Failure> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => {
            Err(bad_request("missing_required_parameter", name, format!("Missing required parameter: '{name}'.")))
        }
        Some(_) => Err(bad_request("invalid_type", name, format!("Invalid type for '{name}': expected a string."))),
    }
}

/// At most 16 pairs of texts, of 64 and 512 characters.
fn checked_metadata(metadata: Option<&Value>) -> Result<Value, Failure> {
    let wrong = |code, message: String| bad_request(code, "metadata", message);
    let pairs = match metadata {
        None | Some(Value::Null) => return Ok(Value::Null),
        Some(Value::Object(pairs)) => pairs,
        Some(_) => return Err(wrong("invalid_type", "Invalid type for 'metadata': expected an object.".to_owned())),
    };
    if pairs.len() > 16 {
        return Err(wrong(
            "object_above_max_properties",
            "Invalid 'metadata': too many properties. Expected at most 16.".to_owned(),
        ));
    }
    for (key, value) in pairs {
        let Value::String(value) = value else {
            return Err(wrong("invalid_type", format!("Invalid type for 'metadata.{key}': expected a string.")));
        };
        if key.chars().count() > 64 || value.chars().count() > 512 {
            return Err(wrong(
                "string_above_max_length",
                format!("Invalid 'metadata.{key}': a key may have 64 characters, a value 512."),
            ));
        }
    }
    Ok(Value::Object(pairs.clone()))
}

fn checked_lifetime(expires_after: Option<&Value>) -> Result<Option<i64>, Failure> {
    let Some(expires_after) = expires_after.filter(|value| !value.is_null()) else { return Ok(None) };
    let anchor = expires_after.get("anchor").and_then(Value::as_str);
    let seconds = expires_after.get("seconds").and_then(Value::as_i64).filter(|seconds| LIFETIMES.contains(seconds));
    if anchor != Some("created_at") || seconds.is_none() {
        let message =
            "Invalid value for 'output_expires_after': expected anchor 'created_at' and 3600 to 2592000 seconds.";
        return Err(bad_request("invalid_value", "output_expires_after", message));
    }
    Ok(seconds)
}
