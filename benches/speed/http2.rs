//! Rows of calls that are held as streams of a few HTTP/2 connections. Each connection takes 20,000 streams
//! (`MAX_STREAMS` of `intake::connection`), so that 50,000 need three.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Plan;
use crate::batch::{PATIENCE, SETTINGS, until_submitted};
use crate::bodies::Bodies;
use crate::held::share_of_core;
use crate::load::until_status;
use crate::outcome::{Outcome, float};
use crate::provider::Provider;
use crate::row::{Goal, Row, shown};

const CONNECTIONS: usize = 4;
const COUNT: usize = 50_000;
/// 3 % for 18,000.
pub(crate) const CPU_OF_ALL: f64 = 8.3;

/// Memory and CPU while they are held, and whether each is answered.
pub(crate) async fn streams(plan: &Plan) -> Outcome<Vec<Row>> {
    let count = plan.at_most(COUNT) / CONNECTIONS * CONNECTIONS;
    let provider = Provider::start(1_024)?;
    let nightbus = plan.tools.nightbus(provider.address, &SETTINGS)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = nightbus.resident_kib()?;
    let bodies = Bodies::new(2_048, <[u8]>::to_vec);
    let (mut connections, mut calls) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(nightbus.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        connections.spawn(connection);
        open(sender, nightbus.address, count / CONNECTIONS, &bodies, &mut calls).await?;
    }
    until_status(nightbus.admin, "/held_connections", count, PATIENCE).await?;
    until_submitted(&provider, count).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let full = nightbus.resident_kib()?;
    let share = share_of_core(plan, std::slice::from_ref(&nightbus)).await?;
    provider.release();
    let (mut good, until) = (0, Instant::now() + PATIENCE);
    while let Ok(Some(answered)) = tokio::time::timeout_at(until, calls.join_next()).await {
        good += usize::from(answered?);
    }
    Ok(vec![
        Row::new(
            "http2",
            format!("{count} held streams on {CONNECTIONS} HTTP/2 connections, resident memory each"),
            (Goal::AtMost(16.0), "KiB"),
            (full - idle) / float(count),
            format!("{} MiB idle, {} MiB with all", shown(idle / 1_024.0), shown(full / 1_024.0)),
        ),
        Row::new(
            "http2",
            format!("CPU while {count} streams are held, white space to each every 15 s"),
            (Goal::AtMost(CPU_OF_ALL), "% of a core"),
            share,
            format!("over {} s", plan.watch.as_secs()),
        ),
        Row::new(
            "http2",
            format!("{count} held streams: not answered 200 and whole"),
            (Goal::None, ""),
            float(count - good),
            "",
        ),
    ])
}

/// A connection's share of the calls.
async fn open(
    mut sender: http2::SendRequest<Full<Bytes>>,
    address: SocketAddr,
    count: usize,
    bodies: &Bodies,
    calls: &mut JoinSet<bool>,
) -> Outcome<()> {
    let mut body = Vec::new();
    for number in 0..count {
        bodies.next(&mut body);
        let request = Request::post(format!("http://{address}/v1/chat/completions"))
            .header("authorization", "Bearer sk-bench")
            .header("content-type", "application/json")
            .header("x-nightbus-defer", "true")
            .body(Full::new(Bytes::copy_from_slice(&body)))?;
        sender.ready().await?;
        let answer = sender.send_request(request);
        calls.spawn(async move {
            let Ok(answer) = answer.await else { return false };
            answer.status() == 200 && answer.into_body().collect().await.is_ok()
        });
        if number % 64 == 63 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
