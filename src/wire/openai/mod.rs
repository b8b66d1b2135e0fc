//! OpenAI's formats.

pub mod batch;
pub(in crate::wire) mod batch_file;
pub(in crate::wire) mod output_line;
pub(in crate::wire) mod peek;
pub mod response;
pub mod sse;
pub mod usage;
