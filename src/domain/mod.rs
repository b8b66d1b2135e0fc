//! Pure rules: ids, state machines, lanes, time, money. No I/O, no async; the only clock is [`clock::SystemClock`].

pub mod backoff;
pub mod batch;
pub mod clock;
pub mod forecast;
pub mod ids;
pub mod lane;
pub mod money;
pub mod network;
pub mod pricing;
pub mod request;
pub mod roi;
pub mod service;
pub mod trace;
pub mod usage;
pub mod webhook;
