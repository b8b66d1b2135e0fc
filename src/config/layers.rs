//! The layers a configuration is read from: the file, then the environment, then the command line.
//!
//! Each puts what it gives into the [`Tree`]; the later one wins.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Overrides;
use super::error::Origin;
use super::path::{KeyPath, PREFIX};
use super::tree::Tree;
use super::value::Value;
use super::{schema, suggest, value};

/// The environment: every variable with its value.
pub(super) type Environment = BTreeMap<String, String>;

/// Reads the text of a file; false when it is not valid TOML. Its keys are checked all the same, as far as they can be
/// read, but what is missing then says nothing.
pub(super) fn add_file(tree: &mut Tree, name: &str, text: &str) -> bool {
    let (document, errors) = DeTable::parse_recoverable(text);
    let file = File { name, text };
    file.walk(tree, document.get_ref(), &KeyPath::default());
    if errors.is_empty() {
        return true;
    }
    // What the parser made of a broken line says nothing about what was meant.
    let broken: BTreeSet<Origin> =
        errors.iter().map(|error| file.origin(error.span().map_or(0, |span| span.start))).collect();
    tree.retain_mistakes(|mistake| !broken.contains(&mistake.origin));
    for error in errors {
        let origin = file.origin(error.span().map_or(0, |span| span.start));
        tree.report(&KeyPath::default(), origin, format!("not valid TOML: {}", error.message().replace('\n', "; ")));
    }
    false
}

struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        Origin::File {
            name: self.name.to_owned(),
            line: Some(before.iter().filter(|&&byte| byte == b'\n').count() + 1),
        }
    }

    fn walk(&self, tree: &mut Tree, table: &DeTable<'_>, path: &KeyPath) {
        for (name, given) in table {
            let path = path.child(name.get_ref());
            let origin = self.origin(name.span().start);
            let pattern = path.pattern();
            if let Some(key) = schema::key(&pattern) {
                let origin = self.origin(given.span().start);
                tree.put(path, value::from_toml(key, given.get_ref()), origin);
            } else if schema::is_list(&pattern) {
                self.walk_list(tree, given, &path, origin);
            } else if schema::is_table(&pattern) {
                if let DeValue::Table(below) = given.get_ref() {
                    tree.put_table(path.clone(), origin);
                    self.walk(tree, below, &path);
                } else {
                    tree.put(path.clone(), Err(format!("expected a table: [{path}]")), origin);
                }
            } else {
                tree.report(&path, origin, suggest::unknown_key(&path));
            }
        }
    }

    fn walk_list(&self, tree: &mut Tree, given: &Spanned<DeValue<'_>>, path: &KeyPath, origin: Origin) {
        let wrong = || Err(format!("expected a list of tables: [[{path}]]"));
        let DeValue::Array(entries) = given.get_ref() else {
            return tree.put(path.clone(), wrong(), origin);
        };
        for (index, entry) in entries.iter().enumerate() {
            let origin = self.origin(entry.span().start);
            if let DeValue::Table(below) = entry.get_ref() {
                tree.put_table(path.entry(index), origin);
                self.walk(tree, below, &path.entry(index));
            } else {
                tree.put(path.entry(index), wrong(), origin);
            }
        }
    }
}

/// Reads the `NIGHTBUS_` variables. Unknown ones are mistakes, but for those that are not keys
/// (`NIGHTBUS_MASTER_KEY`, `NIGHTBUS_CONFIG`, `NIGHTBUS_ADMIN`, `NIGHTBUS_BIN`, `NIGHTBUS_KEY_*`, `NIGHTBUS_TEST_*`), those a `*_env` key names,
/// and the links that Kubernetes adds for a service called `nightbus`.
pub(super) fn add_environment(tree: &mut Tree, environment: &Environment) {
    let mut keys = Vec::new();
    let mut unknown = Vec::new();
    for (variable, plain) in environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let path = match rest {
            "ADMIN_TOKEN" => KeyPath::of("admin.token"),
            "MASTER_KEY" | "CONFIG" | "ADMIN" | "BIN" => continue,
            _ if rest.starts_with("KEY_") || rest.starts_with("TEST_") || is_service_link(rest, plain) => continue,
            _ => known_provider(tree, KeyPath::from_variable(rest)),
        };
        match schema::key(&path.pattern()) {
            Some(key) => keys.push((path, key, variable, plain)),
            None => unknown.push(variable),
        }
    }
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, key, variable, plain) in keys {
        let origin = Origin::Environment(variable.clone());
        let entry = path.parent();
        let list = entry.parent();
        if schema::is_list(&list.pattern()) {
            let entries = tree.entries_of(&list);
            if !entries.contains(&entry) && entry != list.entry(entries.len()) {
                tree.report(&path, origin, format!("the list has {} entries, counted from 0", entries.len()));
                continue;
            }
            if !entries.contains(&entry) {
                tree.put_table(entry, origin.clone());
            }
        }
        // Compose files and manifests pass on variables that were never set as empty ones.
        if !plain.trim().is_empty() || matches!(key.kind, schema::Kind::Texts { .. }) {
            tree.put(path, value::from_plain(key, plain), origin);
        }
    }
    let named = named_variables(tree);
    for variable in unknown.into_iter().filter(|variable| !named.contains(variable.as_str())) {
        let origin = Origin::Environment(variable.clone());
        tree.report(&KeyPath::default(), origin, suggest::unknown_variable(variable));
    }
}

/// Variables cannot be spelled with `-`: `MY_GROQ` is also the provider `my-groq`, when there is such a one.
fn known_provider(tree: &Tree, path: KeyPath) -> KeyPath {
    let providers = KeyPath::of("providers");
    let Some(super::path::Segment::Name(given)) = path.step_below(&providers) else { return path };
    let names = tree.names_below(&providers);
    let same = |name: &&String| name.replace('-', "_") == *given;
    match names.iter().find(same) {
        Some(name) if !names.contains(given) => providers.child(name).child(path.leaf().unwrap_or_default()),
        _ => path,
    }
}

fn named_variables(tree: &Tree) -> BTreeSet<String> {
    let named = tree.given().filter(|(path, _)| path.leaf().is_some_and(|leaf| leaf.ends_with("_env")));
    named
        .filter_map(|(_, value)| {
            let Value::Text(variable) = value else { return None };
            Some(variable.clone())
        })
        .collect()
}

/// For a service `nightbus`, Kubernetes sets `NIGHTBUS_SERVICE_HOST`, `NIGHTBUS_PORT_5050_TCP_ADDR` and more in
/// every pod of the namespace, and for `nightbus-admin` the same with `ADMIN_` in between.
fn is_service_link(rest: &str, plain: &str) -> bool {
    let is_url = plain.starts_with("tcp://") || plain.starts_with("udp://") || plain.starts_with("sctp://");
    let in_port = rest.split_once("PORT_").is_some_and(|(_, port)| port.starts_with(|c: char| c.is_ascii_digit()));
    rest.ends_with("SERVICE_HOST")
        || rest.ends_with("SERVICE_PORT")
        || rest.contains("SERVICE_PORT_")
        || (rest.ends_with("PORT") && is_url)
        || in_port
}

/// Takes the options of the command line.
pub(super) fn add_overrides(tree: &mut Tree, overrides: &Overrides) {
    let provider = tree.text(&KeyPath::of("default_provider")).unwrap_or_default();
    let upstream = KeyPath::of("providers").child(&provider).child("base_url");
    let options = [
        ("--listen", KeyPath::of("listen"), &overrides.listen),
        ("--admin-listen", KeyPath::of("admin_listen"), &overrides.admin_listen),
        ("--upstream", upstream, &overrides.upstream),
        ("--data-dir", KeyPath::of("data_dir"), &overrides.data_dir),
        ("--store", KeyPath::of("store"), &overrides.store),
    ];
    for (option, path, given) in options {
        if let (Some(plain), Some(key)) = (given, schema::key(&path.pattern())) {
            tree.put(path, value::from_plain(key, plain), Origin::Option(option));
        }
    }
}
