//! Features of later versions: known and checked, so that a file written for them loads as long as it does not
//! ask for what is not there.

use crate::config::schema::{Key, Kind, Section, count, duration, text, texts};

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

/// `[callbacks]`
pub(super) const CALLBACKS: Section = Section {
    path: "callbacks",
    about: NOTE,
    keys: &[
        Key::new("secret", text("a Standard Webhooks secret (\"whsec_…\")"), "Signs webhooks (Standard Webhooks).")
            .example("\"whsec_…\"")
            .only(&[]),
        Key::new(
            "secret_env",
            text("the name of an environment variable"),
            "Environment variable that holds the secret.",
        )
        .example("\"NIGHTBUS_KEY_WEBHOOKS\"")
        .only(&[]),
        Key::new("allow_private", Kind::Bool, "Callbacks to loopback and private addresses too.")
            .default("false")
            .only(&[]),
        Key::new("allow", texts("host names and networks"), "Private hosts and networks that callbacks may go to.")
            .default("[]")
            .example("[\"hooks.internal\", \"10.1.0.0/16\"]")
            .only(&[]),
    ],
};
