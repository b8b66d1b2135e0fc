//! What goes out: the HTTP client, TLS, outbound proxies, the headers that end here, and the providers' batch APIs
//! with what each kind can do.

pub mod anthropic;
pub mod callback;
pub mod capability;
pub mod client;
pub(crate) mod connect;
pub mod error;
pub(crate) mod exchange;
pub mod files;
pub mod gemini;
pub mod headers;
pub mod mistral;
mod multipart;
pub mod openai;
pub mod openrouter;
pub mod outbound_proxy;
pub mod provider;
pub(crate) mod tls;
pub mod together;
pub mod xai;
