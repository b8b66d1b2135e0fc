//! `status`, `requests`, `batches`: what the admin API shows, as tables or as its own JSON.

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminArgs, AdminClient, encode};
use super::human;
use super::output::{self, Output, note};
use super::table::{Cell, Side, Table};
use crate::domain::clock::{Clock as _, SystemClock};

/// `nightbus status`
#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

/// `nightbus requests`
#[derive(Args, Clone, Debug)]
pub(super) struct RequestsArgs {
    /// One request, such as req_0193…; all if left out
    id: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = ["queued", "submitted", "completed", "failed", "cancelled"])]
    state: Option<String>,
    /// Only those with this tag
    #[arg(long)]
    tag: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

/// `nightbus batches`
#[derive(Args, Clone, Debug)]
pub(super) struct BatchesArgs {
    /// One batch, such as bat_0193…; all if left out
    id: Option<String>,
    /// Only those that have not ended
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Args, Clone, Debug)]
struct PageArgs {
    /// How many at most, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those older than this one (the `next` of the page before)
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

impl PageArgs {
    fn query(&self) -> String {
        let after = self.after.as_ref().map(|after| format!("&after={}", encode(after))).unwrap_or_default();
        format!("limit={}{after}", self.limit)
    }
}

/// What nightbus is doing.
pub(super) async fn status(args: &StatusArgs, out: Output) -> anyhow::Result<()> {
    let status = AdminClient::new(&args.admin)?.get("/api/status").await?;
    if args.json {
        return Ok(output::json(&status)?);
    }
    out.pairs(&at_a_glance(&status))?;
    let lanes = members(&status, "lanes");
    if !lanes.is_empty() {
        output::line("")?;
        out.table(&lane_table(lanes))?;
    }
    Ok(())
}

fn at_a_glance(status: &Value) -> Vec<(String, String)> {
    let none = Value::Null;
    let queue = status.get("queue").unwrap_or(&none);
    let oldest = queue.get("oldest_age_seconds").and_then(Value::as_i64);
    let oldest = oldest.map(|seconds| format!(", oldest {}", human::age(seconds))).unwrap_or_default();
    let uptime = i64::try_from(human::count(status, "uptime_seconds")).unwrap_or(i64::MAX);
    let stopping = if status.get("stopping") == Some(&Value::Bool(true)) { ", stopping" } else { "" };
    let today = status.get("today").unwrap_or(&none);
    let usd = |key: &str| human::usd(today.get(key).and_then(Value::as_f64).unwrap_or(0.0));
    [
        ("nightbus", format!("{}, up {}{stopping}", human::text(status, "version"), human::age(uptime))),
        (
            "queue",
            format!(
                "{}, {}{oldest}",
                human::counted(human::count(queue, "requests"), "request"),
                human::bytes(human::count(queue, "bytes"))
            ),
        ),
        ("held", human::counted(human::count(status, "held_connections"), "connection")),
        ("requests", counted(status.get("requests"))),
        ("batches", counted(status.get("batches"))),
        ("services", counted(status.get("services"))),
        (
            "today",
            format!(
                "{}, paid {} instead of {}, saved {}",
                human::counted(human::count(today, "requests"), "request"),
                usd("paid_usd"),
                usd("live_usd"),
                usd("saved_usd")
            ),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// `3 submitted, 12 completed`; states with none are left out.
fn counted(counts: Option<&Value>) -> String {
    let shown: Vec<String> = counts
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, count)| Some((name, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(name, count)| format!("{} {name}", human::number(count)))
        .collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

/// What waits, lane by lane; what explains most comes first, for narrow terminals.
pub(super) fn lane_table(lanes: &[Value]) -> Table {
    let mut table = Table::new(&[
        ("MODEL", Side::Left),
        ("ENDPOINT", Side::Left),
        ("QUEUED", Side::Right),
        ("OLDEST", Side::Right),
        ("BATCHES", Side::Right),
        ("HELD BACK", Side::Left),
        ("BYTES", Side::Right),
        ("PROVIDER", Side::Left),
        ("CREDENTIAL", Side::Left),
    ]);
    for lane in lanes {
        let oldest = lane.get("oldest_age_seconds").and_then(Value::as_i64);
        table.row([
            Cell::new(human::text(lane, "model")),
            Cell::new(human::text(lane, "endpoint")),
            Cell::new(human::number(human::count(lane, "queued_requests"))),
            Cell::new(oldest.map_or_else(|| "-".to_owned(), human::age)),
            Cell::new(human::number(human::count(lane, "open_batches"))),
            Cell::new(human::text(lane, "held_back")),
            Cell::new(human::bytes(human::count(lane, "queued_bytes"))),
            Cell::new(human::text(lane, "provider")),
            Cell::new(human::text(lane, "credential")),
        ]);
    }
    table
}

/// Requests as a table, or one with all it has.
pub(super) async fn requests(args: &RequestsArgs, out: Output) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.page.admin)?;
    if let Some(id) = &args.id {
        return show_one(&client.get(&format!("/api/requests/{}", encode(id))).await?, args.page.json, out);
    }
    let mut path = format!("/api/requests?{}", args.page.query());
    let mut again = "requests".to_owned();
    for (key, value) in [("state", &args.state), ("tag", &args.tag)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(value)));
            again.push_str(&format!(" --{key} {value}"));
        }
    }
    let list = client.get(&path).await?;
    if args.page.json {
        return Ok(output::json(&list)?);
    }
    let mut table = Table::of_ids(&[
        ("ID", Side::Left),
        ("STATE", Side::Left),
        ("STATUS", Side::Right),
        ("MODEL", Side::Left),
        ("TAG", Side::Left),
        ("AGE", Side::Right),
        ("SERVICE", Side::Left),
        ("SAVED", Side::Right),
        ("BATCH", Side::Left),
    ]);
    for request in members(&list, "data") {
        let saved = request.get("saved_usd").and_then(Value::as_f64);
        table.row([
            Cell::new(human::text(request, "id")),
            Cell::state(&human::text(request, "state")),
            Cell::new(human::text(request, "status_code")),
            Cell::new(human::text(request, "model")),
            Cell::new(human::text(request, "tag")),
            Cell::new(age_of(request)),
            Cell::new(human::text(request, "service")),
            Cell::new(saved.map_or_else(|| "-".to_owned(), human::usd)),
            Cell::new(human::text(request, "batch_id")),
        ]);
    }
    show_list(&list, &table, &again, out)
}

/// Batches as a table, or one with all it has.
pub(super) async fn batches(args: &BatchesArgs, out: Output) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.page.admin)?;
    if let Some(id) = &args.id {
        return show_one(&client.get(&format!("/api/batches/{}", encode(id))).await?, args.page.json, out);
    }
    let state = if args.open { "open" } else { "all" };
    let list = client.get(&format!("/api/batches?state={state}&{}", args.page.query())).await?;
    if args.page.json {
        return Ok(output::json(&list)?);
    }
    let mut table = Table::of_ids(&[
        ("ID", Side::Left),
        ("STATE", Side::Left),
        ("MODEL", Side::Left),
        ("LINES", Side::Right),
        ("DONE", Side::Right),
        ("FAILED", Side::Right),
        ("AGE", Side::Right),
        ("PROVIDER ID", Side::Left),
        ("NOTE", Side::Left),
    ]);
    for batch in members(&list, "data") {
        let none = Value::Null;
        let counts = batch.get("counts").unwrap_or(&none);
        let trouble = batch.get("trouble").unwrap_or(&none);
        let note = [(batch, "error"), (trouble, "message"), (batch, "provider_status")];
        let note = note.map(|(object, key)| human::text(object, key));
        table.row([
            Cell::new(human::text(batch, "id")),
            Cell::state(&human::text(batch, "state")),
            Cell::new(human::text(batch, "model")),
            Cell::new(human::number(human::count(counts, "total"))),
            Cell::new(human::number(human::count(counts, "completed"))),
            Cell::new(human::number(human::count(counts, "failed"))),
            Cell::new(age_of(batch)),
            Cell::new(human::text(batch, "provider_batch_id")),
            Cell::new(note.iter().find(|note| *note != "-").map_or("-", String::as_str)),
        ]);
    }
    show_list(&list, &table, if args.open { "batches --open" } else { "batches" }, out)
}

/// A page, or that there is nothing. `command`: what lists it, without the page.
pub(super) fn show_list(list: &Value, table: &Table, command: &str, out: Output) -> anyhow::Result<()> {
    if members(list, "data").is_empty() {
        note(&format!("No {} to show.", command.split(' ').next().unwrap_or_default()));
        return Ok(());
    }
    out.table(table)?;
    if let Some(next) = list.get("next").and_then(Value::as_str) {
        note(&format!("There are more: nightbus {command} --after {next}"));
    }
    Ok(())
}

/// Every member with a value, what it is first; times as times, money as money.
fn show_one(object: &Value, json: bool, out: Output) -> anyhow::Result<()> {
    if json {
        return Ok(output::json(object)?);
    }
    let mut pairs = Vec::new();
    push_members(&mut pairs, "", object);
    pairs.sort_by_key(|(name, _)| match name.as_str() {
        "id" => 0,
        "state" => 1,
        _ => 2,
    });
    Ok(out.pairs(&pairs)?)
}

/// Members of members under both names, `counts.total`: JSON on one line would be wider than any terminal.
fn push_members(pairs: &mut Vec<(String, String)>, prefix: &str, object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if value.is_object() {
            push_members(pairs, &format!("{prefix}{name}."), value);
            continue;
        }
        // Details of details: `usage` has many, nearly all of them none.
        let is_idle = prefix.matches('.').count() > 1 && value.as_u64() == Some(0);
        if !value.is_null() && name != "object" && !is_idle {
            let time = value.as_i64().filter(|_| name.ends_with("_at")).map(human::time);
            let amount = value.as_f64().filter(|_| name.ends_with("_usd")).map(human::usd);
            pairs.push((format!("{prefix}{name}"), time.or(amount).unwrap_or_else(|| human::text(object, name))));
        }
    }
}

/// Since it was made.
pub(super) fn age_of(object: &Value) -> String {
    let created = object.get("created_at").and_then(Value::as_i64);
    created.map_or_else(|| "-".to_owned(), |at| human::age(SystemClock.now().unix_seconds().saturating_sub(at)))
}

/// A list in an answer; empty where there is none.
pub(super) fn members<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
