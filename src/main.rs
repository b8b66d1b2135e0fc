//! The `nightbus` binary.

fn main() {}
