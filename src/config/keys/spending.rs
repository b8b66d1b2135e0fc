//! What keeps money from being spent in vain, or without limit: test flights and budgets.

use crate::config::schema::{Key, Kind, Section, count, duration, text};

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

/// `[budget]`
pub(super) const BUDGET: Section = Section {
    path: "budget",
    about: "How much may be spent in a day (UTC).",
    keys: &[Key::new(
        "daily_usd",
        Kind::Usd,
        "When the ledger's sum of the day and the estimates of what is submitted reach it, lanes wait for the next \
         day. A call with a deadline before that, and any call while the queue is full, is answered 429 \
         `budget_exceeded`.",
    )
    .example("50.0")
    .risk(
        "Estimates may be wrong, models without a price are not limited, and live calls (pass-through, deadlines, test \
         flights) are counted but not held: the sum may end above it.",
    )],
};

/// `[[budget.limits]]`
pub(super) const BUDGET_LIMITS: Section = Section {
    path: "budget.limits[]",
    about: "How much calls with one tag, or of one client key, may spend in a day (UTC). Each entry has one of the two, and \
            each tag and key at most one entry; a call under several limits, `budget.daily_usd` among them, keeps all. At \
            its limit only these calls wait for the next day: others of their lane leave.",
    keys: &[
        Key::new("tag", text("a tag: up to 64 letters, digits, \".\", \"_\", \"-\""), "The value of `x-nightbus-tag`.")
            .example("\"nightly-eval\"")
            .risk(
                "Callers name their own tags: who leaves it out is not limited by it. A client key cannot be left out.",
            ),
        Key::new("client_key", text("the name of a client key"), "The `name` of the client key.").example("\"ci\""),
        Key::new("daily_usd", Kind::Usd, "As `budget.daily_usd`, for these calls. Required.").example("10.0"),
    ],
};
