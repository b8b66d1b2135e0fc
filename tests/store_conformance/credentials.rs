//! Credentials, and the fingerprints that stand for them.

use nightbus::config::StoreKind;
use nightbus::domain::lane::Fingerprint;
use nightbus::store::Account;

use super::{Bench, bench};

pub(super) async fn credentials_are_kept(kind: StoreKind) {
    let bench = bench(kind);
    let account = |fingerprint, provider: &str, value: &[u8]| Account {
        fingerprint: Fingerprint([fingerprint; 16]),
        provider: provider.to_owned(),
        headers: vec![("authorization".to_owned(), value.to_vec()), ("openai-project".to_owned(), vec![0xff, 0])],
    };
    for account in [account(2, "openai", b"Bearer two"), account(1, "openai", b"old"), account(1, "openai", b"new")] {
        for _ in 0..2 {
            bench.store.save_account(account.clone()).await.unwrap();
        }
    }
    bench.store.save_account(account(1, "groq", b"Bearer one")).await.unwrap();
    let kept = bench.store.accounts().await.unwrap();
    let kept: Vec<_> = kept
        .iter()
        .map(|account| (account.fingerprint.0[0], account.provider.as_str(), account.headers[0].1.as_slice()))
        .collect();
    let expected: [(u8, &str, &[u8]); 3] =
        [(1, "groq", b"Bearer one"), (1, "openai", b"new"), (2, "openai", b"Bearer two")];
    assert_eq!(kept, expected);
}

pub(super) async fn fingerprints_are_keyed(kind: StoreKind) {
    let (one, two) = (bench(kind), bench(kind));
    let of = |bench: &Bench| bench.store.fingerprint(&[b"caller", b"body"]);
    assert_eq!(of(&one), of(&one));
    assert_ne!(of(&one), of(&two), "another directory, another key");
}
