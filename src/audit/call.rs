//! One logged call in one form for all formats, and what can be wrong with a record.

use crate::domain::money::Money;
use crate::domain::service::Service;
use crate::domain::usage::Usage;

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Format {
    OpenAi,
    LiteLlm,
    Langfuse,
    Helicone,
    OpenRouter,
    AccessLog,
}

impl Format {
    /// The name in reports.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI JSON",
            Self::LiteLlm => "LiteLLM spend log",
            Self::Langfuse => "Langfuse export",
            Self::Helicone => "Helicone export",
            Self::OpenRouter => "OpenRouter activity",
            Self::AccessLog => "access log",
        }
    }
}

/// What a record says about one call, or, for aggregated logs, about several equal ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) format: Format,
    /// Unix seconds.
    pub(super) at: Option<i64>,
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) usage: Option<Usage>,
    /// What the log says it cost.
    pub(super) cost: Option<Money>,
    /// How many calls the record stands for.
    pub(super) count: u64,
    /// A tag, job or application the log names.
    pub(super) tag: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) stream: Option<bool>,
    /// What the call shares with others made from the same template.
    pub(super) template: Option<u64>,
    /// Refused or broken: nothing was billed as far as the log says.
    pub(super) failed: bool,
    /// By which service it was served; none: by one whose prices are not known (priority and the like).
    pub(super) service: Option<Service>,
    /// Parts of the usage contradict each other.
    pub(super) inconsistent: bool,
}

impl Call {
    /// A live call of which nothing is known yet.
    pub(super) const fn new(format: Format) -> Self {
        Self {
            format,
            at: None,
            model: None,
            provider: None,
            usage: None,
            cost: None,
            count: 1,
            tag: None,
            agent: None,
            stream: None,
            template: None,
            failed: false,
            service: Some(Service::Sync),
            inconsistent: false,
        }
    }
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Reading {
    Call(Box<Call>),
    /// Not a call, or not readable.
    Skip(Problem),
    /// A wrapper such as `{"data":[…]}` around several.
    Many(Vec<Self>),
    /// Blank, or a header.
    Nothing,
}

/// Why a record or a part of it is not in the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Problem {
    Archive,
    Binary,
    BrokenFile,
    TooLong,
    NotJson,
    NotUtf8,
    Unrecognised,
    NotACall,
    Failed,
    NoUsage,
    Inconsistent,
    NoTime,
    NoModel,
    NoPrice,
    NoBatchPrice,
    OtherTier,
    CountsOnly,
    TooManyGroups,
    TooManyHours,
}

impl Problem {
    /// The name for programs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Binary => "binary",
            Self::BrokenFile => "broken_file",
            Self::TooLong => "too_long",
            Self::NotJson => "not_json",
            Self::NotUtf8 => "not_utf8",
            Self::Unrecognised => "unrecognised",
            Self::NotACall => "not_a_call",
            Self::Failed => "failed_call",
            Self::NoUsage => "no_usage",
            Self::Inconsistent => "inconsistent_usage",
            Self::NoTime => "no_time",
            Self::NoModel => "no_model",
            Self::NoPrice => "no_price",
            Self::NoBatchPrice => "no_batch_price",
            Self::OtherTier => "other_tier",
            Self::CountsOnly => "counts_only",
            Self::TooManyGroups => "too_many_groups",
            Self::TooManyHours => "too_many_hours",
        }
    }

    /// What it means for the report.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Archive => "an archive of several files: unpack it and name the files in it",
            Self::Binary => "not text: nothing of this file was read",
            Self::BrokenFile => "the file breaks off or is damaged: read up to there",
            Self::TooLong => "a record of more than 64 MiB: left out",
            Self::NotJson => "neither JSON nor a line of an access log: left out",
            Self::NotUtf8 => "bytes that are not UTF-8 where a name was expected: replaced by signs of replacement",
            Self::Unrecognised => "JSON or a row of no format that is known: left out",
            Self::NotACall => "a record of something else than a model call (a span, a health check): left out",
            Self::Failed => "a call that failed: counted, costs nothing",
            Self::NoUsage => "the log does not say how many tokens: counted, its price is unknown",
            Self::Inconsistent => {
                "token counts that contradict each other: prices rest on the single counts, if they can"
            }
            Self::NoTime => "no time that can be read: in the totals, not in hours and days",
            Self::NoModel => "no model: counted, its price is unknown",
            Self::NoPrice => {
                "a model without a listed price, or tokens whose price depends on more: counted, its price is unknown"
            }
            Self::NoBatchPrice => {
                "no batch price (a model that is not listed with one, or no tokens): in the spend, not in the savings"
            }
            Self::OtherTier => "a service tier without a listed price: counted, its price is unknown",
            Self::CountsOnly => "an access log has neither model nor tokens: calls are counted, no money",
            Self::TooManyGroups => "more than 2,000 groups: the later ones are one group, \"(others)\"",
            Self::TooManyHours => "more than 200,000 hours and models: the later ones are in the totals only",
        }
    }

    /// Whether the record is in no sum at all.
    pub(super) const fn is_unread(self) -> bool {
        matches!(
            self,
            Self::Archive | Self::Binary | Self::BrokenFile | Self::TooLong | Self::NotJson | Self::Unrecognised
        )
    }
}
