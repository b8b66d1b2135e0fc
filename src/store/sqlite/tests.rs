//! What only a store on disk can do or suffer: reopening, crashes, wrong keys, damage, a full disk.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rusqlite::Connection;
use secrecy::SecretString;

use super::SqliteStore;
use crate::domain::clock::Micros;
use crate::domain::ids::{IdSource, RequestId};
use crate::domain::lane::{Endpoint, Fingerprint, LaneKey};
use crate::domain::request::RequestState;
use crate::store::observer::{CommitObserver, no_observer};
use crate::store::{Account, Finish, NewBatch, NewRequest, OutcomeSummary, RequestOptions, Store as _, StoreError};

const PLAIN: &[u8] = b"{\"input\":\"a secret that must not lie on disk in the clear\"}";

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, None, no_observer()).unwrap()
}

fn refusal(dir: &Path) -> String {
    let error = SqliteStore::open(dir, None, no_observer()).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(_)), "{error:?}");
    error.to_string()
}

fn request(ids: &IdSource) -> NewRequest {
    let at = Micros::from_unix_seconds(1_795_420_800);
    NewRequest {
        id: ids.request_id(at, fastrand::u64(..)),
        caller: Fingerprint([1; 16]),
        lane: Arc::new(LaneKey {
            provider: "openai".into(),
            account: Fingerprint([3; 16]),
            endpoint: Endpoint::Embeddings,
            model: "m".into(),
            deadline_class: 0,
        }),
        tag: None,
        key: None,
        created_at: at,
        deadline_at: None,
        options: RequestOptions::default(),
        body_hash: Fingerprint([2; 16]),
        idempotency: None,
        body_len: 9,
        template: None,
        most_output: None,
        trace: None,
    }
}

async fn accept(store: &SqliteStore, count: usize) -> Vec<RequestId> {
    let ids = IdSource::after(store.last_sequence().await.unwrap());
    let requests: Vec<_> = (0..count).map(|_| request(&ids)).collect();
    let accepted = requests.iter().map(|request| store.accept(request.clone(), Bytes::from_static(PLAIN)));
    assert!(join_all(accepted).await.iter().all(Result::is_ok));
    requests.iter().map(|request| request.id).collect()
}

fn completed(id: RequestId) -> Finish {
    let summary = OutcomeSummary {
        status_code: 200,
        service: None,
        provider_request_id: None,
        error: None,
        usage_json: None,
        cost_nanos: None,
        saved_nanos: None,
    };
    let body = Some(Bytes::from_static(PLAIN));
    Finish {
        id,
        state: RequestState::Completed,
        at: Micros::from_unix_seconds(1_795_420_900),
        summary,
        body,
        charge: None,
    }
}

/// Changes the database behind the store's back.
fn tamper(dir: &Path, sql: &str) {
    Connection::open(dir.join("nightbus.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn all_is_there_after_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = accept(&store, 20).await;
    assert_eq!(store.finish(vec![completed(ids[0])]).await.unwrap(), [true]);
    let account = Account {
        fingerprint: Fingerprint([4; 16]),
        provider: "openai".to_owned(),
        headers: vec![("authorization".to_owned(), PLAIN.to_vec())],
    };
    store.save_account(account).await.unwrap();
    let fingerprint = store.fingerprint(&[b"caller"]);
    store.close().await.unwrap();
    assert!(!dir.path().join("nightbus.db-wal").exists(), "a clean close leaves no log behind");

    let store = open(dir.path());
    assert_eq!(store.fingerprint(&[b"caller"]), fingerprint);
    assert_eq!(store.stats().await.unwrap().requests, [19, 0, 1, 0, 0]);
    assert_eq!(store.last_sequence().await.unwrap(), ids[19].sequence());
    let bodies = store.bodies(ids.clone()).await.unwrap();
    assert!(bodies.len() == 20 && bodies.iter().all(|(_, body)| body == PLAIN));
    assert_eq!(store.result(ids[0]).await.unwrap().unwrap().body.as_deref(), Some(PLAIN));
    assert_eq!(store.accounts().await.unwrap()[0].headers[0].1, PLAIN);
    let batch = NewBatch {
        id: IdSource::after(ids[19].sequence()).batch_id(Micros(0), 1),
        lane: request(&IdSource::default()).lane,
        created_at: Micros(1),
        lines: ids[1..].to_vec(),
    };
    assert_eq!(store.create_batch(batch).await.unwrap(), ids[1..], "the lane's number survived");
}

#[tokio::test]
async fn whatever_was_acknowledged_is_in_the_files_of_a_process_that_dies() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    for round in 0..3 {
        let ids = accept(&store, 300).await;
        assert_eq!(store.finish(vec![completed(ids[0])]).await.unwrap(), [true]);
        // What a kill leaves: the files as they are now, the log among them, and nothing that is only in memory.
        let crashed = copy.path().join(round.to_string());
        fs::create_dir(&crashed).unwrap();
        for name in ["nightbus.db", "nightbus.db-wal", "key"] {
            fs::copy(dir.path().join(name), crashed.join(name)).unwrap();
        }
        let reopened = open(&crashed);
        assert_eq!(reopened.bodies(ids.clone()).await.unwrap().len(), 300);
        assert!(reopened.result(ids[0]).await.unwrap().unwrap().body.is_some());
        let counts = reopened.stats().await.unwrap().requests;
        assert_eq!(counts, [299 * (round + 1), 0, round + 1, 0, 0]);
        reopened.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_put_in_line_before_the_close_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = IdSource::default();
    let requests: Vec<_> = (0..200).map(|_| request(&ids)).collect();
    let accepts = join_all(requests.iter().map(|request| store.accept(request.clone(), Bytes::new())));
    let (accepted, closed) = futures_util::future::join(accepts, store.close()).await;
    closed.unwrap();
    assert!(accepted.iter().all(Result::is_ok));
    assert_eq!(open(dir.path()).stats().await.unwrap().requests[0], 200);
}

#[tokio::test]
async fn a_data_directory_serves_one_process_and_names_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = SqliteStore::open(dir.path(), None, no_observer()).unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    store.close().await.unwrap();
    open(dir.path());
}

#[tokio::test]
async fn another_key_is_refused_and_the_way_out_named() {
    let dir = tempfile::tempdir().unwrap();
    let master = SecretString::from("a passphrase of some length");
    let with_master = || SqliteStore::open(dir.path(), Some(&master), no_observer());
    let store = with_master().unwrap();
    let ids = accept(&store, 1).await;
    store.close().await.unwrap();
    assert!(!dir.path().join("key").exists(), "a master key needs no file");
    assert!(refusal(dir.path()).contains("NIGHTBUS_MASTER_KEY"), "no key at all");
    assert!(!dir.path().join("key").exists(), "a key that opens nothing is not made");
    fs::write(dir.path().join("key"), [7; 32]).unwrap();
    assert!(refusal(dir.path()).contains("NIGHTBUS_MASTER_KEY"), "another key");
    assert_eq!(with_master().unwrap().bodies(ids).await.unwrap().len(), 1, "the right key still opens it");
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_left_alone() {
    for (sql, expected) in [
        ("PRAGMA user_version = 99", "schema 99"),
        ("PRAGMA user_version = -1", "schema -1"),
        ("PRAGMA application_id = 5", "another program"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).close().await.unwrap();
        tamper(dir.path(), sql);
        let before = fs::read(dir.path().join("nightbus.db")).unwrap();
        let text = refusal(dir.path());
        assert!(text.contains(expected) && text.contains("data_dir"), "{text}");
        assert_eq!(fs::read(dir.path().join("nightbus.db")).unwrap(), before);
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&store, 500).await;
    store.close().await.unwrap();
    let path = dir.path().join("nightbus.db");
    let whole = fs::read(&path).unwrap();
    for kept in [whole.len() / 2, whole.len() - 8_192, 100] {
        fs::write(&path, &whole[..kept]).unwrap();
        assert!(refusal(dir.path()).contains("backup"), "cut to {kept} bytes");
    }
    fs::write(&path, b"hello ".repeat(5_000)).unwrap();
    assert!(refusal(dir.path()).contains("nightbus.db"));
    fs::write(&path, &whole).unwrap();
    open(dir.path());
}

#[tokio::test]
async fn an_exchanged_or_changed_body_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = accept(&store, 3).await;
    let answers = vec![completed(ids[0])];
    assert_eq!(store.finish(answers).await.unwrap(), [true]);
    store.close().await.unwrap();
    tamper(
        dir.path(),
        &format!(
            "UPDATE bodies SET body = (SELECT body FROM bodies WHERE seq = {1}) WHERE seq = {0};
             UPDATE results SET body = (SELECT body FROM bodies WHERE seq = {2})",
            ids[0].sequence(),
            ids[1].sequence(),
            ids[2].sequence(),
        ),
    );
    let store = open(dir.path());
    assert!(matches!(store.bodies(vec![ids[0]]).await, Err(StoreError::Unreadable(_))), "another request's body");
    assert!(matches!(store.result(ids[0]).await, Err(StoreError::Unreadable(_))), "a question as an answer");
    assert_eq!(store.bodies(vec![ids[1]]).await.unwrap().len(), 1, "the others are whole");
}

#[tokio::test]
async fn nothing_lies_on_disk_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = accept(&store, 2).await;
    assert_eq!(store.finish(vec![completed(ids[0])]).await.unwrap(), [true]);
    let headers = vec![("authorization".to_owned(), b"Bearer sk-very-secret-key".to_vec())];
    let account = Account { fingerprint: Fingerprint([4; 16]), provider: "openai".to_owned(), headers };
    store.save_account(account).await.unwrap();
    store.close().await.unwrap();
    let file = fs::read(dir.path().join("nightbus.db")).unwrap();
    for secret in [b"a secret that must".as_slice(), b"sk-very-secret", b"[66,101,97,114,101,114"] {
        assert!(memchr::memmem::find(&file, secret).is_none(), "{}", String::from_utf8_lossy(secret));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("data");
    let store = open(&dir);
    accept(&store, 1).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for name in ["nightbus.db", "nightbus.db-wal", "nightbus.db-shm", "key", "lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_then_all_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let before = accept(&store, 10).await;
    let limit = |pages: i64| {
        store.change(1, 1, move |session| {
            session.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_row| Ok(()))
        })
    };
    limit(1).await.unwrap();
    let ids = IdSource::after(before[9].sequence());
    let large = Bytes::from_iter(std::iter::repeat_with(|| fastrand::u8(..)).take(100_000));
    let requests: Vec<_> = (0..20).map(|_| request(&ids)).collect();
    let refused = join_all(requests.iter().map(|request| store.accept(request.clone(), large.clone()))).await;
    assert!(
        refused.iter().all(|outcome| matches!(outcome, Err(StoreError::Unwritable(text)) if text.contains("full")))
    );
    assert_eq!(store.stats().await.unwrap().requests, [10, 0, 0, 0, 0]);
    assert_eq!(store.bodies(before.clone()).await.unwrap().len(), 10, "what was stored is safe");

    limit(1 << 30).await.unwrap();
    let accepted = join_all(requests.iter().map(|request| store.accept(request.clone(), large.clone()))).await;
    assert!(accepted.iter().all(Result::is_ok), "it goes on by itself");
    assert_eq!(store.stats().await.unwrap().requests, [30, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_large_one_that_does_not_fit_does_not_fail_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    accept(&store, 1).await;
    let fill = store.change(1, 1, |session| {
        let pages: i64 = session.connection.query_row("PRAGMA page_count", (), |row| row.get(0))?;
        let limit = format!("PRAGMA max_page_count = {}", pages + 30);
        session.connection.query_row(&limit, (), |_row| Ok(()))
    });
    fill.await.unwrap();
    let ids = IdSource::after(store.last_sequence().await.unwrap());
    let large = Bytes::from_iter(std::iter::repeat_with(|| fastrand::u8(..)).take(400_000));
    let accepts = (0..9).map(|number| {
        let body = if number == 4 { large.clone() } else { Bytes::from_static(PLAIN) };
        store.accept(request(&ids), body)
    });
    let outcomes: Vec<bool> = join_all(accepts).await.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, true, true, true, false, true, true, true, true]);
    assert_eq!(store.stats().await.unwrap().requests, [9, 0, 0, 0, 0]);
}

#[derive(Debug, Default)]
struct Tally(Mutex<(usize, usize, u64)>);

impl CommitObserver for Tally {
    fn commit(&self, rows: usize, seconds: f64) {
        assert!(seconds >= 0.0);
        let mut tally = self.0.lock();
        *tally = (tally.0 + 1, tally.1 + rows, tally.2);
    }

    fn checkpoint(&self, wal_bytes: u64) {
        let mut tally = self.0.lock();
        tally.2 = tally.2.max(wal_bytes);
    }
}

#[tokio::test]
async fn those_who_come_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let tally = Arc::new(Tally::default());
    let store = SqliteStore::open(dir.path(), None, Arc::clone(&tally) as _).unwrap();
    accept(&store, 1_000).await;
    // Told after the commit and before the answer, so all is here.
    let (commits, rows, _) = *tally.0.lock();
    assert_eq!(rows, 1_000);
    assert!(commits < 500, "{commits} commits for a thousand callers");
}

#[tokio::test]
async fn the_log_is_copied_and_does_not_grow_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let tally = Arc::new(Tally::default());
    let store = SqliteStore::open(dir.path(), None, Arc::clone(&tally) as _).unwrap();
    let ids = IdSource::default();
    let noise = Bytes::from_iter(std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20));
    for _ in 0..9 {
        let accepts = (0..10).map(|_| store.accept(request(&ids), noise.clone()));
        assert!(join_all(accepts).await.iter().all(Result::is_ok));
        let log = fs::metadata(dir.path().join("nightbus.db-wal")).unwrap().len();
        assert!(log < 128 << 20, "the log has {log} bytes");
    }
    assert!(tally.0.lock().2 >= 8 << 20, "it was copied");
    assert_eq!(store.stats().await.unwrap().requests[0], 90);
}

#[tokio::test]
async fn a_database_from_before_the_ledger_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let accepted = accept(&store, 1).await;
    store.close().await.unwrap();
    drop(store);
    // The ledger's migration is the third one; what came after it is undone as well.
    let undone = "ALTER TABLE requests DROP COLUMN live_response; ALTER TABLE requests DROP COLUMN trace; DROP TABLE ceilings; DROP TABLE callbacks;
                  DROP TABLE flights; ALTER TABLE requests DROP COLUMN template;
                  ALTER TABLE requests DROP COLUMN most_output;
                  DROP TABLE ledger; DROP TABLE ledger_hours; DROP TABLE ledger_groups;
                  ALTER TABLE requests DROP COLUMN client_key;";
    tamper(dir.path(), &format!("{undone} PRAGMA user_version = 2"));
    let store = open(dir.path());
    let record = store.request(accepted[0]).await.unwrap().unwrap();
    assert_eq!((record.state, record.request.key), (RequestState::Queued, None));
    assert_eq!(store.ledger(Micros(0), None).await.unwrap(), crate::store::ledger::LedgerReport::default());
    assert_eq!(store.finish(vec![completed(accepted[0])]).await.unwrap(), [true]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn lanes_of_deadlines_that_are_over_go_with_their_requests() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids = IdSource::default();
    let base = request(&ids);
    let first = base.created_at.unix_seconds();
    let classes: Vec<i64> = (0..300).map(|at| if at % 2 == 0 { first + at } else { -first - at }).collect();
    let riding = |class: i64| {
        let lane = Arc::new(LaneKey { deadline_class: class, ..(*base.lane).clone() });
        NewRequest { id: ids.request_id(base.created_at, 1), lane, ..base.clone() }
    };
    let (plain, requests) = (riding(0), classes.iter().map(|class| riding(*class)).collect::<Vec<_>>());
    for request in [&plain].into_iter().chain(&requests) {
        store.accept(request.clone(), Bytes::from_static(PLAIN)).await.unwrap();
    }
    let lanes = || async {
        store
            .read(|connection| connection.query_row("SELECT count(*) FROM lanes", (), |row| row.get::<_, i64>(0)))
            .await
            .unwrap()
    };
    // All but the fifth have ended, and a batch is left of the seventh's lane alone.
    let batch = NewBatch {
        id: ids.batch_id(base.created_at, 1),
        lane: Arc::clone(&requests[7].lane),
        created_at: base.created_at,
        lines: vec![requests[5].id],
    };
    assert_eq!(store.create_batch(batch).await.unwrap().len(), 1);
    let others = requests.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, one)| completed(one.id));
    let ended = others.chain([completed(plain.id)]).collect();
    assert!(store.finish(ended).await.unwrap().iter().all(|ended| *ended));
    let later = Micros::from_unix_seconds(first + 100_000);
    assert_eq!(lanes().await, 301);
    assert_eq!(store.expire(later, 300).await.unwrap(), 300);
    assert_eq!(lanes().await, 301, "there may be more to delete first");
    assert_eq!(store.expire(later, 300).await.unwrap(), 0);
    assert_eq!(lanes().await, 4, "what rides, what a batch has, what has no deadline, and the newest");
    // A lane that comes again, and one that was never there, mean what they say, to readers with old numbers in mind as well.
    for class in [classes[9], first + 900, classes[5]] {
        let one = riding(class);
        store.accept(one.clone(), Bytes::from_static(PLAIN)).await.unwrap();
        assert_eq!(store.request(one.id).await.unwrap().unwrap().request.lane, one.lane);
    }
    assert_eq!(store.request(requests[5].id).await.unwrap().unwrap().request.lane, requests[5].lane);
}
