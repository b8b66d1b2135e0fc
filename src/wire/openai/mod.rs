//! OpenAI's formats.

pub mod batch;
pub mod batch_file;
pub mod edit;
pub mod output_line;
pub mod peek;
pub mod replay;
pub mod sse;
pub mod usage;
