//! CSV (RFC 4180) over a template: each row fills the places `{{column}}` of a request body.
//!
//! What stands in a row goes into the body as the inside of a JSON string, escaped, so a place belongs between quotes;
//! one without quotes takes numbers and `true`. Strict where a log reader would be lenient: this text is paid for.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use anyhow::bail;

/// The column that names a row in the output.
const ID: &str = "custom_id";

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it begins, from 1.
    pub(super) line: u64,
    pub(super) fields: Vec<String>,
    /// Why it cannot be used.
    broken: Option<&'static str>,
}

impl Record {
    /// Its fields, or why they cannot be told.
    pub(super) fn into_fields(self) -> Result<Vec<String>, &'static str> {
        self.broken.map_or(Ok(self.fields), Err)
    }
}

/// A body with places to fill.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: String,
    /// Text and the column after it, in turn; the last text has none.
    parts: Vec<(String, Option<String>)>,
}

/// A template that knows which column is which.
#[derive(Debug)]
pub(super) struct Filled {
    /// Text and the number of the column after it.
    parts: Vec<(String, Option<usize>)>,
    id: Option<usize>,
    columns: usize,
}

impl Template {
    /// # Errors
    /// A place that is not closed, or no place at all.
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            // JSON of its own: an object that opens another one has a name in between, so `{{` begins a place.
            let Some((column, after)) = after.split_once("}}") else {
                bail!("a place opens with {{{{ and is not closed by }}}}");
            };
            parts.push((before.to_owned(), Some(column.trim().to_owned())));
            rest = after;
        }
        if parts.is_empty() {
            bail!("it has no place to fill: write {{{{column}}}} where a column of the CSV belongs");
        }
        parts.push((rest.to_owned(), None));
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// A place whose column the header does not have, or a column that it has twice.
    pub(super) fn over(&self, header: &[String]) -> anyhow::Result<Filled> {
        let names: Vec<&str> = header.iter().map(|name| name.trim()).collect();
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            bail!("the header names a column twice: {}", names.join(", "));
        }
        let column_of = |name: &str| names.iter().position(|column| *column == name);
        let mut parts = Vec::with_capacity(self.parts.len());
        for (text, name) in &self.parts {
            let column = match name {
                None => None,
                Some(name) => match column_of(name) {
                    Some(column) => Some(column),
                    None => bail!("the template's {{{{{name}}}}} is no column; there are: {}", names.join(", ")),
                },
            };
            parts.push((text.clone(), column));
        }
        Ok(Filled { parts, id: column_of(ID), columns: names.len() })
    }
}

impl Filled {
    /// The id and body of the row with this number; the first one after the header is 1.
    pub(super) fn fill(&self, record: &Record, number: u64) -> Result<(String, Vec<u8>), String> {
        if let Some(broken) = record.broken {
            return Err(broken.to_owned());
        }
        if record.fields.len() != self.columns {
            return Err(format!("has {} columns, the header has {}", record.fields.len(), self.columns));
        }
        let field = |column: usize| record.fields.get(column).map(String::as_str).unwrap_or_default();
        let mut body = String::new();
        for (text, column) in &self.parts {
            body.push_str(text);
            if let Some(column) = column {
                let quoted = serde_json::Value::from(field(*column)).to_string();
                body.push_str(quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default());
            }
        }
        let given = self.id.map(field).filter(|id| !id.is_empty());
        Ok((given.map_or_else(|| format!("row-{number}"), ToOwned::to_owned), body.into_bytes()))
    }
}

/// The next row that is not blank. `line` counts the lines read so far.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn record(reader: &mut impl BufRead, line: &mut u64) -> io::Result<Option<Record>> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let begin = *line + 1;
        let mut open = false;
        // Quotes inside a field are doubled, so that their number tells whether the row goes on.
        loop {
            let from = bytes.len();
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            *line += 1;
            let quotes = memchr::memchr_iter(b'"', bytes.get(from..).unwrap_or_default()).count();
            open ^= !quotes.is_multiple_of(2);
            if !open {
                break;
            }
        }
        let row = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        if !row.is_empty() {
            return Ok(Some(split(begin, row, open)));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
    }
}

fn split(line: u64, row: &[u8], open: bool) -> Record {
    let broken = |why| Record { line, fields: Vec::new(), broken: Some(why) };
    if open {
        return broken("a quote is opened and not closed");
    }
    let Ok(row) = std::str::from_utf8(row) else { return broken("not UTF-8") };
    let mut fields = Vec::new();
    let mut rest = Some(row);
    while let Some(text) = rest {
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => match quoted_field(quoted) {
                Some(found) => found,
                None => return broken("text stands behind the closing quote of a field"),
            },
            None => match text.split_once(',') {
                Some((field, _)) if field.contains('"') => return broken("a quote stands in a field without quotes"),
                Some((field, after)) => (field.to_owned(), Some(after)),
                None if text.contains('"') => return broken("a quote stands in a field without quotes"),
                None => (text.to_owned(), None),
            },
        };
        fields.push(field);
        rest = after;
    }
    Record { line, fields, broken: None }
}

/// The field after its first quote, and what comes after its comma; none: it does not end as a field must.
fn quoted_field(text: &str) -> Option<(String, Option<&str>)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if after.is_empty() {
            return Some((field, None));
        } else {
            return Some((field, Some(after.strip_prefix(',')?)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Record> {
        let (mut reader, mut line) = (text.as_bytes(), 0);
        std::iter::from_fn(|| record(&mut reader, &mut line).unwrap()).collect()
    }

    #[test]
    fn rows_are_taken_apart_as_they_were_written() {
        let found = rows("a,\"b, c\",\"say \"\"x\"\"\"\r\n\r\n \"\" ,x\n,\"l1\nl2\",\nlast");
        assert_eq!(found[0].fields, ["a", "b, c", "say \"x\""]);
        assert_eq!(found[1].broken, Some("a quote stands in a field without quotes"));
        assert_eq!((found[2].line, found[2].fields.as_slice()), (4, &["", "l1\nl2", ""].map(String::from)[..]));
        assert_eq!((found[3].line, found[3].fields.as_slice()), (6, &["last".to_owned()][..]));
        assert_eq!(rows("\"open,b\nx")[0].broken, Some("a quote is opened and not closed"));
        assert_eq!(rows("\"a\"b,c")[0].broken, Some("text stands behind the closing quote of a field"));
    }

    #[test]
    fn a_template_names_columns_that_are_there() {
        let header = ["a".to_owned(), " b ".to_owned()];
        let template = Template::new("{\"x\":\"{{ a }}\",\"n\":{{b}}}").unwrap();
        let filled = template.over(&header).unwrap();
        let row = &rows("\"1\"\"2\",3\n")[0];
        let (id, body) = filled.fill(row, 5).unwrap();
        assert_eq!((id.as_str(), String::from_utf8_lossy(&body).as_ref()), ("row-5", r#"{"x":"1\"2","n":3}"#));
        let missing = template.over(&["a".to_owned()]).unwrap_err().to_string();
        assert!(missing.contains("{{b}}") && missing.contains("there are: a"), "{missing}");
        assert!(template.over(&["a".to_owned(), "a".to_owned()]).is_err());
        assert!(Template::new("{}").is_err() && Template::new("{{a").is_err());
    }
}
