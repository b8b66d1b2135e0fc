//! Tables of text: columns as wide as their content; those of words are narrowed until all fit, cut with `…`, those of numbers never,
//! since half a number is another number. Where that is not enough the last columns are left out. A table of things that have an id keeps the ids whole: the next command wants them. Pure.
//!
//! Widths are those that a terminal shows (wide and combining characters count as such). Control characters of cells
//! are shown as spaces, so that nothing from an API's answer can steer a terminal.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

const GAP: usize = 2;
/// A column is never narrower than this for the sake of others, unless its content is.
const NARROWEST: usize = 8;

/// How a cell looks on a terminal with colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// As any text.
    #[default]
    Plain,
    /// Done well.
    Good,
    /// Under way.
    Busy,
    /// Gone wrong.
    Bad,
}

impl Tone {
    /// The tone of a request's or batch's state.
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "completed" => Self::Good,
            "queued" | "submitted" | "uploaded" | "prepared" => Self::Busy,
            "failed" | "expired" => Self::Bad,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Busy => "\x1b[36m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers, and whatever makes sense only as a whole.
    Right,
}

/// A cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Plain text.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), tone: Tone::Plain }
    }

    /// A state in its tone.
    pub(super) fn state(state: &str) -> Self {
        Self { text: clean(state), tone: Tone::of_state(state) }
    }
}

/// Rows under a header.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
    /// The first column is never cut.
    ids: bool,
}

impl Table {
    /// An empty table.
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), ids: false }
    }

    /// An empty table of things whose ids stand in the first column.
    pub(super) fn of_ids(columns: &[(&'static str, Side)]) -> Self {
        Self { ids: true, ..Self::new(columns) }
    }

    /// Adds a row; missing cells stay empty.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As text with a line break at the end of each line. `width`: of the terminal; none: as wide as it gets.
    pub(super) fn render(&self, width: Option<usize>, colours: bool) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        let header = self.columns.iter().map(|(name, _)| Cell { text: (*name).to_owned(), tone: Tone::Plain });
        push_line(&mut text, &header.collect::<Vec<_>>(), &self.columns, &widths, colours.then_some("\x1b[1m"));
        for row in &self.rows {
            push_line(&mut text, row, &self.columns, &widths, colours.then_some(""));
        }
        text
    }

    /// The natural widths, the widest column narrowed step by step while the line is too long. Fewer widths than
    /// columns: the last ones are left out.
    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let mut natural: Vec<usize> = self.columns.iter().map(|(name, _)| name.width()).collect();
        for row in &self.rows {
            for (width, cell) in natural.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let room = width.unwrap_or(usize::MAX);
        loop {
            let mut widths = natural.clone();
            let gaps = GAP * widths.len().saturating_sub(1);
            while widths.iter().sum::<usize>() + gaps > room {
                let words = widths.iter_mut().zip(&self.columns).skip(usize::from(self.ids));
                let words = words.filter(|(_, (_, side))| *side == Side::Left).map(|(width, _)| width);
                let Some(widest) = words.max().filter(|width| **width > NARROWEST) else { break };
                *widest -= 1;
            }
            let fits = widths.iter().sum::<usize>() + gaps <= room;
            if fits || natural.len() <= 2 {
                return widths;
            }
            natural.pop();
        }
    }
}

/// `style`: what each line begins with on a terminal with colours; none: no colours.
fn push_line(
    text: &mut String,
    cells: &[Cell],
    columns: &[(&str, Side)],
    widths: &[usize],
    style: Option<&'static str>,
) {
    let mut line = String::new();
    let last = widths.len().saturating_sub(1);
    for (at, ((_, side), width)) in columns.iter().zip(widths).enumerate() {
        let cell = cells.get(at).cloned().unwrap_or_default();
        let shown = cut(&cell.text, *width);
        let padding = " ".repeat(width.saturating_sub(shown.width()));
        let code = style.map_or("", |style| if cell.tone == Tone::Plain { style } else { cell.tone.code() });
        let painted = if code.is_empty() { shown } else { format!("{code}{shown}\x1b[0m") };
        match side {
            Side::Right => line.extend([padding.as_str(), painted.as_str()]),
            Side::Left if at == last => line.push_str(&painted),
            Side::Left => line.extend([painted.as_str(), padding.as_str()]),
        }
        if at != last {
            line.push_str(&" ".repeat(GAP));
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// `text` in at most `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used >= width {
            break;
        }
        shown.push(character);
    }
    shown.push('…');
    shown
}

/// Names and values in two columns.
pub(super) fn pairs(pairs: &[(String, String)], colours: bool) -> String {
    let widest = pairs.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let (on, off) = if colours { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    pairs
        .iter()
        .map(|(name, value)| {
            let padding = " ".repeat(widest.saturating_sub(name.width()) + GAP);
            format!("{on}{name}{off}{padding}{}\n", clean(value))
        })
        .collect()
}

fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("ID", Side::Left), ("LINES", Side::Right), ("NOTE", Side::Left)]);
        table.row([Cell::new("bat_0123456789"), Cell::new("7"), Cell::new("a rather long remark")]);
        table.row([Cell::state("failed"), Cell::new("50000")]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_content() {
        assert_eq!(
            table().render(None, false),
            "ID              LINES  NOTE\n\
             bat_0123456789      7  a rather long remark\n\
             failed          50000\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_columns() {
        let text = table().render(Some(32), false);
        assert!(text.lines().all(|line| line.width() <= 32), "{text}");
        assert!(text.contains("bat_01234567…  ") || text.contains('…'), "{text}");
        assert!(text.contains("50000"), "numbers stay whole: {text}");
    }

    #[test]
    fn ids_stay_whole_and_the_last_columns_go() {
        let mut table = Table::of_ids(&[("ID", Side::Left), ("STATE", Side::Left), ("NOTE", Side::Left)]);
        table.row([Cell::new("bat_0123456789"), Cell::state("submitted"), Cell::new("a rather long remark")]);
        assert_eq!(table.render(Some(34), false).lines().nth(1), Some("bat_0123456789  submitt…  a rathe…"));
        assert_eq!(table.render(Some(30), false), "ID              STATE\nbat_0123456789  submitted\n");
        assert!(table.render(Some(5), false).contains("bat_0123456789"), "nothing is left to leave out");
    }

    #[test]
    fn numbers_are_whole_or_left_out() {
        let mut table = Table::new(&[("MODEL", Side::Left), ("LINES", Side::Right), ("SAVED", Side::Right)]);
        table.row([Cell::new("gpt-5.4-mini"), Cell::new("31,012/50,000"), Cell::new("$1,234,567.89")]);
        assert_eq!(table.render(Some(40), false).lines().nth(1), Some("gpt-5.4-m…  31,012/50,000  $1,234,567.89"));
        assert_eq!(table.render(Some(30), false).lines().nth(1), Some("gpt-5.4-mini  31,012/50,000"));
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let plain: String = table().render(None, false);
        let painted = table().render(None, true);
        assert!(painted.contains("\x1b[31mfailed\x1b[0m"), "{painted}");
        let mut stripped = painted;
        for code in ["\x1b[31m", "\x1b[1m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(cut("日本語のモデル", 7), "日本語…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("gpt", 3), "gpt");
    }

    #[test]
    fn nothing_in_a_cell_steers_the_terminal() {
        assert_eq!(Cell::new("a\x1b[2Jb\nc").text, "a [2Jb c");
        assert_eq!(pairs(&[("k".to_owned(), "v\x07".to_owned())], false), "k  v \n");
    }
}
