//! An admin listener with fixed answers, so that the same things are listed in every run.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use nightbus::domain::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

/// How all ids here begin.
pub(crate) const IDS: &str = "01a208029b42";

/// An admin listener with fixed answers, on a thread that ends with the process.
pub(crate) fn admin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let wrong = head.contains("Bearer wrong");
            let (status, body) = if wrong { (401, json!({"error": {"message": "no"}})) } else { answer(method, path) };
            let body = body.to_string();
            let length = body.len();
            let written = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            drop(written);
        }
    });
    url
}

fn answer(method: &str, path: &str) -> (u16, Value) {
    let now = SystemClock.now().unix_seconds();
    // In the middle of what is shown, so that a slow machine shows the same.
    let (minutes, hours, days) = (now - 630, now - 2 * 3_600 - 1_800, now - 3 * 86_400 - 43_200);
    let list = |data: Value, next: Option<&str>| json!({"object": "list", "data": data, "has_more": next.is_some(), "next": next});
    let requests = json!([
        {"id": "req_01a208029b42700085bca67e4ade0ad8", "state": "queued", "model": "gpt-5.4-mini", "tag": "nightly-eval", "created_at": minutes},
        {"id": "req_01a208029b42700085bca67e4ade0ad7", "state": "completed", "status_code": 200, "model": "gpt-5.4-mini-2026-03-17-with-a-long-name",
         "created_at": hours, "service": "batch", "saved_usd": 0.00042, "batch_id": "bat_01a208029b42700085bca67e4ade0ad1"},
        {"id": "req_01a208029b42700085bca67e4ade0ad6", "state": "failed", "status_code": 502, "model": "モデル", "created_at": days, "service": "none",
         "batch_id": "bat_01a208029b42700085bca67e4ade0ad1"},
    ]);
    let batches = json!([
        {"id": "bat_01a208029b42700085bca67e4ade0ad2", "state": "submitted", "model": "gpt-5.4-mini", "created_at": minutes,
         "counts": {"total": 50_000, "completed": 31_000, "failed": 12}, "provider_batch_id": "batch_68f0a1b2", "provider_status": "in_progress"},
        {"id": "bat_01a208029b42700085bca67e4ade0ad1", "state": "failed", "model": "gpt-5.4-mini", "created_at": hours,
         "counts": {"total": 3, "completed": 0, "failed": 3}, "error": "token_limit_exceeded: Enqueued token limit reached\u{1b}[2J"},
    ]);
    let amounts = json!({"requests": 1_234, "paid_usd": 1.5, "live_usd": 3.0, "saved_usd": 1.5, "wasted_usd": 0.0, "priced_requests": 1_200});
    match (method, path.split('?').next().unwrap_or_default()) {
        ("GET", "/api/status") => (
            200,
            json!({
                "object": "nightbus.status", "version": "0.0.0", "uptime_seconds": 7_300, "stopping": false,
                "queue": {"requests": 1_041, "bytes": 20_480_000, "oldest_age_seconds": 4}, "held_connections": 312,
                "requests": {"queued": 1_041, "submitted": 50_003, "completed": 12, "failed": 0},
                "batches": {"submitted": 1, "failed": 1}, "services": {"batch": 10, "sync": 2}, "today": amounts,
                "lanes": [
                    {"model": "gpt-5.4-mini", "endpoint": "chat/completions", "provider": "openai", "credential": "5d41402a", "queued_requests": 1_041,
                     "queued_bytes": 20_480_000, "oldest_age_seconds": 4, "open_batches": 1, "held_back": "in_flight_tokens"},
                    {"model": "claude-haiku-5-5", "endpoint": "messages", "provider": "anthropic", "credential": "7d793037", "queued_requests": 0,
                     "queued_bytes": 0, "oldest_age_seconds": null, "open_batches": 0, "held_back": null},
                ],
            }),
        ),
        ("GET", "/api/requests") if path.contains("tag=nobody") => (200, list(json!([]), None)),
        ("GET", "/api/requests") => (200, list(requests, Some("req_01a208029b42700085bca67e4ade0ad6"))),
        ("GET", "/api/batches") => (200, list(batches, None)),
        ("GET", "/api/flights") => (
            200,
            list(
                json!([
                    {"id": "flt_01a208029b42700085bca67e4ade0ad4", "state": "grounded", "model": "gpt-5.4-mini", "tag": "nightly-eval", "waiting_requests": 4_995,
                     "created_at": minutes, "reasons": ["3 of 5 answers do not fit their schema", "2 of 5 are cut off"]},
                ]),
                None,
            ),
        ),
        ("GET", "/api/savings") => {
            let group = |key: Value| {
                let mut group = amounts.clone();
                group["key"] = key;
                group
            };
            (
                200,
                json!({"object": "nightbus.savings", "totals": amounts, "prices_as_of": "2026-11-01",
                "groups": [group("gpt-5.4-mini".into()), group(Value::Null)]}),
            )
        }
        ("POST", "/api/reload") => (
            200,
            json!({"object": "nightbus.reload", "taken": ["batching.idle", "log.level"], "needs_restart": ["listen"]}),
        ),
        ("POST", path) if path.ends_with("/approve") => {
            (200, json!({"object": "nightbus.flight", "message": "4,995 requests are queued again."}))
        }
        ("POST", path) if path.ends_with("/cancel") => {
            (200, json!({"object": "nightbus.batch", "message": "The provider was asked to cancel it."}))
        }
        ("POST", "/api/flush") => (
            200,
            json!({"object": "nightbus.flush", "requests": 3, "lanes": 1, "message": "3 requests of 1 lane are submitted."}),
        ),
        ("DELETE", _) => (
            409,
            json!({"error": {"message": "It is in a batch. `nightbus cancel bat_…` cancels the whole batch.", "code": "already_submitted"}}),
        ),
        ("GET", "/healthz") => (200, json!({"status": "ok"})),
        _ => (401, json!({"error": {"message": "no", "code": "unauthorized"}})),
    }
}
