//! Anthropic's formats (providers.md, section 2).

pub mod batch;
pub mod cache_ttl;
pub mod line;
pub(in crate::wire) mod peek;
pub(in crate::wire) mod usage;
