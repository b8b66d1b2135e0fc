//! The providers beside OpenAI that take its bodies: what each of them takes, and shows otherwise (providers.md, section 4).
//!
//! Each lives below a path of its own (`/groq/openai/v1/…` for Groq), over the same files, batches, faults and counters;
//! none sees another's. Differences that are numbers and switches stand in [`Rules`]; objects of another shape are made in
//! `mistral`, `together`, `gemini`, `xai` and `openrouter`. Strict: what the provider's documentation does not name is refused.

use std::ops::RangeInclusive;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::sim::files::LIFETIMES;
use crate::sim::limits::Limits;
use crate::sim::{gemini, mistral, openrouter, together, xai};

/// Whose API a call is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Dialect {
    #[default]
    OpenAi,
    Azure,
    Groq,
    DashScope,
    Doubleword,
    Mistral,
    Together,
    Gemini,
    Xai,
    OpenRouter,
}

/// What a dialect takes and shows.
#[derive(Debug)]
pub(super) struct Rules {
    /// Where it begins; what follows stands below `/v1` at OpenAI.
    base: &'static str,
    /// Endpoints of batches, without `/v1`.
    pub(super) endpoints: &'static [&'static str],
    /// The same without `/v1` are taken as well.
    pub(super) bare_endpoints: bool,
    pub(super) windows: &'static [&'static str],
    pub(super) limits: Limits,
    /// What `expires_after` may ask for; none: the parameter is unknown.
    pub(super) lifetimes: Option<RangeInclusive<i64>>,
    /// Input files at a time, without and with an expiry.
    pub(super) most_files: Option<(usize, usize)>,
    pub(super) purpose: &'static str,
    /// The content type that the part with the file must have.
    pub(super) file_type: Option<&'static str>,
    /// Files are looked at first: one that is not `processed` makes no batch.
    pub(super) settles_files: bool,
    /// The key may come as `api-key`.
    api_key: bool,
    pub(super) expires: bool,
    /// One that expires has no results (section 4.2).
    pub(super) expires_without_results: bool,
    /// Results are files of their own.
    pub(super) result_files: bool,
    /// Batches can be listed where OpenAI lists them.
    pub(super) lists: bool,
    /// There is an error file, whether anything failed or not.
    pub(super) always_error_file: bool,
    /// Results can be read while the batch runs.
    pub(super) partial: bool,
    /// Lines are `custom_id` and `body` alone.
    pub(super) bare_lines: bool,
    /// One file may have several models.
    pub(super) mixed_models: bool,
}

const fn limits(max_requests: usize, max_bytes: u64) -> Limits {
    Limits { max_requests, max_bytes }
}

/// Section 1.
const OPENAI: Rules = Rules {
    base: "",
    endpoints: &["/chat/completions", "/responses", "/embeddings", "/completions", "/moderations"],
    bare_endpoints: false,
    windows: &["24h"],
    limits: limits(50_000, 200_000_000),
    lifetimes: Some(LIFETIMES),
    most_files: None,
    purpose: "batch",
    file_type: None,
    settles_files: false,
    api_key: false,
    expires: true,
    expires_without_results: false,
    lists: true,
    result_files: true,
    always_error_file: false,
    partial: false,
    bare_lines: false,
    mixed_models: false,
};

/// Section 4.1.
const AZURE: Rules = Rules {
    base: "/azure/openai/v1",
    endpoints: &["/chat/completions", "/responses"],
    bare_endpoints: true,
    limits: limits(100_000, 200_000_000),
    lifetimes: Some(1_209_600..=2_592_000),
    most_files: Some((500, 10_000)),
    file_type: Some("application/json"),
    settles_files: true,
    api_key: true,
    expires: false,
    always_error_file: true,
    ..OPENAI
};

/// The older form, with `api-version` in every call.
const AZURE_VERSIONED: &str = "/azure/openai";

/// Section 4.6; of the two documented sizes the smaller one.
const GROQ: Rules = Rules {
    base: "/groq/openai/v1",
    endpoints: &["/chat/completions"],
    windows: &["24h", "48h", "72h", "96h", "120h", "144h", "7d"],
    limits: limits(50_000, 100_000_000),
    lifetimes: None,
    ..OPENAI
};

/// Section 4.13.
const DASHSCOPE: Rules = Rules {
    base: "/dashscope/compatible-mode/v1",
    endpoints: &["/chat/completions", "/embeddings"],
    windows: &["24h", "48h", "72h", "168h", "336h"],
    limits: limits(50_000, 500_000_000),
    lifetimes: None,
    ..OPENAI
};

/// Section 4.11.
const DOUBLEWORD: Rules = Rules {
    base: "/doubleword/v1",
    endpoints: &["/chat/completions", "/responses", "/embeddings"],
    windows: &["24h", "1h"],
    lifetimes: None,
    partial: true,
    ..OPENAI
};

/// Section 4.5.
const MISTRAL: Rules = Rules {
    base: "/mistral/v1",
    endpoints: &["/chat/completions", "/embeddings", "/moderations"],
    windows: &[],
    limits: limits(1_000_000, 512_000_000),
    lifetimes: None,
    bare_lines: true,
    mixed_models: true,
    ..OPENAI
};

/// Section 4.7.
const TOGETHER: Rules = Rules {
    base: "/together/v1",
    endpoints: &["/chat/completions"],
    limits: limits(50_000, 100_000_000),
    lifetimes: None,
    purpose: "batch-api",
    ..OPENAI
};

/// Section 4.2: the compatible endpoint; the native routes beside it are in `gemini`.
const GEMINI: Rules = Rules {
    base: "/gemini/v1beta/openai",
    endpoints: &["/chat/completions"],
    limits: limits(50_000, 2_000_000_000),
    lifetimes: None,
    expires_without_results: true,
    lists: false,
    ..OPENAI
};

/// Section 4.9; no limits are documented.
const XAI: Rules = Rules {
    base: "/xai/v1",
    endpoints: &["/chat/completions"],
    lifetimes: None,
    mixed_models: true,
    result_files: false,
    ..OPENAI
};

/// Section 4.12.
const OPENROUTER: Rules = Rules {
    base: "/openrouter/api/v1",
    endpoints: &["/chat/completions", "/responses", "/embeddings"],
    limits: limits(5_000, 200_000_000),
    lifetimes: None,
    lists: false,
    bare_lines: true,
    result_files: false,
    ..OPENAI
};

/// A path in OpenAI's terms.
pub(super) struct Place {
    pub(super) dialect: Dialect,
    pub(super) path: String,
    /// An `api-version` must come with it.
    pub(super) versioned: bool,
}

impl Dialect {
    const OTHERS: [Self; 9] = [
        Self::Azure,
        Self::Groq,
        Self::DashScope,
        Self::Doubleword,
        Self::Mistral,
        Self::Together,
        Self::Gemini,
        Self::Xai,
        Self::OpenRouter,
    ];

    /// What it takes and shows.
    pub(super) const fn rules(self) -> &'static Rules {
        match self {
            Self::OpenAi => &OPENAI,
            Self::Azure => &AZURE,
            Self::Groq => &GROQ,
            Self::DashScope => &DASHSCOPE,
            Self::Doubleword => &DOUBLEWORD,
            Self::Mistral => &MISTRAL,
            Self::Together => &TOGETHER,
            Self::Gemini => &GEMINI,
            Self::Xai => &XAI,
            Self::OpenRouter => &OPENROUTER,
        }
    }

    /// Whose path it is, and the path that OpenAI has for the same.
    pub(super) fn place(path: &str) -> Place {
        let below = |base| path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        for dialect in Self::OTHERS {
            if let Some(rest) = below(dialect.rules().base) {
                return Place { dialect, path: dialect.canonical(rest), versioned: false };
            }
        }
        match below(AZURE_VERSIONED) {
            Some(rest) => Place { dialect: Self::Azure, path: format!("/v1{rest}"), versioned: true },
            None => Place { dialect: Self::OpenAi, path: path.to_owned(), versioned: false },
        }
    }

    /// `rest` of a path, where OpenAI has what it stands for. What is only OpenAI's becomes a path that nobody has.
    fn canonical(self, rest: &str) -> String {
        const NOWHERE: &str = "/v1/no-such-route";
        let moved = match self {
            Self::Mistral if rest.starts_with("/batches") => return NOWHERE.to_owned(),
            Self::Mistral => rest.strip_prefix("/batch/jobs").map(|rest| format!("/batches{rest}")),
            Self::Together if rest == "/files" => return NOWHERE.to_owned(),
            Self::Together => (rest == "/files/upload").then(|| "/files".to_owned()),
            Self::Xai if rest.ends_with("/cancel") => return NOWHERE.to_owned(),
            Self::Xai => rest.strip_suffix(":cancel").map(|rest| format!("{rest}/cancel")),
            Self::OpenRouter if rest.ends_with("/cancel") || rest.starts_with("/files") => return NOWHERE.to_owned(),
            Self::OpenRouter => rest.strip_prefix(openrouter::BY_HAND).map(|id| format!("/batches/{id}/cancel")),
            // One batch by its whole name (`batches/…`), and the creation. What is more is in `gemini`, or nowhere.
            Self::Gemini => match rest.strip_prefix("/batches/batches/") {
                Some(id) if !id.contains('/') => Some(format!("/batches/{id}")),
                None if !rest.starts_with("/files") && !rest.starts_with("/batches/") => None,
                _ => return NOWHERE.to_owned(),
            },
            Self::OpenAi | Self::Azure | Self::Groq | Self::DashScope | Self::Doubleword => None,
        };
        format!("/v1{}", moved.as_deref().unwrap_or(rest))
    }

    /// The key of a call.
    pub(super) fn key(self, headers: &HeaderMap) -> &str {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let bearer = text("authorization").split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match bearer {
            Some((_, key)) => key.trim(),
            None if self.rules().api_key => text("api-key"),
            None => "",
        }
    }

    /// The endpoint of a batch or a line, with its `/v1`, if the dialect has it.
    pub(super) fn endpoint(self, name: &str) -> Option<String> {
        let rules = self.rules();
        let bare = name.strip_prefix("/v1").or_else(|| rules.bare_endpoints.then_some(name))?;
        rules.endpoints.contains(&bare).then(|| format!("/v1{bare}"))
    }

    /// OpenAI's batch object as this one shows it.
    pub(super) fn dress(self, mut object: Value) -> Value {
        match self {
            Self::OpenAi | Self::Groq | Self::DashScope | Self::Doubleword => object,
            Self::Azure => {
                capitalise(&mut object);
                let ended = ["Completed", "Failed", "Cancelled"].iter().any(|end| *at(&object, "/status") == *end);
                if let Some(counts) = object.get_mut("request_counts").filter(|_| !ended) {
                    *counts = Value::Null;
                }
                for (name, value) in object.as_object_mut().into_iter().flatten() {
                    let text = value.as_i64().filter(|_| name.ends_with("_at")).and_then(rfc3339);
                    if name == "expires_at" {
                        *value = Value::Null;
                    } else if let Some(text) = text {
                        *value = Value::from(text);
                    }
                }
                object
            }
            Self::Mistral => mistral::job(&object),
            Self::Together => together::job(&object),
            Self::Gemini => gemini::dressed(object),
            Self::Xai => xai::job(&object),
            Self::OpenRouter => openrouter::job(&object),
        }
    }

    /// A page of batches.
    pub(super) fn list(self, batches: Vec<Value>, has_more: bool) -> Value {
        match self {
            Self::OpenAi | Self::Azure | Self::Groq | Self::DashScope | Self::Doubleword => {
                let id = |batch: Option<&Value>| batch.map_or(Value::Null, |batch| batch["id"].clone());
                let (first_id, last_id) = (id(batches.first()), id(batches.last()));
                json!({"object": "list", "first_id": first_id, "last_id": last_id, "has_more": has_more, "data": batches})
            }
            Self::Mistral => json!({"object": "list", "total": batches.len(), "data": batches}),
            Self::Together => Value::Array(batches),
            // There is no list (`Rules::lists`), or one of its own.
            Self::Gemini | Self::Xai | Self::OpenRouter => Value::Null,
        }
    }
}

/// `Validating` for `validating`, as Azure was seen to write it.
fn capitalise(object: &mut Value) {
    let status = object["status"].as_str().unwrap_or_default();
    let mut letters = status.chars();
    let text = letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str());
    object["status"] = json!(text);
}

/// A member of a member; null where there is none.
pub(super) fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// Unix seconds as text.
pub(super) fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_dialects_and_keep_their_meaning() {
        for (path, dialect, canonical) in [
            ("/v1/batches", Dialect::OpenAi, "/v1/batches"),
            ("/groq/openai/v1/files/f/content", Dialect::Groq, "/v1/files/f/content"),
            ("/azure/openai/v1/batches/b", Dialect::Azure, "/v1/batches/b"),
            ("/azure/openai/files", Dialect::Azure, "/v1/files"),
            ("/mistral/v1/batch/jobs/b/cancel", Dialect::Mistral, "/v1/batches/b/cancel"),
            ("/mistral/v1/batches", Dialect::Mistral, "/v1/no-such-route"),
            ("/together/v1/files/upload", Dialect::Together, "/v1/files"),
            ("/gemini/v1beta/openai/batches/batches/b", Dialect::Gemini, "/v1/batches/b"),
            ("/xai/v1/batches/b:cancel", Dialect::Xai, "/v1/batches/b/cancel"),
            ("/openrouter/api/v1/batches/b", Dialect::OpenRouter, "/v1/batches/b"),
            ("/openrouter/api/v1/batches/b/cancel", Dialect::OpenRouter, "/v1/no-such-route"),
            ("/openrouter/api/v1/files", Dialect::OpenRouter, "/v1/no-such-route"),
            ("/gemini/v1beta/openai/files", Dialect::Gemini, "/v1/no-such-route"),
            ("/gemini/v1beta/openai/chat/completions", Dialect::Gemini, "/v1/chat/completions"),
        ] {
            let place = Dialect::place(path);
            assert_eq!((place.dialect, place.path.as_str()), (dialect, canonical), "{path}");
            assert_eq!(place.versioned, path == "/azure/openai/files", "{path}");
        }
    }

    #[test]
    fn endpoints_are_those_that_the_dialect_has() {
        assert_eq!(Dialect::Azure.endpoint("/chat/completions").as_deref(), Some("/v1/chat/completions"));
        assert_eq!(Dialect::OpenAi.endpoint("/chat/completions"), None);
        assert_eq!(Dialect::Azure.endpoint("/v1/embeddings"), None);
        assert_eq!(Dialect::DashScope.endpoint("/v1/embeddings").as_deref(), Some("/v1/embeddings"));
    }
}
