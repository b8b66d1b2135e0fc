//! The report as one page: no script, nothing loaded from anywhere, light and dark by the reader's setting.
//!
//! Everything that comes from a log is escaped; the content policy in the page allows its own style and nothing else.
//! Pure; called by the command.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::chart::{Series, compare, escape, shares, stacked};
use super::report::{Bucket, GroupReport, Report};
use super::verdict::Tolerance;

const STYLE: &str = include_str!("report.css");
/// Models with a colour of their own; the rest share the last one.
const COLOURS: usize = 5;
/// Bars of the chart over time at most: hours are put together beyond.
const BARS: i64 = 168;
const HOUR: i64 = 3_600;
const ROWS: usize = 200;

/// The page.
pub fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>nightbus audit</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    head(&mut page, report);
    charts(&mut page, report);
    section(&mut page, "Groups and the golden rules", &groups(report));
    section(&mut page, "Models", &models(report));
    section(&mut page, "How it was judged", &list(report.heuristics.iter().map(|rule| escape(rule))));
    section(&mut page, "What is not in the sums", &problems(report));
    section(&mut page, "Files", &files(report));
    page.push_str("</body>\n</html>\n");
    page
}

fn head(page: &mut String, report: &Report) {
    let period = report.period.map_or_else(
        || "no record has a time".to_owned(),
        |period| {
            format!("{} to {} (UTC), counted as {:.1} days", moment(period.first), moment(period.last), period.days)
        },
    );
    push(
        page,
        format_args!(
            "<h1>What could have waited</h1>\n<p class=\"soft\">{}, {}. Amounts as logged, else by the price list of {}.</p>\n",
            calls(report.totals.calls),
            escape(&period),
            escape(&report.prices_as_of)
        ),
    );
    let savings = &report.savings;
    let unknown = || "unknown".to_owned();
    let share = savings.could_wait_share.map_or_else(unknown, |share| format!("{:.0} %", share * 100.0));
    let tiles = [
        (
            report.totals.spend_usd.map_or_else(unknown, usd),
            format!("spent on {} with a known price", calls(report.totals.priced)),
        ),
        (share, "of the live spend could wait".to_owned()),
        (savings.per_month_usd.map_or_else(unknown, usd), "saved in 30 days by deferring it".to_owned()),
        (savings.per_year_usd.map_or_else(unknown, usd), "saved in 365 days".to_owned()),
    ];
    page.push_str("<div class=\"tiles\">");
    for (value, meaning) in tiles {
        push(page, format_args!("<div class=\"tile\"><b>{value}</b><span>{meaning}</span></div>\n"));
    }
    page.push_str("</div>\n");
}

fn charts(page: &mut String, report: &Report) {
    let by_calls = report.totals.spend_usd.is_none();
    let (what, show): (_, fn(f64) -> String) = if by_calls { ("Calls", count) } else { ("Spend", axis_usd) };
    let value = |bucket: &Bucket| if by_calls { whole(bucket.calls) } else { bucket.spend_usd };
    let names = names(report);
    let (width, slots) = time_slots(&report.hours);
    let unit = if width == 1 { "hour".to_owned() } else { format!("{width} hours") };
    let labels: Vec<String> = slots.iter().map(|slot| tick(slot * HOUR)).collect();
    let first = slots.first().copied().unwrap_or(0);
    let place = |bucket: &Bucket| (bucket.hour.div_euclid(HOUR) - first).div_euclid(width);
    let series = spread(report, &names, slots.len(), place, value);
    let title = format!("{what} by {unit} and model");
    section(page, &title, &stacked(&title, &labels, &series, show));
    let labels: Vec<String> = (0..24).map(|hour| format!("{hour} h")).collect();
    let title = format!("{what} by hour of the day (UTC) and model");
    let series = spread(report, &names, 24, |bucket| bucket.hour.div_euclid(HOUR).rem_euclid(24), value);
    section(page, &title, &stacked(&title, &labels, &series, show));
    let savings = &report.savings;
    let parts = [
        ("s2", "could wait", savings.could_wait_usd),
        ("s1", "perhaps", savings.perhaps_usd),
        ("s5", "no sign", savings.no_sign_usd),
        ("s4", "somebody waits", savings.somebody_waits_usd),
        ("s0", "at a discount already", report.totals.already_discounted_usd),
    ];
    section(page, "The share that could wait", &shares("Spend by whether it could wait", &parts, usd));
    if let (Some(spend), Some(period), Some(month)) = (report.totals.spend_usd, report.period, savings.per_month_usd) {
        let now = spend / period.days * 30.0;
        let year = savings.per_year_usd.unwrap_or(0.0);
        let rows = [("s0", "30 days as they are", now), ("s2", "30 days, deferred", now - month)];
        let chart = compare("Spend in 30 days, now and deferred", &rows, usd);
        let with = savings.per_year_with_perhaps_usd.filter(|with| with - year > 0.005);
        let with = with.map_or_else(String::new, |with| format!("; with what could perhaps wait, {}", usd(with)));
        let text = format!(
            "<p class=\"soft\">{} a month, {} a year{with}. A projection of these logs, not a promise: the next month may differ.</p>",
            usd(month),
            usd(year)
        );
        section(page, "Savings", &format!("{text}{chart}"));
    }
}

/// The models with a colour of their own, the dearest first.
fn names(report: &Report) -> Vec<Option<String>> {
    report.models.iter().take(COLOURS).map(|model| model.model.clone()).collect()
}

/// Hours per bar, and the first hour of each bar.
fn time_slots(hours: &[Bucket]) -> (i64, Vec<i64>) {
    let (Some(first), Some(last)) = (hours.first(), hours.last()) else { return (1, Vec::new()) };
    let (first, last) = (first.hour.div_euclid(HOUR), last.hour.div_euclid(HOUR));
    let span = last - first + 1;
    let width =
        [1, 2, 3, 6, 12, 24, 48, 168, 720].into_iter().find(|width| span <= width * BARS).unwrap_or(span / BARS + 1);
    let slots = (span + width - 1) / width;
    (width, (0..slots).map(|slot| first + slot * width).collect())
}

fn spread(
    report: &Report,
    names: &[Option<String>],
    bars: usize,
    place: impl Fn(&Bucket) -> i64,
    value: impl Fn(&Bucket) -> f64,
) -> Vec<Series> {
    let mut rows: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for bucket in &report.hours {
        let row = names.iter().position(|name| *name == bucket.model).unwrap_or(COLOURS);
        let bar = usize::try_from(place(bucket)).unwrap_or(usize::MAX);
        let values = rows.entry(row).or_insert_with(|| vec![0.0; bars]);
        if let Some(sum) = values.get_mut(bar) {
            *sum += value(bucket);
        }
    }
    let name =
        |row: usize| names.get(row).map_or("others", |name| name.as_deref().unwrap_or("(model unknown)")).to_owned();
    // Colours go by place: a model without a call in here keeps its own empty.
    let last = rows.keys().next_back().copied();
    (0..last.map_or(0, |last| last + 1))
        .map(|row| Series { name: name(row), values: rows.get(&row).cloned().unwrap_or_default() })
        .collect()
}

fn groups(report: &Report) -> String {
    let mut rows = String::new();
    for group in report.groups.iter().take(ROWS) {
        rows.push_str(&group_row(group));
    }
    let more = report.groups.len().saturating_sub(ROWS);
    let note = if more > 0 {
        format!("<p class=\"soft\">{more} smaller groups are in the JSON output.</p>")
    } else {
        String::new()
    };
    format!(
        "<p class=\"soft\">Rule 1: it may take more than 30 minutes. Rule 2: it costs more than $10 a day.</p><div class=\"scroll\"><table><thead><tr><th>Group</th><th class=\"n\">Calls</th><th class=\"n\">Spend a day</th><th class=\"n\">Batches save</th>\
         <th>30 minutes?</th><th>$10 a day?</th><th>Verdict</th></tr></thead>\n<tbody>{rows}</tbody></table></div>{note}"
    )
}

fn group_row(group: &GroupReport) -> String {
    let label = if group.label.is_empty() { "(unnamed)".to_owned() } else { escape(&group.label) };
    let under = [group.kind, group.model.as_deref()].into_iter().flatten().map(escape).collect::<Vec<_>>().join(", ");
    let class = match group.could_wait {
        Tolerance::Yes => "yes",
        Tolerance::Perhaps => "perhaps",
        Tolerance::NoSign => "soft",
        Tolerance::No => "no",
    };
    let signs: String = group.signs.iter().map(|sign| format!("<small>{}</small>", escape(sign))).collect();
    let (worth_class, worth) = match group.worth_it {
        Some(true) => ("yes", "yes"),
        Some(false) => ("soft", "no"),
        None => ("soft", "unknown"),
    };
    let numbers = [number(group.calls), maybe(group.spend_usd_per_day), maybe(group.would_save_usd)];
    let numbers: String = numbers.iter().map(|number| format!("<td class=\"n\">{number}</td>")).collect();
    format!(
        "<tr><td>{label}<small>{under}</small></td>{numbers}<td class=\"signs\"><span class=\"{class}\">{}</span>{signs}</td>\
         <td class=\"{worth_class}\">{worth}</td><td class=\"verdict\">{}</td></tr>\n",
        group.could_wait.as_str(),
        escape(group.verdict),
    )
}

fn models(report: &Report) -> String {
    let rows: String = report
        .models
        .iter()
        .take(ROWS)
        .map(|model| {
            format!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                escape(model.model.as_deref().unwrap_or("(not logged)")),
                number(model.calls),
                number(model.input_tokens),
                number(model.output_tokens),
                maybe(model.spend_usd),
                maybe(model.batch_would_save_usd),
            )
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Model</th><th class=\"n\">Calls</th><th class=\"n\">Tokens in</th><th class=\"n\">Tokens out</th><th class=\"n\">Spend</th><th class=\"n\">All in batches saves</th></tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
}

fn problems(report: &Report) -> String {
    if report.problems.is_empty() {
        return "<p>Everything that was read is in the sums.</p>".to_owned();
    }
    let rows: String = report
        .problems
        .iter()
        .map(|problem| {
            format!(
                "<tr><td class=\"n\">{}</td><td>{}<small>first at {}</small></td></tr>\n",
                number(problem.count),
                escape(problem.meaning),
                escape(&problem.samples.join(", ")),
            )
        })
        .collect();
    let unpriced =
        report.unpriced_models.iter().take(20).map(|(model, calls)| format!("{} ({})", escape(model), number(*calls)));
    let unpriced = unpriced.collect::<Vec<_>>().join(", ");
    let unpriced = if unpriced.is_empty() {
        unpriced
    } else {
        format!("<p class=\"soft\">Models without a listed price: {unpriced}.</p>")
    };
    format!(
        "<div class=\"scroll\"><table><thead><tr><th class=\"n\">Count</th><th>What</th></tr></thead>\n<tbody>{rows}</tbody></table></div>{unpriced}"
    )
}

fn files(report: &Report) -> String {
    let rows: String = report
        .files
        .iter()
        .map(|file| {
            let formats = file.formats.iter().map(|(format, count)| format!("{format} ({})", number(*count)));
            let formats = formats.collect::<Vec<_>>().join(", ");
            format!(
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                escape(&file.name),
                escape(&formats),
                number(file.records),
                number(file.calls),
                number(file.unread),
            )
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>File</th><th>Formats</th><th class=\"n\">Records</th><th class=\"n\">Calls</th><th class=\"n\">Not read</th></tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
}

fn section(page: &mut String, title: &str, content: &str) {
    push(page, format_args!("<h2>{}</h2>\n<div class=\"card\">{content}</div>\n", escape(title)));
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<ul>{items}</ul>")
}

fn maybe(amount: Option<f64>) -> String {
    amount.map_or_else(|| "-".to_owned(), usd)
}

/// `$1,234.50`; small amounts keep more digits.
fn usd(amount: f64) -> String {
    if amount != 0.0 && amount.abs() < 0.01 {
        return format!("${amount:.6}");
    }
    let text = format!("{:.2}", amount.abs());
    let (dollars, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let sign = if amount < 0.0 { "-" } else { "" };
    format!("{sign}${}.{cents}", grouped(dollars))
}

/// A round number of an axis, without needless digits.
fn axis_usd(amount: f64) -> String {
    let text = format!("{amount:.6}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    let (dollars, cents) = short.split_once('.').unwrap_or((short, ""));
    let dot = if cents.is_empty() { "" } else { "." };
    format!("${}{dot}{cents}", grouped(dollars))
}

fn count(number: f64) -> String {
    grouped(&format!("{number:.0}"))
}

fn calls(count: u64) -> String {
    format!("{} call{}", number(count), if count == 1 { "" } else { "s" })
}

fn number(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `11-23 08:00`: below a bar.
fn tick(seconds: i64) -> String {
    moment(seconds).get(5..).unwrap_or_default().to_owned()
}

/// `2026-11-23 08:00`
fn moment(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_out_of_range| String::new(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls, drawn")]
fn whole(number: u64) -> f64 {
    number as f64
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.push_str(&piece.to_string());
}
