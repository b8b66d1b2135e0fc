//! Adds calls up: totals, models, hours, groups, problems. Bounded whatever the logs contain.
//!
//! Prices: what the log says was charged, else the list's price for the logged tokens; neither, and the price is unknown.
//! The saving is what the same tokens cost live minus what they cost in a batch by the list, in proportion to what was
//! charged. Written by [`super::Auditor`], read by `report`.

use std::collections::{BTreeMap, HashMap};

use super::call::{Call, Format, Problem};
use crate::domain::money::Money;
use crate::domain::pricing::{ModelPrice, PriceTable};
use crate::domain::service::Service;
use crate::domain::usage::Usage;

const MOST_GROUPS: usize = 2_000;
const MOST_HOURS: usize = 200_000;
const MOST_MODELS: usize = 5_000;
const MOST_TEMPLATES: usize = 64;
const SAMPLES: usize = 3;
const HOUR: i64 = 3_600;

/// Calls and money of something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) calls: u64,
    /// Calls whose price is known.
    pub(super) priced: u64,
    pub(super) spend: Money,
    /// Live calls whose batch price is known, too, what they cost, and what a batch would have saved.
    pub(super) comparable: u64,
    pub(super) saving: Money,
    /// What was already served at a discount (batch, flex).
    pub(super) already: Money,
    pub(super) already_calls: u64,
    pub(super) usage: Usage,
}

/// Calls that belong together: one label and model.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) sum: Sum,
    pub(super) failed: u64,
    pub(super) streamed: u64,
    pub(super) not_streamed: u64,
    pub(super) by_hour_of_day: [u64; 24],
    /// Calls in each hour since 1970.
    pub(super) hours: HashMap<i64, u64>,
    pub(super) templates: HashMap<u64, u64>,
    pub(super) with_template: u64,
    pub(super) counts_only: bool,
}

/// What makes a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    /// `tag`, `user agent`, `template`, or empty.
    pub(super) kind: &'static str,
    pub(super) label: String,
    pub(super) model: String,
}

/// One kind of problem.
#[derive(Clone, Debug, Default)]
pub(super) struct ProblemTally {
    pub(super) count: u64,
    /// File and line of the first few.
    pub(super) samples: Vec<(usize, u64)>,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileTally {
    pub(super) name: String,
    pub(super) records: u64,
    pub(super) calls: u64,
    pub(super) unread: u64,
    pub(super) formats: BTreeMap<Format, u64>,
}

/// What was charged for a call and what a batch would have saved.
#[derive(Clone, Copy, Debug, Default)]
struct Bill {
    charged: Option<Money>,
    saving: Option<Money>,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) files: Vec<FileTally>,
    pub(super) total: Sum,
    pub(super) failed: u64,
    pub(super) models: BTreeMap<String, Sum>,
    pub(super) hours: BTreeMap<(i64, String), Sum>,
    pub(super) groups: Vec<Group>,
    pub(super) problems: BTreeMap<Problem, ProblemTally>,
    pub(super) unpriced: BTreeMap<String, u64>,
    pub(super) span: Option<(i64, i64)>,
    index: HashMap<GroupKey, usize>,
    prices: HashMap<(Option<String>, String), Option<&'static ModelPrice>>,
    hours_of_groups: usize,
}

impl Tally {
    /// What follows is in this file.
    pub(super) fn begin_file(&mut self, name: &str) {
        self.files.push(FileTally { name: name.to_owned(), ..FileTally::default() });
    }

    /// One more record, whatever becomes of it.
    pub(super) fn saw_record(&mut self) {
        if let Some(file) = self.files.last_mut() {
            file.records += 1;
        }
    }

    /// Something that is not in the sums, or only in part.
    pub(super) fn problem(&mut self, problem: Problem, line: u64) {
        let file = self.files.len().saturating_sub(1);
        let tally = self.problems.entry(problem).or_default();
        tally.count += 1;
        if tally.samples.len() < SAMPLES {
            tally.samples.push((file, line));
        }
        if let Some(file) = self.files.last_mut().filter(|_| problem.is_unread()) {
            file.unread += 1;
        }
    }

    /// One call.
    pub(super) fn add(&mut self, call: &Call, line: u64) {
        if let Some(file) = self.files.last_mut() {
            file.calls += call.count;
            *file.formats.entry(call.format).or_default() += 1;
        }
        let bill = self.bill(call, line);
        let model = call.model.clone().unwrap_or_default();
        let model = if call.format == Format::AccessLog { String::new() } else { self.known_model(model) };
        self.total.add(call, bill);
        self.models.entry(model.clone()).or_default().add(call, bill);
        if call.failed {
            self.failed += call.count;
        }
        let hour = call.at.map(|at| at.div_euclid(HOUR));
        match call.at {
            None => self.problem(Problem::NoTime, line),
            Some(at) => {
                let (first, last) = self.span.unwrap_or((at, at));
                self.span = Some((first.min(at), last.max(at)));
            }
        }
        if let Some(hour) = hour {
            let key = (hour, model.clone());
            if self.hours.len() < MOST_HOURS || self.hours.contains_key(&key) {
                self.hours.entry(key).or_default().add(call, bill);
            } else {
                self.problem(Problem::TooManyHours, line);
            }
        }
        self.add_to_group(call, bill, model, line);
    }

    /// A name for every model up to a limit; files of random bytes must not fill the memory.
    fn known_model(&self, model: String) -> String {
        if self.models.len() < MOST_MODELS || self.models.contains_key(&model) { model } else { "(others)".to_owned() }
    }

    fn add_to_group(&mut self, call: &Call, bill: Bill, model: String, line: u64) {
        let (kind, label) = label(call);
        let mut key = GroupKey { kind, label, model };
        if self.groups.len() >= MOST_GROUPS && !self.index.contains_key(&key) {
            self.problem(Problem::TooManyGroups, line);
            key = GroupKey { kind: "", label: "(others)".to_owned(), model: String::new() };
        }
        let next = self.groups.len();
        let at = *self.index.entry(key.clone()).or_insert(next);
        if at == next {
            self.groups.push(Group { key, ..Group::default() });
        }
        let Some(group) = self.groups.get_mut(at) else { return };
        group.sum.add(call, bill);
        group.failed += if call.failed { call.count } else { 0 };
        group.counts_only |= call.format == Format::AccessLog;
        match call.stream {
            Some(true) => group.streamed += call.count,
            Some(false) => group.not_streamed += call.count,
            None => {}
        }
        if let Some(template) = call.template {
            group.with_template += call.count;
            if group.templates.len() < MOST_TEMPLATES || group.templates.contains_key(&template) {
                *group.templates.entry(template).or_default() += call.count;
            }
        }
        // A row that stands for a day says nothing of its hour.
        if let Some(at) = call.at.filter(|_| call.count == 1) {
            let hour = at.div_euclid(HOUR);
            let of_day = usize::try_from(hour.rem_euclid(24)).unwrap_or_default();
            if let Some(calls) = group.by_hour_of_day.get_mut(of_day) {
                *calls += 1;
            }
            if self.hours_of_groups < MOST_HOURS || group.hours.contains_key(&hour) {
                let calls = group.hours.entry(hour).or_default();
                self.hours_of_groups += usize::from(*calls == 0);
                *calls += 1;
            }
        }
    }

    /// What the call cost and what a batch would have saved, with the reasons where that is not known.
    fn bill(&mut self, call: &Call, line: u64) -> Bill {
        if call.inconsistent {
            self.problem(Problem::Inconsistent, line);
        }
        if call.failed {
            self.problem(Problem::Failed, line);
            return Bill::default();
        }
        if call.format == Format::AccessLog {
            self.problem(Problem::CountsOnly, line);
            return Bill::default();
        }
        if call.model.is_none() {
            self.problem(Problem::NoModel, line);
        }
        if call.usage.is_none() && !call.inconsistent && call.cost != Some(Money::ZERO) {
            let missing = if call.cost.is_some() { Problem::NoBatchPrice } else { Problem::NoUsage };
            self.problem(missing, line);
        }
        let (live, batch, listed) = self.listed(call, line);
        let charged = call.cost.or(listed);
        let (Some(charged_usd), Some(live), Some(batch)) = (charged, live, batch) else {
            return Bill { charged, saving: None };
        };
        let saving = (call.service == Some(Service::Sync)).then(|| charged_usd - charged_usd.scaled(batch, live));
        Bill { charged, saving }
    }

    /// The list's prices for the call: live, in a batch, and by the service that served it.
    fn listed(&mut self, call: &Call, line: u64) -> (Option<Money>, Option<Money>, Option<Money>) {
        let (Some(model), Some(usage)) = (&call.model, &call.usage) else { return (None, None, None) };
        let Some(price) = self.price(call.provider.as_deref(), model) else {
            if self.unpriced.len() < MOST_MODELS || self.unpriced.contains_key(model) {
                *self.unpriced.entry(model.clone()).or_default() += call.count;
            }
            let missing = if call.cost.is_some() { Problem::NoBatchPrice } else { Problem::NoPrice };
            self.problem(missing, line);
            return (None, None, None);
        };
        let cost = |service| cost(price, service, usage, call.count);
        let (live, batch) = (cost(Service::Sync), cost(Service::Batch));
        let by_service = call.service.and_then(cost);
        if call.service.is_none() && call.cost.is_none() {
            self.problem(Problem::OtherTier, line);
        } else if by_service.is_none() && call.cost.is_none() {
            self.problem(Problem::NoPrice, line);
        } else if batch.is_none() {
            self.problem(Problem::NoBatchPrice, line);
        }
        (live, batch, by_service)
    }

    fn price(&mut self, provider: Option<&str>, model: &str) -> Option<&'static ModelPrice> {
        let key = (provider.map(ToOwned::to_owned), model.to_owned());
        if let Some(known) = self.prices.get(&key) {
            return *known;
        }
        let table = PriceTable::builtin();
        let found = match provider {
            Some("google") => table.find("gemini", "gemini", model),
            Some(provider) => table.find(provider, provider, model),
            None => table.find_anywhere(model),
        };
        if self.prices.len() < MOST_MODELS {
            self.prices.insert(key, found);
        }
        found
    }
}

/// What `count` calls cost that used `usage` together: the tier goes by the prompt of one.
fn cost(price: &ModelPrice, service: Service, usage: &Usage, count: u64) -> Option<Money> {
    if count <= 1 {
        return price.cost(service, usage);
    }
    let part = |whole: u64| whole / count;
    let one = Usage {
        input: part(usage.input),
        cached: part(usage.cached),
        cache_written: part(usage.cache_written),
        cache_written_1h: part(usage.cache_written_1h),
        output: part(usage.output),
        reasoning: part(usage.reasoning),
    };
    price.cost(service, &one)?.checked_times(count)
}

impl Sum {
    fn add(&mut self, call: &Call, bill: Bill) {
        self.calls += call.count;
        if let Some(charged) = bill.charged {
            self.priced += call.count;
            self.spend += charged;
        }
        if let Some(saving) = bill.saving {
            self.comparable += call.count;
            self.saving += saving;
        }
        if matches!(call.service, Some(Service::Batch | Service::Flex)) {
            self.already_calls += call.count;
            self.already += bill.charged.unwrap_or_default();
        }
        self.usage += call.usage.unwrap_or_default();
    }
}

/// The best name the log has for where the call comes from.
fn label(call: &Call) -> (&'static str, String) {
    if let Some(tag) = &call.tag {
        return ("tag", without_numbers(tag));
    }
    if let Some(agent) = &call.agent {
        return ("user agent", product(agent));
    }
    call.template.map_or_else(|| ("", String::new()), |template| ("template", format!("{:08x}", template >> 32)))
}

/// Without what changes from run to run: job numbers, dates, ids.
fn without_numbers(tag: &str) -> String {
    let is_part = |character: char| character.is_ascii_alphanumeric();
    let mut label = String::with_capacity(tag.len());
    for piece in tag.split_inclusive(|character| !is_part(character)) {
        let word = piece.trim_end_matches(|character| !is_part(character));
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_id = digits >= 3 || word.len() >= 16 && digits > 0;
        label.push_str(if is_id { "#" } else { word });
        label.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    label
}

/// The product of a user agent, without its version: `OpenAI/Python`, `python-requests`.
fn product(agent: &str) -> String {
    if agent.starts_with("Mozilla/") {
        return "web browser".to_owned();
    }
    let first = agent.split(' ').next().unwrap_or_default();
    let named = first.split('/').take_while(|part| !part.starts_with(|digit: char| digit.is_ascii_digit()));
    named.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_no_numbers_of_single_runs() {
        for (tag, label) in [
            ("nightly-eval", "nightly-eval"),
            ("jobID:214590dsff09fds", "jobID:#"),
            ("run 2026-11-23", "run #-11-23"),
            ("v2-summaries", "v2-summaries"),
            ("", ""),
        ] {
            assert_eq!(without_numbers(tag), label);
        }
        for (agent, label) in [
            ("OpenAI/Python 2.3.0", "OpenAI/Python"),
            ("python-requests/2.32.3", "python-requests"),
            ("Mozilla/5.0 (X11)", "web browser"),
            ("curl/8", "curl"),
        ] {
            assert_eq!(product(agent), label);
        }
    }

    #[test]
    fn the_number_of_groups_and_models_is_bounded() {
        let mut tally = Tally::default();
        tally.begin_file("x");
        for number in 0..6_000_u32 {
            let mut call = Call::new(Format::OpenAi);
            let word: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            call.tag = Some(word.clone());
            call.model = Some(word);
            tally.add(&call, 1);
        }
        assert_eq!(tally.groups.len(), MOST_GROUPS + 1);
        assert!(tally.models.len() <= MOST_MODELS + 1);
        assert_eq!(tally.total.calls, 6_000);
        assert_eq!(tally.groups.iter().map(|group| group.sum.calls).sum::<u64>(), 6_000, "nothing is lost");
    }
}
