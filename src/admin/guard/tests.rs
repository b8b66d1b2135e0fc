//! What gets in and what does not, header by header.

use http::Request;

use super::*;

const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));

fn admin(token: Option<&str>) -> AdminConfig {
    AdminConfig {
        token: token.map(SecretString::from),
        allowed_hosts: vec!["ops.example".to_owned(), "night.example:5051".to_owned()],
        tls: None,
        show_bodies: false,
    }
}

fn parts(method: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/api/status");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn code(method: &str, headers: &[(&str, &str)], admin: &AdminConfig) -> &'static str {
    check(&parts(method, headers), admin, OWN, false).map_or_else(|error| error.code, |()| "ok")
}

#[test]
fn only_addresses_and_configured_names_are_answered() {
    for (host, expected) in [
        ("127.0.0.1:5051", "ok"),
        ("127.9.9.9", "ok"),
        ("[::1]:5051", "ok"),
        ("localhost:80", "ok"),
        ("LOCALHOST", "ok"),
        ("10.0.0.5:5051", "ok"),
        ("ops.example:1234", "ok"),
        ("night.example:5051", "ok"),
        ("night.example", "forbidden_origin"),
        ("10.0.0.6:5051", "forbidden_origin"),
        ("evil.example:5051", "forbidden_origin"),
        ("localhost.evil.example", "forbidden_origin"),
        ("127.0.0.1.nip.example", "forbidden_origin"),
        ("evil.example@127.0.0.1", "forbidden_origin"),
        ("0.0.0.0:5051", "forbidden_origin"),
        ("", "forbidden_origin"),
    ] {
        assert_eq!(code("GET", &[("host", host)], &admin(None)), expected, "{host}");
    }
    assert_eq!(code("GET", &[], &admin(None)), "forbidden_origin", "no Host");
    let two = [("host", "127.0.0.1"), ("host", "evil.example")];
    assert_eq!(code("GET", &two, &admin(None)), "forbidden_origin", "two Hosts");
}

#[test]
fn an_unspecified_listen_address_is_no_host_of_ours() {
    let unspecified = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    assert!(check(&parts("GET", &[("host", "0.0.0.0")]), &admin(None), unspecified, false).is_err());
}

#[test]
fn http2_names_its_host_in_the_uri() {
    let request = Request::builder().uri("http://127.0.0.1:5051/api/status").body(()).unwrap();
    assert_eq!(check(&request.into_parts().0, &admin(None), OWN, false), Ok(()));
    let request = Request::builder().uri("http://evil.example/api/status").body(()).unwrap();
    assert!(check(&request.into_parts().0, &admin(None), OWN, false).is_err());
}

#[test]
fn changes_need_a_same_origin_proof_and_foreign_pages_get_nothing() {
    let host = ("host", "127.0.0.1:5051");
    for (method, headers, expected) in [
        ("POST", vec![], "ok"),
        ("POST", vec![("origin", "http://127.0.0.1:5051"), ("sec-fetch-site", "same-origin")], "ok"),
        ("POST", vec![("sec-fetch-site", "none")], "ok"),
        ("POST", vec![("origin", "http://evil.example")], "forbidden_origin"),
        ("POST", vec![("origin", "http://127.0.0.1:3000")], "forbidden_origin"),
        ("POST", vec![("origin", "null")], "forbidden_origin"),
        ("POST", vec![("sec-fetch-site", "cross-site")], "forbidden_origin"),
        ("POST", vec![("sec-fetch-site", "same-site")], "forbidden_origin"),
        ("DELETE", vec![("origin", "http://127.0.0.1:5051"), ("sec-fetch-site", "same-site")], "forbidden_origin"),
        ("GET", vec![("origin", "http://evil.example")], "forbidden_origin"),
        ("OPTIONS", vec![("origin", "http://evil.example")], "forbidden_origin"),
        ("GET", vec![("sec-fetch-site", "cross-site")], "ok"),
    ] {
        let all: Vec<_> = headers.iter().copied().chain([host]).collect();
        assert_eq!(code(method, &all, &admin(None)), expected, "{method} {headers:?}");
    }
}

#[test]
fn with_a_token_nobody_passes_without_it() {
    let host = ("host", "localhost");
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for (authorization, expected) in [
        ("Bearer s3cret".to_owned(), "ok"),
        ("bearer s3cret".to_owned(), "ok"),
        (basic("anybody:s3cret"), "ok"),
        ("Bearer s3cre".to_owned(), "unauthorized"),
        ("Bearer s3cret2".to_owned(), "unauthorized"),
        ("Bearer".to_owned(), "unauthorized"),
        ("s3cret".to_owned(), "unauthorized"),
        (basic("s3cret"), "unauthorized"),
        ("Basic %%%".to_owned(), "unauthorized"),
    ] {
        let headers = [host, ("authorization", authorization.as_str())];
        assert_eq!(code("GET", &headers, &admin(Some("s3cret"))), expected, "{authorization}");
    }
    assert_eq!(code("GET", &[host], &admin(Some("s3cret"))), "unauthorized");
    assert_eq!(check(&parts("GET", &[host]), &admin(Some("s3cret")), OWN, true), Ok(()), "health needs none");
}
