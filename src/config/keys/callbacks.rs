//! `[callbacks]`: webhooks at the end of a request.

use crate::config::schema::{Key, Kind, Section, text, texts};

/// `[callbacks]`
pub(super) const CALLBACKS: Section = Section {
    path: "callbacks",
    about: "Webhooks that tell of a request's end (`x-nightbus-callback`), signed as Standard Webhooks says.",
    keys: &[
        Key::new(
            "secret",
            text("a Standard Webhooks secret (\"whsec_…\")"),
            "Signs callbacks: `whsec_` and 24 to 64 \
             bytes in base64 (`echo whsec_$(openssl rand -base64 32)`). Without one, `x-nightbus-callback` is refused.",
        )
        .example("\"whsec_…\"")
        .risk("Whoever reads the file can forge callbacks: `secret_env` is better."),
        Key::new(
            "secret_env",
            text("the name of an environment variable"),
            "Environment variable that holds the \
             secret.",
        )
        .example("\"NIGHTBUS_KEY_WEBHOOKS\""),
        Key::new("allow_private", Kind::Bool, "Callbacks by plain http, and to loopback and private addresses, too.")
            .default("false")
            .risk("Callers can then make nightbus send POSTs to anything that this machine reaches."),
        Key::new(
            "allow",
            texts("host names and networks"),
            "Hosts and networks that callbacks may go to although they \
             are private; by plain http, too.",
        )
        .default("[]")
        .example("[\"hooks.internal\", \"10.1.0.0/16\"]")
        .risk("A host is trusted with all addresses that its name stands for."),
    ],
};
