//! The APIs' formats: what goes over the wire, read and written without any I/O. One folder per API shape.

pub mod api_error;
pub mod openai;
