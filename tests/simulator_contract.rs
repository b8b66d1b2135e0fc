//! The simulator against the provider's specification, over TCP with a plain HTTP client.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "the helpers of tests may fail a test"
)]

#[path = "simulator_contract/batches.rs"]
mod batches;
#[path = "simulator_contract/client.rs"]
mod client;
#[path = "simulator_contract/dialects.rs"]
mod dialects;
#[path = "simulator_contract/faults.rs"]
mod faults;
#[path = "simulator_contract/files.rs"]
mod files;
#[path = "simulator_contract/live.rs"]
mod live;
#[path = "simulator_contract/messages.rs"]
mod messages;
#[path = "simulator_contract/results.rs"]
mod results;
#[path = "simulator_contract/streams.rs"]
mod streams;
#[path = "simulator_contract/validation.rs"]
mod validation;
