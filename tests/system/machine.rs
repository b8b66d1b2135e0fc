//! What the machine does to the real process: too few files, a disk that is full or read-only, a damaged, newer or
//! foreign database, a backup, a clock that was set.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nightbus::domain::clock::Micros;
use nightbus::sim::SimOptions;
use rlimit::Resource;
use rusqlite::Connection;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::common::client::{ASYNC, CHAT, Client, DEFER, Reply, chat, eventually, probe};
use super::common::process::{Home, Running};
use super::common::provider::{Provider, quick};

const TABLES: &str = "[batching]\nidle = \"40ms\"\nmax_age = \"300ms\"\npoll = \"100ms\"\n[flight]\nenabled = false";
/// Batches leave when they are told to.
pub(super) const PATIENT: &str =
    "[batching]\nidle = \"1h\"\nmax_age = \"2h\"\npoll = \"100ms\"\n[flight]\nenabled = false";

/// Batches that take as long as the test likes.
async fn slow() -> Provider {
    Provider::start(SimOptions { batch_seconds: 900.0, ..quick() }).await
}

async fn until_ready(admin: &Client, status: u16) -> Reply {
    eventually(&format!("/readyz answers {status}"), || async {
        let reply = admin.get("/readyz").await;
        (reply.status == status).then_some(reply)
    })
    .await
}

/// How much of a file the process may write: past it `write` fails, as it does on a full disk.
fn most_bytes_of_a_file(running: &Running, most: u64) {
    let id = i32::try_from(running.id()).unwrap();
    rlimit::prlimit(id, Resource::FSIZE, Some((most, rlimit::INFINITY)), None).unwrap();
}

/// It does not start, exits with 1, and says all of `said`; the file of the database stays as it is.
async fn is_refused(home: &Home, commands: &str, said: &[&str]) {
    let database = home.data().join("nightbus.db");
    let before = fs::read(&database).ok();
    let (code, text) = home.refusal_after(commands).await;
    assert_eq!(code, Some(1), "{text}");
    for words in said {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
    assert!(fs::read(&database).ok() == before, "a database that is refused is left as it is");
}

/// One answered request, one in a batch, one queued: (text, id) of each. The process has been stopped in order.
pub(super) async fn some_of_each(provider: &Provider, home: &Home) -> [(String, String); 3] {
    let running = home.start().await;
    let client = &running.client;
    let mut ids = Vec::new();
    for at in 0..3 {
        if at == 1 {
            provider.batch_seconds(900.0).await;
        }
        ids.push(client.accepted(CHAT, &chat(&format!("say {}", probe(at)))).await);
        if at < 2 {
            client.post("/nightbus/v1/flush", &[], "").await;
            client.until_state(&ids[at], &[["completed", "submitted"][at]]).await;
        }
    }
    eventually("the second batch exists", || async { (provider.count("batches") == 2).then_some(()) }).await;
    assert!(running.terminate().await.success());
    [0, 1, 2].map(|at| (format!("say {}", probe(at)), ids[at].clone()))
}

/// All of them are answered, and were executed once.
pub(super) async fn go_on(provider: &Provider, home: &Home, requests: &[(String, String)]) {
    let running = home.start().await;
    provider.batch_seconds(0.1).await;
    running.client.post("/nightbus/v1/flush", &[], "").await;
    for (text, id) in requests {
        assert!(running.client.result(id).await.text().ends_with(text), "{}", home.logged());
    }
    let executions = provider.executions().await;
    assert!(executions.as_object().unwrap().values().all(|count| count == 1), "{executions}");
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn too_few_files_are_said_at_start_and_outlived() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, TABLES);
    let running = home.start_after("ulimit -n 96").await;
    let logged = home.logged();
    assert!(logged.contains("WARN") && logged.contains("`ulimit -n`") && logged.contains("limit=96"), "{logged}");
    let mut crowd = Vec::new();
    while crowd.len() < 150 {
        crowd.push(TcpStream::connect(running.client.to).await.unwrap());
    }
    eventually("it has no files left", || async { home.logged().contains("cannot accept connections").then_some(()) })
        .await;
    drop(crowd);
    assert!(running.client.held(CHAT, &chat("say probe-later")).await.text().ends_with("probe-later"));
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_new_calls_loses_nothing_and_all_goes_on_by_itself() {
    let provider = slow().await;
    let home = Home::new(&provider, TABLES);
    // Without the signal a write past the limit fails.
    let running = home.start_after("trap '' XFSZ").await;
    let client = running.client.clone();
    let submitted = client.accepted(CHAT, &chat("say probe-submitted")).await;
    client.until_state(&submitted, &["submitted"]).await;
    eventually("it is at the provider", || async { (provider.count("batches") == 1).then_some(()) }).await;
    let (mut held, caller) = (JoinSet::new(), client.clone());
    held.spawn(async move { caller.held(CHAT, &chat("say probe-held")).await });
    eventually("the held one is at the provider", || async { (provider.count("batches") == 2).then_some(()) }).await;

    most_bytes_of_a_file(&running, 1);
    let body = chat("say probe-refused").to_string();
    let refused = client.post(CHAT, &[DEFER, ASYNC], body.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "store_unavailable"));
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("30", "true"));
    assert!(client.post(CHAT, &[], chat("say probe-live").to_string()).await.text().ends_with("probe-live"));
    assert_eq!(until_ready(&running.admin, 503).await.json()["status"], "not_ready");
    provider.batch_seconds(0.1).await;
    eventually("both batches have ended", || async {
        let batches = provider.batches().await;
        batches.iter().all(|batch| batch["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(client.object(&submitted).await["state"], "submitted", "nothing is told that is not on disk");
    assert!(held.try_join_next().is_none());

    most_bytes_of_a_file(&running, rlimit::INFINITY);
    until_ready(&running.admin, 200).await;
    assert!(client.result(&submitted).await.text().ends_with("probe-submitted"), "{}", home.logged());
    assert!(held.join_next().await.unwrap().unwrap().text().ends_with("probe-held"));
    let again = client.post(CHAT, &[DEFER], body).await;
    assert!(again.text().ends_with("probe-refused"));
    for one in ["probe-submitted", "probe-held", "probe-refused"] {
        assert_eq!(provider.executions_of(one).await, 1, "{one}");
    }
    let metrics = running.admin.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for none in ["nightbus_panics_total", "nightbus_ledger_lost_calls_total"] {
        assert!(!metrics.lines().any(|line| line.starts_with(none) && !line.ends_with(" 0")), "{none}");
    }
    assert!(running.terminate().await.success());
    let rows = home.store().ledger(Micros(0), None).await.unwrap().totals.requests;
    assert_eq!(rows, 4, "the deferred ones, and the live call that was made while the disk was full");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let provider = Provider::quick().await;
    let home = Home::new(&provider, TABLES);
    let running = home.start_after("exec 2>/dev/full").await;
    for at in 0..3 {
        assert!(running.client.held(CHAT, &chat(&format!("say {}", probe(at)))).await.text().ends_with(&probe(at)));
    }
    assert!(running.terminate().await.success());
}

/// Root may write whatever the mode says, unless it gives that right away.
fn as_anybody() -> &'static str {
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if is_root {
        "set -- \"$0\" \"$@\"\nexec setpriv --bounding-set=-dac_override,-dac_read_search -- \"$@\""
    } else {
        ""
    }
}

#[tokio::test]
async fn data_that_cannot_be_written_are_refused_with_their_place() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, TABLES);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(home.data()).unwrap();
    mode(&home.data(), 0o500);
    is_refused(&home, as_anybody(), &["data directory", home.data().to_str().unwrap(), "Permission denied"]).await;
    mode(&home.data(), 0o700);
    let running = home.start().await;
    let id = running.client.accepted(CHAT, &chat("say probe-before")).await;
    assert!(running.client.result(&id).await.text().ends_with("probe-before"));
    assert!(running.terminate().await.success());
    // SQLite would open it all the same, and fail at the first call.
    mode(&home.data().join("nightbus.db"), 0o400);
    is_refused(&home, as_anybody(), &["nightbus.db", "read-only", "chmod"]).await;
    mode(&home.data().join("nightbus.db"), 0o600);
    let running = home.start().await;
    assert!(running.client.result(&id).await.text().ends_with("probe-before"));
    running.kill().await;
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_data() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, TABLES);
    let running = home.start().await;
    let data = home.data();
    is_refused(&home, "", &["another nightbus uses the data directory", data.to_str().unwrap(), "data_dir"]).await;
    assert!(running.client.held(CHAT, &chat("say probe-first")).await.text().ends_with("probe-first"));
    // Not the lock's file counts, but who holds it.
    running.kill().await;
    assert!(data.join("lock").exists());
    home.start().await.kill().await;
}

#[tokio::test]
async fn a_damaged_newer_or_keyless_database_is_refused_with_what_to_do() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, PATIENT);
    let requests = some_of_each(&provider, &home).await;
    let (database, key) = (home.data().join("nightbus.db"), home.data().join("key"));
    let whole = fs::read(&database).unwrap();

    let mut damaged = whole.clone();
    damaged[200..6_000].fill(0x5a);
    fs::write(&database, &damaged).unwrap();
    is_refused(&home, "", &["nightbus.db", "restore it from a backup", "move it away"]).await;
    fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    is_refused(&home, "", &["nightbus.db", "restore it from a backup"]).await;
    fs::write(&database, b"a text that somebody put here\n".repeat(400)).unwrap();
    is_refused(&home, "", &["nightbus.db"]).await;

    // `user_version`, in the file format of SQLite.
    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
    fs::write(&database, &newer).unwrap();
    is_refused(&home, "", &["schema 9999", "start the newer nightbus", "data_dir"]).await;

    fs::write(&database, &whole).unwrap();
    let hidden = home.data().join("key.away");
    fs::rename(&key, &hidden).unwrap();
    is_refused(&home, "", &["key", "NIGHTBUS_MASTER_KEY"]).await;
    fs::rename(&hidden, &key).unwrap();
    go_on(&provider, &home, &requests).await;
}

#[tokio::test]
async fn a_backup_is_restored_and_goes_on() {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, PATIENT);
    let requests = some_of_each(&provider, &home).await;
    // As docs/operations.md says it: stopped, the database and the key.
    let backup = tempfile::tempdir().unwrap();
    for name in ["nightbus.db", "key"] {
        fs::copy(home.data().join(name), backup.path().join(name)).unwrap();
    }
    let names: Vec<_> = fs::read_dir(home.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let rest = |name: &&std::ffi::OsString| !["nightbus.db", "key", "lock"].contains(&name.to_str().unwrap());
    assert_eq!(names.iter().find(rest), None, "there is nothing else to keep");
    drop(home);
    let restored = Home::moved(&provider, PATIENT, backup.path());
    go_on(&provider, &restored, &requests).await;
}

/// Moves all that is on disk in time: to a process that starts on it, the clock was set by as much the other way.
fn shift(home: &Home, seconds: i64) {
    let connection = Connection::open(home.data().join("nightbus.db")).unwrap();
    let by = seconds * 1_000_000;
    let columns = [
        ("requests", "created_at"),
        ("requests", "deadline_at"),
        ("requests", "submitted_at"),
        ("requests", "finished_at"),
        ("batches", "created_at"),
        ("batches", "submitted_at"),
        ("batches", "ended_at"),
        ("durations", "at"),
    ];
    for (table, column) in columns {
        connection.execute(&format!("UPDATE {table} SET {column} = {column} + {by}"), ()).unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_or_forward_between_two_runs_loses_nothing() {
    for hours in [30, -30] {
        let provider = Provider::quick().await;
        let home = Home::new(&provider, PATIENT);
        let requests = some_of_each(&provider, &home).await;
        shift(&home, hours * 3_600);
        let running = home.start().await;
        // New ids still come after the old ones, whatever the clock says.
        let id = running.client.accepted(CHAT, &chat("say probe-after")).await;
        let list: Value = running.client.get("/nightbus/v1/requests?limit=1").await.json();
        assert_eq!(list["data"][0]["id"], id.as_str());
        assert!(running.terminate().await.success());
        let all: Vec<_> = requests.into_iter().chain([("say probe-after".to_owned(), id)]).collect();
        go_on(&provider, &home, &all).await;
    }
}
