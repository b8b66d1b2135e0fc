//! A request body, looked into as far as any endpoint needs.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::sim::answers::{Endpoint, embeddings, tokens};
use crate::sim::peek::{self, is_null, members};
use crate::sim::reply::ApiFailure;

/// A request body, looked into as far as answering needs. Absent and `null` members are both `None`.
#[derive(Debug)]
pub(in crate::sim) struct Call<'a> {
    pub(in crate::sim) endpoint: Endpoint,
    pub(in crate::sim) body: &'a str,
    pub(in crate::sim) model: Cow<'a, str>,
    /// Whether the body names the model; only moderations may leave it out.
    pub(in crate::sim) names_model: bool,
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
    pub(super) stream: Option<&'a RawValue>,
    pub(super) stream_options: Option<&'a RawValue>,
    pub(super) background: Option<&'a RawValue>,
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
        let names_model = model.is_some();
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
            names_model,
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

    /// `n`; 1 where it is absent, 0 where it is no number.
    pub(super) fn choices(&self) -> usize {
        self.n.map_or(1, |raw| raw.get().parse().unwrap_or(0))
    }
}

fn is_true(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| raw.get() == "true")
}
