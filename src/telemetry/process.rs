//! What the process itself uses, read from `/proc`. Elsewhere than on Linux the figures are zero.
//! Called when the metrics are rendered.

use std::fs;

/// Memory and files of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory in bytes.
    pub(super) resident_bytes: u64,
    /// Open file descriptors.
    pub(super) open_files: u64,
}

impl Usage {
    /// As it is now.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
        Self { resident_bytes: resident(&status), open_files: u64::try_from(open_files).unwrap_or(0) }
    }
}

/// `VmRSS:     12345 kB` in bytes.
fn resident(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("VmHWM:\t   900 kB\nVmRSS:\t   12345 kB\n"), 12_345 * 1024);
        assert_eq!(resident("nothing here"), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = Usage::read();
        assert!(usage.resident_bytes > 100_000 && usage.open_files > 2, "{usage:?}");
    }
}
