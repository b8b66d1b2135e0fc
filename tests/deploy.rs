//! deploy/ asks only for metrics that exist, and docs/operations.md lists them all.
//!
//! A family without a value yet does not show on `/metrics`, so names are read where they are registered, and the
//! reading is held against what a running process shows.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nightbus::config::{self, Overrides};
use nightbus::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn text_of(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What a series of a metric ends in, beside the metric's own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// Each metric's name without the endings of its kind, out of src/telemetry/metrics.rs.
fn registered() -> BTreeMap<String, Kind> {
    let code = text_of("src/telemetry/metrics.rs");
    let calls = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeMap::new();
    for (receiver, prefix) in [("own", "nightbus_"), ("registry", "")] {
        for (call, has_unit) in [(".register(", false), (".register_with_unit(", true)] {
            for part in calls.split(&format!("{receiver}{call}")).skip(1) {
                let part = part.split(';').next().unwrap();
                let name = part.split('"').nth(1).unwrap();
                let unit = match part.split("Unit::").nth(1).map(|rest| rest.split(',').next().unwrap()) {
                    Some("Seconds") if has_unit => "_seconds",
                    Some("Bytes") if has_unit => "_bytes",
                    None if !has_unit => "",
                    other => panic!("{name}: {other:?}"),
                };
                let field = part.split("self.").nth(1).map(|rest| rest.split(['.', ')']).next().unwrap());
                let kind = field.map_or(Kind::Info, |field| kind_of(&code, field));
                found.insert(format!("{prefix}{name}{unit}"), kind);
            }
        }
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

/// By the declaration of the field, which stands on a line of its own.
fn kind_of(code: &str, field: &str) -> Kind {
    let fields = code.split("struct Metrics {").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
    let declared = fields.lines().find_map(|line| {
        let (name, kind) = line.trim().trim_start_matches("pub(super) ").split_once(": ")?;
        (name == field).then_some(kind)
    });
    let kind = declared.unwrap_or_else(|| panic!("no field {field}"));
    match kind {
        kind if kind.contains("Histogram") || kind.starts_with("Waits") => Kind::Histogram,
        kind if kind.contains("Gauge") || kind.starts_with("Seconds") => Kind::Gauge,
        kind if ["Counter", "Dollars"].iter().any(|word| kind.contains(word)) => Kind::Counter,
        other => panic!("{field}: {other}"),
    }
}

/// All names under which a query finds something.
fn series() -> BTreeSet<String> {
    let named = |(name, kind): (String, Kind)| {
        let endings: &[&str] = match kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Info => &["_info"],
        };
        endings.iter().map(move |ending| format!("{name}{ending}")).collect::<Vec<_>>()
    };
    registered().into_iter().flat_map(named).collect()
}

/// Words of `text` that look like metrics of ours.
fn asked_for(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("nightbus_") || word.starts_with("process_"));
    ours.map(ToOwned::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let series = series();
    for (file, least) in [
        ("deploy/prometheus/alerts.yaml", 10),
        ("deploy/prometheus/alerts.test.yaml", 5),
        ("deploy/grafana/nightbus.json", 25),
        ("deploy/README.md", 0),
    ] {
        let asked = asked_for(&text_of(file));
        assert!(asked.len() >= least, "{file}: {asked:?}");
        let unknown: Vec<&String> = asked.difference(&series).collect();
        assert!(unknown.is_empty(), "{file}: nobody gives {unknown:?}");
    }
}

#[test]
fn the_manual_lists_every_metric_and_no_other() {
    let page = text_of("docs/operations.md");
    let table = page.split("## Metrics").nth(1).unwrap().split("What is worth an alert").next().unwrap();
    let listed = asked_for(table);
    let shown = registered().into_iter().map(|(name, kind)| match kind {
        Kind::Counter => format!("{name}_total"),
        Kind::Info => format!("{name}_info"),
        Kind::Gauge | Kind::Histogram => name,
    });
    assert_eq!(listed, shown.collect());
    let alerts = asked_for(page.split("What is worth an alert").nth(1).unwrap());
    let unknown: Vec<&String> = alerts.difference(&listed).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[tokio::test]
async fn what_a_process_shows_is_what_was_read_from_the_code() {
    let any_port = || Some("127.0.0.1:0".to_owned());
    let overrides = Overrides {
        listen: any_port(),
        admin_listen: any_port(),
        upstream: Some("http://127.0.0.1:1/v1".to_owned()),
        data_dir: None,
        store: Some("memory".to_owned()),
    };
    let app = nightbus::app::start(config::parse(None, [], &overrides).unwrap(), Tasks::new()).await.unwrap();
    let mut peer = TcpStream::connect(app.admin_addr()).await.unwrap();
    peer.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.unwrap();
    let (known, mut seen) = (series(), 0);
    for line in answer.lines().filter(|line| line.starts_with("nightbus_") || line.starts_with("process_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(known.contains(name), "{name} was not read from the code");
        seen += 1;
    }
    assert!(seen > 30, "{answer}");
    app.shutdown().await;
}
