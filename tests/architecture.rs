//! Keeps the promises of ARCHITECTURE.md: directions between modules, file size, what is named in one place only,
//! and words that have no business in the repository. Each rule is run over the tree, and over a sample that breaks
//! it, so that a rule that no longer sees anything fails here.

#[path = "architecture/manifest.rs"]
mod manifest;
#[path = "architecture/paths.rs"]
mod paths;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::path::Path;
use std::process::Command;

use source::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tree() -> Vec<Source> {
    source::read_tree(root(), "src").unwrap_or_default()
}

fn assert_kept(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}, {} places:\n  {}\n", broken.len(), broken.join("\n  "));
}

#[test]
fn the_tree_is_found() {
    let tree = tree();
    assert!(tree.iter().any(|source| source.path == "src/lib.rs"), "src/lib.rs is missing");
    assert!(tree.len() > 15, "only {} files found", tree.len());
}

#[test]
fn modules_use_only_what_lies_below_them() {
    assert_kept("directions between modules", &rules::directions(&tree()));
}

#[test]
fn files_are_small() {
    assert_kept("file size", &rules::file_size(&tree()));
}

#[test]
fn files_say_what_they_are_for() {
    assert_kept("module docs", &rules::module_doc(&tree()));
}

#[test]
fn libraries_are_named_in_one_place() {
    assert_kept("one place for a library", &rules::only_in(&tree()));
}

#[test]
fn only_the_command_line_prints() {
    assert_kept("printing", &rules::printing(&tree()));
}

#[test]
fn dependencies_are_accounted_for() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let (manifest, document) = (read("Cargo.toml"), read("docs/dependencies.md"));
    assert!(manifest.contains("[dependencies]"), "Cargo.toml was not read");
    assert_kept("dependencies", &manifest::dependencies_documented(&manifest, &document));
}

#[test]
fn no_forbidden_words() {
    let files = repository_files();
    assert!(files.iter().any(|(path, _)| path == "Cargo.toml"), "git ls-files gave {} files", files.len());
    assert_kept("forbidden words", &rules::forbidden_words(&files));
}

/// The text files that git knows or would add, without what is ignored.
fn repository_files() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    listed
        .split_terminator('\0')
        .filter_map(|path| Some((path.to_owned(), std::fs::read_to_string(root().join(path)).ok()?)))
        .collect()
}

mod each_rule_can_fail {
    use super::manifest::dependencies_documented;
    use super::rules::{directions, file_size, forbidden_words, module_doc, only_in, printing};
    use super::source::{Source, blank};

    fn one(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    #[test]
    fn a_module_reaches_up() {
        let broken = directions(&one("src/store/memory.rs", "//! x\nuse crate::engine::plan::Plan;\n"));
        assert_eq!(
            broken,
            ["src/store/memory.rs:2: `store` may not use `engine::plan::Plan` (only domain, config::StoreKind)"]
        );
    }

    #[test]
    fn a_module_reaches_up_in_every_spelling() {
        for text in [
            "use crate::{domain::Clock, engine};",
            "use crate::{\n    domain::{Clock, ids},\n    engine::{self, plan},\n};",
            "fn f() { let _ = crate::engine::plan(); }",
            "fn f(x: &dyn crate::engine::Wake) {}",
            "use super::super::engine::plan;",
            "pub use crate::engine::*;",
            "impl Trait<crate::engine::X> for Y {}",
        ] {
            let broken = directions(&one("src/store/memory.rs", text));
            assert!(!broken.is_empty(), "not seen: {text}");
            assert!(broken.iter().all(|line| line.contains("engine")), "{broken:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_reported() {
        for (path, text) in [
            ("src/store/memory.rs", "use crate::domain::{Clock, ids::RequestId};\nuse super::sqlite;"),
            ("src/store/mod.rs", "use crate::{body::Body, tasks::Tasks};\npub(crate) mod memory;"),
            (
                "src/store/memory.rs",
                "/// See [`crate::engine`]\n// use crate::engine;\nconst A: &str = \"crate::engine\";",
            ),
            ("src/store/memory.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::engine::plan;\n}"),
            ("src/engine/plan/tests.rs", "use crate::sim::Sim;"),
            ("src/intake/passthrough.rs", "use crate::upstream::Client;"),
            ("src/admin/api.rs", "use crate::intake::respond::json;"),
            ("src/store/open.rs", "use crate::config::StoreKind;"),
            ("src/main.rs", "fn main() { nightbus::cli::main() }"),
        ] {
            assert_eq!(directions(&one(path, text)), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn special_directions() {
        for (path, text) in [
            ("src/sim/mod.rs", "use crate::wire::openai;"),
            ("src/store/open.rs", "use crate::config::{Config, StoreKind};"),
            ("src/intake/defer.rs", "use crate::upstream::Client;"),
            ("src/admin/api.rs", "use crate::intake::defer;"),
            ("src/admin/api.rs", "use crate::upstream::Client;"),
            ("src/domain/lane.rs", "use crate::config::Config;"),
            ("src/wire/sse.rs", "use super::super::store::Store;"),
            ("src/main.rs", "use nightbus::engine;"),
            ("src/novelty/mod.rs", "fn f() {}"),
        ] {
            assert_eq!(directions(&one(path, text)).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn a_long_file() {
        let lines = "fn f() {}\n".repeat(501);
        assert_eq!(file_size(&one("src/engine/plan.rs", &lines)).len(), 1);
        let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{lines}}}\n");
        assert_eq!(file_size(&one("src/engine/plan.rs", &tests)), Vec::<String>::new());
        assert_eq!(file_size(&one("src/engine/plan/tests.rs", &lines)), Vec::<String>::new());
    }

    #[test]
    fn a_long_file_behind_an_early_test_marker() {
        let lines = format!("#[cfg(test)]\nmod tests;\n{}", "fn f() {}\n".repeat(501));
        assert_eq!(file_size(&one("src/engine/plan.rs", &lines)).len(), 1);
        let lines = format!("#[cfg(test)]\nfn helper() {{}}\n{}", "fn f() {}\n".repeat(501));
        assert_eq!(file_size(&one("src/engine/plan.rs", &lines)).len(), 1);
    }

    #[test]
    fn a_file_without_doc() {
        assert_eq!(module_doc(&one("src/engine/plan.rs", "use std::fmt;\n")).len(), 1);
        assert_eq!(module_doc(&one("src/engine/plan.rs", "//! Plans.\nuse std::fmt;\n")), Vec::<String>::new());
    }

    #[test]
    fn a_library_elsewhere() {
        let sql = "use rusqlite::Connection;";
        assert_eq!(only_in(&one("src/store/memory.rs", sql)).len(), 1);
        assert_eq!(only_in(&one("src/store/sqlite_other.rs", sql)).len(), 1);
        assert_eq!(only_in(&one("src/store/sqlite/writer.rs", sql)), Vec::<String>::new());
        assert_eq!(
            only_in(&one("src/store/mod.rs", "// not rusqlite\nconst A: &str = \"rusqlite\";")),
            Vec::<String>::new()
        );
        let map = "struct A { map: dashmap::DashMap<u8, u8> }";
        assert_eq!(only_in(&one("src/engine/poll.rs", map)).len(), 1);
        assert_eq!(only_in(&one("src/engine/waiters.rs", map)), Vec::<String>::new());
    }

    #[test]
    fn a_print_elsewhere() {
        for call in ["println!(\"x\");", "eprintln!();", "print!(\"x\");", "std::io::stdout().lock();"] {
            let text = format!("fn f() {{ {call} }}");
            assert_eq!(printing(&one("src/engine/poll.rs", &text)).len(), 1, "{call}");
            assert_eq!(printing(&one("src/cli/output.rs", &text)), Vec::<String>::new(), "{call}");
        }
    }

    #[test]
    fn a_dependency_without_a_row() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\n# why\nserde = { version = \"1\" }\ntokio.workspace = true\n\
                        [dev-dependencies]\nrcgen = \"0\"\n[profile.dev]\ndebug = 1\n";
        let all = "| crate | what |\n| `serde` | x |\n| `tokio` | x |\n| `rcgen` | x |\n";
        assert_eq!(dependencies_documented(manifest, all), Vec::<String>::new());
        assert_eq!(
            dependencies_documented(manifest, "| `serde` | x |\n| `rcgen` | x |\n| `left-pad` | x |\n"),
            ["docs/dependencies.md: no row for `tokio`", "docs/dependencies.md: `left-pad` is not used"]
        );
    }

    #[test]
    fn a_forbidden_word() {
        let text = ["see ", "/ro", "ot/notes\n", "https://py", "pi.org/simple\n"].concat();
        let broken = forbidden_words(&[("docs/x.md".to_owned(), text)]);
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken.iter().any(|line| line.starts_with("docs/x.md:2: names a package host")), "{broken:?}");
        assert_eq!(forbidden_words(&[("a".to_owned(), "the root of a tree".to_owned())]), Vec::<String>::new());
    }

    #[test]
    fn blanking_keeps_code_and_lines() {
        let text = "a /* b /* c */\nd */ e 'x' '\\'' &'a str b'\"' \"s\\\"t\" r#\"u\"v\"# f // g\nh";
        let blanked = blank(text);
        assert_eq!(blanked.chars().count(), text.chars().count());
        assert_eq!(blanked.lines().count(), text.lines().count());
        assert_eq!(blanked.split_whitespace().collect::<Vec<_>>(), ["a", "e", "&'a", "str", "b", "f", "h"]);
    }
}
