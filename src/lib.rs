//! nightbus: a local, OpenAI-compatible HTTP proxy for LLM APIs.
//!
//! Calls that may wait are held, sent together through the provider's Batch API at half the price, and
//! answered as if nothing had happened. All other calls pass straight through, byte for byte.
//!
//! A request flows one way: `intake -> store -> engine -> store -> waiter`. What must survive is in the store
//! before the next step begins. `ARCHITECTURE.md` is the map; `tests/architecture.rs` keeps the directions.

pub mod admin;
pub mod app;
pub mod audit;
pub mod body;
pub mod cli;
pub mod config;
pub mod crash;
pub mod domain;
pub mod engine;
pub mod intake;
#[cfg(feature = "otel")]
pub mod otel;
pub mod sim;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod threads;
pub mod upstream;
pub mod wire;
