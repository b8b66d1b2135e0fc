//! OpenAI's formats.
