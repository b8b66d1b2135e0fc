//! The `nightbus` binary.

fn main() -> std::process::ExitCode {
    nightbus::cli::main()
}
