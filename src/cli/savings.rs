//! `savings`: what was paid, what live would have cost, what was wasted, and what observe mode saw; out of the running
//! process's ledger.

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminArgs, AdminClient, encode};
use super::human;
use super::output::{self, Output, note};
use super::table::{Cell, Side, Table};

/// `nightbus savings`
#[derive(Args, Clone, Debug)]
pub(super) struct SavingsArgs {
    /// From when on: a duration (7d, 12h), a day (2026-11-01) or an RFC 3339 time, UTC; everything if left out
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Divide the sums
    #[arg(long, value_parser = ["day", "hour", "model", "tag", "service", "key", "provider", "credential", "user_agent"])]
    by: Option<String>,
    /// What observe mode saw: how much could have waited, when, and whose calls
    #[arg(long, conflicts_with_all = ["by", "csv", "json"])]
    observed: bool,
    /// Print the API's JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values: one line per part
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// The columns of `--csv` after the first.
const CSV: [&str; 18] = [
    "requests",
    "paid_usd",
    "live_usd",
    "saved_usd",
    "wasted_usd",
    "wasted_requests",
    "priced_requests",
    "unpriced_requests",
    "unmetered_requests",
    "input_tokens",
    "cached_tokens",
    "cache_written_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_unread_tokens",
    "cache_unread_usd",
    "cache_unread_unpriced_tokens",
    "would_save_usd",
];

/// Prints the sums.
pub(super) async fn savings(args: &SavingsArgs, out: Output) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.admin)?;
    if args.observed {
        return observed(&client, args, out).await;
    }
    let answer = ask(&client, args, args.by.as_deref()).await?;
    if args.json {
        return Ok(output::json(&answer)?);
    }
    if args.csv {
        return Ok(output::text(&csv(&answer, args.by.as_deref()))?);
    }
    let totals = answer.get("totals").unwrap_or(&Value::Null);
    match &args.by {
        Some(by) => out.table(&table(&answer, by))?,
        None => out.pairs(&in_all(&answer, totals))?,
    }
    remarks(&answer, totals);
    Ok(())
}

async fn ask(client: &AdminClient, args: &SavingsArgs, by: Option<&str>) -> anyhow::Result<Value> {
    let query: Vec<String> = [("since", args.since.as_deref()), ("by", by)]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encode(value?))))
        .collect();
    client.get(&format!("/api/savings?{}", query.join("&"))).await
}

fn usd(object: &Value, key: &str) -> String {
    human::usd(object.get(key).and_then(Value::as_f64).unwrap_or(0.0))
}

/// How much of the live price was saved, in percent; `-` where nothing is priced.
fn share(saved: f64, live: f64) -> String {
    if live > 0.0 { format!("{:.1} %", 100.0 * saved / live) } else { "-".to_owned() }
}

fn amounts(object: &Value, saved: &str, live: &str) -> (f64, f64) {
    let amount = |key: &str| object.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    (amount(saved), amount(live))
}

fn in_all(answer: &Value, totals: &Value) -> Vec<(String, String)> {
    let since = answer.get("since").and_then(Value::as_i64).map_or_else(|| "the beginning".to_owned(), human::time);
    let (saved, live) = amounts(totals, "saved_usd", "live_usd");
    let mut pairs = vec![
        ("since", since),
        ("requests", human::number(human::count(totals, "requests"))),
        ("paid", usd(totals, "paid_usd")),
        ("live price", usd(totals, "live_usd")),
        ("saved", format!("{} ({})", human::usd(saved), share(saved, live))),
        (
            "wasted",
            format!(
                "{} on {} answers that were not needed (part of what was paid)",
                usd(totals, "wasted_usd"),
                human::number(human::count(totals, "wasted_requests"))
            ),
        ),
        (
            "tokens",
            format!(
                "{} in ({} from the cache), {} out",
                human::number(human::count(totals, "input_tokens")),
                human::number(human::count(totals, "cached_tokens")),
                human::number(human::count(totals, "output_tokens"))
            ),
        ),
        ("prices as of", human::text(answer, "prices_as_of")),
    ];
    let written = human::count(totals, "cache_written_tokens");
    if written > 0 {
        pairs.push((
            "cache writes",
            format!(
                "{} tokens, at least {} of them never read{}",
                human::number(written),
                human::number(human::count(totals, "cache_unread_tokens")),
                cold_cost(totals)
            ),
        ));
    }
    if let Some(observed) = answer.get("observed") {
        pairs.push((
            "observed",
            format!(
                "{} could have waited: {} live, {} less by batch",
                human::counted(human::count(observed, "requests"), "call"),
                usd(observed, "live_usd"),
                usd(observed, "would_save_usd")
            ),
        ));
    }
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the cache writes that nobody read cost, as the end of a sentence.
fn cold_cost(totals: &Value) -> String {
    if human::count(totals, "cache_unread_tokens") == 0 {
        return String::new();
    }
    let Some(cost) = totals.get("cache_unread_usd").and_then(Value::as_f64) else {
        return "; their price is not known".to_owned();
    };
    let cost = format!(": {} or more above plain input", human::usd(cost));
    match human::count(totals, "cache_unread_unpriced_tokens") {
        0 => cost,
        unpriced => format!("{cost}, without {} whose price is not known", human::number(unpriced)),
    }
}

fn table(answer: &Value, by: &str) -> Table {
    let mut table = Table::new(&[
        (heading(by), Side::Left),
        ("REQUESTS", Side::Right),
        ("PAID", Side::Right),
        ("LIVE", Side::Right),
        ("SAVED", Side::Right),
        ("SHARE", Side::Right),
        ("WASTED", Side::Right),
        ("UNPRICED", Side::Right),
    ]);
    let groups = answer.get("groups").and_then(Value::as_array).into_iter().flatten();
    let totals = answer.get("totals").map(|totals| ("all".to_owned(), totals));
    for (key, sums) in groups.map(|group| (human::text(group, "key"), group)).chain(totals) {
        let (saved, live) = amounts(sums, "saved_usd", "live_usd");
        table.row([
            Cell::new(key),
            Cell::new(human::number(human::count(sums, "requests"))),
            Cell::new(usd(sums, "paid_usd")),
            Cell::new(human::usd(live)),
            Cell::new(human::usd(saved)),
            Cell::new(share(saved, live)),
            Cell::new(usd(sums, "wasted_usd")),
            Cell::new(human::number(human::count(sums, "unpriced_requests"))),
        ]);
    }
    table
}

const HEADINGS: [(&str, &str); 9] = [
    ("day", "DAY (UTC)"),
    ("hour", "HOUR (UTC)"),
    ("model", "MODEL"),
    ("tag", "TAG"),
    ("service", "SERVICE"),
    ("key", "CLIENT KEY"),
    ("provider", "PROVIDER"),
    ("credential", "CREDENTIAL"),
    ("user_agent", "USER AGENT"),
];

fn heading(by: &str) -> &'static str {
    HEADINGS.into_iter().find(|(name, _)| *name == by).map_or("PART", |(_, heading)| heading)
}

/// What the numbers leave out.
fn remarks(answer: &Value, totals: &Value) {
    let unpriced = human::count(totals, "unpriced_requests");
    if unpriced > 0 {
        let unmetered = human::count(totals, "unmetered_requests");
        note(&format!(
            "{} answers are in no amount: their price is not known ({} of them did not tell their usage). Prices are of {}; `prices` in proxy.toml names a list of yours.",
            human::number(unpriced),
            human::number(unmetered),
            human::text(answer, "prices_as_of")
        ));
    }
    if answer.get("observed").is_some_and(|observed| human::count(observed, "requests") > 0) {
        note("What could have waited, when and whose: nightbus savings --observed");
    }
}

/// How many parts of each division are shown.
const SHOWN: usize = 10;

/// What observe mode saw, divided in every way that helps to write a rule.
async fn observed(client: &AdminClient, args: &SavingsArgs, out: Output) -> anyhow::Result<()> {
    let answer = ask(client, args, None).await?;
    let none = Value::Null;
    let observed = answer.get("observed").unwrap_or(&none);
    let calls = human::count(observed, "requests");
    if calls == 0 {
        note(
            "Observe mode has seen no call that could wait. It needs deferral.mode = \"observe\", and marks, rules or deferral.default = true.",
        );
        return Ok(());
    }
    let (saved, live) = amounts(observed, "would_save_usd", "live_usd");
    output::line(&format!(
        "{} of {} could have waited. They cost {} live; by batch {} less ({}).",
        human::number(calls),
        human::counted(human::count(answer.get("totals").unwrap_or(&none), "requests"), "call"),
        human::usd(live),
        human::usd(saved),
        share(saved, live)
    ))?;
    for by in ["model", "tag", "key", "user_agent", "day", "hour"] {
        let parts = ask(client, args, Some(by)).await?;
        output::line("")?;
        out.table(&observed_table(&parts, by))?;
    }
    caveat(observed);
    Ok(())
}

fn observed_table(answer: &Value, by: &str) -> Table {
    let mut table = Table::new(&[
        (heading(by), Side::Left),
        ("COULD WAIT", Side::Right),
        ("LIVE", Side::Right),
        ("WOULD SAVE", Side::Right),
        ("SHARE", Side::Right),
        ("NOT CHEAPER", Side::Right),
    ]);
    let groups = answer.get("groups").and_then(Value::as_array).into_iter().flatten();
    let mut parts: Vec<(String, &Value)> =
        groups.filter_map(|group| Some((human::text(group, "key"), group.get("observed")?))).collect();
    if !matches!(by, "day" | "hour") || parts.len() > SHOWN {
        parts.sort_by(|(_, a), (_, b)| saved_of(b).total_cmp(&saved_of(a)));
    }
    for (key, observed) in parts.into_iter().take(SHOWN) {
        let (saved, live) = amounts(observed, "would_save_usd", "live_usd");
        table.row([
            Cell::new(key),
            Cell::new(human::number(human::count(observed, "requests"))),
            Cell::new(human::usd(live)),
            Cell::new(human::usd(saved)),
            Cell::new(share(saved, live)),
            Cell::new(human::number(human::count(observed, "not_cheaper_requests"))),
        ]);
    }
    table
}

fn saved_of(observed: &Value) -> f64 {
    amounts(observed, "would_save_usd", "live_usd").0
}

fn caveat(observed: &Value) {
    let dearer = human::count(observed, "not_cheaper_requests");
    if dearer > 0 {
        note(&format!(
            "{} of the calls would have cost as much by batch, or more: live they were billed at the prompt cache's price, which a batch of these models does not have.",
            human::number(dearer)
        ));
    }
    let unpriced = human::count(observed, "unpriced_requests");
    if unpriced > 0 {
        note(&format!("{} of them are in no amount: a price or their usage is not known.", human::number(unpriced)));
    }
    note(
        "Computed from the cached tokens of the live answers; in a batch fewer tokens may come from the prompt cache.",
    );
}

fn csv(answer: &Value, by: Option<&str>) -> String {
    let mut text = format!("{},{}\n", by.unwrap_or("part"), CSV.join(","));
    let whole = answer.get("totals").filter(|_| by.is_none());
    let groups = answer.get("groups").and_then(Value::as_array).into_iter().flatten();
    let whole = whole.map(|totals| ("all".to_owned(), totals, answer.get("observed")));
    for (key, sums, observed) in groups
        .map(|group| {
            let key = group.get("key").and_then(Value::as_str).unwrap_or_default();
            (key.to_owned(), group, group.get("observed"))
        })
        .chain(whole)
    {
        text.push_str(&quoted(&key));
        for column in CSV {
            let value = sums.get(column).or_else(|| observed.and_then(|observed| observed.get(column)));
            text.push(',');
            text.push_str(&value.filter(|value| !value.is_null()).map_or_else(String::new, plain));
        }
        text.push('\n');
    }
    text
}

/// Without an exponent, which not every reader of tables understands.
fn plain(number: &Value) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(amount) => {
            let text = format!("{amount:.9}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        None => number.to_string(),
    }
}

/// A field of CSV (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Value {
        let sums =
            json!({"requests": 3, "paid_usd": 9.5e-7, "live_usd": 1.9e-6, "saved_usd": 9.5e-7, "wasted_usd": 0.0});
        let mut group = sums.clone();
        group["key"] = json!("a \"b\",c");
        group["observed"] = json!({"requests": 2, "live_usd": 1.0, "would_save_usd": -0.5, "not_cheaper_requests": 1});
        json!({"since": 1_795_420_800, "prices_as_of": "2026-11-23", "totals": sums, "groups": [group]})
    }

    #[test]
    fn csv_has_plain_decimals_and_quoted_names() {
        let text = csv(&answer(), Some("tag"));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("tag,requests,paid_usd,live_usd,saved_usd,wasted_usd,"), "{text}");
        assert!(lines[1].starts_with("\"a \"\"b\"\",c\",3,0.00000095,0.0000019,0.00000095,0,"), "{text}");
        assert!(lines[1].ends_with(",-0.5") && lines.len() == 2, "{text}");
        assert_eq!(lines[0].matches(',').count(), CSV.len());
        assert!(csv(&answer(), None).lines().nth(2).is_some_and(|line| line.starts_with("all,3,")));
    }

    #[test]
    fn cold_writes_are_told_with_their_price_or_without_one() {
        let told = |cold: Value| {
            let mut answer = answer();
            answer["totals"].as_object_mut().unwrap().extend(cold.as_object().unwrap().clone());
            let pairs = in_all(&answer, &answer["totals"]);
            let line = pairs.iter().find(|(name, _)| name == "cache writes").map(|(_, value)| value.clone());
            (line.unwrap_or_default(), csv(&answer, None).lines().last().unwrap().to_owned())
        };
        let cold = |usd: Value, unpriced| {
            told(json!({"cache_written_tokens": 9_000, "cache_unread_tokens": 4_000, "cache_unread_usd": usd,
                "cache_unread_unpriced_tokens": unpriced}))
        };
        let (line, row) = cold(json!(0.005), 0);
        assert_eq!(line, "9,000 tokens, at least 4,000 of them never read: $0.005000 or more above plain input");
        assert!(row.ends_with(",4000,0.005,0,"), "{row}");
        assert!(cold(json!(0.005), 1_000).0.ends_with("input, without 1,000 whose price is not known"));
        let (line, row) = cold(json!(null), 4_000);
        assert!(
            line.ends_with("never read; their price is not known") && row.ends_with(",4000,,4000,"),
            "{line} {row}"
        );
        assert_eq!(told(json!({"cache_written_tokens": 0})).0, "");
        let warm = told(json!({"cache_written_tokens": 5, "cache_unread_tokens": 0, "cache_unread_usd": 0.0}));
        assert_eq!(warm.0, "5 tokens, at least 0 of them never read");
    }

    #[test]
    fn the_table_fits_a_narrow_terminal_and_ends_with_the_sum() {
        let rendered = table(&answer(), "tag").render(Some(80), false);
        assert!(rendered.lines().all(|line| line.chars().count() <= 80), "{rendered}");
        assert!(rendered.starts_with("TAG") && rendered.lines().last().unwrap().starts_with("all"), "{rendered}");
        assert!(rendered.contains("50.0 %"), "{rendered}");
        let observed = observed_table(&answer(), "user_agent").render(None, false);
        assert!(observed.contains("-50.0 %") && observed.starts_with("USER AGENT"), "{observed}");
    }
}
