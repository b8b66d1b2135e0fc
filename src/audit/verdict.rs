//! Whether a group of calls could wait: signs with points, the same for everyone and printed with the report.
//!
//! A log does not say whether somebody waits for an answer. These are signs, not proof; the report says which of them
//! spoke. The article's golden rules follow: a time tolerance above 30 minutes, and more than 10 USD a day.

use serde::Serialize;

use super::tally::Group;

/// Above this a group's volume is worth the work, in USD per day.
pub(super) const WORTH_USD_PER_DAY: f64 = 10.0;

/// The rules as the report states them.
pub(super) const HEURISTICS: [&str; 8] = [
    "A log does not say whether somebody waits. Each sign below gives points; 2 or more: could wait 30 minutes (if name, hour or burst is among them, else perhaps), 1: perhaps, 0: no sign of it, below: somebody waits.",
    "Name (+2): the tag, or (+1) the user agent, has a word of background work: batch, job, cron, nightly, eval, backfill, embed, index, classif, extract, enrich, summar, report, digest, etl, pipeline, offline, label, dataset, crawl, airflow, celery, dagster, prefect, spark, scheduler.",
    "Name (-3): the tag or user agent has a word of somebody at a screen: chat, assistant, copilot, interactive, playground, autocomplete, voice, live, frontend, a web browser.",
    "Stream (-3): more than half of the calls stream their answer, so somebody reads along. (+1): the log says that none does.",
    "Hour (+1): 60 % or more of the calls came outside 7 to 20 h UTC, and the log covers at least a day.",
    "Burst (+1): half of the calls or more came in the busiest tenth of the hours covered (at least 10 hours, 20 calls).",
    "Template (+1): 80 % or more of the calls share one template (the system prompt, or the first 64 bytes), of at least 20 calls.",
    "Golden rules: time tolerance above 30 minutes (from the points), and volume above 10 USD per day (from the spend).",
];

const BACKGROUND: [&str; 26] = [
    "batch",
    "job",
    "cron",
    "nightly",
    "eval",
    "backfill",
    "embed",
    "index",
    "classif",
    "extract",
    "enrich",
    "summar",
    "report",
    "digest",
    "etl",
    "pipeline",
    "offline",
    "label",
    "dataset",
    "crawl",
    "airflow",
    "celery",
    "dagster",
    "prefect",
    "spark",
    "scheduler",
];
const INTERACTIVE: [&str; 10] = [
    "chat",
    "assistant",
    "copilot",
    "interactive",
    "playground",
    "autocomplete",
    "voice",
    "live",
    "frontend",
    "web browser",
];

/// Whether calls tolerate 30 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// Two points or more, not from stream and template alone.
    Yes,
    /// One point, or only from stream and template.
    Perhaps,
    /// Nothing speaks for it.
    NoSign,
    /// Somebody waits.
    No,
}

impl Tolerance {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "could wait",
            Self::Perhaps => "perhaps",
            Self::NoSign => "no sign",
            Self::No => "somebody waits",
        }
    }
}

/// One sign that spoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) points: i32,
    /// Background work alone shows it; a quick service of one's own may have the others, too.
    strong: bool,
    pub(super) text: String,
}

const fn strong(points: i32, text: String) -> Sign {
    Sign { points, strong: true, text }
}

const fn weak(points: i32, text: String) -> Sign {
    Sign { points, strong: false, text }
}

/// The signs that spoke.
pub(super) fn signs(group: &Group, covered_hours: i64) -> Vec<Sign> {
    [name(group), stream(group), hour(group, covered_hours), burst(group, covered_hours), template(group)]
        .into_iter()
        .flatten()
        .collect()
}

/// What the points come to.
pub(super) fn tolerance(signs: &[Sign]) -> Tolerance {
    let sure = signs.iter().any(|sign| sign.strong && sign.points > 0);
    match signs.iter().map(|sign| sign.points).sum::<i32>() {
        2.. if sure => Tolerance::Yes,
        1.. => Tolerance::Perhaps,
        0 => Tolerance::NoSign,
        _ => Tolerance::No,
    }
}

/// Both rules together. `per_day` is none when the spend or the time is not known.
pub(super) fn verdict(tolerance: Tolerance, per_day: Option<f64>, mostly_already: bool) -> &'static str {
    match (tolerance, per_day) {
        _ if mostly_already => "served at a discount already",
        (Tolerance::Yes, Some(usd)) if usd > WORTH_USD_PER_DAY => "defer now: both rules say so",
        (Tolerance::Yes, Some(_)) => "may wait, but saves little",
        (Tolerance::Yes, None) => "may wait; its spend is unknown",
        (Tolerance::Perhaps, Some(usd)) if usd > WORTH_USD_PER_DAY => "ask whether it may wait: it would pay",
        (Tolerance::Perhaps, _) => "ask whether it may wait",
        (Tolerance::NoSign, _) => "keep live unless you know better",
        (Tolerance::No, _) => "keep live",
    }
}

fn name(group: &Group) -> Option<Sign> {
    let kind = group.key.kind;
    let points = match kind {
        "tag" => 2,
        "user agent" => 1,
        _ => return None,
    };
    let label = group.key.label.to_lowercase();
    let word = |words: &[&'static str]| words.iter().copied().find(|word| label.contains(word));
    if let Some(word) = word(&INTERACTIVE) {
        return Some(strong(-3, format!("the {kind} says \"{word}\"")));
    }
    word(&BACKGROUND).map(|word| strong(points, format!("the {kind} says \"{word}\"")))
}

fn stream(group: &Group) -> Option<Sign> {
    let known = group.streamed + group.not_streamed;
    if group.streamed * 2 > known {
        return Some(strong(-3, format!("{} % of the calls stream", percent(group.streamed, known))));
    }
    let none = known > 0 && group.streamed == 0 && group.not_streamed == group.sum.calls;
    none.then(|| weak(1, "no call streams".to_owned()))
}

fn hour(group: &Group, covered_hours: i64) -> Option<Sign> {
    let all: u64 = group.by_hour_of_day.iter().sum();
    let day: u64 = group.by_hour_of_day.iter().skip(7).take(13).sum();
    let night = percent(all - day, all);
    (covered_hours >= 24 && all >= 20 && night >= 60)
        .then(|| strong(1, format!("{night} % of the calls came at night (UTC)")))
}

fn burst(group: &Group, covered_hours: i64) -> Option<Sign> {
    let mut hours: Vec<u64> = group.hours.values().copied().collect();
    let all: u64 = hours.iter().sum();
    if covered_hours < 10 || all < 20 {
        return None;
    }
    hours.sort_unstable_by(|one, other| other.cmp(one));
    let tenth = usize::try_from(covered_hours / 10).unwrap_or(1);
    let share = percent(hours.iter().take(tenth).sum(), all);
    (share >= 50).then(|| strong(1, format!("{share} % of the calls came in a tenth of the hours")))
}

fn template(group: &Group) -> Option<Sign> {
    let most = group.templates.values().copied().max()?;
    let share = percent(most, group.with_template);
    (group.with_template >= 20 && group.with_template * 2 >= group.sum.calls && share >= 80)
        .then(|| weak(1, format!("{share} % of the calls share one template")))
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tally::GroupKey;

    fn group(kind: &'static str, label: &str) -> Group {
        let mut group =
            Group { key: GroupKey { kind, label: label.to_owned(), model: "m".to_owned() }, ..Group::default() };
        group.sum.calls = 100;
        group
    }

    fn points(group: &Group) -> Vec<i32> {
        signs(group, 240).into_iter().map(|sign| sign.points).collect()
    }

    #[test]
    fn names_speak_and_people_at_screens_weigh_more() {
        assert_eq!(tolerance(&signs(&group("tag", "nightly-eval"), 240)), Tolerance::Yes);
        assert_eq!(tolerance(&signs(&group("user agent", "airflow"), 240)), Tolerance::Perhaps);
        assert_eq!(tolerance(&signs(&group("tag", "support-chat"), 240)), Tolerance::No);
        assert_eq!(points(&group("tag", "chat-eval")), [-3]);
        assert_eq!(tolerance(&signs(&group("template", "job"), 240)), Tolerance::NoSign, "a hash says nothing");
    }

    #[test]
    fn streams_are_read_by_somebody() {
        let mut streamed = group("tag", "nightly");
        (streamed.streamed, streamed.not_streamed) = (60, 40);
        assert_eq!(tolerance(&signs(&streamed, 240)), Tolerance::No);
        (streamed.streamed, streamed.not_streamed) = (0, 100);
        assert_eq!(points(&streamed), [2, 1]);
        (streamed.streamed, streamed.not_streamed) = (1, 99);
        assert_eq!(points(&streamed), [2]);
    }

    #[test]
    fn night_bursts_and_templates_give_a_point_each() {
        let mut nightly = group("", "");
        nightly.by_hour_of_day[2] = 100;
        nightly.hours = (0..10).map(|day| (day * 24 + 2, 10)).collect();
        nightly.templates = [(1, 95), (2, 5)].into();
        nightly.with_template = 100;
        assert_eq!(points(&nightly), [1, 1, 1]);
        assert_eq!(signs(&nightly, 5).len(), 1, "five hours show neither night nor burst");
        let mut even = group("", "");
        even.by_hour_of_day = [5; 24];
        even.hours = (0..240).map(|hour| (hour, 1)).collect();
        even.templates = (0..50).map(|template| (template, 2)).collect();
        even.with_template = 100;
        assert!(points(&even).is_empty());
    }

    #[test]
    fn weak_signs_alone_only_ask_the_question() {
        let mut service = group("tag", "lookup");
        service.not_streamed = 100;
        (service.templates, service.with_template) = ([(1, 100)].into(), 100);
        assert_eq!(points(&service), [1, 1]);
        assert_eq!(tolerance(&signs(&service, 240)), Tolerance::Perhaps);
    }

    #[test]
    fn the_golden_rules_need_both() {
        assert!(verdict(Tolerance::Yes, Some(10.01), false).starts_with("defer now"));
        assert!(verdict(Tolerance::Yes, Some(10.0), false).starts_with("may wait, but"));
        assert!(verdict(Tolerance::Yes, None, false).contains("unknown"));
        assert!(verdict(Tolerance::No, Some(1e6), false).starts_with("keep live"));
        assert!(verdict(Tolerance::Yes, Some(1e6), true).contains("already"));
    }
}
