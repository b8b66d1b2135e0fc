use super::*;
use proptest::prelude::*;

type Owned = (String, String);

fn read_in(pieces: &[&[u8]], limit: usize) -> (Vec<Owned>, u64) {
    let mut reader = SseReader::new(limit);
    let mut events = Vec::new();
    for piece in pieces {
        reader.feed(piece, |event| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            events.push((text(event.event), text(event.data)));
        });
    }
    (events, reader.skipped())
}

fn read(stream: &[u8]) -> Vec<Owned> {
    read_in(&[stream], 1 << 20).0
}

fn event(name: &str, data: &str) -> Owned {
    (name.to_owned(), data.to_owned())
}

#[test]
fn reads_names_data_and_ignores_comments() {
    let stream =
        b": nightbus queued\n\nevent: a\ndata: {\"x\":1}\n\nid: 7\nretry: 3\ndata:two\ndata:  lines\n\ndata\n\n";
    assert_eq!(read(stream), [event("a", "{\"x\":1}"), event("", "two\n lines"), event("", "")]);
}

#[test]
fn an_event_without_its_blank_line_was_cut_and_does_not_count() {
    assert_eq!(read(b"data: one\n\ndata: tw"), [event("", "one")]);
    assert_eq!(read(b"data: one\n\ndata: two\n"), [event("", "one")]);
}

#[test]
fn a_name_without_data_is_no_event_and_does_not_stick() {
    assert_eq!(read(b"event: ghost\n\ndata: x\n\n"), [event("", "x")]);
}

#[test]
fn skips_a_byte_order_mark() {
    assert_eq!(read(b"\xef\xbb\xbfdata: x\n\n"), [event("", "x")]);
}

#[test]
fn too_large_events_are_skipped_and_the_next_is_read() {
    let huge = [b"data: ".as_slice(), &[b'x'; 100], b"\n\ndata: small\n\n"].concat();
    assert_eq!(read_in(&[&huge], 40), (vec![event("", "small")], 1));
    let bytewise: Vec<&[u8]> = huge.chunks(1).collect();
    assert_eq!(read_in(&bytewise, 40), (vec![event("", "small")], 1));
    let many_lines = [b"data: 0123456789\n".repeat(10).as_slice(), b"\ndata: small\n\n"].concat();
    assert_eq!(read_in(&[&many_lines], 40), (vec![event("", "small")], 1));
}

#[test]
fn a_line_that_is_too_long_is_no_blank_line_however_it_comes() {
    let stream = b": a comment of more than 16 bytes\rdata: 2\n\ndata: 3\n\n";
    let pieces: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read_in(&pieces, 16), (vec![event("", "3")], 1));
    assert_eq!(read_in(&[stream], 16), (vec![event("", "3")], 1));
}

#[test]
fn knows_the_end_of_a_chat_stream() {
    let mut done = Vec::new();
    SseReader::new(100).feed(b"data: {}\n\ndata: [DONE]\n\n", |event| done.push(event.is_done()));
    assert_eq!(done, [false, true]);
}

proptest! {
    #[test]
    fn cuts_and_line_ends_do_not_matter(
        lines in proptest::collection::vec("(data: ?[a-z:]{0,6}|event: ?[a-z]{1,3}|: [a-z]{0,3}||)", 0..20),
        ends in proptest::collection::vec(0..3_usize, 20),
        cuts in proptest::collection::vec(1..7_usize, 200),
    ) {
        let reference = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let mut stream = Vec::new();
        for (line, end) in lines.iter().zip(ends) {
            let end: &[u8] = if end == 0 { b"\r\n" } else { b"\n" };
            stream.extend_from_slice(line.as_bytes());
            stream.extend_from_slice(end);
        }
        let mut pieces = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(read_in(&pieces, 1 << 20).0, read(reference.as_bytes()));
        let carriage_returns = reference.replace('\n', "\r");
        prop_assert_eq!(read(carriage_returns.as_bytes()), read(reference.as_bytes()));
        let bytewise: Vec<&[u8]> = carriage_returns.as_bytes().chunks(1).collect();
        prop_assert_eq!(read_in(&bytewise, 1 << 20).0, read(reference.as_bytes()));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_memory_stays_bounded(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
    ) {
        let mut reader = SseReader::new(32);
        for piece in &pieces {
            reader.feed(piece, |_event| {});
            prop_assert!(reader.line.len() <= 32 && reader.data.len() <= 32 && reader.event.len() <= 32);
        }
    }
}
