//! What goes out to a provider: HTTP client, TLS, the batch APIs and what each kind can do.
//! What goes out: the HTTP client, TLS, outbound proxies, and the headers that end here.

pub mod client;
mod connect;
pub mod error;
pub mod headers;
pub mod outbound_proxy;
mod tls;
