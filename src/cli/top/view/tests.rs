//! The screen, character by character.

use serde_json::json;
use unicode_width::UnicodeWidthStr as _;

use super::*;

const NOW: i64 = 1_795_420_800;

fn size(columns: usize, rows: usize) -> Size {
    Size { columns, rows, colours: false }
}

fn busy(batches: usize) -> Seen {
    let batch = |number: usize| {
        json!({
            "id": format!("bat_{number:032}"), "model": "gpt-5.4-mini", "state": "submitted", "created_at": NOW - 600,
            "counts": {"total": 200, "completed": 90, "failed": 10},
        })
    };
    Seen {
        status: json!({
            "version": "0.1.0", "uptime_seconds": 7_300, "held_connections": 1_234,
            "queue": {"requests": 41, "bytes": 20_480, "oldest_age_seconds": 4},
            "requests": {"submitted": 5_000, "completed": 3},
            "today": {"saved_usd": 1.5, "paid_usd": 1.5, "live_usd": 3.0},
            "lanes": [{
                "model": "gpt-5.4-mini", "endpoint": "chat/completions", "provider": "openai", "credential": "c1",
                "queued_requests": 41, "queued_bytes": 20_480, "oldest_age_seconds": 4, "open_batches": 1,
            }],
        }),
        batches: json!({"data": (0..batches).map(batch).collect::<Vec<_>>()}),
        trouble: None,
    }
}

#[test]
fn one_screen_has_it_all() {
    let lines = draw(&busy(1), NOW, size(110, 16));
    assert_eq!(
        lines,
        [
            "nightbus 0.1.0, up 2h",
            "",
            "Held         1,234 connections",
            "Queued       41, 20.0 KiB, oldest 4s",
            "In batches   5,000",
            "Saved today  $1.5000, paid $1.5000 instead of $3.0000",
            "",
            "BATCH                                 MODEL         STATE      AGE     DONE              PROGRESS",
            "bat_00000000000000000000000000000000  gpt-5.4-mini  submitted  10m  100/200  ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌",
            "",
            "MODEL         ENDPOINT          QUEUED  OLDEST  BATCHES  HELD BACK     BYTES  PROVIDER  CREDENTIAL",
            "gpt-5.4-mini  chat/completions      41      4s        1  -          20.0 KiB  openai    c1",
            "",
            "",
            "",
            "q quits",
        ]
    );
}

#[test]
fn whatever_the_size_nothing_is_wider_or_longer() {
    for columns in [20, 40, 80, 200] {
        for rows in [1, 2, 8, 24, 100] {
            let lines = draw(&busy(50), NOW, size(columns, rows));
            assert_eq!(lines.len(), rows);
            let too_wide = lines.iter().filter(|line| line.width() > columns).collect::<Vec<_>>();
            assert!(too_wide.is_empty(), "{columns}: {too_wide:?}");
            let bars: Vec<&String> = lines.iter().filter(|line| line.contains('━')).collect();
            assert!(bars.iter().all(|line| line.ends_with(&bar(100, 200))), "a bar is whole or left out: {bars:?}");
        }
    }
    let lines = draw(&busy(50), NOW, size(100, 24));
    assert!(lines.iter().any(|line| line.starts_with("… and ") && line.ends_with(" more")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("MODEL")), "lanes keep their place: {lines:#?}");
}

#[test]
fn an_idle_proxy_and_one_that_went_away() {
    let nothing = Seen { status: json!({"version": "0.1.0"}), batches: json!({"data": []}), trouble: None };
    let lines = draw(&nothing, NOW, size(80, 20)).join("\n");
    assert!(lines.contains("No batch is under way.\n\nNothing waits."), "{lines}");
    let gone = Seen { trouble: Some("no nightbus answers\x1b[2J".to_owned()), ..busy(1) };
    assert!(draw(&gone, NOW, size(80, 20)).last().unwrap().starts_with("NOT CURRENT: no nightbus answers [2J"));
}

#[test]
fn a_bar_is_full_only_at_the_end() {
    assert_eq!((bar(0, 0), bar(0, 7)), ("╌".repeat(BAR), "╌".repeat(BAR)));
    assert_eq!(bar(199, 200), "━".repeat(BAR - 1) + "╌");
    assert_eq!((bar(200, 200), bar(300, 200)), ("━".repeat(BAR), "━".repeat(BAR)));
}
