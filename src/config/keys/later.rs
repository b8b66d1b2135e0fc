//! Features of later versions: known and checked, so that a file written for them loads as long as it does not
//! ask for what is not there.

use crate::config::schema::{Key, Kind, Section, count, duration, text};

const NOTE: &str = "Not in this version: the defaults load, anything else is refused.";

/// `[flight]`
pub(super) const FLIGHT: Section = Section {
    path: "flight",
    about: NOTE,
    keys: &[
        Key::new(
            "enabled",
            Kind::Bool,
            "Test flights: the first requests of a new template run live and are checked \
             before the rest is submitted.",
        )
        .default("true")
        .only(&["false"]),
        Key::new(
            "min_requests",
            count(1),
            "Only for lanes with at least this many queued requests of a template not yet proven.",
        )
        .default("100")
        .only(&[]),
        Key::new("size", count(1), "How many requests fly; at most `min_requests`.").default("5").only(&[]),
        Key::new("ground_timeout", duration(1_000), "Grounded requests that nobody approved by then fail with 422.")
            .default("\"1h\"")
            .only(&[]),
    ],
};

/// `[budget]`
pub(super) const BUDGET: Section = Section {
    path: "budget",
    about: NOTE,
    keys: &[Key::new(
        "daily_usd",
        Kind::Usd,
        "Most that is spent in a day, as estimated before submission; above it \
         lanes wait for the next day.",
    )
    .example("50.0")
    .only(&[])],
};

/// `[[routes]]`
pub(super) const ROUTES: Section = Section {
    path: "routes[]",
    about: "Not in this version: any entry is refused.",
    keys: &[
        Key::new("model", text("a glob"), "Glob on the body's `model`; the first route that fits decides.")
            .example("\"claude-*\""),
        Key::new("provider", text("the name of a provider"), "The provider that gets the call.")
            .example("\"anthropic\""),
        Key::new("rename", text("the name of a model"), "The model name it is sent with.")
            .example("\"claude-haiku-5-5\""),
    ],
};
