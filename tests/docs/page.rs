//! A page of documentation, read as far as the checks need it: links, headings, table rows, and what stands in code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One Markdown file.
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) path: PathBuf,
    /// Outside of code blocks.
    prose: String,
    /// The content of code blocks in a shell's language.
    shell: String,
}

impl Page {
    pub(crate) fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = text_of(&path);
        let (mut prose, mut shell) = (String::new(), String::new());
        let mut language = None;
        for line in text.lines() {
            match (line.strip_prefix("```"), language) {
                (Some(opened), None) => language = Some(opened),
                (Some(_), Some(_)) => language = None,
                (None, Some("sh")) => shell.extend([line, "\n"]),
                (None, Some(_)) => {}
                (None, None) => prose.extend([line, "\n"]),
            }
        }
        assert!(language.is_none(), "{}: a code block does not end", path.display());
        Self { path, prose, shell }
    }

    /// What stands between backticks.
    pub(crate) fn spans(&self) -> Vec<&str> {
        self.prose.lines().flat_map(spans).collect()
    }

    /// Everything that could be typed: spans, and lines of shell blocks without their comments.
    pub(crate) fn typed(&self) -> Vec<&str> {
        let shell = self.shell.lines().map(|line| line.split(" #").next().unwrap_or_default());
        self.spans().into_iter().chain(shell).collect()
    }

    /// Targets of links.
    pub(crate) fn links(&self) -> Vec<&str> {
        self.prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
    }

    /// Anchors of its headings, as code hosts make them.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Headings of the level that `marks` says, each with what follows up to the next heading of any level.
    pub(crate) fn sections(&self, marks: &str) -> Vec<(&str, String)> {
        let mut sections: Vec<(&str, String)> = Vec::new();
        let mut inside = false;
        for line in self.prose.lines() {
            if line.starts_with('#') {
                let heading = line.strip_prefix(marks).and_then(|rest| rest.strip_prefix(' '));
                inside = heading.is_some();
                sections.extend(heading.map(|heading| (heading, String::new())));
            } else if let Some((_, content)) = sections.last_mut().filter(|_| inside) {
                content.extend([line, "\n"]);
            }
        }
        sections
    }

    /// The content below a heading.
    pub(crate) fn section(&self, marks: &str, heading: &str) -> String {
        let found = self.sections(marks).into_iter().find(|(title, _)| *title == heading);
        found.unwrap_or_else(|| panic!("{} has no {heading:?}", self.path.display())).1
    }

    /// Words that begin with `prefix`, wherever they stand.
    pub(crate) fn words(&self, prefix: &str, of: impl Fn(char) -> bool) -> BTreeSet<String> {
        let text = [self.prose.as_str(), self.shell.as_str()].concat();
        let starts = text.match_indices(prefix).map(|(at, _)| text.split_at(at).1);
        starts.map(|rest| rest.chars().take_while(|c| of(*c)).collect()).collect()
    }
}

/// Between backticks, in one line.
pub(crate) fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The first cell of each row of a table.
pub(crate) fn first_cells(section: &str) -> Vec<&str> {
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---"));
    rows.filter_map(|row| row.split('|').nth(1)).map(str::trim).collect()
}

/// The file's text.
pub(crate) fn text_of(path: &Path) -> String {
    std::fs::read_to_string(super::root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}
