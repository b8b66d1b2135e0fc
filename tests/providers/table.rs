//! The table in docs/providers.md: one row for each kind, written by `NIGHTBUS_TEST_BLESS=1` and compared without it.

use std::fmt::Write as _;
use std::fs::File;

use nightbus::config::{BatchWire, ProviderKind};

use super::kind::Kind;
use super::suite::COLUMNS;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/providers.md");
const BEGIN: &str = "<!-- conformance: written by tests/providers.rs -->\n";
const END: &str = "<!-- end of conformance -->\n";

fn row(kind: &str, cells: &[String]) -> String {
    format!("| `{kind}` | {} |", cells.join(" | "))
}

/// The lines of the table in the file, and what stands around it.
fn parts(text: &str) -> (String, Vec<String>, String) {
    let (before, rest) = text.split_once(BEGIN).expect("docs/providers.md has lost its marks");
    let (table, after) = rest.split_once(END).expect("docs/providers.md has lost its marks");
    (before.to_owned(), table.lines().map(ToOwned::to_owned).collect(), after.to_owned())
}

/// Writes the row, or fails if it is not what the file says.
pub(crate) fn holds(kind: &Kind, cells: &[String]) {
    assert_eq!(cells.len(), COLUMNS.len());
    let row = row(kind.name, cells);
    if std::env::var_os("NIGHTBUS_TEST_BLESS").is_some() {
        return write(kind, &row);
    }
    let (_, lines, _) = parts(&std::fs::read_to_string(FILE).unwrap());
    assert!(
        lines.contains(&row),
        "docs/providers.md is stale; write it with NIGHTBUS_TEST_BLESS=1. It should say: {row}"
    );
}

/// Rows stand in the order of their names' first appearance in the suite; each test writes its own.
fn write(kind: &Kind, row: &str) {
    // Each kind's test is a process of its own.
    let lock = File::open(FILE).unwrap();
    lock.lock().unwrap();
    let (before, lines, after) = parts(&std::fs::read_to_string(FILE).unwrap());
    let is_own = |line: &&String| line.starts_with(&format!("| `{}` |", kind.name));
    let mut rows: Vec<String> =
        lines.iter().skip(2).filter(|line| !line.is_empty() && !is_own(line)).cloned().collect();
    rows.push(row.to_owned());
    rows.sort_by_key(|row| super::ALL.iter().position(|kind| row.starts_with(&format!("| `{}` |", kind.name))));
    let mut text =
        format!("{before}{BEGIN}| `kind` | {} |\n|{}\n", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len() + 1));
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    std::fs::write(FILE, format!("{text}{END}{after}")).unwrap();
}

/// Kinds and rows belong together.
pub(crate) fn has_rows_for(all: &[Kind]) {
    let with_batches = |kind: &&ProviderKind| !matches!(kind.batch_wire(), BatchWire::None);
    let kinds: Vec<&str> = ProviderKind::all().iter().filter(with_batches).map(|kind| kind.as_str()).collect();
    let tested: Vec<&str> = all.iter().map(|kind| kind.name).collect();
    assert_eq!(tested, kinds);
}
