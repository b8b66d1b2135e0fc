use super::*;

fn items_of(content: &str, template: Option<&str>) -> (Vec<Row>, String) {
    let folder = tempfile::tempdir().unwrap();
    let (file, form) = (folder.path().join("in"), folder.path().join("form"));
    std::fs::write(&file, content).unwrap();
    if let Some(template) = template {
        std::fs::write(&form, template).unwrap();
    }
    let input = Input::new(&file, Endpoint::ChatCompletions, template.map(|_| form.as_path())).unwrap();
    let mut items = input.open().unwrap();
    let rows = items.by_ref().map(Result::unwrap).collect();
    (rows, items.digest())
}

fn faults(content: &str) -> Vec<(u64, String)> {
    let (rows, _) = items_of(content, None);
    rows.into_iter().filter_map(Result::err).map(|fault| (fault.line, fault.what)).collect()
}

#[test]
fn batch_lines_keep_their_ids_and_bodies() {
    let (rows, _) = items_of(
        "\u{feff}{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{\"x\": 1}}\r\n\n\
         {\"custom_id\":\"b\",\"params\":{\"y\":2}}",
        None,
    );
    let rows: Vec<Item> = rows.into_iter().map(Result::unwrap).collect();
    assert_eq!((rows[0].line, rows[0].custom_id.as_str(), rows[0].endpoint), (1, "a", Endpoint::Embeddings));
    assert_eq!(rows[0].body, b"{\"x\": 1}");
    assert_eq!((rows[1].line, rows[1].endpoint, rows[1].body.as_slice()), (3, Endpoint::Messages, &b"{\"y\":2}"[..]));
}

#[test]
fn bare_bodies_are_named_by_their_line() {
    let (rows, _) = items_of("{\"model\":\"m\"}\n\n{\"model\":\"n\",\"method\":7}\n", None);
    let rows: Vec<Item> = rows.into_iter().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| row.custom_id.as_str()).collect::<Vec<_>>(), ["line-1", "line-3"]);
    assert_eq!(rows[1].body, b"{\"model\":\"n\",\"method\":7}");
}

#[test]
fn every_bad_line_says_where_and_what() {
    let good = "{\"custom_id\":\"a\",\"url\":\"/v1/embeddings\",\"body\":{}}\n";
    let found = faults(&format!(
        "{good}[1]\n{{\"custom_id\":7}}\n{{\"custom_id\":\"\",\"body\":{{}}}}\n{{\"custom_id\":\"c\"}}\n\
         {{\"custom_id\":\"d\",\"body\":{{}}}}\n{{\"custom_id\":\"e\",\"url\":\"/v1/files\",\"body\":{{}}}}\n\
         {{\"custom_id\":\"f\",\"method\":\"GET\",\"url\":\"/v1/embeddings\",\"body\":{{}}}}\n{{\"custom_id\"\n"
    ));
    let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 9]);
    for ((_, what), part) in found.iter().zip([
        "not a JSON object",
        "column 14",
        "custom_id is missing or empty",
        "body is missing",
        "url is missing",
        "\"/v1/files\" is not an endpoint",
        "method must be POST",
        "not a valid line",
    ]) {
        assert!(what.contains(part), "{what:?} without {part:?}");
    }
}

#[test]
fn the_digest_is_that_of_every_byte_and_of_the_template() {
    let (_, one) = items_of("{\"a\":1}\n", None);
    let (_, same) = items_of("{\"a\":1}\n", None);
    let (_, other) = items_of("{\"a\":1}\n\n", None);
    assert_eq!(one.len(), 64);
    assert!(one == same && one != other);
    let (_, form) = items_of("x\n1\n", Some("{\"a\":{{x}}}"));
    let (_, other_form) = items_of("x\n1\n", Some("{\"b\":{{x}}}"));
    assert_ne!(form, other_form);
}

#[test]
fn rows_fill_the_template() {
    let (rows, _) = items_of(
        "custom_id,text\nr1,\"say \"\"hi\"\"\nand go\"\n,plain\nr3\n",
        Some("{\"messages\":[{\"content\":\"{{text}}!\"}]}"),
    );
    let first = rows[0].as_ref().unwrap();
    assert_eq!((first.line, first.custom_id.as_str()), (2, "r1"));
    assert_eq!(String::from_utf8_lossy(&first.body), r#"{"messages":[{"content":"say \"hi\"\nand go!"}]}"#);
    let second = rows[1].as_ref().unwrap();
    assert_eq!((second.line, second.custom_id.as_str()), (4, "row-2"));
    let third = rows[2].as_ref().unwrap_err();
    assert_eq!((third.line, third.what.as_str()), (5, "has 1 columns, the header has 2"));
}

#[test]
fn a_file_that_is_none_of_lines_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, content: &[u8], template: Option<&str>| {
        let (file, form) = (folder.path().join(name), folder.path().join("form"));
        std::fs::write(&file, content).unwrap();
        std::fs::write(&form, template.unwrap_or_default()).unwrap();
        let input = Input::new(&file, Endpoint::ChatCompletions, template.map(|_| form.as_path())).unwrap();
        input.open().unwrap_err().to_string()
    };
    for (name, content, template, part) in [
        ("in.jsonl.gz", &b"\x1f\x8b\x08"[..], None, "unpack it first"),
        ("in.jsonl", b"\x28\xb5\x2f\xfd\x00", None, "unpack it first"),
        ("in.csv", b"text\nhi\n", None, "--template"),
        ("in.json", b"\xef\xbb\xbf\n [{\"model\":\"m\"}]", None, "one call on each line"),
        ("in.csv", b"", Some("{\"a\":\"{{text}}\"}"), "is empty: its first line names the columns"),
        ("in.csv", b"te\"x\"t\nhi\n", Some("{\"a\":\"{{text}}\"}"), "the header cannot be read: a quote stands"),
    ] {
        let message = refused(name, content, template);
        assert!(message.contains(part), "{name}: {message}");
    }
}
