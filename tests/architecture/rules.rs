//! The rules themselves: each takes sources and returns one line for each place that breaks it.

use crate::paths::references;
use crate::source::Source;

/// Production lines above which a file must be split.
pub(crate) const MAX_FILE_LINES: usize = 500;

/// Usable by every module.
const BASE: [&str; 4] = ["body", "crash", "tasks", "threads"];

/// What each module may use besides itself and [`BASE`]: whole modules (`store`) or parts (`intake::respond`).
/// A module that is not here fails the check: a new one has to state its place.
const MAY_USE: &[(&str, &[&str])] = &[
    ("body", &[]),
    ("crash", &[]),
    ("tasks", &[]),
    ("threads", &[]),
    ("domain", &[]),
    ("wire", &["domain"]),
    ("config", &["domain"]),
    ("audit", &["domain"]),
    ("store", &["domain", "config::StoreKind"]),
    ("telemetry", &["domain"]),
    ("upstream", &["config", "domain", "wire"]),
    ("otel", &["config", "domain", "store", "telemetry", "upstream", "wire"]),
    ("sim", &["domain"]),
    ("engine", &["config", "domain", "store", "telemetry", "upstream", "wire"]),
    ("intake", &["config", "domain", "engine", "store", "telemetry", "upstream", "wire"]),
    (
        "admin",
        &[
            "config",
            "domain",
            "engine",
            "store",
            "telemetry",
            "wire",
            "intake::respond",
            "intake::listener",
            "intake::cors",
        ],
    ),
    (
        "app",
        &["admin", "config", "domain", "engine", "intake", "otel", "sim", "store", "telemetry", "upstream", "wire"],
    ),
    (
        "cli",
        &[
            "admin",
            "app",
            "audit",
            "config",
            "domain",
            "engine",
            "intake",
            "sim",
            "store",
            "telemetry",
            "upstream",
            "wire",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Names that only one place may use: what, where, why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("rusqlite", &["src/store/sqlite"], "SQL stays behind the store's trait"),
    ("opentelemetry", &["src/otel"], "a feature that is not in every build"),
    ("opentelemetry_sdk", &["src/otel"], "a feature that is not in every build"),
    ("opentelemetry_otlp", &["src/otel"], "a feature that is not in every build"),
    ("dashmap", &["src/engine/waiters"], "a guard that lives over an await stops the process"),
];

/// What writes to the terminal, and the files that may. Log lines have a way of their own to standard error.
const PRINTING: &[&str] = &["print!", "println!", "eprint!", "eprintln!", "stdout()", "stderr()"];
const PRINTERS: &[&str] = &["src/cli/output", "src/cli/progress", "src/telemetry/logging"];

/// Directions between modules, and `upstream` inside `intake` only where live calls pass through.
pub(crate) fn directions(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let module = source.module();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("{}: `{module}` has no row in MAY_USE: say what it may use", source.path));
            continue;
        };
        for reference in references(source) {
            if !is_allowed(module, allowed, &reference.path) {
                broken.push(format!(
                    "{}:{}: `{module}` may not use `{}` (only {})",
                    source.path,
                    reference.line,
                    reference.path.join("::"),
                    allowed.join(", "),
                ));
            } else if module == "intake" && !may_call_upstream(&source.path) && first(&reference.path) == "upstream" {
                broken.push(format!(
                    "{}:{}: only pass-through may use `upstream` in intake; a deferred call goes through the store",
                    source.path, reference.line,
                ));
            }
        }
    }
    broken
}

fn first(path: &[String]) -> &str {
    path.first().map_or("", String::as_str)
}

fn is_allowed(module: &str, allowed: &[&str], path: &[String]) -> bool {
    let target = first(path);
    // An item of the crate's root such as a macro or a constant has no module.
    let is_module = MAY_USE.iter().any(|(name, _)| *name == target);
    let part = path.iter().take(2).map(String::as_str).collect::<Vec<_>>().join("::");
    !is_module || target == module || BASE.contains(&target) || allowed.contains(&target) || allowed.contains(&&*part)
}

/// `service.rs` only hands the client on to pass-through.
fn may_call_upstream(path: &str) -> bool {
    // The marks ask it where a callback may go.
    path.starts_with("src/intake/passthrough") || ["src/intake/service.rs", "src/intake/marks.rs"].contains(&path)
}

/// No production file above [`MAX_FILE_LINES`].
pub(crate) fn file_size(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.production_lines() > MAX_FILE_LINES)
        .map(|source| {
            let lines = source.production_lines();
            format!("{}: {lines} production lines, more than {MAX_FILE_LINES}: split it by subject", source.path)
        })
        .collect()
}

/// Every file says first what it is for.
pub(crate) fn module_doc(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| !source.text.starts_with("//!") && !source.path.contains("/tests"))
        .map(|source| format!("{}: starts without a module doc (`//!`): what, invariants, who calls it", source.path))
        .collect()
}

/// Libraries that are kept in one place.
pub(crate) fn only_in(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, places, why) in ONLY_IN {
        for source in sources.iter().filter(|source| !is_in(&source.path, places)) {
            for line in lines_with_word(&source.code, name) {
                broken.push(format!("{}:{line}: `{name}` only in {}: {why}", source.path, places.join(", ")));
            }
        }
    }
    broken
}

/// Terminal output comes from one place.
pub(crate) fn printing(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| !is_in(&source.path, PRINTERS)) {
        for call in PRINTING {
            for line in lines_with_word(&source.code, call) {
                broken.push(format!("{}:{line}: `{call}` outside {}", source.path, PRINTERS.join(", ")));
            }
        }
    }
    broken
}

/// `places` name a module: `src/store/sqlite` is `src/store/sqlite.rs` and all below `src/store/sqlite/`.
fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs"))
}

fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let has = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line.get(..at).unwrap_or_default();
            let after = line.get(at + word.len()..).unwrap_or_default();
            let goes_on = word.ends_with(is_word) && after.starts_with(is_word);
            !before.ends_with(is_word) && !goes_on
        })
    };
    code.lines().enumerate().filter(|(_, line)| has(line)).map(|(at, _)| at + 1).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What no file of the repository may say, in two halves so that this list does not find itself: folders of the
/// machine somebody worked on, and the hosts packages came from (a lock file or a script that names one works only
/// where that host is reached).
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/ro", "ot/", "a folder of one machine"),
    ("/ho", "me/", "a folder of one machine"),
    ("/Us", "ers/", "a folder of one machine"),
    ("/wo", "rk/", "a folder of one machine"),
    ("registry.np", "mjs.org", "a package host"),
    ("registry.ya", "rnpkg.com", "a package host"),
    ("files.python", "hosted.org", "a package host"),
    ("py", "pi.org", "a package host"),
    ("index.cra", "tes.io", "a package host"),
    ("static.cra", "tes.io", "a package host"),
    ("deb.deb", "ian.org", "a package host"),
];

/// Forbidden words in `(path, text)` pairs.
pub(crate) fn forbidden_words(files: &[(String, String)]) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in files {
        for (at, line) in text.lines().enumerate() {
            for (head, tail, why) in FORBIDDEN {
                let word = format!("{head}{tail}");
                if line.contains(&word) {
                    broken.push(format!("{path}:{}: names {why} (`{word}`)", at + 1));
                }
            }
        }
    }
    broken
}
