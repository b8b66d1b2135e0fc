//! Features of later versions: known and checked, so that a file written for them loads as long as it does not
//! ask for what is not there.

use crate::config::schema::{Key, Kind, Section, text, texts};

const NOTE: &str = "Not in this version: the defaults load, anything else is refused.";

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
