//! CSV (RFC 4180) by its header: each row becomes the same structure as a JSON object with these names.
//!
//! Columns that no format uses are skipped unread. A header may come again, as when files were put together. Who cuts
//! rows apart: `split`.

use serde::Deserialize as _;
use serde::de::value::MapDeserializer;

use crate::audit::call::{Problem, Reading};
use crate::audit::shape::Shape;

/// Columns by which a first line is known to be a header of one of the formats.
const KNOWN: [&str; 12] = [
    "generation_id",
    "model_permaslug",
    "request_created_at",
    "startTime",
    "start_time",
    "usageDetails",
    "usage_details",
    "prompt_tokens",
    "promptTokens",
    "tokens_prompt",
    "providedModelName",
    "spend",
];

/// The names of the columns, once they were seen.
#[derive(Debug, Default)]
pub(in crate::audit) struct Header(Vec<String>);

/// Whether a first line names columns of a format.
pub(in crate::audit) fn is_header(line: &[u8]) -> bool {
    let names = fields(line);
    names.len() > 1 && names.iter().any(|name| KNOWN.contains(&name.as_str()))
}

/// A row; the first one, and any that is like it, is the header.
pub(in crate::audit) fn read(row: &[u8], header: &mut Header) -> Reading {
    let row = row.trim_ascii();
    if row.is_empty() {
        return Reading::Nothing;
    }
    let fields = fields(row);
    if header.0.is_empty() || is_header(row) {
        header.0 = fields;
        return Reading::Nothing;
    }
    if fields.len() < 2 {
        return Reading::Skip(Problem::Unrecognised);
    }
    let mut names: Vec<&str> = Vec::with_capacity(header.0.len());
    let pairs = header.0.iter().map(String::as_str).zip(fields.iter().map(String::as_str)).filter(|(name, value)| {
        let first = !value.is_empty() && !names.contains(name);
        names.push(name);
        first
    });
    let shape = Shape::deserialize(MapDeserializer::<_, serde::de::value::Error>::new(pairs));
    let reading = shape.map_or(Reading::Skip(Problem::Unrecognised), |shape| super::read_shape(&shape));
    if std::str::from_utf8(row).is_ok() {
        return reading;
    }
    Reading::Many(vec![reading, Reading::Skip(Problem::NotUtf8)])
}

/// The fields of one row. A quote that is not closed ends with the row.
fn fields(row: &[u8]) -> Vec<String> {
    let mut fields = Vec::new();
    let (mut field, mut quoted, mut was_quote) = (Vec::new(), false, false);
    for &byte in row.trim_ascii_end() {
        match byte {
            b'"' if quoted => (quoted, was_quote) = (false, true),
            b'"' => {
                if was_quote {
                    field.push(b'"');
                }
                (quoted, was_quote) = (true, false);
            }
            b',' if !quoted => {
                fields.push(text(&field));
                field.clear();
                was_quote = false;
            }
            other => {
                field.push(other);
                was_quote = false;
            }
        }
    }
    fields.push(text(&field));
    fields
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_apart() {
        assert_eq!(
            fields(b"a,\"b, c\",\"say \"\"x\"\"\",\"\",\"l1\nl2\"\r\n"),
            ["a", "b, c", "say \"x\"", "", "l1\nl2"]
        );
        assert_eq!(fields(b"\"open,b"), ["open,b"]);
        assert_eq!(fields(b",,"), ["", "", ""]);
    }

    #[test]
    fn headers_are_known_by_their_columns() {
        assert!(is_header(b"generation_id,created_at,cost_total"));
        assert!(is_header(b"\"id\",\"traceId\",\"startTime\",\"model\""));
        for other in [&b"a,b,c"[..], b"127.0.0.1 - - [x] \"GET / HTTP/1.1\"", b"spend", b""] {
            assert!(!is_header(other));
        }
    }

    #[test]
    fn short_long_and_double_rows_are_read_as_far_as_they_go() {
        let mut header = Header::default();
        assert!(matches!(read(b"generation_id,created_at,cost_total,cost_total", &mut header), Reading::Nothing));
        for row in ["g1,2026-11-23 08:00:00", "g1,2026-11-23 08:00:00,0.5,0.5,more", "g1,,,"] {
            assert!(matches!(read(row.as_bytes(), &mut header), Reading::Call(_)), "{row}");
        }
        assert!(matches!(read(b"rubbish", &mut header), Reading::Skip(Problem::Unrecognised)));
        assert!(matches!(read(b"g1,\xff,1", &mut header), Reading::Many(_)));
    }
}
