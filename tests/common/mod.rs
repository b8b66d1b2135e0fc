//! The harness of the tests of the whole system: nightbus in this process or as a process of its own, the simulated
//! provider, and a client.

pub(crate) mod client;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod proxy;
