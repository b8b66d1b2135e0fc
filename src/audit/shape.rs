//! The few fields of a record that any format uses, read in one pass over its bytes; all else is skipped unread.
//!
//! Lenient: a field of an unexpected type is as if it were absent, so that one odd value does not cost the record. All
//! formats share one structure, which is why a JSON object and a row of CSV (whose nested JSON is text) are read alike.
//! Nothing of prompts and answers is kept but two hashes of a prompt's beginning.

use serde::Deserialize;

pub(super) use super::lenient::{Label, Nested, Opening, Present, Scalar, Sums};

/// What a record may say. Names as the formats spell them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shape {
    // when
    pub(super) timestamp: Scalar,
    pub(super) time: Scalar,
    pub(super) ts: Scalar,
    pub(super) date: Scalar,
    pub(super) created: Scalar,
    pub(super) created_at: Scalar,
    #[serde(rename = "createdAt")]
    pub(super) created_at_camel: Scalar,
    pub(super) start_time: Scalar,
    #[serde(rename = "startTime")]
    pub(super) start_time_camel: Scalar,
    pub(super) request_created_at: Scalar,
    // which model, whose
    pub(super) model: Scalar,
    pub(super) model_group: Scalar,
    pub(super) provided_model_name: Scalar,
    #[serde(rename = "providedModelName")]
    pub(super) provided_model_name_camel: Scalar,
    pub(super) model_permaslug: Scalar,
    pub(super) request_model: Scalar,
    pub(super) response_model: Scalar,
    pub(super) provider: Scalar,
    pub(super) custom_llm_provider: Scalar,
    // tokens
    pub(super) usage: Nested<Counts>,
    pub(super) usage_details: Nested<Sums>,
    #[serde(rename = "usageDetails")]
    pub(super) usage_details_camel: Nested<Sums>,
    pub(super) prompt_tokens: Scalar,
    pub(super) completion_tokens: Scalar,
    pub(super) total_tokens: Scalar,
    pub(super) reasoning_tokens: Scalar,
    pub(super) input_tokens: Scalar,
    pub(super) output_tokens: Scalar,
    pub(super) tokens_prompt: Scalar,
    pub(super) tokens_completion: Scalar,
    pub(super) tokens_reasoning: Scalar,
    pub(super) tokens_cached: Scalar,
    pub(super) prompt_cache_read_tokens: Scalar,
    pub(super) prompt_cache_write_tokens: Scalar,
    // money
    pub(super) spend: Scalar,
    pub(super) cost: Scalar,
    #[serde(rename = "costUSD")]
    pub(super) cost_usd: Scalar,
    pub(super) cost_total: Scalar,
    pub(super) total_cost: Scalar,
    #[serde(rename = "totalCost")]
    pub(super) total_cost_camel: Scalar,
    // who, and for what
    #[serde(alias = "user-agent", alias = "User-Agent")]
    pub(super) user_agent: Scalar,
    pub(super) headers: Nested<Self>,
    pub(super) tag: Label,
    pub(super) tags: Label,
    pub(super) request_tags: Label,
    pub(super) trace_name: Label,
    #[serde(rename = "traceName")]
    pub(super) trace_name_camel: Label,
    pub(super) name: Label,
    pub(super) app_name: Label,
    pub(super) metadata: Nested<Marks>,
    pub(super) request_properties: Nested<Marks>,
    pub(super) properties: Nested<Marks>,
    // how
    pub(super) stream: Scalar,
    pub(super) streamed: Scalar,
    pub(super) service_tier: Scalar,
    pub(super) variant: Scalar,
    pub(super) status: Scalar,
    pub(super) status_code: Scalar,
    pub(super) response_status: Scalar,
    pub(super) level: Scalar,
    pub(super) cache_hit: Scalar,
    pub(super) requests: Scalar,
    pub(super) error: Present,
    // what kind of record
    pub(super) object: Scalar,
    #[serde(rename = "type")]
    pub(super) kind: Scalar,
    pub(super) call_type: Scalar,
    pub(super) custom_id: Scalar,
    pub(super) method: Scalar,
    pub(super) url: Scalar,
    pub(super) generation_id: Scalar,
    pub(super) endpoint_id: Scalar,
    pub(super) request_id: Scalar,
    pub(super) trace_id: Scalar,
    #[serde(rename = "traceId")]
    pub(super) trace_id_camel: Scalar,
    // bodies
    pub(super) messages: Opening,
    pub(super) input: Opening,
    pub(super) prompt: Opening,
    pub(super) instructions: Opening,
    pub(super) choices: Present,
    pub(super) output: Present,
    pub(super) request: Nested<Self>,
    pub(super) response: Nested<Self>,
    pub(super) body: Nested<Self>,
    pub(super) request_body: Nested<Self>,
    pub(super) response_body: Nested<Self>,
}

/// `usage` in the spelling of the OpenAI and Anthropic APIs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) prompt_tokens: Scalar,
    pub(super) input_tokens: Scalar,
    pub(super) input: Scalar,
    pub(super) completion_tokens: Scalar,
    pub(super) output_tokens: Scalar,
    pub(super) output: Scalar,
    pub(super) total_tokens: Scalar,
    pub(super) total: Scalar,
    pub(super) prompt_tokens_details: Nested<Parts>,
    pub(super) input_tokens_details: Nested<Parts>,
    pub(super) completion_tokens_details: Nested<Parts>,
    pub(super) output_tokens_details: Nested<Parts>,
    pub(super) cache_read_input_tokens: Scalar,
    pub(super) cache_creation_input_tokens: Scalar,
    /// OpenRouter puts the price in here.
    pub(super) cost: Scalar,
}

/// The parts that `usage` splits a count into.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parts {
    pub(super) cached_tokens: Scalar,
    pub(super) cache_write_tokens: Scalar,
    pub(super) reasoning_tokens: Scalar,
}

/// Members of metadata that are used as labels.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Marks {
    pub(super) tag: Label,
    pub(super) tags: Label,
    pub(super) job: Label,
    pub(super) task: Label,
    pub(super) feature: Label,
    pub(super) app: Label,
    pub(super) user_agent: Scalar,
    pub(super) requester_user_agent: Scalar,
}

impl Marks {
    /// The first label there is.
    pub(super) fn label(&self) -> Option<&str> {
        [&self.tag, &self.tags, &self.job, &self.task, &self.feature, &self.app].into_iter().find_map(Label::text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::lenient::OPENING_BYTES;

    fn shape(json: &str) -> Shape {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn odd_types_cost_only_their_own_field() {
        let odd = shape(
            r#"{"model":["x"],"created":{"a":1},"stream":"perhaps","usage":[1],"tags":{"a":1},"messages":7,
                "choices":null,"request":"no json","spend":"0.25","status":null,"unknown":[{"a":[1,{}]}]}"#,
        );
        assert_eq!((odd.model.text(), odd.created.number(), odd.stream.flag()), (None, None, None));
        assert!(odd.usage.get().is_none() && odd.request.get().is_none() && !odd.choices.0);
        assert_eq!((odd.spend.number(), odd.tags.text()), (Some(0.25), None));
        assert!(!odd.messages.present);
    }

    #[test]
    fn objects_are_read_from_their_text_too() {
        let text = shape(
            r#"{"request":"{\"model\":\"m\",\"metadata\":{\"job\":\"nightly\"}}","request_tags":"[\"a\",\"b\"]"}"#,
        );
        let request = text.request.get().unwrap();
        assert_eq!(request.model.text(), Some("m"));
        assert_eq!(request.metadata.get().unwrap().label(), Some("nightly"));
        assert_eq!(text.request_tags.text(), Some("a"));
    }

    #[test]
    fn templates_are_the_system_prompt_or_the_first_words() {
        let of = |messages: &str| shape(&format!(r#"{{"messages":{messages}}}"#)).messages.template();
        let long = "x".repeat(OPENING_BYTES);
        let system = |prompt: &str, user: &str| {
            of(&format!(r#"[{{"role":"system","content":"{prompt}"}},{{"role":"user","content":"{user}"}}]"#))
        };
        let user = |text: &str| of(&format!(r#"[{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}}]"#));
        assert_eq!(system(&format!("{long}a"), "1"), system(&format!("{long}a"), "2"));
        assert_ne!(system(&format!("{long}a"), "1"), system(&format!("{long}b"), "1"));
        assert_eq!(user(&format!("{long}a")), user(&format!("{long}b")), "the same first words");
        assert_ne!(user("a"), user("b"));
        assert_eq!(of("[]"), None);
        assert_eq!(of("\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"a\\\"}]\""), user("a"), "as text");
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        let count = |json: &str| serde_json::from_str::<Scalar>(json).unwrap().count();
        assert_eq!((count("7"), count("7.0"), count("\"7\"")), (Some(7), Some(7), Some(7)));
        for bad in ["-1", "1.5", "\"\"", "1e300", "\"NaN\"", "true", "null", "18446744073709551615"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }
}
