//! What keeps money from being spent in vain: test flights.

use crate::config::schema::{Key, Kind, Section, count, duration};

/// `[flight]`
pub(super) const FLIGHT: Section = Section {
    path: "flight",
    about: "Test flights: of a template that is not proven yet, the first few requests are called live at once and \
            judged; the rest waits for the verdict. A call with `x-nightbus-flight: off` takes part in none.",
    keys: &[
        Key::new("enabled", Kind::Bool, "Whether there are test flights.")
            .default("true")
            .risk("Without them a broken prompt or schema is noticed only when all of its requests are paid."),
        Key::new(
            "min_requests",
            count(1),
            "A template flies when at least this many of its requests wait in one lane.",
        )
        .default("100"),
        Key::new("size", count(1), "How many requests fly; at most `min_requests`.")
            .default("5")
            .risk("They are paid at the live price."),
        Key::new(
            "ground_timeout",
            duration(1_000),
            "How long the requests of a grounded template wait for `nightbus flights approve` before they are \
             answered 422 `flight_grounded`.",
        )
        .default("\"1h\""),
    ],
};
