//! The files of the status page, built into the binary.

use http::Response;

use super::reply;
use crate::body::Body;

/// The file at `path`.
pub(super) fn find(path: &str) -> Option<Response<Body>> {
    match path {
        "/" => Some(reply::asset("text/html; charset=utf-8", include_str!("assets/status.html"))),
        "/assets/status.css" => Some(reply::asset("text/css; charset=utf-8", include_str!("assets/status.css"))),
        "/assets/status.js" => Some(reply::asset("text/javascript; charset=utf-8", include_str!("assets/status.js"))),
        "/assets/icon.svg" | "/favicon.ico" => Some(reply::asset("image/svg+xml", include_str!("assets/icon.svg"))),
        _ => None,
    }
}
