//! `[otel]`, and the standard variables beside it.

use super::super::{load_with, mistakes, one_mistake};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

#[test]
fn an_endpoint_is_a_base_address() {
    for bad in ["collector:4318", "grpc://collector:4317", "http://collector?x=hunter2", "/v1/traces"] {
        let found = mistakes(&format!("otel.endpoint = \"{bad}\""));
        assert!(found.len() == 1 && found[0].contains("otel.endpoint: expected the address"), "{bad}: {found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_build_without_spans_refuses_their_keys_and_says_which_build_has_them() {
    for key in ["endpoint = \"http://127.0.0.1:4318\"", "service_name = \"night\""] {
        one_mistake(&format!("[otel]\n{key}"), "cargo build --release --features otel");
        one_mistake(&format!("[otel]\n{key}"), &format!("otel.{}", key.split(' ').next().unwrap()));
    }
}

#[cfg(feature = "otel")]
#[test]
fn a_build_with_spans_takes_what_is_set() {
    let text = "[otel]\nendpoint = \"http://127.0.0.1:4318\"\nservice_name = \"night\"";
    let config = load_with(text, &[ENDPOINT]).unwrap();
    for (key, value) in [("otel.endpoint", "\"http://127.0.0.1:4318\""), ("otel.service_name", "\"night\"")] {
        assert_eq!(super::super::shown(&config, key), value);
    }
    one_mistake("otel.endpoint = 3", "otel.endpoint");
}

#[test]
fn spans_are_sent_where_a_collector_is_named_and_they_are_not_switched_off() {
    let sends = |env: &[(&str, &str)]| load_with("", env).unwrap().otel.is_some();
    assert!(!sends(&[]));
    assert!(sends(&[ENDPOINT]) && sends(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector/in")]));
    for off in [("OTEL_SDK_DISABLED", "True"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert!(!sends(&[ENDPOINT, off]), "{off:?}");
    }
    assert!(sends(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "otlp")]));
    assert!(!sends(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), "empty is not set");
}
