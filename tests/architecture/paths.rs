//! Which of the crate's modules a file names: `use crate::…`, `crate::…` in an expression, `super::…` that climbs to
//! the crate's root, and `nightbus::…` in the binary.

use crate::source::Source;

/// One path of the crate that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// From the crate's root: `["store", "sqlite"]`.
    pub(crate) path: Vec<String>,
    /// Line of the `crate`, `super` or `nightbus` it begins with, from 1.
    pub(crate) line: usize,
}

/// All references in the production part of `source`.
pub(crate) fn references(source: &Source) -> Vec<Reference> {
    let depth = source.module_path().len();
    let mut found = Vec::new();
    for (at, root) in roots(&source.code, source.module() == "main") {
        let rest = source.code.get(at + root.len()..).unwrap_or_default();
        let mut paths = Vec::new();
        tree(&mut Tokens { rest }, &[], &mut paths);
        for mut path in paths {
            if root == "super::" {
                let more = path.iter().take_while(|part| *part == "super").count();
                if more + 1 < depth {
                    continue; // still inside its own module
                }
                path.drain(..more);
            }
            if !path.is_empty() {
                found.push(Reference { path, line: source.line_of(at) });
            }
        }
    }
    found
}

/// Where a path begins that starts at the crate's root or climbs.
fn roots(code: &str, is_binary: bool) -> Vec<(usize, &'static str)> {
    let mut wanted = vec!["crate::", "super::"];
    if is_binary {
        wanted.push("nightbus::");
    }
    let mut found = Vec::new();
    for root in wanted {
        for (at, _) in code.match_indices(root) {
            let before = code.get(..at).unwrap_or_default();
            // `super::super::x` is read once, from its first `super`.
            let is_start = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.ends_with("::");
            if is_start {
                found.push((at, root));
            }
        }
    }
    found
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        let trimmed = self.rest.trim_start();
        match trimmed.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a name if one comes next.
    fn name(&mut self) -> Option<&'a str> {
        let trimmed = self.rest.trim_start();
        let end = trimmed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(trimmed.len());
        let (name, rest) = trimmed.split_at_checked(end)?;
        if name.is_empty() {
            return None;
        }
        self.rest = rest;
        Some(name)
    }
}

/// Reads `a::{b, c::d}` into its leaves.
fn tree(tokens: &mut Tokens<'_>, prefix: &[String], found: &mut Vec<Vec<String>>) {
    if tokens.take("{") {
        while !tokens.take("}") {
            let before = tokens.rest;
            tree(tokens, prefix, found);
            if tokens.take("as") {
                tokens.name();
            }
            tokens.take(",");
            if tokens.rest == before {
                return; // not a use tree after all
            }
        }
        return;
    }
    let mut path = prefix.to_vec();
    if tokens.take("*") {
        found.push(path);
        return;
    }
    while let Some(name) = tokens.name() {
        path.push(name.to_owned());
        if !tokens.take("::") {
            break;
        }
        if tokens.rest.starts_with('{') {
            return tree(tokens, &path, found);
        }
        if tokens.take("*") {
            break;
        }
    }
    found.push(path);
}
