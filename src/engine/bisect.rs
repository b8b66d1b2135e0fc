//! The search for the line because of which a provider refused a whole file without naming it: the requests ride again in
//! two halves, each apart from all others, until the bad ones are alone.
//!
//! Nothing was executed in a refused file, so nothing is bought twice. In memory only: after a restart what is still
//! together is halved from there on. A search may fail only so often; what is left then is not halved any further. Called
//! by `validation` (halves), `run` and `poll` (what became of them); `plan` keeps the parts apart.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::domain::ids::BatchId;

/// Refused batches of one search, for each halving that isolates one line: several bad lines are found, and a provider
/// that refuses everything is not asked for every line of a large file.
const FAILURES_PER_HALVING: u32 = 8;

#[derive(Debug)]
struct Search {
    failures_left: AtomicU32,
    parts: AtomicU32,
    /// Some part was not refused: the fault is a line's, not the whole file's.
    passed: AtomicBool,
}

/// One part of a search.
#[derive(Clone, Debug)]
pub(crate) struct Apart {
    search: Arc<Search>,
    part: u32,
}

impl PartialEq for Apart {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.search, &other.search) && self.part == other.part
    }
}

impl Apart {
    fn of(search: &Arc<Search>) -> Self {
        Self { search: Arc::clone(search), part: search.parts.fetch_add(1, Ordering::Relaxed) }
    }
}

/// The open batches that are part of a search.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    batches: Mutex<HashMap<BatchId, Apart>>,
}

impl Suspects {
    /// A batch was made of such a part.
    pub(crate) fn note(&self, batch: BatchId, apart: Apart) {
        self.batches.lock().insert(batch, apart);
    }

    /// The part that a batch is.
    pub(crate) fn part_of(&self, batch: BatchId) -> Option<Apart> {
        self.batches.lock().get(&batch).cloned()
    }

    /// The batch has ended.
    pub(crate) fn forget(&self, batch: BatchId) {
        self.batches.lock().remove(&batch);
    }

    /// The provider did not refuse the batch's file.
    pub(crate) fn passed(&self, batch: BatchId) {
        if let Some(apart) = self.batches.lock().get(&batch) {
            apart.search.passed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether another part of the batch's search was not refused.
    pub(crate) fn others_passed(&self, batch: BatchId) -> bool {
        self.batches.lock().get(&batch).is_some_and(|apart| apart.search.passed.load(Ordering::Relaxed))
    }

    /// The batch of so many lines was refused: the two parts that follow on it; none: its search is over.
    pub(crate) fn halve(&self, batch: BatchId, lines: usize) -> Option<[Apart; 2]> {
        let halvings = lines.checked_ilog2().filter(|halvings| *halvings > 0)?;
        let search = self.part_of(batch).map_or_else(
            || {
                Arc::new(Search {
                    failures_left: AtomicU32::new(FAILURES_PER_HALVING * (halvings + 1)),
                    parts: AtomicU32::new(0),
                    passed: AtomicBool::new(false),
                })
            },
            |apart| apart.search,
        );
        search.failures_left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
        Some([Apart::of(&search), Apart::of(&search)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;

    /// Refuses every batch that holds a line of `bad`; the batches that were made, and the lines that ended alone.
    fn search(lines: usize, bad: impl Fn(usize) -> bool) -> (usize, Vec<usize>, usize) {
        let (suspects, ids) = (Suspects::default(), IdSource::default());
        let mut open = vec![(ids.batch_id(Micros(0), 0), (0..lines).collect::<Vec<_>>())];
        let (mut batches, mut alone, mut given_up) = (0, Vec::new(), 0);
        while let Some((batch, lines)) = open.pop() {
            batches += 1;
            if !lines.iter().any(|line| bad(*line)) {
                suspects.passed(batch);
                continue;
            }
            match suspects.halve(batch, lines.len()) {
                Some(parts) => {
                    assert!(parts[0] != parts[1]);
                    let (left, right) = lines.split_at(lines.len() / 2);
                    for (part, lines) in parts.into_iter().zip([left, right]) {
                        let id = ids.batch_id(Micros(0), 0);
                        suspects.note(id, part);
                        open.push((id, lines.to_vec()));
                    }
                }
                None if lines.len() == 1 => alone.extend(lines),
                None => given_up += lines.len(),
            }
            suspects.forget(batch);
        }
        alone.sort_unstable();
        (batches, alone, given_up)
    }

    #[test]
    fn one_bad_line_is_found_in_two_batches_for_each_halving() {
        for bad in [0, 7, 999] {
            let (batches, alone, given_up) = search(1_000, |line| line == bad);
            assert_eq!((alone, given_up), (vec![bad], 0));
            assert!(batches <= 1 + 2 * 10, "{batches}");
        }
    }

    #[test]
    fn several_are_found_and_a_small_file_of_bad_lines_ends_line_by_line() {
        let (_, alone, given_up) = search(1_000, |line| [3, 400, 401, 998].contains(&line));
        assert_eq!((alone, given_up), (vec![3, 400, 401, 998], 0));
        assert_eq!(search(12, |_| true).1.len(), 12);
    }

    #[test]
    fn a_provider_that_refuses_everything_is_not_asked_without_end() {
        let (batches, alone, given_up) = search(50_000, |_| true);
        assert_eq!(alone.len() + given_up, 50_000, "nothing is forgotten");
        assert!(batches <= 1 + 2 * 8 * 16, "{batches}");
        assert!(search(1, |_| true).1 == [0], "a single line is not halved");
    }

    #[test]
    fn a_part_is_like_itself_alone_and_its_search_knows_what_passed() {
        let (suspects, ids) = (Suspects::default(), IdSource::default());
        let [first, second, stranger] = [(); 3].map(|()| ids.batch_id(Micros(0), 0));
        let [one, other] = suspects.halve(first, 4).unwrap();
        let [strange, _] = suspects.halve(stranger, 4).unwrap();
        assert!(one == one.clone() && one != other && one != strange && other != strange);
        suspects.note(first, one.clone());
        suspects.note(second, other);
        suspects.note(stranger, strange);
        assert_eq!(suspects.part_of(first), Some(one));
        suspects.passed(first);
        let passed = [first, second, stranger].map(|batch| suspects.others_passed(batch));
        assert_eq!(passed, [true, true, false], "the search of the stranger is another one");
        suspects.forget(first);
        assert_eq!((suspects.part_of(first), suspects.others_passed(first)), (None, false));
    }
}
