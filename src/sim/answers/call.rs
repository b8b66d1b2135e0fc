//! A request body, looked into: what every endpoint reads, and what every endpoint refuses.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::sim::answers::{Endpoint, chat, embeddings, tokens};
use crate::sim::peek::{self, is_null, members};
use crate::sim::reply::ApiFailure;

/// A request body, looked into as far as answering needs. Absent and `null` members are both `None`.
#[derive(Debug)]
pub(in crate::sim) struct Call<'a> {
    pub(in crate::sim) endpoint: Endpoint,
    pub(in crate::sim) body: &'a str,
    pub(in crate::sim) model: Cow<'a, str>,
    /// `messages`, `prompt` or `input`.
    pub(super) content: &'a RawValue,
    pub(super) instructions: Option<&'a RawValue>,
    pub(super) n: Option<&'a RawValue>,
    pub(super) tools: Option<&'a RawValue>,
    pub(super) tool_choice: Option<&'a RawValue>,
    /// `response_format` (chat) or `text` (responses).
    pub(super) format: Option<&'a RawValue>,
    pub(super) encoding_format: Option<&'a RawValue>,
    pub(super) dimensions: Option<&'a RawValue>,
    pub(super) temperature: Option<&'a RawValue>,
    pub(super) metadata: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    background: Option<&'a RawValue>,
    service_tier: Option<&'a RawValue>,
}

impl<'a> Call<'a> {
    /// Looks into `body`. What is missing is refused here (in a batch: by the validation of the file); what is
    /// there but wrong is refused when the call is run.
    pub(in crate::sim) fn parse(endpoint: Endpoint, body: &'a str) -> Result<Self, ApiFailure> {
        const NAMES: [&str; 18] = [
            "model",
            "messages",
            "prompt",
            "input",
            "instructions",
            "n",
            "tools",
            "tool_choice",
            "response_format",
            "text",
            "encoding_format",
            "dimensions",
            "temperature",
            "metadata",
            "stream",
            "stream_options",
            "background",
            "service_tier",
        ];
        let found = members(body, &NAMES).map_err(|_error| {
            ApiFailure::invalid(400, None, None, "We could not parse the JSON body of your request.")
        })?;
        let [model, messages, prompt, input, instructions, n, tools, tool_choice, response_format, text, rest @ ..] =
            found.map(|member| member.filter(|raw| !is_null(Some(raw))));
        let [encoding_format, dimensions, temperature, metadata, stream, stream_options, background, service_tier] =
            rest;
        let missing = |name: &str| {
            let message = format!("Missing required parameter: '{name}'.");
            ApiFailure::invalid(400, "missing_required_parameter", Some(name), message)
        };
        let content = match endpoint {
            Endpoint::Chat => messages,
            Endpoint::Completions => prompt,
            Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Responses => input,
        };
        let model = match model {
            Some(raw) => peek::text(raw).filter(|name| !name.is_empty()).ok_or_else(|| {
                ApiFailure::invalid(400, "invalid_type", Some("model"), "Invalid type for 'model': expected a string.")
            })?,
            None if endpoint == Endpoint::Moderations => Cow::Borrowed("omni-moderation-latest"),
            None => return Err(missing("model")),
        };
        Ok(Self {
            endpoint,
            body,
            model,
            content: content.ok_or_else(|| missing(endpoint.content_name()))?,
            instructions,
            n,
            tools,
            tool_choice,
            format: if endpoint == Endpoint::Responses { text } else { response_format },
            encoding_format,
            dimensions,
            temperature,
            metadata,
            stream,
            stream_options,
            background,
            service_tier,
        })
    }

    /// Whether a stream is asked for.
    pub(in crate::sim) fn wants_stream(&self) -> bool {
        is_true(self.stream)
    }

    /// Whether `stream_options.include_usage` is set.
    pub(in crate::sim) fn wants_stream_usage(&self) -> bool {
        let options = self.stream_options.and_then(|raw| members(raw.get(), &["include_usage"]).ok());
        options.is_some_and(|[include_usage]| is_true(include_usage))
    }

    /// Whether `background: true` is set.
    pub(in crate::sim) fn is_background(&self) -> bool {
        is_true(self.background)
    }

    /// Whether `service_tier` is `flex`.
    pub(in crate::sim) fn is_flex(&self) -> bool {
        self.service_tier.is_some_and(|raw| raw.get() == "\"flex\"")
    }

    /// What the model is asked, as JSON text: here the steering words are looked for.
    pub(in crate::sim) fn asked(&self) -> &'a str {
        self.content.get()
    }

    /// Prompt tokens: a quarter of the bytes of what is asked.
    pub(in crate::sim) fn input_tokens(&self) -> u64 {
        let bytes = self.content.get().len() + self.instructions.map_or(0, |raw| raw.get().len());
        tokens(bytes)
    }

    /// How many embedding inputs the call holds.
    pub(in crate::sim) fn embedding_inputs(&self) -> usize {
        embeddings::count_inputs(self.content)
    }

    /// Why the provider's worker would refuse the call, if it would.
    pub(in crate::sim) fn refusal(&self) -> Option<ApiFailure> {
        if self.model.starts_with("missing-") {
            let message = format!("The model `{}` does not exist or you do not have access to it.", self.model);
            return Some(ApiFailure::invalid(404, "model_not_found", Some("model"), message));
        }
        if let Some(wrong) = self.wrong_type() {
            return Some(wrong);
        }
        let at = memchr::memmem::find(self.asked().as_bytes(), b"fail-")?;
        let word = self.asked().get(at..).unwrap_or_default();
        match word.get(..8)? {
            "fail-400" => {
                let message =
                    "This model's maximum context length is 128000 tokens. Please reduce the length of the messages.";
                Some(ApiFailure::invalid(400, "context_length_exceeded", Some(self.endpoint.content_name()), message))
            }
            "fail-429" => Some(ApiFailure::rate_limit(1)),
            "fail-500" => Some(ApiFailure::server()),
            _ => None,
        }
    }

    fn wrong_type(&self) -> Option<ApiFailure> {
        let name = self.endpoint.content_name();
        let wrong = |param: &str, expected: &str| {
            let message = format!("Invalid type for '{param}': expected {expected}.");
            Some(ApiFailure::invalid(400, "invalid_type", Some(param), message))
        };
        let content = self.content.get();
        let is_array = content.starts_with('[');
        let fits = match self.endpoint {
            Endpoint::Chat => is_array,
            Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Responses => {
                is_array || content.starts_with('"')
            }
        };
        if !fits {
            return wrong(
                name,
                if self.endpoint == Endpoint::Chat { "an array of objects" } else { "a string or an array" },
            );
        }
        if is_array && content.get(1..).is_some_and(|rest| rest.trim_start().starts_with(']')) {
            let message = format!("Invalid '{name}': empty array. Expected an array with minimum length 1.");
            return Some(ApiFailure::invalid(400, "empty_array", Some(name), message));
        }
        if self.endpoint == Endpoint::Chat && !chat::are_messages(self.content) {
            return wrong("messages[0]", "an object with a 'role'");
        }
        let out_of_range = |param: &str, range: &str| {
            let message = format!("Invalid value for '{param}': must be {range}.");
            Some(ApiFailure::invalid(400, "invalid_value", Some(param), message))
        };
        if self.n.is_some() && !(1..=128).contains(&self.choices()) {
            return out_of_range("n", "an integer between 1 and 128");
        }
        let temperature = self.temperature.map(|raw| raw.get().parse::<f64>());
        if temperature.is_some_and(|parsed| parsed.map_or(true, |number| !(0.0..=2.0).contains(&number))) {
            return out_of_range("temperature", "a number between 0 and 2");
        }
        if [self.stream, self.background].into_iter().flatten().any(|raw| !matches!(raw.get(), "true" | "false")) {
            return wrong("stream", "a boolean");
        }
        None
    }

    /// `n`; 1 where it is absent, 0 where it is no number.
    pub(super) fn choices(&self) -> usize {
        self.n.map_or(1, |raw| raw.get().parse().unwrap_or(0))
    }
}

fn is_true(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| raw.get() == "true")
}
