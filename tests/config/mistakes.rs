//! How mistakes are reported: all together, with their lines, in a stable order, without secrets.

use nightbus::config::{Origin, Overrides, parse};

use super::super::{environment, load, mistakes};

#[test]
fn all_mistakes_are_reported_together_in_order() {
    let text = "\
listen = \"0.0.0.0:5050\"
retention = 3

[batching]
idel = \"5s\"
max_attempts = 0

[providers.Groq]
base_url = \"https://h/v1\"

[bacthing]
idle = \"1s\"
";
    let env = environment(&[("NIGHTBUS_HOLD__HEARTBEAT", "1ms"), ("NIGHTBUS_LISTN", "x")]);
    let overrides = Overrides { store: Some("disk".to_owned()), ..Overrides::default() };
    let errors = parse(Some(("proxy.toml", text)), env, &overrides).unwrap_err();
    let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    let begins = [
        "proxy.toml:1: listen: 0.0.0.0:5050 can be reached",
        "proxy.toml:2: retention: expected a duration of at least 1s",
        "proxy.toml:5: batching.idel: unknown key; did you mean batching.idle?",
        "proxy.toml:6: batching.max_attempts: expected",
        "proxy.toml:8: providers.Groq: a provider's name",
        "proxy.toml:11: bacthing: unknown key; did you mean batching?",
        "NIGHTBUS_HOLD__HEARTBEAT: hold.heartbeat: expected",
        "NIGHTBUS_LISTN: unknown variable; did you mean NIGHTBUS_LISTEN?",
        "--store: store: expected \"sqlite\" or \"memory\"; found \"disk\"",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}\nexpected: {begin}");
    }
    let idel = &errors.mistakes()[2];
    assert_eq!(idel.key, "batching.idel");
    assert_eq!(idel.origin, Origin::File { name: "proxy.toml".to_owned(), line: Some(5) });
}

#[test]
fn a_syntax_error_has_its_line_and_hides_no_other_mistake() {
    let found = mistakes("idle = \"5s\"\n[batching]\nmax_age = 5s\nidel = 1\npoll = \"3s\"\nadmin = {\n");
    assert!(found.iter().any(|line| line.starts_with("proxy.toml:3: not valid TOML: ")), "{found:#?}");
    assert!(
        found.iter().any(|line| line.starts_with("proxy.toml:1: idle: unknown key; did you mean batching.idle?")),
        "{found:#?}"
    );
    assert!(found.iter().any(|line| line.starts_with("proxy.toml:4: batching.idel: ")), "{found:#?}");
    assert!(!found.iter().any(|line| line.contains("max_age")), "{found:#?}");
}

#[test]
fn a_syntax_error_does_not_repeat_the_line() {
    for text in [
        "admin.token = \"hunter2",
        "admin.token = hunter2",
        "admin.token \"hunter2\"",
        "admin.token = 'hunter2' hunter2",
        "hunter2",
        "[admin]\ntoken = \"hunter2\"\ntoken = \"hunter2\"",
        "admin.token = \"hunter2\\x\"",
    ] {
        let errors = load(text).unwrap_err();
        let said = format!("{errors} {errors:?}");
        // A bare word is a key without a value, and unknown keys are named.
        assert!(text == "hunter2" || !said.contains("hunter2"), "{text}: {said}");
    }
}

#[test]
fn a_value_that_may_be_secret_is_never_repeated() {
    for text in [
        "admin.token = [\"hunter2\"]",
        "admin.token = { hunter = 2 }",
        "client_keys = [{ name = \"a\", key = [\"hunter2\"] }]",
        "callbacks.secret = [\"hunter2\"]",
        "store = \"postgres://u:hunter2@h/db\"",
        "store = \"mysql://u:hunter2@h/db\"",
        "admin.token = \"hunter2 hunter2\"",
    ] {
        let errors = load(text).unwrap_err();
        assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors}");
    }
}

#[test]
fn odd_keys_cannot_forge_lines() {
    let found = mistakes("\"a\\nproxy.toml:1: listen\" = 1");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("proxy.toml:1: \"a\\nproxy.toml:1: listen\": unknown key"), "{found:?}");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_no_harm() {
    assert!(load("\u{feff}listen = \"127.0.0.1:1\"\r\n[batching]\r\nidle = \"1s\"\r\n").is_ok());
    let found = mistakes("\r\n\r\n[batching]\r\nidel = \"1s\"\r\n");
    assert!(found.len() == 1 && found[0].starts_with("proxy.toml:4: batching.idel"), "{found:?}");
}
