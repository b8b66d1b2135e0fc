//! Keeps README, ARCHITECTURE and docs/ true: what they name is there, and lists in them are complete.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail by panicking")]

#[path = "docs/page.rs"]
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use nightbus::config::{self, Overrides};
use nightbus::tasks::Tasks;
use page::{Page, first_cells, spans, text_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is checked word by word.
fn pages() -> Vec<Page> {
    let own = [
        "README.md",
        "ARCHITECTURE.md",
        "docs/semantics.md",
        "docs/providers.md",
        "docs/security.md",
        "docs/faults.md",
    ];
    own.into_iter().map(Page::read).collect()
}

/// All Markdown at the root and in docs/.
fn all_pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for folder in ["", "docs"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = Path::new(folder).join(entry.unwrap().file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(Page::read(path));
            }
        }
    }
    assert!(pages.len() > 8, "only {} pages found", pages.len());
    pages
}

/// Production files by folder, their tests left out.
fn sources() -> BTreeMap<String, BTreeSet<String>> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() && name != "tests" {
                walk(&folder.join(&name), found);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                found.entry(folder.to_str().unwrap().to_owned()).or_default().insert(name);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(Path::new("src"), &mut found);
    found
}

fn source_text() -> String {
    let files =
        sources().into_iter().flat_map(|(folder, names)| names.into_iter().map(move |name| (folder.clone(), name)));
    files.map(|(folder, name)| text_of(&Path::new(&folder).join(name))).collect()
}

fn assert_none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}\n", wrong.join("\n  "));
}

#[test]
fn links_resolve() {
    let mut broken = Vec::new();
    for page in all_pages() {
        for link in page.links().into_iter().filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            let there = root().join(&target).exists();
            let anchored = anchor.is_none_or(|anchor| there && Page::read(&target).anchors().contains(anchor));
            if !there || !anchored {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert_none("links that lead nowhere", &broken);
}

#[test]
fn files_and_tests_that_are_named_exist() {
    let mut missing = Vec::new();
    let mut tests = 0;
    for page in pages() {
        for span in page.spans() {
            let named = span.strip_prefix("./").unwrap_or(span);
            let (file, test) = named.split_once("::").map_or((named, None), |(file, test)| (file, Some(test)));
            let is_path = ["src/", "tests/", "docs/", "scripts/", "benches/", "changelog.d/"]
                .iter()
                .any(|folder| file.starts_with(folder));
            if !is_path || file.contains(' ') {
                continue;
            }
            let there = root().join(file).exists();
            let has_test = test.is_none_or(|test| {
                tests += 1;
                let text = if there { text_of(Path::new(file)) } else { String::new() };
                has_test(&text, test)
            });
            if !there || !has_test {
                missing.push(format!("{}: {span}", page.path.display()));
            }
        }
    }
    assert_none("named, but not there", &missing);
    assert!(tests >= 10, "README names the tests that hold its promises; {tests} found");
}

/// Tests are functions, of Rust or Python, or lines of a table that a macro makes tests of.
fn has_test(text: &str, test: &str) -> bool {
    let of_a_table = || text.contains("macro_rules!") && text.contains(&format!("\n    {test}: \""));
    text.contains(&format!("fn {test}(")) || text.contains(&format!("def {test}(")) || of_a_table()
}

/// The rows of all tables of a page that have this heading, cell by cell.
fn rows_under(page: &str, heading: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        inside = line == heading || inside && line.starts_with('|');
        if inside && line != heading && !line.starts_with("| ---") {
            rows.push(line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

#[test]
fn every_fault_of_the_simulator_is_in_the_catalogue_and_every_row_names_its_test() {
    let code = text_of(Path::new("src/sim/faults.rs"));
    let table = code.split("faults! {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
    let faults: BTreeSet<&str> = table.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert!(faults.len() > 40 && faults.contains("create-lost"), "{faults:?}");
    let catalogue = text_of(Path::new("docs/faults.md"));
    let rows = rows_under(&catalogue, "| Fault | Simulator | The caller sees | Billed | Test |");
    let listed: BTreeSet<&str> = rows.iter().filter_map(|row| spans(row.get(1)?).into_iter().next()).collect();
    assert_eq!(listed, faults);
    let without: Vec<String> =
        rows.iter().filter(|row| row.len() != 5 || !row[4].contains("::")).map(|row| row.join(" | ")).collect();
    assert_none("rows of docs/faults.md that are not whole, or name no test", &without);
}

#[test]
fn every_promise_of_the_readme_names_its_test() {
    let readme = text_of(Path::new("README.md"));
    let promises = rows_under(&readme, "| Promise | How | Held by |");
    assert!(promises.len() > 10, "{promises:?}");
    let without: Vec<String> =
        promises.iter().filter(|row| row.len() != 3 || !row[2].contains("::")).map(|row| row.join(" | ")).collect();
    assert_none("promises that nothing holds", &without);
}

#[test]
fn the_map_shows_every_file() {
    let architecture = Page::read("ARCHITECTURE.md");
    let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (heading, section) in architecture.sections("###") {
        let Some(folder) = spans(heading).first().and_then(|span| span.strip_suffix('/')) else { continue };
        if folder.starts_with("src") && heading.starts_with('`') {
            let files = first_cells(&section).into_iter().flat_map(spans).map(ToOwned::to_owned);
            map.entry(folder.to_owned()).or_default().extend(files);
        }
    }
    let mut wrong = Vec::new();
    let sources = sources();
    for folder in sources.keys().chain(map.keys()).collect::<BTreeSet<_>>() {
        let (there, shown) =
            (sources.get(folder).cloned().unwrap_or_default(), map.get(folder).cloned().unwrap_or_default());
        wrong.extend(there.difference(&shown).map(|name| format!("{folder}/{name}: add it to the map")));
        wrong.extend(shown.difference(&there).map(|name| format!("{folder}/{name}: take it off the map")));
    }
    assert_none("the map in ARCHITECTURE.md", &wrong);
}

#[test]
fn crash_points_are_listed() {
    let text = source_text();
    let calls = text.match_indices("crash::point(\"").map(|(at, call)| text.split_at(at + call.len()).1);
    let in_code: BTreeSet<&str> = calls.filter_map(|rest| rest.split('"').next()).collect();
    assert!(in_code.len() > 5, "{in_code:?}");
    let section =
        Page::read("ARCHITECTURE.md").section("##", "The durable steps, and where a test can kill the process");
    let listed: BTreeSet<&str> = first_cells(&section).into_iter().flat_map(spans).collect();
    assert_eq!(listed, in_code);
}

#[test]
fn errors_are_listed_with_their_status() {
    let code = text_of(Path::new("src/wire/api_error.rs"));
    let in_code: BTreeSet<(String, String)> = code
        .split("Self::new(")
        .skip(1)
        .filter_map(|rest| rest.split_once(", \""))
        .filter(|(status, _)| status.len() == 3)
        .filter_map(|(status, rest)| Some((status.to_owned(), rest.split('"').next()?.to_owned())))
        .filter(|(_, code)| code != "x")
        .collect();
    let section = Page::read("docs/semantics.md").section("##", "Errors");
    let mut listed = BTreeSet::new();
    for row in section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Status") && !line.starts_with("| ---"))
    {
        let mut cells = row.split('|').map(str::trim).skip(1);
        if let (Some(status), Some(code)) = (cells.next(), cells.next()) {
            listed.insert((status.to_owned(), code.trim_matches('`').to_owned()));
        }
    }
    assert!(in_code.len() > 10, "{in_code:?}");
    assert_eq!(listed, in_code);
}

#[test]
fn options_headers_and_variables_exist() {
    let configuration = text_of(Path::new("docs/configuration.md"));
    let source = source_text() + &text_of(Path::new("tests/simulation.rs"));
    let mut unknown = Vec::new();
    for page in pages() {
        let mut complain = |what: &str| unknown.push(format!("{}: {what}", page.path.display()));
        for span in page.spans() {
            let Some((section, key)) = span.split_once('.') else { continue };
            let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let is_section = configuration.contains(&format!("\n## `[{section}]`\n"));
            if is_section && is_word(key) && key != "rs" && !configuration.contains(&format!("### `{span}`")) {
                complain(span);
            }
        }
        for header in page.words("x-nightbus-", |c| c.is_ascii_lowercase() || c == '-') {
            if !header.ends_with('-') && !source.contains(&header) {
                complain(&header);
            }
        }
        for variable in page.words("NIGHTBUS_", |c| c.is_ascii_uppercase() || c == '_') {
            if !source.contains(&variable) {
                complain(&variable);
            }
        }
    }
    assert_none("nobody reads", &unknown);
}

#[test]
fn commands_and_their_flags_exist() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_nightbus")).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let mut unknown = Vec::new();
    let mut pages = pages();
    pages.extend(["docs/operations.md", "docs/audit.md"].map(Page::read));
    let mut helps: BTreeMap<String, Option<String>> = BTreeMap::new();
    for page in &pages {
        for typed in page.typed() {
            let called = typed.split_once("nightbus ").filter(|(path, _)| path.is_empty() || path.ends_with('/'));
            let built = typed.split_once("-- ").filter(|(cargo, _)| cargo.starts_with("cargo run"));
            let Some((_, arguments)) = called.or(built) else { continue };
            let mut words = arguments.split_whitespace();
            let Some(command) = words.next().filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) else {
                continue;
            };
            let known = helps.entry(command.to_owned()).or_insert_with(|| help(&[command, "--help"]));
            let wrong = words.filter(|word| word.starts_with("--")).find(|flag| {
                known.as_ref().is_some_and(|known| !known.contains(flag.split('=').next().unwrap_or_default()))
            });
            if known.is_none() || wrong.is_some() {
                unknown.push(format!("{}: {typed}", page.path.display()));
            }
        }
    }
    assert_none("no such command or flag", &unknown);
    assert!(helps.len() > 4, "{:?}", helps.keys());
}

/// The provider is a port where nobody listens: a route that is not nightbus's own is a 502.
#[tokio::test]
async fn routes_are_served() {
    let any_port = || Some("127.0.0.1:0".to_owned());
    let overrides = Overrides {
        listen: any_port(),
        admin_listen: any_port(),
        upstream: Some("http://127.0.0.1:1/v1".to_owned()),
        data_dir: None,
        store: Some("memory".to_owned()),
    };
    let config = config::parse(None, [], &overrides).unwrap();
    let app = nightbus::app::start(config, Tasks::new()).await.unwrap();
    let section = Page::read("docs/semantics.md").section("##", "Routes");
    let mut asked = 0;
    for route in first_cells(&section).into_iter().flat_map(spans) {
        let (method, path) = route.split_once(' ').unwrap();
        let path = path.replace("{id}", "req_01a208029b42700085bca67e4ade0ad8");
        let mut peer = TcpStream::connect(app.main_addr()).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        peer.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        let served = answer.starts_with("HTTP/1.1 200 ") || answer.contains("no request");
        assert!(served, "{route}: {answer}");
        asked += 1;
    }
    assert!(asked > 4, "{section}");
    app.shutdown().await;
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = Page::read(PathBuf::from("README.md"));
    assert!(page.typed().iter().any(|typed| typed.contains("cargo run --release -- demo")));
    assert!(page.anchors().contains("why-it-is-safe"));
    assert!(page.links().contains(&"docs/semantics.md"));
    assert_eq!(first_cells("| a | b |\n| --- | --- |\n| `c` | d |\n"), ["a", "`c`"]);
    assert_eq!(spans("`a` b `c::d`"), ["a", "c::d"]);
}
