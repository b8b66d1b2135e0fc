//! What comes in: listeners, and the way of a call from its first byte to its answer.

mod connection;
pub mod interim;
pub mod listener;
pub mod passthrough;
pub mod respond;
mod sniff;
pub mod tls;
