//! Rows of handing out many answers at once: against a bare server that writes the same ones, and what callers whose
//! calls pass through notice of it.
//!
//! From outside, nightbus's hand-out cannot be told from reading and storing the results, which go on until the last
//! group of them is durable: its figure, from the first answer to the last, holds all three. The bare server has its
//! answer ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Plan;
use crate::bare_peer;
use crate::batch::{PATIENCE, SETTINGS, until_submitted};
use crate::bodies::Bodies;
use crate::held::{PYTHON, deferred};
use crate::http::post;
use crate::load::{Answered, Held, timed_rate};
use crate::outcome::{Outcome, float, median, quantile};
use crate::provider::Provider;
use crate::row::{Goal, Row, shown};

const COUNT: usize = 18_000;
const ANSWER_BYTES: usize = 1_024;
/// Calls of others, in a second; and for how long, before the hand-out and from its order on.
const RATE: u32 = 500;
const WATCHED: Duration = Duration::from_secs(5);

/// What one round came to.
struct Round {
    answered: Answered,
    quiet_p99: f64,
    busy_p99: f64,
}

/// In turns, so that both see the same machine.
pub(crate) async fn handout(plan: &Plan) -> Outcome<Vec<Row>> {
    let (mut ours, mut theirs, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    let (mut broken, mut p99) = (0, (0.0, 0.0));
    for _ in 0..plan.rounds {
        theirs.push(bare(plan).await?.seconds());
        let round = nightbus(plan).await?;
        ours.push(round.answered.seconds());
        broken += round.answered.broken;
        let grown = round.busy_p99 / round.quiet_p99;
        if growth.iter().all(|other| grown < *other) {
            p99 = (round.quiet_p99, round.busy_p99);
        }
        growth.push(grown);
    }
    let count = plan.at_most(COUNT);
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    let least = growth.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(vec![
        Row::new(
            "handout",
            format!("{count} answers handed out, first to last, x a bare hyper server"),
            (Goal::AtMost(2.0), ""),
            median(&ratios),
            format!("{} and {} s; reading and storing them included", shown(median(&ours)), shown(median(&theirs))),
        ),
        Row::new(
            "handout",
            format!("{count} answers handed out: not answered 200"),
            (Goal::None, ""),
            float(broken),
            "",
        ),
        Row::new(
            "handout",
            "pass-through p99 meanwhile, x before, least of the rounds",
            (Goal::AtMost(2.0), ""),
            least,
            format!("{} and {} us", shown(p99.0), shown(p99.1)),
        ),
    ])
}

async fn bare(plan: &Plan) -> Outcome<Answered> {
    let peer = plan.tools.bare_peer(ANSWER_BYTES)?;
    let held = Held::open(peer.address, plan.at_most(COUNT), &deferred(PYTHON)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    bare_peer::release(peer.address).await?;
    held.answered(PATIENCE).await
}

async fn nightbus(plan: &Plan) -> Outcome<Round> {
    let provider = Provider::start(ANSWER_BYTES)?;
    let nightbus = plan.tools.nightbus(provider.address, &SETTINGS)?;
    let count = plan.at_most(COUNT);
    let held = Held::open(nightbus.address, count, &deferred(PYTHON)).await?;
    until_submitted(&provider, count).await?;
    let others = Arc::new(Bodies::new(1_024, |body| post("/v1/chat/completions", "user-agent: bench\r\n", body)));
    let address = nightbus.address;
    let watch = || {
        let others = Arc::clone(&others);
        tokio::task::spawn_blocking(move || timed_rate(address, RATE, WATCHED, &others))
    };
    let quiet = watch().await??;
    let busy = watch();
    provider.release();
    let answered = held.answered(PATIENCE).await?;
    let begun = provider.completed_seen().ok_or("completed was never asked for")?;
    let during = |at: Instant| at >= begun && at <= answered.last;
    let busy: Vec<f64> = busy.await??.into_iter().filter(|(at, _)| during(*at)).map(|(_, time)| time).collect();
    if busy.len() < 100 {
        return Err(format!("{} calls of others while answers were handed out are too few", busy.len()).into());
    }
    let quiet: Vec<f64> = quiet.into_iter().map(|(_, time)| time).collect();
    Ok(Round { answered, quiet_p99: quantile(&quiet, 0.99), busy_p99: quantile(&busy, 0.99) })
}
