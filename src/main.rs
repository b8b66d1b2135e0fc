//! The `nightbus` binary.

/// Smaller per held connection than the system's allocator, and the same on every target (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    nightbus::cli::main()
}
