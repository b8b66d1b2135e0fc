//! Whether a call is deferred: the first mark of contract section 3 that applies decides.

use crate::config::{Config, DeferralMode, DeferralRule};
use crate::intake::marks::Marks;
use crate::wire::peek::{may_have_batch_suffix, without_batch_suffix};

/// What is known of a call when its mark is looked for.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) marks: &'a Marks,
    /// The path began with `/batch`.
    pub(crate) batch_prefix: bool,
    /// The path as the client sent it.
    pub(crate) path: &'a str,
    pub(crate) user_agent: &'a str,
    /// Name of the client key.
    pub(crate) key: Option<&'a str>,
    /// The body, where the endpoint can be deferred at all.
    pub(crate) body: Option<&'a [u8]>,
}

/// What the marks say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Live.
    Live,
    /// Deferred.
    Defer,
}

/// Decides. `true` in the second place: the model's `:batch` suffix has to be removed.
pub(crate) fn classify(config: &Config, call: &Call<'_>) -> (Mark, bool) {
    let model = model_if_needed(config, call);
    let suffix = model.as_deref().is_some_and(|model| without_batch_suffix(model).is_some());
    let decision = call
        .marks
        .defer
        .or_else(|| call.batch_prefix.then_some(true))
        .or_else(|| suffix.then_some(true))
        .or_else(|| by_rule(config, call, model.as_deref().unwrap_or_default()))
        .unwrap_or(config.deferral.default);
    (if decision { Mark::Defer } else { Mark::Live }, suffix)
}

/// Whether the configuration could mark a call whose model is not known. Headers and prefix are not asked here.
pub(crate) fn may_be_marked_by_configuration(config: &Config, call: &Call<'_>) -> bool {
    for rule in config.deferral.rules.iter().filter(|rule| matches_but_for_model(rule, call)) {
        if rule.defer || rule.model.is_none() {
            return rule.defer;
        }
    }
    config.deferral.default
}

/// Whether calls that would be deferred are noted.
pub(crate) fn observes(config: &Config) -> bool {
    config.deferral.mode == DeferralMode::Observe
}

/// Whether a marked call is deferred at all.
pub(crate) fn is_on(config: &Config) -> bool {
    config.deferral.mode == DeferralMode::On
}

fn by_rule(config: &Config, call: &Call<'_>, model: &str) -> Option<bool> {
    let rule = config.deferral.rules.iter().find(|rule| {
        rule.model.as_ref().is_none_or(|glob| glob.is_match(model)) && matches_but_for_model(rule, call)
    })?;
    Some(rule.defer)
}

fn matches_but_for_model(rule: &DeferralRule, call: &Call<'_>) -> bool {
    rule.path.as_ref().is_none_or(|glob| glob.is_match(call.path))
        && rule.user_agent.as_ref().is_none_or(|glob| glob.is_match(call.user_agent))
        && rule.tag.as_ref().is_none_or(|tag| call.marks.tag.as_ref() == Some(tag))
        && rule.key.as_ref().is_none_or(|key| call.key == Some(key.as_str()))
}

/// The model is read only where it can decide: most live calls are never parsed.
fn model_if_needed(config: &Config, call: &Call<'_>) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Model {
        #[serde(default)]
        model: Option<String>,
    }
    let body = call.body?;
    let by_rule = config.deferral.rules.iter().any(|rule| rule.model.is_some());
    if !by_rule && !may_have_batch_suffix(body) {
        return None;
    }
    serde_json::from_slice::<Model>(body).ok()?.model
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        std::fs::write(&path, extra).unwrap();
        crate::config::load(Some(&path), std::iter::empty(), &crate::config::Overrides::default()).unwrap()
    }

    fn mark(config: &Config, defer: Option<bool>, batch_prefix: bool, model: &str) -> (Mark, bool) {
        let marks = Marks { defer, tag: Some("nightly".to_owned()), ..Marks::default() };
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        classify(
            config,
            &Call {
                marks: &marks,
                batch_prefix,
                path: "/v1/chat/completions",
                user_agent: "eval-runner/1",
                key: Some("ci"),
                body: Some(body.as_bytes()),
            },
        )
    }

    #[test]
    fn first_mark_decides() {
        let plain = config("");
        assert_eq!(mark(&plain, None, false, "m"), (Mark::Live, false));
        assert_eq!(mark(&plain, None, false, "m:batch"), (Mark::Defer, true));
        assert_eq!(mark(&plain, None, true, "m"), (Mark::Defer, false));
        assert_eq!(mark(&plain, Some(true), false, "m"), (Mark::Defer, false));
        assert_eq!(mark(&plain, Some(false), true, "m:batch"), (Mark::Live, true));
        assert_eq!(mark(&config("[deferral]\ndefault = true"), None, false, "m"), (Mark::Defer, false));
    }

    #[test]
    fn rules_need_all_their_conditions_and_the_first_match_wins() {
        let rules = config(
            "[deferral]\ndefault = true\n\
             [[deferral.rules]]\nmodel = \"gpt-*\"\nuser_agent = \"other*\"\ndefer = true\n\
             [[deferral.rules]]\nmodel = \"gpt-*\"\ntag = \"nightly\"\nuser_agent = \"eval-*\"\npath = \"/v1/chat/*\"\ndefer = false\n",
        );
        assert_eq!(mark(&rules, None, false, "gpt-6-luna").0, Mark::Live);
        assert_eq!(mark(&rules, None, false, "o3").0, Mark::Defer);
    }
}
