//! Rows of whole batches: the way from a finished batch to its callers, a full batch of large answers, and how many
//! batches some calls make.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Plan;
use crate::bodies::Bodies;
use crate::held::{PYTHON, deferred};
use crate::http::post;
use crate::load::{Held, Until, closed_loop, until_status};
use crate::outcome::{Outcome, float};
use crate::process::Server;
use crate::provider::Provider;
use crate::row::{Goal, Row, shown};

const ASYNC: &str = "user-agent: bench\r\nx-nightbus-defer: true\r\nprefer: respond-async\r\n";
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// One batch of everything that comes within a few seconds; looked at each second.
pub(crate) const SETTINGS: [(&str, &str); 3] =
    [("NIGHTBUS_BATCHING__IDLE", "4s"), ("NIGHTBUS_BATCHING__MAX_AGE", "10m"), ("NIGHTBUS_BATCHING__POLL", "1s")];
/// The provider's limit of requests in one batch.
const BATCH_LINES: usize = 50_000;

/// 10,000 held calls: from `completed` first seen to the last caller answered.
pub(crate) async fn answers(plan: &Plan) -> Outcome<Vec<Row>> {
    const COUNT: usize = 10_000;
    let provider = Provider::start(1_024)?;
    let nightbus = plan.tools.nightbus_unpinned(provider.address, &SETTINGS)?;
    let held = Held::open(nightbus.address, COUNT, &deferred(PYTHON)).await?;
    until_submitted(&provider, COUNT).await?;
    provider.release();
    let broken = held.answered(PATIENCE).await?.broken;
    let end = Instant::now();
    let seen = provider.completed_seen().ok_or("completed was never asked for")?;
    let (batches, _) = provider.batches();
    Ok(vec![
        Row::new(
            "answers",
            "10,000 held calls: from `completed` first seen to the last caller answered",
            (Goal::AtMost(1.0), "s"),
            (end - seen).as_secs_f64(),
            format!("{batches} batches"),
        ),
        Row::new("answers", "10,000 held calls: not answered 200", (Goal::None, ""), float(broken), ""),
    ])
}

/// 50,000 lines with 200 MB of output, 18,000 of them held.
pub(crate) async fn harvest(plan: &Plan) -> Outcome<Vec<Row>> {
    const HELD: usize = 18_000;
    let provider = Provider::start(4_000)?;
    let nightbus = plan.tools.nightbus_unpinned(provider.address, &SETTINGS)?;
    let held = Held::open(nightbus.address, HELD, &deferred(PYTHON)).await?;
    let rest = Arc::new(deferred(ASYNC));
    closed_loop(nightbus.address, 250, &rest, 202, Until::Calls(BATCH_LINES - HELD)).await?;
    until_submitted(&provider, BATCH_LINES).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    nightbus.forget_peak()?;
    let before = nightbus.resident_kib()?;
    provider.release();
    let (broken, durable) = tokio::join!(held.answered(PATIENCE), all_durable(&nightbus));
    let (broken, durable) = (broken?.broken, durable?);
    let answered = Instant::now();
    let seen = provider.completed_seen().ok_or("completed was never asked for")?;
    let grown = (nightbus.peak_kib()? - before) / 1_024.0;
    let megabytes = provider.output_bytes() / 1_000_000;
    let (batches, _) = provider.batches();
    let note = format!(
        "{megabytes} MB of output, {batches} batches, durable after {} s",
        shown((durable - seen).as_secs_f64())
    );
    Ok(vec![
        Row::new(
            "harvest",
            "50,000 lines: from `completed` seen to all durable and 18,000 held answered",
            (Goal::AtMost(4.0), "s"),
            (answered.max(durable) - seen).as_secs_f64(),
            note,
        ),
        Row::new(
            "harvest",
            "50,000 lines: growth of resident memory",
            (Goal::AtMost(48.0), "MiB"),
            grown,
            format!("from {} MiB", shown(before / 1_024.0)),
        ),
        Row::new("harvest", "50,000 lines: held and not answered 200", (Goal::None, ""), float(broken), ""),
    ])
}

async fn all_durable(nightbus: &Server) -> Outcome<Instant> {
    until_status(nightbus.admin, "/requests/completed", BATCH_LINES, PATIENCE).await?;
    Ok(Instant::now())
}

/// How many batches 120,000 calls of one model make.
pub(crate) async fn count(plan: &Plan) -> Outcome<Vec<Row>> {
    const CALLS: usize = 120_000;
    let provider = Provider::start(400)?;
    let nightbus = plan.tools.nightbus_unpinned(provider.address, &SETTINGS)?;
    let bodies = Arc::new(Bodies::new(400, |body| post("/v1/chat/completions", ASYNC, body)));
    closed_loop(nightbus.address, 250, &bodies, 202, Until::Calls(CALLS)).await?;
    until_submitted(&provider, CALLS).await?;
    let (batches, lines) = provider.batches();
    Ok(vec![Row::new(
        "batches",
        "batches for 120,000 calls of one model",
        (Goal::Exactly(float(CALLS.div_ceil(BATCH_LINES))), ""),
        float(batches),
        format!("{lines} lines"),
    )])
}

/// Waits until the provider has got so many lines.
pub(crate) async fn until_submitted(provider: &Provider, lines: usize) -> Outcome<()> {
    let end = Instant::now() + PATIENCE;
    while provider.batches().1 < lines {
        if Instant::now() > end {
            return Err(format!("{:?} batches and lines after {} s", provider.batches(), PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
