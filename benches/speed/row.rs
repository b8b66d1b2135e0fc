//! A row of the table: what, the goal, what is a must, what was measured, and whether that is enough.

use serde_json::{Value, json};

/// What a row asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// A ratio to a peer, or another number, that must be at least this. A must: 0.8 of it.
    AtLeast(f64),
    /// A bound from above. A must: 1.25 of it.
    AtMost(f64),
    /// Nothing of it at all; a must.
    None,
    /// Exactly this; a must.
    Exactly(f64),
}

/// One measured row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The word for `--only`.
    pub(crate) group: &'static str,
    /// What was measured.
    pub(crate) what: String,
    /// What is wanted.
    pub(crate) goal: Goal,
    /// Unit of goal and measurement.
    pub(crate) unit: &'static str,
    /// The figure; none: it could not be measured, see the note.
    pub(crate) measured: Option<f64>,
    /// The figures behind it.
    pub(crate) note: String,
}

impl Row {
    /// A measured row.
    pub(crate) fn new(
        group: &'static str,
        what: impl Into<String>,
        (goal, unit): (Goal, &'static str),
        measured: f64,
        note: impl Into<String>,
    ) -> Self {
        Self { group, what: what.into(), goal, unit, measured: Some(measured), note: note.into() }
    }

    /// A row that could not be measured.
    pub(crate) fn failed(group: &'static str, error: &dyn std::fmt::Display) -> Self {
        let note = error.to_string();
        Self { group, what: group.to_owned(), goal: Goal::None, unit: "", measured: None, note }
    }

    /// Whether the must holds.
    pub(crate) fn passes(&self) -> bool {
        self.measured.is_some_and(|measured| match self.goal {
            Goal::AtLeast(goal) => measured >= goal * 0.8,
            Goal::AtMost(goal) => measured <= goal * 1.25,
            Goal::None => measured <= 0.0,
            Goal::Exactly(goal) => (measured - goal).abs() < 0.5,
        })
    }

    fn meets_goal(&self) -> bool {
        self.measured.is_some_and(|measured| match self.goal {
            Goal::AtLeast(goal) => measured >= goal,
            Goal::AtMost(goal) => measured <= goal,
            Goal::None | Goal::Exactly(_) => self.passes(),
        })
    }

    fn verdict(&self) -> &'static str {
        match (self.meets_goal(), self.passes()) {
            (true, _) => "goal met",
            (false, true) => "must met",
            (false, false) => "**missed**",
        }
    }

    fn bounds(&self) -> (String, String) {
        let shown = |sign: &str, value: f64| format!("{sign} {}{}", shown(value), spaced(self.unit));
        match self.goal {
            Goal::AtLeast(goal) => (shown(">=", goal), shown(">=", goal * 0.8)),
            Goal::AtMost(goal) => (shown("<=", goal), shown("<=", goal * 1.25)),
            Goal::None => ("none".to_owned(), "none".to_owned()),
            Goal::Exactly(goal) => (shown("=", goal), shown("=", goal)),
        }
    }

    fn markdown(&self) -> String {
        let (goal, must) = self.bounds();
        let measured = self.measured.map_or_else(|| "-".to_owned(), |value| shown(value) + &spaced(self.unit));
        format!("| {} | {goal} | {must} | {measured} | {} | {} |", self.what, self.verdict(), self.note)
    }

    fn json(&self) -> Value {
        let (goal, must) = self.bounds();
        json!({
            "row": self.group, "what": self.what, "goal": goal, "must": must, "unit": self.unit,
            "measured": self.measured, "verdict": self.verdict().trim_matches('*'), "passes": self.passes(),
            "note": self.note,
        })
    }
}

/// The table for people.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut table =
        "| what | goal | must | measured | verdict | figures |\n| --- | --- | --- | --- | --- | --- |".to_owned();
    for row in rows {
        table.push('\n');
        table.push_str(&row.markdown());
    }
    table
}

/// The table for machines.
pub(crate) fn json(rows: &[Row]) -> Value {
    Value::Array(rows.iter().map(Row::json).collect())
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

/// Three digits that matter.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
