//! Every provider kind with batches against one suite, over the simulator's dialect of that kind: the life of a deferred call, the
//! faults of docs/faults.md that can befall it, creations whose answer is lost, money. What a kind does is written into its row of
//! the conformance table in docs/providers.md; a row that is not what the suite has just seen fails.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests may fail a test"
)]
#![expect(dead_code, reason = "the harness is shared with other suites")]

#[path = "providers/cache_ttl.rs"]
mod cache_ttl;
#[path = "common/mod.rs"]
mod common;
#[path = "providers/kind.rs"]
mod kind;
#[path = "providers/suite.rs"]
mod suite;
#[path = "providers/table.rs"]
mod table;
#[path = "providers/unsettled.rs"]
mod unsettled;
#[path = "providers/without_batches.rs"]
mod without_batches;

use kind::Kind;

/// One test for each kind, so that each one's failure has its name.
macro_rules! kinds {
    ($($test:ident: $kind:expr;)+) => {
        const ALL: &[Kind] = &[$($kind),+];
        $(
            #[tokio::test]
            async fn $test() {
                let row = suite::run(&$kind).await;
                table::holds(&$kind, &row);
            }
        )+
    };
}

kinds! {
    openai: kind::OPENAI;
    anthropic: kind::ANTHROPIC;
    azure: kind::AZURE;
    groq: kind::GROQ;
    dashscope: kind::DASHSCOPE;
    doubleword: kind::DOUBLEWORD;
    gemini: kind::GEMINI;
    mistral: kind::MISTRAL;
    together: kind::TOGETHER;
    xai: kind::XAI;
    openrouter: kind::OPENROUTER;
}

/// A kind that speaks batches and is not in the suite would have no row.
#[test]
fn every_kind_with_batches_has_a_row() {
    table::has_rows_for(ALL);
}
