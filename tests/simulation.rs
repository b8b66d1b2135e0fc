//! Whole-system simulation under paused time: the real engine over a provider and a store that fail by chance, with
//! processes that die at any step, and callers who leave and come back. All chance comes from the seed.
//!
//! `NIGHTBUS_TEST_SEEDS=10000` runs so many seeds; `NIGHTBUS_TEST_SEED=4711` runs that one and prints its trace.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "simulation/books.rs"]
mod books;
#[path = "simulation/callers.rs"]
mod callers;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/store.rs"]
mod store;
#[path = "simulation/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use books::Outcome;
use callers::Caller;
use nightbus::domain::service::Service;
use parking_lot::Mutex;
use world::SECOND;

/// Where nobody asks for more.
const SEEDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

#[test]
fn whatever_fails_nothing_is_lost_or_bought_twice() {
    let config = life::configuration();
    if let Some(seed) = number("NIGHTBUS_TEST_SEED") {
        let outcome = life::run(seed, &config);
        assert!(outcome.broken.is_empty(), "seed {seed}:\n{}", outcome.trace);
        println!("{}", outcome.trace);
        return;
    }
    let seeds = number("NIGHTBUS_TEST_SEEDS").unwrap_or(SEEDS);
    let (next, executions) = (AtomicU64::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let outcome = std::panic::catch_unwind(|| life::run(seed, &config));
                    match outcome {
                        Ok(outcome) => {
                            executions.fetch_add(outcome.executions, Ordering::Relaxed);
                            failed.lock().extend(outcome.broken.into_iter().map(|what| (seed, what)));
                        }
                        Err(_) => failed.lock().push((seed, "panicked".to_owned())),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort();
    let shown: Vec<String> = failed.iter().take(40).map(|(seed, what)| format!("seed {seed}: {what}")).collect();
    let first = failed.first().map_or(0, |(seed, _)| *seed);
    assert!(
        failed.is_empty(),
        "{} faults in {seeds} seeds:\n  {}\nthe first again, with its trace:\n  NIGHTBUS_TEST_SEED={first} cargo test --test simulation whatever_fails -- --nocapture",
        failed.len(),
        shown.join("\n  ")
    );
    assert!(executions.into_inner() as u64 > seeds, "hardly anything was executed");
}

#[test]
fn one_seed_twice_gives_the_same_trace() {
    let config = life::configuration();
    for seed in 5_000..5_030 {
        let (once, again) = (life::run(seed, &config).trace, life::run(seed, &config).trace);
        assert!(once.lines().count() > 10, "{once}");
        for (number, (left, right)) in once.lines().zip(again.lines()).enumerate() {
            assert_eq!(left, right, "seed {seed}, line {number}");
        }
        assert_eq!(once, again, "seed {seed}");
    }
}

fn assert_sound(outcome: &life::Outcome, executions: usize) {
    assert!(outcome.broken.is_empty() && outcome.executions == executions, "{}", outcome.trace);
}

#[test]
fn a_live_answer_is_not_bought_again_because_the_disk_is_full() {
    let caller = Caller::patient(0, Some(SECOND * 40), &[Service::Sync]);
    let outcome = life::with(vec![caller], |state| state.ends_to_fail = 3);
    assert_sound(&outcome, 1);
    assert!(outcome.trace.contains("completed 200"), "{}", outcome.trace);
}

#[test]
fn a_damaged_line_is_in_the_ledger_although_its_request_had_ended() {
    let caller = Caller::patient(0, Some(SECOND * 15), &[]);
    let outcome = life::with(vec![caller], |state| state.every_line = Some(Outcome::Damaged));
    assert_sound(&outcome, 1);
    assert!(outcome.trace.contains("failed 504"), "{}", outcome.trace);
}

#[test]
fn lines_that_were_handed_over_are_not_created_again_when_the_rest_cannot_be_recorded() {
    let callers = vec![Caller::patient(0, None, &[Service::Sync]), Caller::patient(1, None, &[])];
    let outcome = life::with(callers, |state| (state.creations_to_refuse, state.ends_to_fail) = (1, 1));
    assert_sound(&outcome, 2);
    assert!(outcome.trace.contains("requeue of"), "{}", outcome.trace);
}
