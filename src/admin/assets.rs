//! The files of the dashboard, built into the binary: HTML, CSS and ES modules as they stand in `assets/`, no build step.
//!
//! Invariants: nothing here is secret and nothing varies, so the files need no token (the page itself asks for it);
//! every module that another one imports is in [`FILES`]. Called by `routes`.

use http::Response;

use super::reply;
use crate::body::Body;

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! script {
    ($name:literal) => {
        (concat!("/assets/", $name), SCRIPT, include_str!(concat!("assets/", $name)))
    };
}

/// Path, media type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("assets/index.html")),
    ("/assets/app.css", "text/css; charset=utf-8", include_str!("assets/app.css")),
    ("/assets/parts.css", "text/css; charset=utf-8", include_str!("assets/parts.css")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/favicon.ico", "image/svg+xml", include_str!("assets/icon.svg")),
    script!("theme.js"),
    script!("main.js"),
    script!("api.js"),
    script!("live.js"),
    script!("dom.js"),
    script!("format.js"),
    script!("table.js"),
    script!("dialog.js"),
    script!("actions.js"),
    script!("pieces.js"),
    script!("chart.js"),
    script!("timeline.js"),
    script!("problems.js"),
    script!("ledger.js"),
    script!("views/overview.js"),
    script!("views/savings.js"),
    script!("views/batches.js"),
    script!("views/batch.js"),
    script!("views/requests.js"),
    script!("views/request.js"),
    script!("views/lanes.js"),
    script!("views/flights.js"),
    script!("views/faults.js"),
];

/// Whether `path` is a file of the dashboard.
pub(super) fn is_asset(path: &str) -> bool {
    FILES.iter().any(|(known, _, _)| *known == path)
}

/// The file at `path`.
pub(super) fn find(path: &str) -> Option<Response<Body>> {
    let (_, content_type, text) = FILES.iter().find(|(known, _, _)| *known == path)?;
    Some(reply::asset(content_type, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in quotes after `from`, `import` or `src=`/`href=`, as an absolute path.
    fn named(path: &str, text: &str) -> Vec<String> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        for quote in ['"', '\''] {
            for word in text.split(quote) {
                if word.starts_with("/assets/") && !word.contains(char::is_whitespace) {
                    found.push(word.to_owned());
                } else if let Some(rest) = word.strip_prefix("./").filter(|rest| rest.ends_with(".js")) {
                    found.push(format!("{folder}/{rest}"));
                } else if let Some(rest) = word.strip_prefix("../").filter(|rest| rest.ends_with(".js")) {
                    found.push(format!("{}/{rest}", folder.rsplit_once('/').map_or("", |(parent, _)| parent)));
                }
            }
        }
        found
    }

    #[test]
    fn whatever_a_file_names_is_there_and_every_file_is_named() {
        let mut wanted: Vec<String> = vec!["/".to_owned(), "/favicon.ico".to_owned()];
        for (path, _, text) in FILES {
            for name in named(path, text) {
                assert!(is_asset(&name), "{path} names {name}, which is not served");
                wanted.push(name);
            }
        }
        for (path, _, _) in FILES {
            assert!(wanted.iter().any(|name| name == path), "nothing names {path}");
        }
    }

    #[test]
    fn no_file_reaches_beyond_the_listener_or_writes_markup() {
        for (path, _, text) in FILES {
            let text = text.replace("http://www.w3.org/", "");
            for forbidden in
                ["//cdn", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"]
            {
                assert!(!text.contains(forbidden), "{path}: {forbidden}");
            }
            assert!(text.lines().count() <= 500, "{path} is too long: split it by subject");
        }
    }
}
