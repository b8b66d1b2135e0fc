//! Rows of calls that pass through: throughput and CPU, added latency, streams, memory over many calls.

use std::sync::Arc;
use std::time::Duration;

use crate::Plan;
use crate::bodies::Bodies;
use crate::http::post;
use crate::load::{Chunks, Loop, Until, closed_loop, fixed_rate, streams};
use crate::origin;
use crate::outcome::{Outcome, float, median, quantile};
use crate::process::Server;
use crate::row::{Goal, Row, shown};

const CONNECTIONS: usize = 64;

fn calls() -> Arc<Bodies> {
    Arc::new(Bodies::new(1_024, |body| post("/v1/chat/completions", "user-agent: bench\r\n", body)))
}

/// Calls per second and CPU per call.
pub(crate) async fn throughput(plan: &Plan) -> Outcome<Vec<Row>> {
    let (origin, bodies) = (origin::start()?, calls());
    let (nightbus, nginx) = (plan.tools.nightbus(origin, &[])?, plan.tools.nginx(origin)?);
    let mut rates = [Vec::new(), Vec::new()];
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=plan.rounds {
        for ((server, rates), costs) in [&nightbus, &nginx].into_iter().zip(&mut rates).zip(&mut costs) {
            let (done, cpu) = measured(server, &bodies, plan.round).await?;
            // The first round warms up.
            if round > 0 {
                rates.push(float(done.calls) / done.seconds);
                costs.push(cpu * 1e6 / float(done.calls));
            }
        }
    }
    let [ours, theirs] = rates;
    let [our_cost, their_cost] = costs;
    Ok(vec![
        Row::new(
            "passthrough",
            "pass-through, requests/s with 64 connections, x nginx",
            (Goal::AtLeast(0.85), ""),
            ratio(&ours, &theirs),
            format!("{} and {} requests/s", shown(median(&ours)), shown(median(&theirs))),
        ),
        Row::new(
            "passthrough",
            "pass-through, CPU per call, x nginx",
            (Goal::AtMost(1.4), ""),
            ratio(&our_cost, &their_cost),
            format!("{} and {} us", shown(median(&our_cost)), shown(median(&their_cost))),
        ),
    ])
}

async fn measured(server: &Server, bodies: &Arc<Bodies>, duration: Duration) -> Outcome<(Loop, f64)> {
    let before = server.cpu()?;
    let done = closed_loop(server.address, CONNECTIONS, bodies, 200, Until::Elapsed(duration)).await?;
    if done.broken > 0 {
        return Err(format!("{} calls broke", done.broken).into());
    }
    Ok((done, server.cpu()? - before))
}

/// The median over the rounds of what stood side by side.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs.max(1e-9)).collect();
    median(&ratios)
}

/// Latency that a proxy adds at fixed rates.
pub(crate) fn added(plan: &Plan) -> Outcome<Vec<Row>> {
    let (origin, bodies) = (origin::start()?, calls());
    let (nightbus, nginx) = (plan.tools.nightbus(origin, &[])?, plan.tools.nginx(origin)?);
    let mut rows = Vec::new();
    for rate in [500, 2_000] {
        let mut medians = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=plan.rounds {
            for (address, medians) in [origin, nightbus.address, nginx.address].into_iter().zip(&mut medians) {
                let times = fixed_rate(address, rate, plan.round, &bodies)?;
                if round > 0 {
                    medians.push(median(&times));
                }
            }
        }
        let [direct, ours, theirs] = medians.map(|values| median(&values));
        rows.push(Row::new(
            "added",
            format!("added p50 at {rate}/s, x nginx's"),
            (Goal::AtMost(1.2), ""),
            (ours - direct) / (theirs - direct),
            format!("p50 direct {}, nightbus {}, nginx {} us", shown(direct), shown(ours), shown(theirs)),
        ));
    }
    Ok(rows)
}

/// What a proxy adds to each chunk of an event stream.
pub(crate) fn stream(plan: &Plan) -> Outcome<Vec<Row>> {
    const STREAMS: u32 = 16;
    let origin = origin::start()?;
    let (nightbus, nginx) = (plan.tools.nightbus(origin, &[])?, plan.tools.nginx(origin)?);
    let mut all: [Vec<Chunks>; 3] = Default::default();
    for _ in 0..plan.rounds {
        for (address, all) in [origin, nightbus.address, nginx.address].into_iter().zip(&mut all) {
            all.push(streams(address, STREAMS, plan.round)?);
        }
    }
    let at = |share: f64| {
        all.each_ref().map(|rounds| median(&rounds.iter().map(|one| quantile(&one.times, share)).collect::<Vec<_>>()))
    };
    let ([direct, ours, theirs], [direct99, ours99, theirs99]) = (at(0.5), at(0.99));
    let [held_direct, held, held_nginx] =
        all.each_ref().map(|rounds| rounds.iter().map(|one| one.held_back).sum::<usize>());
    Ok(vec![
        Row::new(
            "stream",
            "stream, added per chunk at p50, x nginx's",
            (Goal::AtMost(1.6), ""),
            (ours - direct) / (theirs - direct),
            format!(
                "p50 direct {}, nightbus {}, nginx {} us; {STREAMS} streams",
                shown(direct),
                shown(ours),
                shown(theirs)
            ),
        ),
        Row::new(
            "stream",
            "stream, added per chunk at p99, 20 ms interval",
            (Goal::AtMost(1.0), "ms"),
            (ours99 - direct99) / 1_000.0,
            format!("p99 direct {}, nightbus {}, nginx {} us", shown(direct99), shown(ours99), shown(theirs99)),
        ),
        Row::new(
            "stream",
            "stream, chunks held back (over 10 ms late)",
            (Goal::None, ""),
            float(held.saturating_sub(held_direct)),
            format!("direct {held_direct}, nightbus {held}, nginx {held_nginx}"),
        ),
    ])
}

/// Memory at rest and over a million calls.
pub(crate) async fn memory(plan: &Plan) -> Outcome<Vec<Row>> {
    let (origin, bodies) = (origin::start()?, calls());
    let nightbus = plan.tools.nightbus(origin, &[])?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = nightbus.resident_kib()?;
    let few = after_calls(&nightbus, &bodies, 100_000).await?;
    let many = after_calls(&nightbus, &bodies, plan.many_calls.saturating_sub(100_000)).await?;
    Ok(vec![
        Row::new("memory", "resident memory, idle", (Goal::AtMost(12.0), "MiB"), idle / 1_024.0, ""),
        Row::new(
            "memory",
            "resident memory, growth from 100,000 to 1 million calls (none: below 1 MiB)",
            (Goal::AtMost(1.0), "MiB"),
            (many - few) / 1_024.0,
            format!(
                "{} MiB after 100,000, {} MiB after {}",
                shown(few / 1_024.0),
                shown(many / 1_024.0),
                plan.many_calls
            ),
        ),
    ])
}

async fn after_calls(server: &Server, bodies: &Arc<Bodies>, calls: usize) -> Outcome<f64> {
    let done = closed_loop(server.address, CONNECTIONS, bodies, 200, Until::Calls(calls)).await?;
    if done.broken > 0 {
        return Err(format!("{} calls broke", done.broken).into());
    }
    server.resident_kib()
}
