//! The capability table: what each provider kind can do and how much of it, as data (contract, section 7). Values of
//! proxy.toml lie over it.

use std::time::Duration;

use crate::config::{BatchingConfig, ProviderConfig, ProviderKind};
use crate::domain::lane::{Api, Endpoint};
use crate::domain::service::Service;
use crate::upstream::files::Upload;
use crate::wire::line::{LineForm, frame_length};

/// What one configured provider takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Requests per batch.
    pub max_requests: u32,
    /// Bytes that the lines of one batch may have.
    pub max_bytes: u64,
    /// Sum of embedding inputs over a batch.
    pub max_embedding_inputs: u32,
    /// Enqueued prompt tokens per credential and model, if a limit is known.
    pub in_flight_tokens: Option<u64>,
    /// Batches that one credential may create within an hour, if a limit is known.
    pub batches_per_hour: Option<u32>,
    /// The lines are in the call that creates the batch: there are no files, and no metadata that could name it.
    pub inline: bool,
    /// A batch whose creation got no answer cannot be looked up: its requests wait so long, and then end with an error. None: it
    /// can be.
    pub creation_patience: Option<Duration>,
    /// Endpoints that can be batched.
    pub endpoints: Vec<Endpoint>,
    /// Endpoints whose live calls take `service_tier: "flex"`.
    pub flex_endpoints: Vec<Endpoint>,
    /// The background windows of its Responses calls, as services (section 1.12).
    pub windows: Vec<Service>,
    /// Seconds after which an uploaded file may expire, where the provider knows an expiry.
    pub file_expiry_seconds: Option<u32>,
    /// How a file is uploaded.
    pub upload: Upload,
    /// The provider looks at an uploaded file first: no batch before it has said `processed` (section 4.1).
    pub files_settle: bool,
    /// How lines are written.
    pub line_form: LineForm,
    /// How long a batch may take, as the provider writes it: `24h`.
    pub completion_window: String,
    /// Results can be read while the batch runs (section 4.11).
    pub partial_results: bool,
    /// A batch has its lines only when its file was read, and may look as if it were over before (section 4.9).
    pub lines_come_late: bool,
    /// The shortest pause between two looks at one batch.
    pub min_poll: Duration,
    /// There are no batches: so many marked calls run live at a time, and the others wait for a place.
    pub live_calls: Option<usize>,
}

/// The window that nobody refuses.
const DAY: &str = "24h";

impl Capability {
    /// Of a configured provider.
    pub fn of(provider: &ProviderConfig, batching: &BatchingConfig) -> Self {
        let kind = Self::of_kind(provider.kind);
        let live_calls = provider.max_live_calls.and_then(|most| usize::try_from(most).ok());
        let smallest = |own: Option<u64>, common: Option<u64>| match (own, common) {
            (Some(own), Some(common)) => Some(own.min(common)),
            (own, common) => own.or(common),
        };
        Self {
            max_requests: provider
                .max_requests
                .unwrap_or(kind.max_requests)
                .min(batching.max_requests.unwrap_or(u32::MAX)),
            // For the lines: what stands around them counts as well.
            max_bytes: provider
                .max_bytes
                .unwrap_or(kind.max_bytes)
                .min(batching.max_bytes.unwrap_or(u64::MAX))
                .saturating_sub(frame_length(provider.kind.api())),
            in_flight_tokens: smallest(provider.in_flight_tokens.or(kind.in_flight_tokens), batching.in_flight_tokens),
            batches_per_hour: provider.batches_per_hour.or(kind.batches_per_hour),
            endpoints: match &provider.endpoints {
                Some(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
                None if live_calls.is_some() => Endpoint::of_api(provider.kind.api()),
                None => kind.endpoints,
            },
            max_embedding_inputs: kind.max_embedding_inputs,
            flex_endpoints: kind.flex_endpoints,
            windows: match &provider.background_windows {
                Some(names) => kind.windows.into_iter().filter(|service| is_named(*service, names)).collect(),
                None => kind.windows,
            },
            file_expiry_seconds: kind.file_expiry_seconds,
            inline: kind.inline,
            creation_patience: kind.creation_patience.map(|patience| provider.creation_patience.unwrap_or(patience)),
            upload: kind.upload,
            files_settle: kind.files_settle,
            line_form: kind.line_form,
            completion_window: provider.completion_window.clone().unwrap_or(kind.completion_window),
            partial_results: kind.partial_results,
            lines_come_late: kind.lines_come_late,
            min_poll: provider.min_poll.unwrap_or(kind.min_poll),
            live_calls,
        }
    }

    /// The window in hours, for providers that want a number.
    pub fn window_hours(&self) -> u32 {
        let window = &self.completion_window;
        let number = |text: &str| text.parse().ok();
        let days = window.strip_suffix('d').and_then(number).map(|days: u32| days.saturating_mul(24));
        days.or_else(|| window.strip_suffix('h').and_then(number)).unwrap_or(24)
    }

    /// OpenAI's wire with nothing beyond what all have: no flex, no background windows, no count of batches in an hour, and an
    /// expiry of files is not known of.
    fn compatible() -> Self {
        Self {
            flex_endpoints: Vec::new(),
            windows: Vec::new(),
            file_expiry_seconds: None,
            batches_per_hour: None,
            ..Self::openai()
        }
    }

    /// providers.md, sections 1.2, 1.3, 1.8 and 1.12.
    fn openai() -> Self {
        Self {
            max_requests: 50_000,
            max_bytes: 200_000_000,
            max_embedding_inputs: 50_000,
            in_flight_tokens: None,
            batches_per_hour: Some(2_000),
            inline: false,
            creation_patience: None,
            endpoints: Endpoint::of_api(Api::OpenAi),
            flex_endpoints: vec![Endpoint::ChatCompletions, Endpoint::Responses],
            windows: vec![Service::Background8h, Service::Background2h],
            file_expiry_seconds: Some(14 * 24 * 3600),
            upload: Upload::OPENAI,
            files_settle: false,
            line_form: LineForm::OpenAi,
            completion_window: DAY.to_owned(),
            partial_results: false,
            lines_come_late: false,
            min_poll: Duration::ZERO,
            live_calls: None,
        }
    }

    fn of_kind(kind: ProviderKind) -> Self {
        match kind {
            // providers.md, section 2.5. Batches expire after 24 h and keep their results for 29 days; the queue's limit shows
            // as 429 at creation.
            ProviderKind::Anthropic => Self {
                max_requests: 100_000,
                max_bytes: 256_000_000,
                max_embedding_inputs: 0,
                inline: true,
                endpoints: Endpoint::of_api(Api::Anthropic),
                line_form: LineForm::Anthropic,
                ..Self::compatible()
            },
            // Section 4.1: files live for 14 to 30 days, and are looked at before they are taken; batches never expire, and may be
            // polled once in a minute; embeddings cannot be batched.
            ProviderKind::Azure => Self {
                max_requests: 100_000,
                endpoints: vec![Endpoint::ChatCompletions, Endpoint::Responses],
                file_expiry_seconds: Some(14 * 24 * 3600),
                upload: Upload { file_type: "application/json", ..Upload::OPENAI },
                files_settle: true,
                min_poll: Duration::from_secs(60),
                ..Self::compatible()
            },
            // Section 4.6: the smaller of the two documented sizes.
            ProviderKind::Groq => {
                Self { max_bytes: 100_000_000, endpoints: vec![Endpoint::ChatCompletions], ..Self::compatible() }
            }
            // Section 4.13.
            ProviderKind::DashScope => Self {
                max_bytes: 500_000_000,
                endpoints: vec![Endpoint::ChatCompletions, Endpoint::Embeddings],
                ..Self::compatible()
            },
            // Section 4.11.
            ProviderKind::Doubleword => Self {
                endpoints: vec![Endpoint::ChatCompletions, Endpoint::Responses, Endpoint::Embeddings],
                partial_results: true,
                ..Self::compatible()
            },
            // Section 4.5.
            ProviderKind::Mistral => Self {
                max_requests: 1_000_000,
                max_bytes: 512_000_000,
                endpoints: vec![Endpoint::ChatCompletions, Endpoint::Embeddings, Endpoint::Moderations],
                line_form: LineForm::Bare,
                ..Self::compatible()
            },
            // Section 4.7.
            ProviderKind::Together => Self {
                max_bytes: 100_000_000,
                endpoints: vec![Endpoint::ChatCompletions],
                upload: Upload { path: "/files/upload", purpose: "batch-api", names_file: true, ..Upload::OPENAI },
                ..Self::compatible()
            },
            // Section 4.2: files of 2 GB; how many lines they may have is not said.
            ProviderKind::Gemini => {
                Self { max_bytes: 2_000_000_000, endpoints: vec![Endpoint::ChatCompletions], ..Self::compatible() }
            }
            // Section 4.9: no limits are documented; OpenAI's are kept to.
            ProviderKind::Xai => {
                Self { endpoints: vec![Endpoint::ChatCompletions], lines_come_late: true, ..Self::compatible() }
            }
            // Section 4.12: no list, and nothing on a batch that could be ours.
            ProviderKind::OpenRouter => Self {
                max_requests: 5_000,
                // What stands around the lines, a model's name in it, is much shorter than the rest.
                max_bytes: 200_000_000 - 10_000,
                inline: true,
                creation_patience: Some(Duration::from_secs(3600)),
                endpoints: vec![Endpoint::ChatCompletions, Endpoint::Responses, Endpoint::Embeddings],
                line_form: LineForm::Listed,
                ..Self::compatible()
            },
            // Section 4.15: no batches.
            ProviderKind::Vllm | ProviderKind::OpenAiCompatible => Self { endpoints: Vec::new(), ..Self::compatible() },
            ProviderKind::OpenAi => Self::openai(),
        }
    }
}

fn is_named(service: Service, names: &[String]) -> bool {
    service.window().is_some_and(|(_, window)| names.iter().any(|name| name == window))
}
