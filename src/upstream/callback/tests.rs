use super::*;
use crate::config::{Config, Overrides, parse};

fn policy(allow: &str) -> CallbacksConfig {
    let file = format!("[callbacks]\n{allow}");
    let config: Config = parse(Some(("proxy.toml", &file)), [], &Overrides::default()).unwrap();
    config.callbacks
}

fn checked(url: &str, allow: &str) -> Result<(), TargetError> {
    Target::new(url, &policy(allow)).map(drop)
}

#[test]
fn only_https_to_what_may_be_public_passes_by_its_text() {
    for good in
        ["https://example.com/hook?a=b", "https://example.com", "https://1.1.1.1:8443/x", "HTTPS://Example.com./"]
    {
        assert_eq!(checked(good, ""), Ok(()), "{good}");
    }
    for url in [
        "",
        "example.com/hook",
        "ftp://example.com/",
        "https://user:pw@example.com/",
        "https:///x",
        "https://example.com/#f",
        "/hook",
    ] {
        assert_eq!(checked(url, ""), Err(TargetError::Url), "{url}");
    }
    assert_eq!(checked(&format!("https://example.com/{}", "x".repeat(2_048)), ""), Err(TargetError::Url));
    assert_eq!(checked("http://example.com/", ""), Err(TargetError::Plain));
    for private in [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/",
        "http://10.0.0.1/",
    ] {
        assert_eq!(checked(private, ""), Err(TargetError::Private), "{private}");
    }
}

#[test]
fn the_configuration_permits_hosts_networks_or_all() {
    assert_eq!(checked("http://Hooks.internal:8080/", "allow = [\"hooks.internal\"]"), Ok(()));
    assert_eq!(checked("http://other.internal/", "allow = [\"hooks.internal\"]"), Err(TargetError::Plain));
    assert_eq!(checked("http://10.1.2.3/", "allow = [\"10.1.0.0/16\"]"), Ok(()));
    assert_eq!(checked("https://10.2.2.3/", "allow = [\"10.1.0.0/16\"]"), Err(TargetError::Private));
    assert_eq!(checked("http://127.0.0.1:9/", "allow_private = true"), Ok(()));
}

#[tokio::test]
async fn a_name_is_checked_by_the_addresses_it_stands_for() {
    let closed = policy("");
    let target = Target::new("https://localhost:1/", &closed).unwrap();
    let error = target.addresses(&closed).await.unwrap_err();
    assert!(matches!(error, CallbackError::Target(TargetError::Private)), "{error}");
    let open = policy("allow = [\"127.0.0.0/8\"]");
    let found = target.addresses(&open).await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|address| address.is_ipv4()), "only what is listed: {found:?}");
}
