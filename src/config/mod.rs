//! Configuration: `proxy.toml` and the environment become one typed tree before anything binds a port.
//!
//! Every key is optional, unknown keys are refused with the nearest valid name, and all mistakes are reported
//! together. Called by `app` and `cli` only; the rest of the program gets the typed values.

mod types;

pub use types::*;
