//! `[[routes]]`: which provider serves a model. Called once, while the configuration is built.

use std::collections::BTreeMap;

use super::build::glob;
use super::path::KeyPath;
use super::providers::unknown_provider;
use super::tree::Tree;
use super::types::{ProviderConfig, RouteConfig};

/// All routes, in the order in which they are asked.
pub(super) fn routes(tree: &mut Tree, providers: &BTreeMap<String, ProviderConfig>) -> Vec<RouteConfig> {
    let entries = tree.entries_of(&KeyPath::of("routes"));
    entries.iter().filter_map(|entry| route(tree, entry, providers)).collect()
}

fn route(tree: &mut Tree, entry: &KeyPath, providers: &BTreeMap<String, ProviderConfig>) -> Option<RouteConfig> {
    let (model, provider, rename) = (entry.child("model"), entry.child("provider"), entry.child("rename"));
    for (path, what) in [(&model, "a glob such as \"claude-*\""), (&provider, "the name of a provider")] {
        if !tree.is_given(path) {
            tree.missing(path, format!("is required: {what}"));
        }
    }
    let name = tree.text(&provider);
    if let Some(name) = &name {
        unknown_provider(tree, &provider, name, providers);
    }
    let renamed = tree.text(&rename);
    if renamed.as_ref().is_some_and(|name| name.ends_with(":batch")) {
        tree.mistake(
            &rename,
            "must not end in \":batch\": that is a mark of nightbus's own, not a part of a model's name",
        );
    }
    Some(RouteConfig { model: glob(tree, &model)?, provider: name?, rename: renamed })
}
