//! What comes in: listeners, and the way of a call from its first byte to its answer.
//!
//! [`service::Intake`] is the way of a call: guard, route, caller, marks; then deferred (`defer`, `hold`), live
//! (`passthrough`), or one of nightbus's own routes (`results`). Nothing here knows a provider's batch API.

mod accepted;
mod accounts;
mod answer;
mod attach;
mod call_body;
mod caller;
mod carried;
mod classify;
mod client;
mod connection;
pub(crate) mod cors;
mod defer;
mod delivery;
mod hold;
pub mod interim;
pub mod listener;
mod marks;
mod meter;
pub mod passthrough;
pub mod respond;
mod results;
mod route;
mod routing;
pub mod service;
mod sniff;
pub mod tls;
mod translated;
mod webhook;
