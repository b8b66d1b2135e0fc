//! The provider's limits (providers.md, section 1.8) and what it keeps account of to enforce them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::sim::state::Account;

/// Bytes in one uploaded file of any purpose.
pub(super) const MAX_FILE_BYTES: u64 = 512_000_000;
/// Embedding inputs over a whole batch.
pub(super) const MAX_EMBEDDING_INPUTS: usize = 50_000;
/// Errors that a failed batch lists; a longer list is cut here.
pub(super) const MAX_LISTED_ERRORS: usize = 1_000;
/// Batches that one account may create within an hour.
const MAX_CREATES_PER_HOUR: usize = 2_000;

/// Limits of one batch file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_requests: usize,
    pub(super) max_bytes: u64,
}

/// Prompt tokens that are enqueued, for each account and model.
#[derive(Debug, Default)]
pub(super) struct TokenPool(Mutex<HashMap<(Account, String), u64>>);

impl TokenPool {
    /// Takes `tokens` if that keeps within `limit`; the text of the refusal otherwise.
    pub(super) fn take(&self, account: &Account, model: &str, tokens: u64, limit: Option<u64>) -> Result<(), String> {
        let mut pool = self.0.lock();
        let used = pool.entry((account.clone(), model.to_owned())).or_default();
        let wanted = used.saturating_add(tokens);
        match limit {
            Some(limit) if wanted > limit => Err(queue_full(account, model, limit)),
            _ => {
                *used = wanted;
                Ok(())
            }
        }
    }

    /// Gives back what [`Self::take`] took.
    pub(super) fn release(&self, account: &Account, model: &str, tokens: u64) {
        if let Some(used) = self.0.lock().get_mut(&(account.clone(), model.to_owned())) {
            *used = used.saturating_sub(tokens);
        }
    }

    /// Tokens enqueued now, over all accounts and models.
    pub(super) fn enqueued(&self) -> u64 {
        self.0.lock().values().sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// The message of `token_limit_exceeded` (providers.md, section 1.9).
pub(super) fn queue_full(account: &Account, model: &str, limit: u64) -> String {
    let organization = if account.organization.is_empty() { "org-simulator" } else { &account.organization };
    format!(
        "Enqueued token limit reached for {model} in organization {organization}. Limit: {} enqueued tokens. \
         Please try again once some in_progress batches have been completed.",
        with_commas(limit)
    )
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// When each account created its batches of the last hour.
#[derive(Debug, Default)]
pub(super) struct HourlyCreates(Mutex<HashMap<Account, VecDeque<Instant>>>);

impl HourlyCreates {
    /// Counts one creation; `false` when the account had its share of this hour.
    pub(super) fn admit(&self, account: &Account) -> bool {
        let mut creates = self.0.lock();
        let recent = creates.entry(account.clone()).or_default();
        while recent.front().is_some_and(|at| at.elapsed() > Duration::from_secs(3600)) {
            recent.pop_front();
        }
        let admitted = recent.len() < MAX_CREATES_PER_HOUR;
        if admitted {
            recent.push_back(Instant::now());
        }
        admitted
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::dialect::Dialect;

    fn account(key: &str) -> Account {
        Account { dialect: Dialect::OpenAi, key: key.into(), organization: String::new(), project: String::new() }
    }

    #[test]
    fn pool_is_per_account_and_model_and_is_given_back() {
        let pool = TokenPool::default();
        let (a, b) = (account("a"), account("b"));
        pool.take(&a, "m", 60, Some(100)).unwrap();
        let refusal = pool.take(&a, "m", 41, Some(100)).unwrap_err();
        assert!(refusal.contains("Limit: 100 enqueued tokens"), "{refusal}");
        pool.take(&b, "m", 41, Some(100)).unwrap();
        pool.take(&a, "n", 41, Some(100)).unwrap();
        pool.release(&a, "m", 60);
        pool.take(&a, "m", 100, Some(100)).unwrap();
        assert_eq!(pool.enqueued(), 182);
    }

    #[test]
    fn limit_is_written_with_commas() {
        for (number, text) in [(7, "7"), (999, "999"), (90_000, "90,000"), (2_000_000, "2,000,000")] {
            assert_eq!(with_commas(number), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_thousand_batches_an_hour() {
        let creates = HourlyCreates::default();
        assert!((0..MAX_CREATES_PER_HOUR).all(|_| creates.admit(&account("a"))));
        assert!(!creates.admit(&account("a")) && creates.admit(&account("b")));
        tokio::time::advance(Duration::from_secs(3601)).await;
        assert!(creates.admit(&account("a")));
    }
}
