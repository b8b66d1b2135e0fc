//! What `top` shows, as lines that fit the terminal. Pure: from the admin API's answers, a time and a size.

use serde_json::Value;

use crate::cli::human;
use crate::cli::listing::{lane_table, members};
use crate::cli::table::{Cell, Side, Table, cut};

/// Cells of a batch's bar.
const BAR: usize = 20;

/// What the proxy said last.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `/api/status`
    pub(super) status: Value,
    /// `/api/batches`, the open ones
    pub(super) batches: Value,
    /// Why nothing newer could be had.
    pub(super) trouble: Option<String>,
}

/// How much there is to draw on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Characters of a line.
    pub(super) columns: usize,
    /// Lines.
    pub(super) rows: usize,
    /// Whether there may be colours.
    pub(super) colours: bool,
}

/// The screen's lines, at most as many and as wide as it has. `now`: Unix seconds.
pub(super) fn draw(seen: &Seen, now: i64, size: Size) -> Vec<String> {
    let mut lines: Vec<String> = head(&seen.status).iter().map(|line| plain(line)).collect();
    let batches = members(&seen.batches, "data");
    let lanes = members(&seen.status, "lanes");
    // Two headings, two empty lines, the last line; lanes take at most a third.
    let for_lanes = lanes.len().min(size.rows / 3);
    let for_batches = size.rows.saturating_sub(lines.len() + for_lanes + 5);
    lines.push(String::new());
    lines.extend(table(&batch_table(batches, now), batches.len(), for_batches, "No batch is under way.", size));
    lines.push(String::new());
    lines.extend(table(&lane_table(lanes), lanes.len(), for_lanes, "Nothing waits.", size));
    let last =
        seen.trouble.as_ref().map_or_else(|| "q quits".to_owned(), |trouble| plain(&format!("NOT CURRENT: {trouble}")));
    let mut shown: Vec<String> = lines.into_iter().take(size.rows.saturating_sub(1)).collect();
    shown.resize(size.rows.saturating_sub(1), String::new());
    shown.push(last);
    // Lines with colours were made to fit; the others hold no escapes.
    shown.into_iter().map(|line| if line.contains('\x1b') { line } else { cut(&line, size.columns) }).collect()
}

/// Without what would steer the terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The numbers at the top.
fn head(status: &Value) -> Vec<String> {
    let none = Value::Null;
    let part = |key: &str| status.get(key).unwrap_or(&none);
    let (queue, today) = (part("queue"), part("today"));
    let usd = |key: &str| human::usd(today.get(key).and_then(Value::as_f64).unwrap_or(0.0));
    let oldest = queue.get("oldest_age_seconds").and_then(Value::as_i64);
    let oldest = oldest.map(|seconds| format!(", oldest {}", human::age(seconds))).unwrap_or_default();
    let uptime = i64::try_from(human::count(status, "uptime_seconds")).unwrap_or(i64::MAX);
    let stopping = if status.get("stopping") == Some(&Value::Bool(true)) { ", stopping" } else { "" };
    vec![
        format!("nightbus {}, up {}{stopping}", human::text(status, "version"), human::age(uptime)),
        String::new(),
        format!("Held         {}", human::counted(human::count(status, "held_connections"), "connection")),
        format!(
            "Queued       {}, {}{oldest}",
            human::number(human::count(queue, "requests")),
            human::bytes(human::count(queue, "bytes"))
        ),
        format!("In batches   {}", human::number(human::count(part("requests"), "submitted"))),
        format!("Saved today  {}, paid {} instead of {}", usd("saved_usd"), usd("paid_usd"), usd("live_usd")),
    ]
}

fn batch_table(batches: &[Value], now: i64) -> Table {
    let mut table = Table::new(&[
        ("BATCH", Side::Left),
        ("MODEL", Side::Left),
        ("STATE", Side::Left),
        ("AGE", Side::Right),
        ("DONE", Side::Right),
        ("PROGRESS", Side::Right),
    ]);
    for batch in batches {
        let none = Value::Null;
        let counts = batch.get("counts").unwrap_or(&none);
        let total = human::count(counts, "total");
        let done = human::count(counts, "completed").saturating_add(human::count(counts, "failed"));
        let created = batch.get("created_at").and_then(Value::as_i64);
        table.row([
            Cell::new(human::text(batch, "id")),
            Cell::new(human::text(batch, "model")),
            Cell::state(&human::text(batch, "state")),
            Cell::new(created.map_or_else(|| "-".to_owned(), |at| human::age(now.saturating_sub(at)))),
            Cell::new(format!("{}/{}", human::number(done), human::number(total))),
            Cell::new(bar(done, total)),
        ]);
    }
    table
}

/// `━━━━━━╌╌╌╌`; full only when everything is done.
fn bar(done: u64, total: u64) -> String {
    let cells = u64::try_from(BAR).unwrap_or(u64::MAX);
    let filled = done.min(total).saturating_mul(cells).checked_div(total).unwrap_or(0);
    (0..cells).map(|cell| if cell < filled { '━' } else { '╌' }).collect()
}

/// A table's first lines, or `nothing`.
fn table(table: &Table, rows: usize, room: usize, nothing: &str, size: Size) -> Vec<String> {
    if rows == 0 {
        return vec![nothing.to_owned()];
    }
    let text = table.render(Some(size.columns), size.colours);
    let mut lines: Vec<String> = text.lines().take(room.saturating_add(1)).map(ToOwned::to_owned).collect();
    if rows > room {
        // In the place of the last row, or of the header where there is no room at all.
        lines.pop();
        let left_out = rows - room.saturating_sub(1);
        lines.push(format!("… and {} more", human::number(u64::try_from(left_out).unwrap_or(u64::MAX))));
    }
    lines
}

#[cfg(test)]
mod tests;
