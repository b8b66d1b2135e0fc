//! Fingerprints of upstream credentials that were seen lately, so that a live call costs no HMAC.
//!
//! Invariant: no credential is kept, only what a hash of 64 bits, keyed by this process, makes of it. What is found here
//! names the payer in the ledger of live calls and nothing else: who may see what is decided by `caller`'s own
//! fingerprints, anew for each call.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use http::HeaderMap;
use http::header::HeaderName;
use parking_lot::Mutex;

use crate::config::ProviderConfig;
use crate::domain::lane::Fingerprint;
use crate::intake::caller::{self, CREDENTIAL_HEADERS};
use crate::store::Store;

/// So many are remembered; with more all are forgotten.
const MOST: usize = 1_024;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct SeenAccounts {
    hasher: RandomState,
    seen: Mutex<HashMap<u64, Fingerprint>>,
}

impl SeenAccounts {
    /// The same as [`caller::account_fingerprint`] says.
    pub(crate) fn fingerprint(&self, store: &dyn Store, provider: &ProviderConfig, headers: &HeaderMap) -> Fingerprint {
        let key = hash_of(&self.hasher, provider, headers);
        if let Some(known) = self.seen.lock().get(&key) {
            return *known;
        }
        let fingerprint = caller::account_fingerprint(store, provider, headers);
        let mut seen = self.seen.lock();
        if seen.len() >= MOST {
            seen.clear();
        }
        seen.insert(key, fingerprint);
        fingerprint
    }
}

/// Of everything that the fingerprint depends on.
fn hash_of(hasher: &RandomState, provider: &ProviderConfig, headers: &HeaderMap) -> u64 {
    let mut hash = hasher.build_hasher();
    provider.name.hash(&mut hash);
    match &provider.api_key {
        Some(key) => key.env.hash(&mut hash),
        None => CREDENTIAL_HEADERS.iter().for_each(|name| hash_values(&mut hash, headers, name)),
    }
    for name in provider.kind.lane_headers() {
        hash_values(&mut hash, headers, name);
    }
    hash.finish()
}

fn hash_values(hash: &mut impl std::hash::Hasher, headers: &HeaderMap, name: &HeaderName) {
    for value in headers.get_all(name) {
        value.as_bytes().hash(hash);
    }
    // What follows is another header's.
    u8::MAX.hash(hash);
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, HeaderValue};

    use super::*;
    use crate::config::{Config, StoreKind};
    use crate::store;

    #[test]
    fn the_same_as_the_callers_own_and_one_for_each_credential() {
        let dir = tempfile::tempdir().unwrap();
        let store = store::open(StoreKind::Memory, dir.path(), None, store::no_observer()).unwrap();
        let config = Config::default();
        let provider = &config.providers["openai"];
        let seen = SeenAccounts::default();
        let mut all = Vec::new();
        for lines in [
            &[(AUTHORIZATION, "Bearer a")][..],
            &[(AUTHORIZATION, "Bearer b")],
            &[(AUTHORIZATION, "Bearer a"), (HeaderName::from_static("openai-project"), "p")],
            &[(HeaderName::from_static("api-key"), "Bearer a")],
            &[],
        ] {
            let headers: HeaderMap =
                lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
            let expected = caller::account_fingerprint(&*store, provider, &headers);
            for _ in 0..2 {
                assert_eq!(seen.fingerprint(&*store, provider, &headers), expected);
            }
            all.push(expected);
        }
        let count = all.len();
        all.sort_unstable_by_key(|fingerprint| fingerprint.0);
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(seen.seen.lock().len(), count);
    }
}
