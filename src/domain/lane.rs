//! Lanes: which requests may share one provider batch (contract, section 1).

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

/// The shape of an API: bodies, batch lines, answers, streams and errors. It follows from the endpoint; which provider
/// kind speaks it is the business of `config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI's, and that of everybody who took it over.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
}

/// An endpoint that can be deferred (contract, section 3; providers.md, section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `chat/completions`
    ChatCompletions,
    /// `responses`
    Responses,
    /// `embeddings`
    Embeddings,
    /// `completions`
    Completions,
    /// `moderations`
    Moderations,
    /// `messages` (providers.md, section 2)
    Messages,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ChatCompletions,
        Self::Responses,
        Self::Embeddings,
        Self::Completions,
        Self::Moderations,
        Self::Messages,
    ];

    /// Those of one API.
    pub fn of_api(api: Api) -> Vec<Self> {
        Self::ALL.into_iter().filter(|endpoint| endpoint.api() == api).collect()
    }

    /// The API it belongs to.
    pub const fn api(self) -> Api {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Embeddings | Self::Completions | Self::Moderations => {
                Api::OpenAi
            }
            Self::Messages => Api::Anthropic,
        }
    }

    /// As it stands in a batch line: with `/v1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Completions => "/v1/completions",
            Self::Moderations => "/v1/moderations",
            Self::Messages => "/v1/messages",
        }
    }

    /// What comes after the base URL, such as `/chat/completions`.
    pub fn relative(self) -> &'static str {
        self.as_str().strip_prefix("/v1").unwrap_or_else(|| self.as_str())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not an endpoint that can be batched"))
    }
}

/// A keyed hash that stands for a secret or a body: equal inputs, equal fingerprints; nothing can be read back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(6) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Requests with equal keys may share a provider batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// The provider's name in the configuration.
    pub provider: Arc<str>,
    /// The upstream credential with its organisation and project headers: another quota, another bill.
    pub account: Fingerprint,
    /// The endpoint: one per batch.
    pub endpoint: Endpoint,
    /// The model: one per file.
    pub model: Arc<str>,
    /// Requests whose deadlines are close share a class; 0 has no deadline.
    pub deadline_class: i64,
}

/// For people and log lines. The model is the caller's text: a line break in it would make a log line of its own.
impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.provider, self.endpoint.relative().trim_start_matches('/'))?;
        for letter in self.model.chars() {
            let breaks = letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
            f.write_char(if breaks { char::REPLACEMENT_CHARACTER } else { letter })?;
        }
        write!(f, ":{}", self.account)?;
        if self.deadline_class != 0 {
            write!(f, ":{}", self.deadline_class)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_with_line_breaks_does_not_make_log_lines_of_its_own() {
        let lane = LaneKey {
            provider: Arc::from("openai"),
            account: Fingerprint([0xab; 16]),
            endpoint: Endpoint::ChatCompletions,
            model: Arc::from("m\r\n\u{1b}[31m\u{2028}é"),
            deadline_class: 0,
        };
        assert_eq!(lane.to_string(), "openai:chat/completions:m\u{fffd}\u{fffd}\u{fffd}[31m\u{fffd}é:abababababab");
    }

    #[test]
    fn every_endpoint_is_of_one_api_and_found_by_its_path() {
        assert_eq!(Endpoint::of_api(Api::Anthropic), [Endpoint::Messages]);
        assert_eq!(Endpoint::of_api(Api::OpenAi).len(), Endpoint::ALL.len() - 1);
        for endpoint in Endpoint::ALL {
            assert_eq!(endpoint.as_str().parse(), Ok(endpoint));
        }
        assert!("/v1/files".parse::<Endpoint>().is_err());
    }
}
