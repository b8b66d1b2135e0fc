//! Named points between two durable steps at which a test can kill the process (`NIGHTBUS_TEST_CRASH=name` or
//! `name:3` for the third time). Compiled in only with debug assertions: a release binary has no such hook.
//! The points are listed in ARCHITECTURE.md.

/// Dies here, without any clean-up, if a test asked for it.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("NIGHTBUS_TEST_CRASH").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), times.parse().unwrap_or(1)))
    });
    if let Some((wanted, times)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        std::process::abort();
    }
}

/// Does nothing: this is a release binary.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn point(_name: &str) {}
