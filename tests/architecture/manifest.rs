//! Every direct dependency has a row in docs/dependencies.md, and every row a dependency.

use std::collections::BTreeSet;

/// Compares the manifest's dependency tables with the tables of the document.
pub(crate) fn dependencies_documented(manifest: &str, document: &str) -> Vec<String> {
    let wanted = dependencies(manifest);
    let described = described(document);
    let missing = wanted.difference(&described).map(|name| format!("docs/dependencies.md: no row for `{name}`"));
    let left_over = described.difference(&wanted).map(|name| format!("docs/dependencies.md: `{name}` is not used"));
    missing.chain(left_over).collect()
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut is_table = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            is_table = table.trim_end_matches(']').ends_with("dependencies");
        } else if is_table && let Some((name, _)) = line.split_once('=') {
            let name = name.trim();
            if !name.starts_with('#') && !line.starts_with([' ', '}']) {
                found.insert(name.split('.').next().unwrap_or(name).to_owned());
            }
        }
    }
    found
}

/// Rows begin with the crate's name in backquotes.
fn described(document: &str) -> BTreeSet<String> {
    document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}
