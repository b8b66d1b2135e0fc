//! Reads the source tree for the rules: which files there are, and what in them is code.
//!
//! A [`Source`] holds the production part of a file twice: as it stands (to count lines) and with comments and
//! literals blanked out (to look for names), both with the lines where they were. No Rust parser: the code is
//! formatted by rustfmt and compiles, so a look at the tokens is enough.

use std::fs;
use std::io;
use std::path::Path;

/// One file of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// Everything, tests included.
    pub(crate) text: String,
    /// The production part, comments and literals blanked out.
    pub(crate) code: String,
}

impl Source {
    /// Takes a file's path and text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let blanked = blank(text);
        let code = if is_test_file(path) { String::new() } else { production(&blanked).to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Lines before the unit tests.
    pub(crate) fn production_lines(&self) -> usize {
        self.code.lines().count()
    }

    /// The module below the crate's root that the file belongs to: `intake` for `src/intake/hold.rs`.
    pub(crate) fn module(&self) -> &str {
        let inner = self.path.trim_start_matches("src/");
        inner.split(['/', '.']).next().unwrap_or_default()
    }

    /// The module path of the file: `["intake", "hold"]` for `src/intake/hold.rs`.
    pub(crate) fn module_path(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).collect()
    }

    /// The line, from 1, of the byte `at` in `code`.
    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.code.get(..at).unwrap_or_default().matches('\n').count() + 1
    }
}

/// All `.rs` files below `dir`, in order of their paths.
pub(crate) fn read_tree(root: &Path, dir: &str) -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(dir)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                found.push(Source::new(&relative, &fs::read_to_string(&path)?));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Unit tests in a file of their own.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The part before the first inline test module. A `#[cfg(test)]` on anything else (a `mod tests;`, a helper) does
/// not end it: what follows is production code.
fn production(blanked: &str) -> &str {
    let mut from = 0;
    while let Some(found) = blanked.get(from..).and_then(|rest| rest.find("#[cfg(test)]")) {
        let at = from + found;
        let rest = blanked.get(at..).unwrap_or_default();
        let item = rest
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with("#[") && !line.ends_with(")]"))
            .unwrap_or_default();
        let item = item.trim_start_matches("pub(crate) ");
        if item.starts_with("mod ") && item.ends_with('{') {
            return blanked.get(..at).unwrap_or_default();
        }
        from = at + 1;
    }
    blanked
}

/// Replaces comments and the insides of literals by spaces; line breaks stay.
pub(crate) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let end = match c {
            '/' if starts(&chars, at, "//") => line_comment(&chars, at),
            '/' if starts(&chars, at, "/*") => block_comment(&chars, at),
            '"' => string(&chars, at),
            'r' | 'b' if !follows_word(&chars, at) => raw_string(&chars, at).unwrap_or(at),
            '\'' => char_literal(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(c);
            at += 1;
        } else {
            out.extend(chars.iter().take(end).skip(at).map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn starts(chars: &[char], at: usize, with: &str) -> bool {
    with.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c))
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| chars.get(before)).is_some_and(|c| c.is_alphanumeric() || *c == '_')
}

fn line_comment(chars: &[char], at: usize) -> usize {
    (at..chars.len()).find(|i| chars.get(*i) == Some(&'\n')).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        if starts(chars, i, "/*") {
            depth += 1;
            i += 2;
        } else if starts(chars, i, "*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    chars.len()
}

fn string(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(c) = chars.get(i) {
        match c {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`; `None` when it is a plain name, or a byte string that [`string`] reads.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let at = if starts(chars, at, "br") { at + 1 } else { at };
    if chars.get(at) != Some(&'r') {
        return None;
    }
    let hashes = chars.iter().skip(at + 1).take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some((open + 1..chars.len()).find(|i| starts(chars, *i, &close)).map_or(chars.len(), |i| i + close.len()))
}

/// `'x'` or `'\n'`, but not the lifetime `'a`.
fn char_literal(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        return (at + 3..chars.len()).find(|i| chars.get(*i) == Some(&'\'')).map(|i| i + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}
