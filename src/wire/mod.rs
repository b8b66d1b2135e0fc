//! The APIs' formats: what goes over the wire, read and written without any I/O. One folder per API shape; the files
//! beside them are what the engine and the intake see, and choose the shape by the endpoint.

pub mod anthropic;
pub mod api_error;
pub mod batch;
pub mod edit;
pub mod gemini;
pub mod line;
mod members;
pub mod mistral;
pub mod openai;
pub mod openrouter;
pub mod peek;
pub mod replay;
pub mod template;
pub mod together;
pub mod translate;
pub mod usage;
pub mod verdict;
pub mod xai;
