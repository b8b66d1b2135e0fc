//! `[otel]`, and the standard variables that say whether spans are sent at all. The rest of those variables is the exporter's
//! business.

use super::layers::Environment;
use super::path::KeyPath;
use super::tree::Tree;
use super::types::OtelConfig;

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// None: no spans, because no collector is named, or because the standard variables say so.
pub(super) fn otel(tree: &mut Tree, environment: &Environment) -> Option<OtelConfig> {
    let endpoint = endpoint(tree);
    let service_name = service_name(tree);
    let set = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER") == Some("none");
    let is_named = endpoint.is_some() || ENDPOINTS.into_iter().any(|name| set(name).is_some());
    (is_named && !is_off).then_some(OtelConfig { endpoint, service_name })
}

fn endpoint(tree: &mut Tree) -> Option<String> {
    let path = KeyPath::of("otel.endpoint");
    let endpoint = tree.text(&path)?;
    let is_base = endpoint.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
    });
    if !is_base {
        tree.mistake(&path, "expected the address of a collector, such as \"http://127.0.0.1:4318\"");
    } else {
        needs_spans(tree, &path);
    }
    Some(endpoint)
}

fn service_name(tree: &mut Tree) -> Option<String> {
    let path = KeyPath::of("otel.service_name");
    let name = tree.text(&path)?;
    needs_spans(tree, &path);
    Some(name)
}

/// A key that this build would not act on is a mistake, as an unknown one is.
fn needs_spans(tree: &mut Tree, path: &KeyPath) {
    if !cfg!(feature = "otel") {
        tree.mistake(
            path,
            "this build sends no spans: leave it out, or take a build with them: the container image, or \
             `cargo build --release --features otel`",
        );
    }
}
