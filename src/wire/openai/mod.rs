//! OpenAI's formats.

pub mod replay;
pub mod sse;
pub mod usage;
