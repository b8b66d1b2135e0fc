//! The result: everything in dollars and counts, ready to be printed, serialised or drawn.
//!
//! Projections: a day is the sum divided by the days between the first and the last call, at least one; a month has 30
//! days, a year 365. Unknown amounts are null, never zero.

use serde::Serialize;

use super::call::{Format, Problem};
use super::tally::{Group, Sum, Tally};
use super::verdict::{self, Tolerance};
use crate::domain::pricing::PriceTable;
use crate::domain::roi::{DAYS_PER_MONTH, DAYS_PER_YEAR};

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `nightbus.audit`
    pub object: &'static str,
    /// The day of the price list.
    pub prices_as_of: String,
    /// In the order they were read.
    pub files: Vec<FileReport>,
    /// Sums over everything.
    pub totals: Totals,
    /// None when no record has a time.
    pub period: Option<Period>,
    /// By spend, then calls.
    pub models: Vec<ModelReport>,
    /// Spend by hour and model, in order.
    pub hours: Vec<Bucket>,
    /// By spend, then calls.
    pub groups: Vec<GroupReport>,
    /// What deferring the groups that could wait would save.
    pub savings: Savings,
    /// What is not in the sums, and why.
    pub problems: Vec<ProblemReport>,
    /// Models without a listed price, with their calls.
    pub unpriced_models: Vec<(String, u64)>,
    /// How `could wait` is decided.
    pub heuristics: Vec<&'static str>,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// As given.
    pub name: String,
    /// Lines, rows or objects.
    pub records: u64,
    /// Calls found in it.
    pub calls: u64,
    /// Records that could not be read.
    pub unread: u64,
    /// Records by format.
    pub formats: Vec<(&'static str, u64)>,
}

/// Sums over everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Records of all files.
    pub records: u64,
    /// Calls, failed ones included.
    pub calls: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls whose price is known.
    pub priced: u64,
    /// Records that could not be read.
    pub unread: u64,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// … of which from the prompt cache.
    pub cached_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// What the priced calls cost; null when no price is known.
    pub spend_usd: Option<f64>,
    /// … of which served by batch or flex already.
    pub already_discounted_usd: f64,
}

/// The time the logs cover.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Period {
    /// Unix seconds of the first call.
    pub first: i64,
    /// … and the last.
    pub last: i64,
    /// Days that sums are divided by: at least one.
    pub days: f64,
}

/// One model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// As logged; null when the log does not say.
    pub model: Option<String>,
    /// Its calls.
    pub calls: u64,
    /// … whose price is known.
    pub priced: u64,
    /// What these cost.
    pub spend_usd: Option<f64>,
    /// What all of them would have cost less in batches; null where no batch price is known.
    pub batch_would_save_usd: Option<f64>,
    /// Tokens of the prompts.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
}

/// One model in one hour.
#[derive(Clone, Debug, Serialize)]
pub struct Bucket {
    /// Unix seconds of its beginning.
    pub hour: i64,
    /// The model; null when the log does not say.
    pub model: Option<String>,
    /// Calls.
    pub calls: u64,
    /// What they cost, as far as known.
    pub spend_usd: f64,
}

/// Calls with one label and model.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// `tag`, `user agent`, `template`; null when the log names nothing.
    pub kind: Option<&'static str>,
    /// The label.
    pub label: String,
    /// The model.
    pub model: Option<String>,
    /// Its calls.
    pub calls: u64,
    /// What they cost; null when no price is known.
    pub spend_usd: Option<f64>,
    /// … per day.
    pub spend_usd_per_day: Option<f64>,
    /// What batches would have saved; null where no batch price is known.
    pub would_save_usd: Option<f64>,
    /// The first golden rule: may it take 30 minutes?
    pub could_wait: Tolerance,
    /// Sum of the points of its signs.
    pub points: i32,
    /// What spoke for or against it.
    pub signs: Vec<String>,
    /// The second golden rule: more than 10 USD a day? Null when that is not known.
    pub worth_it: Option<bool>,
    /// What follows from both.
    pub verdict: &'static str,
}

/// What could be saved.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Savings {
    /// Spend by whether it could wait; live calls only.
    pub could_wait_usd: f64,
    /// One point.
    pub perhaps_usd: f64,
    /// No point.
    pub no_sign_usd: f64,
    /// Somebody waits.
    pub somebody_waits_usd: f64,
    /// The share of the live spend that could wait, 0 to 1; null without spend.
    pub could_wait_share: Option<f64>,
    /// Saved in the time covered, if all that could wait had ridden in batches.
    pub saved_usd: f64,
    /// Per day; null when the logs have no times.
    pub per_day_usd: Option<f64>,
    /// In 30 days.
    pub per_month_usd: Option<f64>,
    /// In 365 days.
    pub per_year_usd: Option<f64>,
    /// The same with what could perhaps wait.
    pub per_year_with_perhaps_usd: Option<f64>,
}

/// One kind of problem.
#[derive(Clone, Debug, Serialize)]
pub struct ProblemReport {
    /// Its name.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// What it means for the sums.
    pub meaning: &'static str,
    /// `FILE:LINE` of the first few; the file alone when it is about the whole.
    pub samples: Vec<String>,
    /// The record is in no sum.
    pub unread: bool,
}

/// From the sums to the report.
pub(super) fn build(tally: Tally) -> Report {
    let period =
        tally.span.map(|(first, last)| Period { first, last, days: (seconds(last - first) / 86_400.0).max(1.0) });
    let days = period.map(|period| period.days);
    let covered = tally.span.map_or(0, |(first, last)| last.div_euclid(3_600) - first.div_euclid(3_600) + 1);
    let mut savings = Savings::default();
    let mut perhaps_saved = 0.0;
    let mut groups: Vec<GroupReport> = Vec::with_capacity(tally.groups.len());
    for group in &tally.groups {
        let report = group_report(group, days, covered);
        let live = usd(group.sum.spend) - usd(group.sum.already);
        let saved = usd(group.sum.saving);
        match report.could_wait {
            Tolerance::Yes => {
                (savings.could_wait_usd, savings.saved_usd) =
                    (savings.could_wait_usd + live, savings.saved_usd + saved);
            }
            Tolerance::Perhaps => {
                (savings.perhaps_usd, perhaps_saved) = (savings.perhaps_usd + live, perhaps_saved + saved);
            }
            Tolerance::NoSign => savings.no_sign_usd += live,
            Tolerance::No => savings.somebody_waits_usd += live,
        }
        groups.push(report);
    }
    finish(&mut savings, perhaps_saved, days);
    groups.sort_by(|one, other| order((other.spend_usd, other.calls), (one.spend_usd, one.calls)));
    Report {
        object: "nightbus.audit",
        prices_as_of: PriceTable::builtin().as_of().to_owned(),
        totals: totals(&tally),
        period,
        models: models(&tally),
        hours: hours(&tally),
        groups,
        savings,
        problems: problems(&tally),
        files: tally.files.into_iter().map(file).collect(),
        unpriced_models: tally.unpriced.into_iter().collect(),
        heuristics: verdict::HEURISTICS.to_vec(),
    }
}

fn finish(savings: &mut Savings, perhaps_saved: f64, days: Option<f64>) {
    let live = savings.could_wait_usd + savings.perhaps_usd + savings.no_sign_usd + savings.somebody_waits_usd;
    savings.could_wait_share = (live > 0.0).then(|| savings.could_wait_usd / live);
    savings.per_day_usd = days.map(|days| savings.saved_usd / days);
    savings.per_month_usd = savings.per_day_usd.map(|day| day * whole(DAYS_PER_MONTH));
    savings.per_year_usd = savings.per_day_usd.map(|day| day * whole(DAYS_PER_YEAR));
    let with = |days| (savings.saved_usd + perhaps_saved) / days * whole(DAYS_PER_YEAR);
    savings.per_year_with_perhaps_usd = days.map(with);
}

fn group_report(group: &Group, days: Option<f64>, covered_hours: i64) -> GroupReport {
    let signs = verdict::signs(group, covered_hours);
    let could_wait = verdict::tolerance(&signs);
    let spend = known(group.sum.priced, group.sum.spend);
    let per_day = spend.zip(days).map(|(spend, days)| spend / days);
    let mostly_already = group.sum.already_calls * 2 > group.sum.calls;
    GroupReport {
        kind: Some(group.key.kind).filter(|kind| !kind.is_empty()),
        label: group.key.label.clone(),
        model: name(&group.key.model),
        calls: group.sum.calls,
        spend_usd: spend,
        spend_usd_per_day: per_day,
        would_save_usd: known(group.sum.comparable, group.sum.saving),
        could_wait,
        points: signs.iter().map(|sign| sign.points).sum(),
        signs: signs.into_iter().map(|sign| format!("{:+} {}", sign.points, sign.text)).collect(),
        worth_it: per_day.map(|usd| usd > verdict::WORTH_USD_PER_DAY),
        verdict: verdict::verdict(could_wait, per_day, mostly_already),
    }
}

fn totals(tally: &Tally) -> Totals {
    let sum = &tally.total;
    Totals {
        records: tally.files.iter().map(|file| file.records).sum(),
        calls: sum.calls,
        failed: tally.failed,
        priced: sum.priced,
        unread: tally.files.iter().map(|file| file.unread).sum(),
        input_tokens: sum.usage.input,
        cached_tokens: sum.usage.cached,
        output_tokens: sum.usage.output,
        spend_usd: known(sum.priced, sum.spend),
        already_discounted_usd: usd(sum.already),
    }
}

fn models(tally: &Tally) -> Vec<ModelReport> {
    let report = |(model, sum): (&String, &Sum)| ModelReport {
        model: name(model),
        calls: sum.calls,
        priced: sum.priced,
        spend_usd: known(sum.priced, sum.spend),
        batch_would_save_usd: known(sum.comparable, sum.saving),
        input_tokens: sum.usage.input,
        output_tokens: sum.usage.output,
    };
    let mut models: Vec<ModelReport> = tally.models.iter().map(report).collect();
    models.sort_by(|one, other| order((other.spend_usd, other.calls), (one.spend_usd, one.calls)));
    models
}

fn hours(tally: &Tally) -> Vec<Bucket> {
    let bucket = |((hour, model), sum): (&(i64, String), &Sum)| Bucket {
        hour: hour * 3_600,
        model: name(model),
        calls: sum.calls,
        spend_usd: usd(sum.spend),
    };
    tally.hours.iter().map(bucket).collect()
}

fn problems(tally: &Tally) -> Vec<ProblemReport> {
    let place = |(file, line): &(usize, u64)| {
        let name = tally.files.get(*file).map_or("", |file| file.name.as_str());
        if *line == 0 { name.to_owned() } else { format!("{name}:{line}") }
    };
    let report = |(problem, found): (&Problem, &super::tally::ProblemTally)| ProblemReport {
        kind: problem.as_str(),
        count: found.count,
        meaning: problem.meaning(),
        samples: found.samples.iter().map(place).collect(),
        unread: problem.is_unread(),
    };
    tally.problems.iter().map(report).collect()
}

fn file(file: super::tally::FileTally) -> FileReport {
    FileReport {
        name: file.name,
        records: file.records,
        calls: file.calls,
        unread: file.unread,
        formats: file.formats.into_iter().map(|(format, count): (Format, u64)| (format.as_str(), count)).collect(),
    }
}

/// An amount that rests on at least one price.
fn known(priced: u64, amount: crate::domain::money::Money) -> Option<f64> {
    (priced > 0).then(|| usd(amount))
}

fn usd(amount: crate::domain::money::Money) -> f64 {
    amount.as_usd_f64()
}

fn name(model: &str) -> Option<String> {
    Some(model).filter(|model| !model.is_empty()).map(ToOwned::to_owned)
}

fn order(one: (Option<f64>, u64), other: (Option<f64>, u64)) -> std::cmp::Ordering {
    one.0.unwrap_or(0.0).total_cmp(&other.0.unwrap_or(0.0)).then(one.1.cmp(&other.1))
}

#[expect(clippy::cast_precision_loss, reason = "spans of time and days")]
fn seconds(span: i64) -> f64 {
    span as f64
}

#[expect(clippy::cast_precision_loss, reason = "spans of time and days")]
fn whole(days: u64) -> f64 {
    days as f64
}
