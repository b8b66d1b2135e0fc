//! The provider kinds as data: name, address, API shape, how a key is sent, and whose batch wire they speak (providers.md,
//! sections 1.1, 2 and 4). What their batches take stands in `upstream::capability`.
//!
//! A new kind with a known wire is a variant and a row here, and a row there.

use http::header::HeaderName;

use crate::domain::lane::Api;

/// Which API a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    /// OpenAI's Files and Batches.
    OpenAi,
    /// Anthropic's Message Batches.
    Anthropic,
    /// Azure OpenAI: OpenAI's wire with a key header of its own.
    Azure,
    /// Groq.
    Groq,
    /// Alibaba's DashScope in its compatible mode.
    DashScope,
    /// Doubleword.
    Doubleword,
    /// Google's Gemini through its compatible endpoint, with files of its own.
    Gemini,
    /// Mistral.
    Mistral,
    /// Together.
    Together,
    /// xAI, whose batches have no status.
    Xai,
    /// OpenRouter, whose batches are inline.
    OpenRouter,
    /// vLLM: a server of one's own, without batches.
    Vllm,
    /// Anything with OpenAI's live API and no batches known of it.
    OpenAiCompatible,
}

/// Whose batch API a kind has, as far as nightbus speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchWire {
    /// OpenAI's Files and Batches.
    OpenAi,
    /// Anthropic's Message Batches.
    Anthropic,
    /// Mistral's batch jobs over OpenAI's files.
    Mistral,
    /// Together's batches over its own upload.
    Together,
    /// OpenAI's batches over Google's files.
    Gemini,
    /// xAI's batches over OpenAI's files.
    Xai,
    /// OpenRouter's batches, with lines and results inline.
    OpenRouter,
    /// None, unless `endpoints` in proxy.toml say that this server has OpenAI's: deferrable calls go live.
    None,
}

/// The header of a key that nightbus holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`
    Bearer,
    /// `x-api-key: KEY`
    XApiKey,
    /// `api-key: KEY`
    ApiKey,
}

/// One row.
struct Row {
    kind: ProviderKind,
    name: &'static str,
    base_url: Option<&'static str>,
    api: Api,
    key: KeyHeader,
    wire: BatchWire,
}

const fn row(kind: ProviderKind, name: &'static str, base_url: Option<&'static str>, wire: BatchWire) -> Row {
    Row { kind, name, base_url, api: Api::OpenAi, key: KeyHeader::Bearer, wire }
}

/// In the order in which they are documented; the first is the default.
const ROWS: [Row; 13] = [
    row(ProviderKind::OpenAi, "openai", Some("https://api.openai.com/v1"), BatchWire::OpenAi),
    Row {
        kind: ProviderKind::Anthropic,
        name: "anthropic",
        base_url: Some("https://api.anthropic.com/v1"),
        api: Api::Anthropic,
        key: KeyHeader::XApiKey,
        wire: BatchWire::Anthropic,
    },
    Row {
        kind: ProviderKind::Azure,
        name: "azure",
        base_url: None,
        api: Api::OpenAi,
        key: KeyHeader::ApiKey,
        wire: BatchWire::OpenAi,
    },
    row(ProviderKind::Groq, "groq", Some("https://api.groq.com/openai/v1"), BatchWire::OpenAi),
    row(
        ProviderKind::DashScope,
        "dashscope",
        Some("https://dashscope.aliyuncs.com/compatible-mode/v1"),
        BatchWire::OpenAi,
    ),
    row(ProviderKind::Doubleword, "doubleword", Some("https://api.doubleword.ai/v1"), BatchWire::OpenAi),
    row(
        ProviderKind::Gemini,
        "gemini",
        Some("https://generativelanguage.googleapis.com/v1beta/openai"),
        BatchWire::Gemini,
    ),
    row(ProviderKind::Mistral, "mistral", Some("https://api.mistral.ai/v1"), BatchWire::Mistral),
    row(ProviderKind::Together, "together", Some("https://api.together.ai/v1"), BatchWire::Together),
    row(ProviderKind::Xai, "xai", Some("https://api.x.ai/v1"), BatchWire::Xai),
    row(ProviderKind::OpenRouter, "openrouter", Some("https://openrouter.ai/api/v1"), BatchWire::OpenRouter),
    row(ProviderKind::Vllm, "vllm", None, BatchWire::None),
    row(ProviderKind::OpenAiCompatible, "openai-compatible", None, BatchWire::None),
];

const FIRST: &Row = &ROWS[0];

impl ProviderKind {
    /// Required by Anthropic's API on every call, and the sign of a call that is meant for it.
    pub const ANTHROPIC_VERSION: &'static str = "anthropic-version";
    /// The same, as the name of a header.
    pub const VERSION_HEADER: HeaderName = HeaderName::from_static(Self::ANTHROPIC_VERSION);
    /// Azure's header for a key (providers.md, section 3).
    pub const API_KEY: HeaderName = HeaderName::from_static("api-key");
    /// Anthropic's header for a key (providers.md, section 2.1).
    pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

    /// The names in `proxy.toml`.
    pub(super) const NAMES: &'static [&'static str] = &[
        "openai",
        "anthropic",
        "azure",
        "groq",
        "dashscope",
        "doubleword",
        "gemini",
        "mistral",
        "together",
        "xai",
        "openrouter",
        "vllm",
        "openai-compatible",
    ];

    /// All kinds, in the order in which they are documented.
    pub fn all() -> Vec<Self> {
        ROWS.iter().map(|row| row.kind).collect()
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        ROWS.iter().find(|row| row.name == name).map(|row| row.kind)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.kind == self).unwrap_or(FIRST)
    }

    /// Headers of a caller that go with its batch beside the credential, and so make a lane of their own: they select
    /// another quota and another bill (providers.md, section 1.1), or another behaviour of the API (sections 2.1, 2.6).
    pub fn lane_headers(self) -> &'static [HeaderName] {
        static OPENAI: [HeaderName; 2] =
            [HeaderName::from_static("openai-organization"), HeaderName::from_static("openai-project")];
        static ANTHROPIC: [HeaderName; 4] = [
            ProviderKind::VERSION_HEADER,
            HeaderName::from_static("anthropic-beta"),
            HeaderName::from_static("anthropic-workspace-id"),
            HeaderName::from_static("anthropic-user-profile-id"),
        ];
        match self.api() {
            Api::OpenAi => &OPENAI,
            Api::Anthropic => &ANTHROPIC,
        }
    }

    /// The shape of its API, and so of nightbus's own errors on its routes.
    pub fn api(self) -> Api {
        self.row().api
    }

    /// Its name in `proxy.toml` and in the price list.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// Where its API begins, with the `/v1`; none: there is no such place, every customer has one of their own.
    pub fn base_url(self) -> Option<&'static str> {
        self.row().base_url
    }

    /// How a key of nightbus's own is sent.
    pub fn key_header(self) -> KeyHeader {
        self.row().key
    }

    /// Whether its batches can be given another time than a day.
    pub fn has_windows(self) -> bool {
        match self {
            Self::Groq | Self::DashScope | Self::Doubleword | Self::Mistral | Self::Vllm | Self::OpenAiCompatible => {
                true
            }
            Self::OpenAi
            | Self::Anthropic
            | Self::Azure
            | Self::Gemini
            | Self::Together
            | Self::Xai
            | Self::OpenRouter => false,
        }
    }

    /// Whose batches it has.
    pub fn batch_wire(self) -> BatchWire {
        self.row().wire
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_row_and_one_name() {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names, ProviderKind::NAMES);
        for row in &ROWS {
            assert_eq!(ProviderKind::named(row.name), Some(row.kind));
            assert_eq!(ROWS.iter().filter(|other| other.kind == row.kind).count(), 1, "{}", row.name);
        }
    }
}
