//! The upstream credentials that lanes stand for. Sealed in the store, so that batches can be polled after a restart.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;

use crate::config::ProviderConfig;
use crate::domain::lane::{Fingerprint, LaneKey};
use crate::store::{Account, SharedStore, StoreError};
use crate::upstream::headers::set_credential;
use crate::upstream::provider::Credentials;

/// All credentials that are in use.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    known: RwLock<HashMap<Fingerprint, Arc<Account>>>,
}

impl Accounts {
    /// Reads what an earlier run kept.
    pub(crate) async fn load(&self, store: &SharedStore) -> Result<(), StoreError> {
        let accounts = store.accounts().await?;
        let mut known = self.known.write();
        for account in accounts {
            known.insert(account.fingerprint, Arc::new(account));
        }
        Ok(())
    }

    pub(crate) fn is_known(&self, fingerprint: Fingerprint) -> bool {
        self.known.read().contains_key(&fingerprint)
    }

    /// Keeps a credential durably, once.
    pub(crate) async fn keep(&self, store: &SharedStore, account: Account) -> Result<(), StoreError> {
        if !self.is_known(account.fingerprint) {
            store.save_account(account.clone()).await?;
            self.known.write().insert(account.fingerprint, Arc::new(account));
        }
        Ok(())
    }

    /// The headers to send for `lane`. A key that nightbus holds for the provider takes the place of the caller's.
    pub(crate) fn credentials(&self, lane: &LaneKey, provider: &ProviderConfig) -> Option<Credentials> {
        let account = Arc::clone(self.known.read().get(&lane.account)?);
        let mut headers = HeaderMap::with_capacity(account.headers.len() + 1);
        for (name, value) in &account.headers {
            if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                value.set_sensitive(true);
                headers.append(name, value);
            }
        }
        if let Some(key) = &provider.api_key {
            set_credential(&mut headers, provider.kind, &key.value);
        }
        Some(Credentials(headers))
    }
}
