//! What people see: the help and the output of every command, against files in tests/cli/snapshots. `NIGHTBUS_TEST_BLESS=1` writes the
//! files; look at the difference before it is committed.
//!
//! What differs from run to run and from machine to machine is replaced by a name in braces (`masked`). A command without a
//! file, and a file that no test prints any more, are failures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use unicode_width::UnicodeWidthStr as _;

use crate::command::{Done, nightbus};
use crate::{outputs, stand_in, terminal};

/// Ports from here on were asked for as 0.
const GIVEN_BY_THE_SYSTEM: u16 = 10_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots")
}

/// Holds `text` against the file, or writes it.
pub(crate) fn check(name: &str, text: &str, wrong: &mut Vec<String>) {
    let path = folder().join(name);
    if std::env::var_os("NIGHTBUS_TEST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept != text {
        wrong.push(format!("{name} is:\n{kept}\nbut was printed as:\n{text}"));
    }
}

pub(crate) fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}\nNIGHTBUS_TEST_BLESS=1 takes the new text over.", wrong.join("\n"));
}

/// How a command ended, as it is kept. `known`: texts of this run, and what stands for them.
pub(crate) fn ending(done: &Done, known: &[(&str, &str)]) -> String {
    let text = format!("exit code {}\n--- standard output\n{}--- standard error\n{}", done.code, done.out, done.err);
    assert!(!text.contains('\x1b'), "nothing steers the terminal, and a pipe has no colours: {text:?}");
    masked(&text, known)
}

/// Without what is of this run alone: `known` texts, ids, times, ports. Lines that tell how far something is come by the clock and are left out.
pub(crate) fn masked(text: &str, known: &[(&str, &str)]) -> String {
    let text = known.iter().fold(text.to_owned(), |text, (is, name)| text.replace(is, name));
    let lines = text.split_inclusive('\n').filter(|line| !is_progress(line));
    lines.flat_map(|line| words(line)).map(word_masked).collect()
}

/// `   2 s  0 of 20 answered`.
fn is_progress(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(|first| first.parse::<u32>().is_ok()) && words.next() == Some("s")
}

/// The text in pieces: words of ids, times and numbers, and what stands between them.
fn words(line: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.');
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn word_masked(word: &str) -> String {
    // Ids, and the fingerprints of credentials.
    let is_hex = |text: &str| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bare = word.trim_end_matches(['.', ':']);
    let end = word.strip_prefix(bare).unwrap_or_default();
    let id = bare.rsplit(['_', '-', ':']).next().unwrap_or_default();
    if is_hex(id) && !id.starts_with(stand_in::IDS) {
        return format!("{}{{id}}{end}", bare.strip_suffix(id).unwrap_or_default());
    }
    if let Some(port) = bare.strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok())
        && port >= GIVEN_BY_THE_SYSTEM
    {
        return format!("127.0.0.1:{{port}}{end}");
    }
    let is_number = bare.len() == 10 && bare.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = bare.ends_with('Z') && bare.starts_with("20") && bare.contains('T') && bare.contains(':');
    // Of the price list, which is renewed.
    let is_day = bare.len() == 10 && bare.starts_with("20") && bare.split('-').map(str::len).eq([4, 2, 2]);
    match (is_number || is_time, is_day) {
        (true, _) => format!("{{time}}{end}"),
        (_, true) => format!("{{day}}{end}"),
        _ => word.to_owned(),
    }
}

/// Names of the files that are kept.
fn kept(part: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder().join(part)).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// What `--help` lists.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15, "{help}");
    commands
}

#[test]
fn the_help_of_every_command() {
    let top = nightbus(&["--help"]).out;
    let commands = commands(&top);
    let mut wrong = Vec::new();
    check("help/nightbus.txt", &top, &mut wrong);
    for name in &commands {
        let help = nightbus(&[name, "--help"]);
        assert_eq!(help.code, 0, "{name}: {}", help.err);
        let too_wide = help.out.lines().find(|line| line.width() > 100);
        assert_eq!(too_wide, None, "{name}");
        check(&format!("help/{name}.txt"), &help.out, &mut wrong);
    }
    assert_none(&wrong);
    let expected: BTreeSet<String> = commands.iter().chain(&["nightbus"]).map(|name| format!("{name}.txt")).collect();
    assert_eq!(kept("help"), expected, "one file for each command");
}

#[test]
fn every_command_has_an_output_that_is_kept_and_every_kept_file_is_printed_by_a_test() {
    let top = nightbus(&["--help"]).out;
    let printed: BTreeSet<String> = outputs::names().into_iter().map(|name| format!("{name}.txt")).collect();
    if std::env::var_os("NIGHTBUS_TEST_BLESS").is_some() {
        // They are being written.
        return;
    }
    assert_eq!(kept("output"), printed);
    let drawn: BTreeSet<String> = terminal::names().into_iter().map(|name| format!("{name}.txt")).collect();
    assert_eq!(kept("terminal"), drawn);
    let all: Vec<&String> = printed.iter().chain(&drawn).collect();
    for name in commands(&top) {
        let of_command =
            |file: &&&String| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-') || rest == ".txt");
        assert!(
            all.iter().any(|file| of_command(&file)),
            "no output of {name} is kept: add it to tests/cli/outputs.rs"
        );
    }
}

#[test]
fn what_is_of_one_run_alone_is_masked_and_nothing_else() {
    let text = "req_01b208029b42700085bca67e4ade0ad8 in a:gpt-5:78104ed73262: made 2026-11-23T08:00:00.5Z, 1795420800 of 12345 at http://127.0.0.1:5 and 127.0.0.1:43210.\n   2 s  0 of 20 lines\nin_flight_tokens\n";
    let expected =
        "req_{id} in a:gpt-5:{id}: made {time}, {time} of 12345 at {sim} and 127.0.0.1:{port}.\nin_flight_tokens\n";
    assert_eq!(masked(text, &[("http://127.0.0.1:5", "{sim}")]), expected);
}
