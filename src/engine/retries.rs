//! A budget for calls that are made again, one for each provider: however many batches an outage meets, what it sees of
//! their retries is a few a second and not their number.
//!
//! Each retry waits its own growing pause first (`run::wait_after`, `poll`), and then for its turn here. Calls that nothing
//! had gone wrong with before do not ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two retries, once the first ones are out.
const PACE: Duration = Duration::from_millis(250);
/// So many may go at once: the usual troubles never wait.
const AT_ONCE: u32 = 20;

/// When the next retry is due that does not go at once, by provider.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    due: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Retries {
    /// Takes a turn; how long it is until then. Turns are given in the order in which they are asked for.
    pub(crate) fn turn(&self, provider: &Arc<str>) -> Duration {
        let now = Instant::now();
        let mut due = self.due.lock();
        let next = due.entry(Arc::clone(provider)).or_insert(now);
        *next = (*next).max(now) + PACE;
        (*next - now).saturating_sub(PACE * AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_retries_go_at_once_and_many_go_at_a_pace() {
        let (retries, provider) = (Retries::default(), Arc::from("openai"));
        let waits: Vec<_> = (0..1_000).map(|_| retries.turn(&provider)).collect();
        assert!(waits.iter().take(20).all(Duration::is_zero));
        assert_eq!(waits[20], PACE);
        assert_eq!(waits[999], PACE * 980, "four a second, whatever their number");
        assert!(retries.turn(&Arc::from("other")).is_zero(), "one provider's outage is not another's");
        tokio::time::advance(PACE * 1_001).await;
        assert!(retries.turn(&provider).is_zero(), "after it all is as before");
    }
}
