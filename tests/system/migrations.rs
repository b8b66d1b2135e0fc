//! The real process on a database file of every schema that was ever released: its tables made by the statements of then,
//! its rows in the columns of then, and work in every state on the way.

use std::path::Path;

use rusqlite::Connection;

use super::common::process::Home;
use super::common::provider::Provider;
use super::machine::{PATIENT, go_on, some_of_each};

/// The released migrations, and what identifies each: a released one never changes.
const RELEASED: [(&str, &str); 5] = [
    (include_str!("../../src/store/sqlite/migrations/0001.sql"), "ce1e43e063b89913"),
    (include_str!("../../src/store/sqlite/migrations/0002_services.sql"), "a2b8bb6c4f46dd67"),
    (include_str!("../../src/store/sqlite/migrations/0003_ledger.sql"), "500b6692737ffb37"),
    (include_str!("../../src/store/sqlite/migrations/0004_flights.sql"), "714f3e90bb58aa1f"),
    (include_str!("../../src/store/sqlite/migrations/0005_callbacks.sql"), "451d91c5e44bb234"),
];

fn schema_of(database: &Path) -> i64 {
    let connection = Connection::open(database).unwrap();
    connection.query_row("PRAGMA user_version", (), |row| row.get(0)).unwrap()
}

fn names(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Puts a file of an old schema in the place of today's, with as much of its rows as that schema can hold.
fn age(data: &Path, version: i64) {
    let (database, today) = (data.join("nightbus.db"), data.join("today.db"));
    std::fs::rename(&database, &today).unwrap();
    let old = Connection::open(&database).unwrap();
    old.execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA application_id = 0x4e425553")
        .unwrap();
    for (sql, _) in &RELEASED[..usize::try_from(version).unwrap()] {
        old.execute_batch(sql).unwrap();
    }
    old.pragma_update(None, "user_version", version).unwrap();
    old.execute("ATTACH ?1 AS today", [today.to_str().unwrap()]).unwrap();
    for table in names(&old, "SELECT name FROM main.sqlite_schema WHERE type = 'table'") {
        let columns = names(&old, &format!("SELECT name FROM pragma_table_info('{table}', 'main')")).join(", ");
        old.execute(&format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM today.{table}"), ()).unwrap();
    }
    let rows: i64 = old.query_row("SELECT count(*) FROM main.requests", (), |row| row.get(0)).unwrap();
    assert_eq!(rows, 3);
    old.close().unwrap();
    std::fs::remove_file(today).unwrap();
}

async fn goes_on(version: i64) {
    let provider = Provider::quick().await;
    let home = Home::new(&provider, PATIENT);
    let requests = some_of_each(&provider, &home).await;
    let database = home.data().join("nightbus.db");
    let newest = schema_of(&database);
    age(&home.data(), version);
    assert_eq!(schema_of(&database), version);
    go_on(&provider, &home, &requests).await;
    assert_eq!(schema_of(&database), newest, "it was brought to today's schema");
}

macro_rules! released {
    ($($test:ident: $version:literal;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                goes_on($version.parse().unwrap()).await;
            }
        )+
        const TESTED: &[&str] = &[$($version),+];
    };
}

released! {
    work_goes_on_from_the_first_schema: "0001";
    work_goes_on_from_the_second_schema: "0002";
    work_goes_on_from_the_third_schema: "0003";
    work_goes_on_from_the_fourth_schema: "0004";
    work_goes_on_from_the_fifth_schema: "0005";
}

#[test]
fn every_migration_is_tested_and_a_released_one_has_not_changed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite/migrations");
    // Newer ones are on their way into a release, which adds them here.
    let files = std::fs::read_dir(folder).unwrap().count();
    assert!(TESTED.len() == RELEASED.len() && files >= RELEASED.len(), "{files} migrations");
    for (version, (sql, known)) in (1..).zip(RELEASED) {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, sql.as_bytes());
        let begin: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(begin, known, "migration {version} was released: write another one");
    }
}
