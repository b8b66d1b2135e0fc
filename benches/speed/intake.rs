//! Rows of durable intake: against a bare server with a log, on this disk and on a slower one.

use std::io::Write as _;
use std::sync::Arc;

use tokio::time::Instant;

use crate::Plan;
use crate::bodies::Bodies;
use crate::held::{NEVER, deferred};
use crate::http::Connection;
use crate::live::ratio;
use crate::load::{Until, closed_loop};
use crate::outcome::{Outcome, float, median};
use crate::process::Server;
use crate::provider::Provider;
use crate::row::{Goal, Row, shown};

const ASYNC: &str = "user-agent: bench\r\nx-nightbus-defer: true\r\nprefer: respond-async\r\n";
/// How much slower the slow disk is.
const DELAY_MS: u64 = 5;

/// Requests per second, durable before they are answered.
pub(crate) async fn throughput(plan: &Plan) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for callers in [64, 512] {
        rows.push(against_log(plan, callers, 0, 0.75).await?);
    }
    Ok(rows)
}

/// The same with each sync 5 ms slower, and one lone call.
pub(crate) async fn slow_sync(plan: &Plan) -> Outcome<Vec<Row>> {
    let row = against_log(plan, 512, DELAY_MS, 0.9).await?;
    let provider = Provider::start(1_024)?;
    let delay = DELAY_MS.to_string();
    let nightbus = plan.tools.nightbus(provider.address, &settings(&delay))?;
    let bodies = deferred(ASYNC);
    let sync = sync_seconds(plan)? * 1e3 + float(usize::try_from(DELAY_MS)?);
    let alone = median(&lone_calls(&nightbus, &bodies).await?) * 1e3;
    let lone = Row::new(
        "slow-sync",
        "one lone call with each sync 5 ms slower (bound: 2 syncs + 1 ms)",
        (Goal::AtMost(2.0 * sync + 1.0), "ms"),
        alone,
        format!("one sync takes {} ms", shown(sync)),
    );
    Ok(vec![row, lone])
}

fn settings(delay: &str) -> Vec<(&'static str, &str)> {
    let mut settings = NEVER.to_vec();
    if delay != "0" {
        settings.push(("NIGHTBUS_TEST_SYNC_DELAY_MS", delay));
    }
    settings
}

async fn against_log(plan: &Plan, callers: usize, delay_ms: u64, goal: f64) -> Outcome<Row> {
    let provider = Provider::start(1_024)?;
    let bodies = Arc::new(deferred(ASYNC));
    let delay = delay_ms.to_string();
    let (mut ours, mut theirs, mut cost, mut their_cost) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let nightbus = plan.tools.nightbus(provider.address, &settings(&delay))?;
        let (rate, cpu) = intake(&nightbus, callers, &bodies, plan).await?;
        drop(nightbus);
        ours.push(rate);
        cost.push(cpu);
        let peer = plan.tools.log_peer(delay_ms)?;
        let (rate, cpu) = intake(&peer, callers, &bodies, plan).await?;
        theirs.push(rate);
        their_cost.push(cpu);
    }
    let (group, slower) = if delay_ms == 0 { ("intake", "") } else { ("slow-sync", " and each sync 5 ms slower") };
    Ok(Row::new(
        group,
        format!("durable intake with {callers} callers{slower}, x the bare server with a log"),
        (Goal::AtLeast(goal), ""),
        ratio(&ours, &theirs),
        format!(
            "{} and {} requests/s, {} and {} us of CPU each",
            shown(median(&ours)),
            shown(median(&theirs)),
            shown(median(&cost)),
            shown(median(&their_cost))
        ),
    ))
}

async fn intake(server: &Server, callers: usize, bodies: &Arc<Bodies>, plan: &Plan) -> Outcome<(f64, f64)> {
    let before = server.cpu()?;
    let done = closed_loop(server.address, callers, bodies, 202, Until::Elapsed(plan.round)).await?;
    if done.broken > 0 {
        return Err(format!("{} calls were not accepted", done.broken).into());
    }
    let calls = float(done.calls);
    Ok((calls / done.seconds, (server.cpu()? - before) * 1e6 / calls))
}

/// Seconds of calls one after another on one connection.
async fn lone_calls(server: &Server, bodies: &Bodies) -> Outcome<Vec<f64>> {
    let mut connection = Connection::open(server.address).await?;
    let (mut times, mut request) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        bodies.next(&mut request);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let sent = Instant::now();
        let answer = connection.call(&request).await?;
        if answer.status != 202 {
            return Err(format!("status {}", answer.status).into());
        }
        times.push(sent.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// What appending 2 KB and syncing takes on this disk.
fn sync_seconds(plan: &Plan) -> Outcome<f64> {
    let mut file = std::fs::File::create(plan.tools.fresh("sync")?.join("log"))?;
    let block = [7_u8; 2_048];
    let mut times = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(median(&times))
}
