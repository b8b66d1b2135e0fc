//! Features of later versions: known and checked, so that a file written for them loads as long as it does not
//! ask for what is not there.

use crate::config::schema::{Key, Section, text};

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
