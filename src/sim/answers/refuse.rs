//! What the provider's worker refuses: a body that is complete, but wrong.
//!
//! Such a call gets its error when it is run: live at once, in a batch as the response of its line.

use serde_json::value::RawValue;

use crate::sim::answers::{Call, Endpoint};
use crate::sim::peek::{is_null, members};
use crate::sim::reply::ApiFailure;

const ROLES: [&str; 6] = ["\"assistant\"", "\"developer\"", "\"function\"", "\"system\"", "\"tool\"", "\"user\""];

impl Call<'_> {
    /// Why the call is refused, if it is.
    pub(in crate::sim) fn refusal(&self) -> Option<ApiFailure> {
        self.unknown_model()
            .or_else(|| self.wrong_content())
            .or_else(|| self.wrong_parameter())
            .or_else(|| self.asked_for())
    }

    /// Models that do not exist: `missing-…`, and a name that still has a proxy's suffix.
    fn unknown_model(&self) -> Option<ApiFailure> {
        let is_unknown = self.model.starts_with("missing-") || self.model.ends_with(":batch");
        let message = || format!("The model `{}` does not exist or you do not have access to it.", self.model);
        is_unknown.then(|| ApiFailure::invalid(404, "model_not_found", Some("model"), message()))
    }

    fn wrong_content(&self) -> Option<ApiFailure> {
        let name = self.endpoint.content_name();
        let content = self.content.get();
        let items: Option<Vec<&RawValue>> = serde_json::from_str(content).ok();
        match (self.endpoint, &items) {
            (_, Some(items)) if items.is_empty() => {
                let message = format!("Invalid '{name}': empty array. Expected an array with minimum length 1.");
                Some(ApiFailure::invalid(400, "empty_array", Some(name), message))
            }
            (Endpoint::Chat, Some(messages)) => wrong_message(messages),
            (Endpoint::Chat, None) => Some(wrong_type(name, "an array of objects")),
            (Endpoint::Embeddings, None) if content == "\"\"" => {
                let message = format!("Invalid '{name}': input cannot be an empty string.");
                Some(ApiFailure::invalid(400, "invalid_value", Some(name), message))
            }
            (_, None) if !content.starts_with('"') => Some(wrong_type(name, "a string or an array")),
            _ => None,
        }
    }

    fn wrong_parameter(&self) -> Option<ApiFailure> {
        let out_of_range = |param: &str, range: &str| {
            let message = format!("Invalid value for '{param}': must be {range}.");
            Some(ApiFailure::invalid(400, "invalid_value", Some(param), message))
        };
        for (param, raw) in [("stream", self.stream), ("background", self.background)] {
            if raw.is_some_and(|raw| !matches!(raw.get(), "true" | "false")) {
                return Some(wrong_type(param, "a boolean"));
            }
        }
        if self.stream_options.is_some() && !self.wants_stream() {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Some(ApiFailure::invalid(400, None, Some("stream_options"), message));
        }
        if self.n.is_some() && !(1..=128).contains(&self.choices()) {
            return out_of_range("n", "an integer between 1 and 128");
        }
        let temperature = self.temperature.map(|raw| raw.get().parse::<f64>());
        if temperature.is_some_and(|parsed| parsed.map_or(true, |number| !(0.0..=2.0).contains(&number))) {
            return out_of_range("temperature", "a number between 0 and 2");
        }
        None
    }

    /// The error that the words of the request ask for.
    fn asked_for(&self) -> Option<ApiFailure> {
        let asked = self.asked();
        let words = memchr::memmem::find_iter(asked.as_bytes(), b"fail-").filter_map(|at| asked.get(at..at + 8));
        for word in words {
            match word {
                "fail-400" => {
                    let message = "This model's maximum context length is 128000 tokens. \
                                   Please reduce the length of the messages.";
                    let param = self.endpoint.content_name();
                    return Some(ApiFailure::invalid(400, "context_length_exceeded", Some(param), message));
                }
                "fail-429" => return Some(ApiFailure::rate_limit(1)),
                "fail-500" => return Some(ApiFailure::server()),
                _ => {}
            }
        }
        None
    }
}

/// What is wrong with the first wrong message.
fn wrong_message(messages: &[&RawValue]) -> Option<ApiFailure> {
    for (at, message) in messages.iter().enumerate() {
        let Ok([role, content]) = members(message.get(), &["role", "content"]) else {
            return Some(wrong_type(&format!("messages[{at}]"), "an object"));
        };
        let param = format!("messages[{at}].role");
        match role.map(RawValue::get) {
            None => return Some(missing(&param)),
            Some("\"system\"" | "\"developer\"" | "\"user\"") if is_null(content) => {
                return Some(missing(&format!("messages[{at}].content")));
            }
            Some(role) if ROLES.contains(&role) => {}
            Some(role) => {
                let message = format!("Invalid value for '{param}': {role}.");
                return Some(ApiFailure::invalid(400, "invalid_value", Some(&param), message));
            }
        }
    }
    None
}

fn wrong_type(param: &str, expected: &str) -> ApiFailure {
    let message = format!("Invalid type for '{param}': expected {expected}.");
    ApiFailure::invalid(400, "invalid_type", Some(param), message)
}

fn missing(param: &str) -> ApiFailure {
    let message = format!("Missing required parameter: '{param}'.");
    ApiFailure::invalid(400, "missing_required_parameter", Some(param), message)
}
