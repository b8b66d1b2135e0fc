//! nightbus as its users meet it, against the contract: over HTTP, with the simulator as the provider, and as a real
//! process where a process has to die.
//!
//! The invariant behind all of it: each accepted request is executed at most once while an execution may still be
//! billed, and is answered exactly once, to the one who asked.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "the helpers of tests may fail a test"
)]

#[path = "system/access.rs"]
mod access;
#[path = "system/background.rs"]
mod background;
#[path = "system/batch_faults.rs"]
mod batch_faults;
#[path = "system/budget.rs"]
mod budget;
#[path = "system/callbacks.rs"]
mod callbacks;
#[path = "common/mod.rs"]
mod common;
#[path = "system/crash.rs"]
mod crash;
#[path = "system/deferral.rs"]
mod deferral;
#[path = "system/expected.rs"]
mod expected;
#[path = "system/flights.rs"]
mod flights;
#[path = "system/ledger.rs"]
mod ledger;
#[path = "system/left.rs"]
mod left;
#[path = "system/limits.rs"]
mod limits;
#[path = "system/machine.rs"]
mod machine;
#[path = "system/marking.rs"]
mod marking;
#[path = "system/memory.rs"]
mod memory;
#[path = "system/messages.rs"]
mod messages;
#[path = "system/messages_crash.rs"]
mod messages_crash;
#[path = "system/migrations.rs"]
mod migrations;
#[path = "system/recovery.rs"]
mod recovery;
#[path = "system/reload.rs"]
mod reload;
#[path = "system/results.rs"]
mod results;
#[path = "system/routes.rs"]
mod routes;
#[path = "system/services.rs"]
mod services;
#[path = "system/streams.rs"]
mod streams;
#[path = "system/webhooks.rs"]
mod webhooks;
