//! Rows of connections that wait: memory of each, CPU while nothing happens, and many at once.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Plan;
use crate::bodies::Bodies;
use crate::http::{Connection, get, post};
use crate::load::{Held, until_status};
use crate::outcome::{Outcome, float};
use crate::process::Server;
use crate::provider::Provider;
use crate::row::{Goal, Row, shown};

/// A client of which the contract says that interim responses keep it waiting.
pub(crate) const PYTHON: &str = "user-agent: OpenAI/Python 3.54.0\r\nconnection: keep-alive\r\nx-stainless-read-timeout: 600\r\nx-nightbus-defer: true\r\n";
/// Any other client.
const OTHER: &str = "user-agent: bench\r\nx-nightbus-defer: true\r\n";
/// Nothing is submitted while it is measured.
pub(crate) const NEVER: [(&str, &str); 2] = [("NIGHTBUS_BATCHING__IDLE", "6h"), ("NIGHTBUS_BATCHING__MAX_AGE", "12h")];
/// 20,000 open files are a common hard limit.
const MANY: usize = 18_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Deferred calls with bodies of 2 KB.
pub(crate) fn deferred(headers: &'static str) -> Bodies {
    Bodies::new(2_048, move |body| post("/v1/chat/completions", headers, body))
}

/// No sign of life is due while it is measured: what is left are the timers.
const SILENT: [(&str, &str); 3] =
    [("NIGHTBUS_BATCHING__IDLE", "6h"), ("NIGHTBUS_BATCHING__MAX_AGE", "12h"), ("NIGHTBUS_HOLD__COMMIT_AFTER", "6h")];

/// Who is held, under which settings, and what CPU share is allowed for what.
struct Situation {
    count: usize,
    headers: &'static str,
    settings: &'static [(&'static str, &'static str)],
    watched: Option<(&'static str, f64)>,
}

const SITUATIONS: [Situation; 4] = [
    Situation { count: 2_000, headers: PYTHON, settings: &NEVER, watched: None },
    Situation { count: MANY, headers: PYTHON, settings: &NEVER, watched: Some(("102 to each every 15 s", 3.0)) },
    Situation { count: MANY, headers: OTHER, settings: &SILENT, watched: Some(("timers only", 0.5)) },
    Situation { count: MANY, headers: OTHER, settings: &NEVER, watched: Some(("white space to each every 15 s", 3.0)) },
];

/// Memory of a held request, and CPU while they are held: silently, and with each kind of sign of life.
pub(crate) async fn memory(plan: &Plan) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for Situation { count, headers, settings, watched } in SITUATIONS {
        let provider = Provider::start(1_024)?;
        let nightbus = plan.tools.nightbus(provider.address, settings)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = nightbus.resident_kib()?;
        let count = plan.at_most(count);
        let held = Held::open(nightbus.address, count, &deferred(headers)).await?;
        until_status(nightbus.admin, "/held_connections", count, PATIENCE).await?;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let full = nightbus.resident_kib()?;
        if headers == PYTHON {
            rows.push(Row::new(
                "held",
                format!("held request of 2 KB, resident memory each, {count} held"),
                (Goal::AtMost(16.0), "KiB"),
                (full - idle) / float(count),
                format!("{} MiB idle, {} MiB with all", shown(idle / 1_024.0), shown(full / 1_024.0)),
            ));
        }
        if let Some((what, most)) = watched {
            rows.push(Row::new(
                "held",
                format!("CPU while {count} are held, {what}"),
                (Goal::AtMost(most), "% of a core"),
                share_of_core(plan, std::slice::from_ref(&nightbus)).await?,
                format!("over {} s", plan.watch.as_secs()),
            ));
        }
        drop(nightbus);
        drop(held);
    }
    Ok(rows)
}

/// Per cent of a core that these servers use together while nothing happens.
pub(crate) async fn share_of_core(plan: &Plan, servers: &[Server]) -> Outcome<f64> {
    // Past `hold.commit_after`, so that no heads are in it, but the heartbeats of those who get them: of each as many as
    // `plan.watch` has intervals.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let used = || servers.iter().map(Server::cpu).sum::<Outcome<f64>>();
    let (before, begun) = (used()?, Instant::now());
    tokio::time::sleep(plan.watch).await;
    Ok((used()? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

/// 10,000 connections at once, each with one call that nightbus itself answers, without its store: it is connections
/// that are measured.
pub(crate) async fn connections(plan: &Plan) -> Outcome<Vec<Row>> {
    const COUNT: usize = 10_000;
    let provider = Provider::start(1_024)?;
    let nightbus = plan.tools.nightbus(provider.address, &[])?;
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..COUNT {
        callers.spawn(one_call(nightbus.address));
    }
    let (mut broken, mut connected, mut first_error) = (0, 0.0_f64, String::new());
    // Kept open until all are in.
    let mut open = Vec::with_capacity(COUNT);
    while let Some(caller) = callers.join_next().await {
        match caller? {
            Ok((connection, at)) => {
                connected = connected.max((at - begun).as_secs_f64());
                open.push(connection);
            }
            Err(error) => {
                broken += 1;
                first_error = error.to_string();
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(vec![
        Row::new("connections", "10,000 connections at once, broken", (Goal::None, ""), float(broken), first_error),
        Row::new(
            "connections",
            "10,000 connections at once, until all are in",
            (Goal::AtMost(1.5), "s"),
            seconds,
            format!("all connected after {} s, all answered after {} s", shown(connected), shown(seconds)),
        ),
    ])
}

async fn one_call(address: SocketAddr) -> Outcome<(Connection, Instant)> {
    let mut connection = Connection::open(address).await?;
    let connected = Instant::now();
    let answer = connection.call(&get("/nowhere")).await?;
    if answer.status != 404 {
        return Err(format!("status {}", answer.status).into());
    }
    Ok((connection, connected))
}
