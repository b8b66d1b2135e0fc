//! What must hold when all is done, from the provider's own books.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use nightbus::domain::ids::{BatchId, RequestId};
use nightbus::domain::request::RequestState;
use nightbus::engine::ABANDONED;
use nightbus::store::{SharedStore, StoreFuture};

use crate::books::billed;
use crate::world::{Asked, End, World};

fn now<T>(future: StoreFuture<'_, T>) -> T {
    future.now_or_never().expect("memory answers at once").expect("it is open")
}

fn requests(world: &World) -> Vec<(String, Asked)> {
    world.with(|state| state.asked.iter().map(|(nonce, asked)| (nonce.clone(), asked.clone())).collect())
}

/// Whether every request that is in the store has ended, and every batch.
pub(crate) fn settled(world: &World, store: &SharedStore) -> bool {
    requests(world)
        .iter()
        .all(|(_, asked)| now(store.request(asked.id)).is_none_or(|record| record.state.is_terminal()))
        && now(store.batches(true, None, 1)).is_empty()
}

/// What has not ended.
pub(crate) fn open(world: &World, store: &SharedStore) -> String {
    let open = requests(world).into_iter().filter_map(|(nonce, asked)| {
        let record = now(store.request(asked.id)).filter(|record| !record.state.is_terminal())?;
        Some(format!("{nonce} {} {:?}", record.state, record.live))
    });
    let batches = now(store.batches(true, None, 99));
    format!("{}; batches: {batches:?}", open.collect::<Vec<_>>().join(", "))
}

/// Checks everything; how many executions there were.
pub(crate) fn check(world: &World, store: &SharedStore) -> usize {
    let billed = world.with(|state| billed(&state.provider));
    let stamps = world.with(|state| state.provider.batches.iter().map(|batch| batch.stamp).collect::<Vec<BatchId>>());
    let mut seen = stamps.clone();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() < stamps.len() {
        world.broke("a batch was created twice".to_owned());
    }
    one_for_each_key(world, store);
    let mut executions = 0;
    for (nonce, asked) in requests(world) {
        let lines = billed.get(&nonce).cloned().unwrap_or_default();
        executions += lines.len();
        executions += check_request(world, store, &nonce, &asked, &lines);
    }
    executions
}

/// An `Idempotency-Key` has one request, unless that one was dropped because nobody waited for it.
fn one_for_each_key(world: &World, store: &SharedStore) {
    let mut keyed: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for (nonce, asked) in requests(world) {
        let Some((key, record)) = asked.key.zip(now(store.request(asked.id))) else { continue };
        let error = record.outcome.and_then(|outcome| outcome.error);
        if error.is_none_or(|(code, _)| code != ABANDONED) {
            keyed.entry(key).or_default().push(nonce);
        }
    }
    for (key, requests) in keyed.into_iter().filter(|(_, requests)| requests.len() > 1) {
        world.broke(format!("the key {key} has several requests: {}", requests.join(", ")));
    }
}

fn check_request(world: &World, store: &SharedStore, nonce: &str, asked: &Asked, lines: &[(BatchId, bool)]) -> usize {
    let live = world.with(|state| state.live.get(nonce).cloned().unwrap_or_default());
    let Some(stored) = now(store.result(asked.id)) else {
        if asked.accepted || !lines.is_empty() || !live.is_empty() {
            world.broke(format!("{nonce} was lost"));
        }
        return live.len();
    };
    let name = world.name(&asked.id);
    let mut wrong = Vec::new();
    if lines.len() > 1 {
        wrong.push(format!("was bought {} times by batch", lines.len()));
    }
    let heard = live.iter().filter(|one| one.delivered).count();
    if heard > 1 {
        wrong.push(format!("was bought live {heard} times although the answers came"));
    }
    let rescued = asked.deadline.is_some() && asked.may_fall_back;
    if !lines.is_empty() && !live.is_empty() && !rescued {
        wrong.push("was bought live although a batch had answered, and no deadline called for it".to_owned());
    }
    if !live.is_empty() && !asked.may_fall_back {
        wrong.push("was bought live although its caller allows none".to_owned());
    }
    if asked.withdrawn && (!lines.is_empty() || !live.is_empty() || stored.record.state != RequestState::Cancelled) {
        wrong.push("was executed although it had been withdrawn".to_owned());
    }
    // The end that was recorded first is the one that stands.
    let outcome = stored.record.outcome.clone();
    let recorded = world.with(|state| state.ended.get(&asked.id).cloned());
    let stands = outcome.map(|summary| End { state: stored.record.state, summary, body: stored.body.clone() });
    if recorded != stands {
        wrong.push(format!("ended as {recorded:?}, and now is {stands:?}"));
    }
    wrong.extend(answer(nonce, &stored, lines.len() + live.len()));
    wrong.extend(rows(store, asked.id, lines, heard));
    wrong.extend(in_time(world, asked, &stored.record));
    for what in wrong {
        world.broke(format!("{nonce} ({name}) {what}"));
    }
    live.len()
}

/// A success is an execution of this very request.
fn answer(nonce: &str, stored: &nightbus::store::StoredResult, executions: usize) -> Option<String> {
    let status = stored.record.outcome.as_ref().map_or(0, |outcome| outcome.status_code);
    if status >= 300 || stored.record.state != RequestState::Completed {
        return None;
    }
    let body: serde_json::Value =
        serde_json::from_slice(stored.body.as_deref().unwrap_or_default()).unwrap_or_default();
    (body["nonce"] != nonce || executions == 0).then(|| format!("was answered with {body}"))
}

/// The ledger has a row for each execution whose answer could be had, and no other.
fn rows(store: &SharedStore, id: RequestId, lines: &[(BatchId, bool)], heard: usize) -> Option<String> {
    let rows = now(store.charges(vec![id]));
    let live = rows.iter().filter(|row| row.place < 0).count();
    let of = |batch: BatchId| rows.iter().filter(|row| row.place == batch.sequence()).count();
    let of_lines: usize = lines.iter().map(|(batch, _)| of(*batch)).sum();
    let right = lines.iter().all(|(batch, shown)| of(*batch) == usize::from(*shown) || !shown && of(*batch) <= 1);
    (!right || live != heard || rows.len() != live + of_lines)
        .then(|| format!("has the rows {rows:?}, and was executed as lines {lines:?} and {heard} live"))
}

/// Nobody waits beyond its deadline, while a process is there to tell.
fn in_time(world: &World, asked: &Asked, record: &nightbus::store::RequestRecord) -> Option<String> {
    let (jumped, down, store) = world.with(|state| (state.jumped, state.downtime, state.weather.store));
    let (Some(deadline), Some(ended)) = (asked.deadline, record.finished_at) else { return None };
    let patience = Duration::from_secs(if store > 0.0 { 120 } else { 5 });
    (!jumped && ended > deadline.plus(down + patience))
        .then(|| format!("ended {:?} after its deadline", ended.since(deadline)))
}
