//! The process's threads and which of them goes first: the runtime's workers, which talk with callers and providers, before
//! those that seal, read and write in the background.
//!
//! On a machine with few cores the latter would otherwise take turns with the workers, and everybody's live calls wait while
//! a large batch is being stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A worker looks for news of its sockets after so many turns of its tasks. The runtime's own 61 are too many where each
/// turn writes an answer of its own: a call that is passed through looks at four sockets, one after another.
const TURNS_BETWEEN_LOOKS: u32 = 16;

/// Steps of niceness that a background thread steps back: at 5 it gets a third of the share of one that did not, and all of
/// an idle core.
#[derive(Debug, Clone, Copy)]
pub enum StepsBack {
    /// What nobody on the line waits for: sealing, reading back, copying the log into the database.
    Background = 5,
    /// The store's writer, which calls wait for whose acceptance is not durable yet. Further back, its wake-ups cost more
    /// than the workers gain (docs/performance.md).
    Writer = 2,
}

/// The runtime of `nightbus serve`. Its blocking threads step back.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .event_interval(TURNS_BETWEEN_LOOKS)
        .on_thread_start(move || {
            if counted.fetch_add(1, Ordering::AcqRel) >= workers {
                step_back(StepsBack::Background);
            }
        })
        .enable_all()
        .build()?;
    // The runtime starts its workers first, and they never end; only then may anybody ask for blocking ones.
    while begun.load(Ordering::Acquire) < workers {
        std::thread::yield_now();
    }
    Ok(runtime)
}

/// Lets the other threads of the process go before the calling one, for good: nobody without privileges can take it back.
pub fn step_back(steps: StepsBack) {
    if let Err(error) = rustix::process::nice(steps as i32) {
        tracing::debug!(%error, "a background thread did not step back");
    }
}
