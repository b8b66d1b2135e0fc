//! The output on a terminal: tables that fit, colours, and `top`, against files in tests/cli/snapshots/terminal.

use std::io::Write as _;
use std::process::Stdio;

use unicode_width::UnicodeWidthStr as _;

use crate::command::{command, done};
use crate::snapshots::{assert_none, check};
use crate::stand_in::admin;

/// What is asked on terminals of these widths, without colours.
const SHOWN: [(&str, &[&str]); 7] = [
    ("status", &["status"]),
    ("requests", &["requests"]),
    ("batches", &["batches"]),
    ("flights", &["flights"]),
    ("savings", &["savings"]),
    ("savings-by-model", &["savings", "--by", "model"]),
    ("top", &["top"]),
];
const WIDTHS: [u32; 2] = [80, 60];

/// Every file of `snapshots/terminal`.
pub(crate) fn names() -> Vec<String> {
    let of = |width: u32| SHOWN.iter().map(move |(name, _)| format!("{name}-{width}"));
    WIDTHS.into_iter().flat_map(of).chain(["top-dumb".to_owned()]).collect()
}

/// Runs a command on a terminal of its own, by util-linux's `script`; `typed` are its keys.
fn on_terminal(columns: u32, arguments: &[&str], typed: &str, more: &[(&str, &str)]) -> (i32, String) {
    let inner = command(arguments);
    let words: Vec<&str> = arguments.to_vec();
    let line = format!("stty cols {columns} rows 24 && exec {} {}", env!("CARGO_BIN_EXE_nightbus"), words.join(" "));
    let mut outer = std::process::Command::new("script");
    outer.args(["-qec", &line, "/dev/null"]).current_dir(inner.get_current_dir().unwrap());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("COLUMNS");
    outer.envs(more.iter().copied());
    let mut child = outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(typed.as_bytes()).unwrap();
    // Its end would be a ^D: it is kept until the command has ended.
    let output = child.wait_with_output().unwrap();
    drop(keys);
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).unwrap())
}

/// Without colours.
fn bare(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(
            part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == '?').get(1..).unwrap_or_default(),
        );
    }
    plain.replace('\r', "")
}

/// The last picture on the other screen.
fn screen(shown: &str) -> &str {
    let (entered, left) = (shown.find("\x1b[?1049h").unwrap(), shown.rfind("\x1b[?1049l").unwrap());
    let drawn = shown.get(entered..left).unwrap();
    drawn.rsplit("\x1b[H").next().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_shown_on_terminals_of_eighty_and_of_sixty_columns() {
    let admin = admin();
    let mut wrong = Vec::new();
    for width in WIDTHS {
        for (name, arguments) in SHOWN {
            let arguments = [arguments, &["--admin", &admin]].concat();
            let (code, shown) = on_terminal(width, &arguments, "q", &[("NO_COLOR", "1")]);
            assert_eq!(code, 0, "{arguments:?}: {shown}");
            let text = bare(if name == "top" { screen(&shown) } else { &shown }).replace(&admin, "{admin}");
            // The terminal shows what was typed before it was read.
            let text = text.strip_prefix('q').unwrap_or(&text);
            check(&format!("terminal/{name}-{width}.txt"), text, &mut wrong);
        }
    }
    let (code, shown) = on_terminal(80, &["top", "--admin", &admin], "q", &[("TERM", "dumb")]);
    assert!(code == 2 && !shown.contains('\x1b'), "nothing is drawn where nothing can be: {shown:?}");
    check("terminal/top-dumb.txt", shown.replace('\r', "").trim_start_matches('q'), &mut wrong);
    assert_none(&wrong);
}

#[test]
#[cfg(target_os = "linux")]
fn tables_fit_a_terminal_of_eighty_columns_and_have_colours_unless_told_otherwise() {
    let admin = admin();
    for arguments in [&["status"][..], &["requests"], &["batches"], &["flights"], &["savings", "--by", "model"]] {
        let arguments = [arguments, &["--admin", &admin]].concat();
        let (code, shown) = on_terminal(80, &arguments, "", &[]);
        assert_eq!(code, 0, "{arguments:?}: {shown}");
        let plain = bare(&shown);
        let too_wide: Vec<&str> =
            plain.lines().filter(|line| line.width() > 80 && !line.starts_with("There are more")).collect();
        assert!(too_wide.is_empty(), "{arguments:?}: {too_wide:#?}");
        assert!(shown.contains("\x1b["), "{arguments:?}: colours on a terminal: {shown}");
        let (_, quiet) = on_terminal(80, &arguments, "", &[("NO_COLOR", "1")]);
        assert!(!quiet.contains('\x1b') && !quiet.is_empty(), "{arguments:?}: NO_COLOR: {quiet:?}");
    }
    let (_, shown) = on_terminal(80, &["requests", "--admin", &admin], "", &[("NO_COLOR", "1")]);
    assert!(shown.contains("req_01a208029b42700085bca67e4ade0ad8"), "ids stay whole: {shown}");
}

#[test]
#[cfg(target_os = "linux")]
fn top_draws_until_q_and_gives_the_terminal_back() {
    let (code, shown) = on_terminal(130, &["top", "--admin", &admin()], "xq", &[]);
    assert_eq!(code, 0, "{shown}");
    let (entered, left) = (shown.find("\x1b[?1049h").unwrap(), shown.rfind("\x1b[?1049l").unwrap());
    let screen = bare(shown.get(entered..left).unwrap());
    for part in ["Held         312 connections", "In batches   50,003", "31,012/50,000", "in_flight_tokens", "q quits"]
    {
        assert!(screen.contains(part), "{part} in {screen}");
    }
    assert!(shown.len() - left < 20, "nothing is drawn afterwards: {shown:?}");
    let nobody = done(&mut command(&["top", "--admin", "http://127.0.0.1:9"]));
    assert!(nobody.code == 2 && nobody.err.contains("nightbus status"), "{}", nobody.err);
}

/// `top` on a terminal of its own, which is typed to and resized while it runs.
#[cfg(target_os = "linux")]
struct Drawn {
    child: std::process::Child,
    shown: std::sync::mpsc::Receiver<Vec<u8>>,
    text: String,
    /// The terminal's name.
    tty: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

#[cfg(target_os = "linux")]
impl Drawn {
    fn start(admin: &str) -> Self {
        use std::io::Read as _;
        let folder = tempfile::tempdir().unwrap();
        let tty = folder.path().join("tty");
        let line = format!(
            "tty > {} && stty cols 80 rows 24 && exec {} top --admin {admin}",
            tty.display(),
            env!("CARGO_BIN_EXE_nightbus")
        );
        let mut outer = std::process::Command::new("script");
        outer.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
        let mut child = outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (sender, shown) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Some(read) = out.read(&mut bytes).ok().filter(|read| *read > 0) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut drawn = Self { child, shown, text: String::new(), tty, _folder: folder };
        drawn.until("the first picture", |text| text.contains("q quits"));
        drawn
    }

    fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) {
        while !holds(&self.text) {
            let more = self.shown.recv_timeout(std::time::Duration::from_secs(60));
            let more = more.unwrap_or_else(|_| panic!("{what} did not come: {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(keys).unwrap();
    }

    /// Its exit code, after it has given the terminal back.
    fn ended(mut self) -> Option<i32> {
        self.until("the end", |text| text.trim_end().ends_with("\x1b[?25h\x1b[?1049l"));
        self.child.wait().unwrap().code()
    }
}

#[test]
#[cfg(target_os = "linux")]
fn top_follows_the_terminals_size_and_gives_it_back_after_ctrl_c() {
    let admin = admin();
    let mut top = Drawn::start(&admin);
    assert!(top.text.contains("PROVIDER"), "{}", top.text);
    let tty = std::fs::read_to_string(&top.tty).unwrap();
    let resized =
        std::process::Command::new("stty").args(["-F", tty.trim(), "cols", "60", "rows", "12"]).status().unwrap();
    assert!(resized.success());
    top.until("a smaller picture", |text| {
        let picture = text.rsplit("\x1b[H").next().unwrap_or_default();
        picture.contains("q quits") && !picture.contains("PROVIDER") && picture.matches('\n').count() == 11
    });
    top.type_in(b"\x03");
    assert_eq!(top.ended(), Some(0));
    let mut top = Drawn::start(&admin);
    // ^Z is no way out: it would leave the shell on this screen.
    top.type_in(b"\x1a");
    top.type_in(b"q");
    assert_eq!(top.ended(), Some(0));
}
