use super::*;
use crate::domain::ids::IdSource;
use crate::engine::bisect::Suspects;
use crate::engine::tests::queued;

const TIMING: Timing = Timing { idle: Duration::from_secs(5), max_age: Duration::from_secs(60) };
const LIMITS: BatchLimits =
    BatchLimits { requests: 10, bytes: 1_000, inputs: 100, tokens: None, overtake: false, nanos: None };

struct Bench {
    ids: IdSource,
    start: Instant,
    lane: LaneQueue,
}

impl Bench {
    fn new() -> Self {
        Self { ids: IdSource::default(), start: Instant::now(), lane: LaneQueue::default() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn queued(&self, seconds: u64, line_bytes: u64, inputs: u32, caller: u8) -> Queued {
        let caller = Fingerprint([caller; 16]);
        Queued { line_bytes, inputs, caller, since: self.at(seconds), ..queued(&self.ids) }
    }

    fn arrive(&mut self, seconds: u64, line_bytes: u64, inputs: u32) {
        let queued = self.queued(seconds, line_bytes, inputs, 0);
        self.lane.push(queued);
    }

    fn batches(&mut self, seconds: u64) -> Vec<usize> {
        let now = self.at(seconds);
        std::iter::from_fn(|| self.lane.take(now, TIMING, &LIMITS)).map(|batch| batch.len()).collect()
    }
}

#[tokio::test]
async fn leaves_when_nothing_arrived_for_the_idle_time() {
    let mut bench = Bench::new();
    bench.arrive(0, 10, 0);
    bench.arrive(3, 10, 0);
    assert_eq!(bench.batches(7), [0_usize; 0]);
    assert_eq!(bench.batches(8), [2]);
    assert_eq!(bench.lane.due_at(TIMING, &LIMITS), None);
}

#[tokio::test]
async fn a_steady_trickle_leaves_at_the_oldest_requests_age() {
    let mut bench = Bench::new();
    for second in (0..=57).step_by(19) {
        bench.arrive(second, 10, 0);
    }
    bench.arrive(59, 10, 0);
    assert_eq!(bench.batches(59), [0_usize; 0]);
    assert_eq!(bench.batches(60), [5]);
}

#[tokio::test]
async fn a_full_lane_leaves_at_once_and_the_rest_waits_for_its_own_time() {
    let mut bench = Bench::new();
    for _ in 0..23 {
        bench.arrive(0, 10, 0);
    }
    assert_eq!(bench.batches(0), [10, 10]);
    assert_eq!(bench.batches(4), [0_usize; 0]);
    assert_eq!(bench.batches(5), [3]);
}

#[tokio::test]
async fn splits_by_bytes_and_by_embedding_inputs() {
    let mut bench = Bench::new();
    for bytes in [400, 400, 400, 400] {
        bench.arrive(0, bytes, 0);
    }
    assert_eq!(bench.batches(5), [2, 2]);
    for inputs in [60, 60, 40] {
        bench.arrive(10, 1, inputs);
    }
    assert_eq!(bench.batches(15), [1, 2]);
}

#[tokio::test]
async fn one_line_above_a_limit_rides_alone() {
    let mut bench = Bench::new();
    bench.arrive(0, 10, 0);
    bench.arrive(0, 5_000, 0);
    bench.arrive(0, 10, 0);
    assert_eq!(bench.batches(5), [1, 1, 1]);
}

#[tokio::test]
async fn a_flush_takes_one_callers_requests_and_no_others() {
    let mut bench = Bench::new();
    for caller in [1, 2, 1, 2] {
        let queued = bench.queued(0, 10, 0, caller);
        bench.lane.push(queued);
    }
    assert_eq!(bench.lane.flush(|queued| queued.caller == Fingerprint([2; 16])), 2);
    let now = bench.at(0);
    let batch = bench.lane.take(now, TIMING, &BatchLimits { requests: 2, ..LIMITS }).unwrap();
    assert!(batch.iter().all(|queued| queued.caller == Fingerprint([2; 16])));
    assert_eq!(bench.lane.len(), 2);
}

#[tokio::test]
async fn what_comes_back_goes_first_and_a_withdrawn_request_is_gone() {
    let mut bench = Bench::new();
    let (early, late) = (bench.queued(0, 10, 0, 0), bench.queued(1, 10, 0, 0));
    bench.lane.push(late.clone());
    bench.lane.push_front(vec![early.clone()]);
    assert!(bench.lane.withdraw(late.id) && !bench.lane.withdraw(late.id));
    let now = bench.at(10);
    let batch = bench.lane.take(now, TIMING, &LIMITS).unwrap();
    assert_eq!(batch.iter().map(|queued| queued.id).collect::<Vec<_>>(), [early.id]);
    assert_eq!(bench.lane.bytes(), 0);
}

#[tokio::test]
async fn who_has_no_room_in_tokens_is_passed_by_or_leaves_alone() {
    let mut bench = Bench::new();
    for bytes in [900, 60, 600, 90] {
        bench.arrive(0, bytes, 0);
    }
    let lines = |batch: Option<Vec<Queued>>| batch.map(|all| all.iter().map(|one| one.line_bytes).collect::<Vec<_>>());
    let now = bench.at(10);
    let short = BatchLimits { tokens: Some(60), overtake: true, ..LIMITS };
    assert_eq!(lines(bench.lane.take(now, TIMING, &short)), Some(vec![60, 90]));
    assert_eq!(lines(bench.lane.take(now, TIMING, &short)), None);
    assert_eq!((bench.lane.len(), bench.lane.bytes()), (2, 1_500));
    assert_eq!(lines(bench.lane.take(now, TIMING, &BatchLimits { overtake: false, ..short })), Some(vec![900]));
}

#[tokio::test]
async fn parts_of_a_search_leave_at_once_and_with_nobody_else() {
    let mut bench = Bench::new();
    let ids = IdSource::default();
    let parts = Suspects::default().halve(ids.batch_id(Micros(0), 0), 4).unwrap();
    bench.arrive(0, 10, 0);
    for part in parts {
        let two = (0..2).map(|_| Queued { apart: Some(part.clone()), ..bench.queued(0, 10, 0, 0) }).collect();
        bench.lane.push_front(two);
    }
    assert_eq!(bench.batches(0), [2, 2], "those around them wait for their time");
    assert_eq!(bench.batches(60), [1]);
}

proptest::proptest! {
    #[test]
    fn everything_leaves_exactly_once_in_order_and_within_the_limits(
        arrivals in proptest::collection::vec((1_u64..400, 0_u32..60), 1..80),
    ) {
        let mut bench = Bench::new();
        let mut expected = Vec::new();
        for (bytes, inputs) in &arrivals {
            let queued = bench.queued(0, *bytes, *inputs, 0);
            expected.push(queued.id);
            bench.lane.push(queued);
        }
        let now = bench.at(100);
        let mut left = Vec::new();
        while let Some(batch) = bench.lane.take(now, TIMING, &LIMITS) {
            proptest::prop_assert!(batch.len() <= LIMITS.requests);
            proptest::prop_assert!(batch.iter().map(|queued| queued.line_bytes).sum::<u64>() <= LIMITS.bytes);
            proptest::prop_assert!(batch.iter().map(|queued| queued.inputs).sum::<u32>() <= LIMITS.inputs);
            left.extend(batch.into_iter().map(|queued| queued.id));
        }
        proptest::prop_assert_eq!(left, expected);
        proptest::prop_assert_eq!((bench.lane.bytes(), bench.lane.len()), (0, 0));
    }
}

#[tokio::test]
async fn those_that_would_be_late_leave_alone() {
    let mut bench = Bench::new();
    for (at, leave) in [(0, None), (1, Some(20)), (2, Some(10)), (3, Some(30))] {
        let leave_by = leave.map(|seconds| bench.at(seconds));
        let queued = Queued { leave_by, ..bench.queued(at, 10, 1, 0) };
        bench.lane.push(queued);
    }
    assert_eq!(bench.lane.leave_by(), Some(bench.at(10)));
    let late = |bench: &mut Bench, seconds| {
        let now = bench.at(seconds);
        bench.lane.take_late(now).len()
    };
    assert_eq!((late(&mut bench, 9), late(&mut bench, 20)), (0, 2));
    assert_eq!((bench.lane.len(), bench.lane.bytes(), bench.lane.leave_by()), (2, 20, Some(bench.at(30))));
    assert_eq!(bench.batches(60), [2]);
    assert_eq!(bench.lane.leave_by(), None);
}

#[tokio::test(start_paused = true)]
async fn templates_are_counted_and_taken_out_by_name() {
    let mut bench = Bench::new();
    let (one, other) = (Fingerprint([1; 16]), Fingerprint([2; 16]));
    for (at, template) in [one, other, one, one].into_iter().enumerate() {
        let queued = Queued { template: Some(template), ..bench.queued(u64::try_from(at).unwrap(), 10, 0, 0) };
        bench.lane.push(queued);
    }
    assert_eq!((bench.lane.count_of(one), bench.lane.count_of(other)), (3, 1));
    let held = bench.lane.extract(|queued| queued.template == Some(one));
    assert_eq!((held.len(), bench.lane.len(), bench.lane.bytes(), bench.lane.count_of(one)), (3, 1, 10, 0));
    bench.lane.release(held);
    assert_eq!(bench.lane.due_at(TIMING, &LIMITS), Some(bench.at(0)), "what was held leaves at once");
    let batch = bench.lane.take(bench.at(3), TIMING, &LIMITS).unwrap();
    assert_eq!(batch.iter().filter(|queued| queued.template == Some(one)).count(), 3);
    assert_eq!(bench.lane.count_of(one), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_no_more_than_the_budget_has_left() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        let queued = Queued { estimate: 40, ..bench.queued(0, 10, 0, 0) };
        bench.lane.push(queued);
    }
    let due = bench.at(10);
    let left = |nanos| BatchLimits { nanos: Some(nanos), ..LIMITS };
    assert_eq!(bench.lane.take(due, TIMING, &left(80)).unwrap().len(), 2, "to the last of it");
    assert!(bench.lane.take(due, TIMING, &left(39)).is_none(), "not even one alone");
    assert_eq!((bench.lane.len(), bench.lane.next_estimate()), (3, Some(40)));
    assert_eq!(bench.lane.take(due, TIMING, &LIMITS).unwrap().len(), 3);
}

#[tokio::test]
async fn who_has_no_room_in_its_own_limit_lets_others_pass() {
    let mut bench = Bench::new();
    let mut arrive = |tag: Option<u16>| {
        let queued = bench.queued(0, 10, 0, 0);
        bench.lane.push(Queued { estimate: 1, purses: Purses::new(tag, None), ..queued });
    };
    // Two of the tag have room, in order of arrival, and a batch of four looks at no more than it takes.
    [Some(0), None, Some(0), Some(0), None, None, Some(0)].into_iter().for_each(&mut arrive);
    let before: Vec<_> = bench.lane.waiting.iter().map(|queued| queued.id).collect();
    let aside: Vec<_> = bench.lane.set_aside(4, Room::of(vec![2])).iter().map(|queued| queued.id).collect();
    assert_eq!(aside, [before[3]]);
    assert_eq!((bench.lane.len(), bench.lane.bytes()), (6, 60));
    let left: Vec<_> = bench.lane.waiting.iter().map(|queued| queued.id).collect();
    assert_eq!(left, [before[0], before[1], before[2], before[4], before[5], before[6]], "their order is as it was");
    bench.lane.flush(|_| true);
    assert_eq!(bench.batches(0), [6]);
}

/// Three requests of ten bytes and two inputs each.
fn three(bench: &mut Bench) {
    (0..3).for_each(|_| bench.arrive(0, 10, 2));
}

const fn most(requests: usize, bytes: u64, inputs: u32) -> BatchLimits {
    BatchLimits { requests, bytes, inputs, ..LIMITS }
}

#[tokio::test]
async fn a_lane_that_is_exactly_full_leaves_at_once() {
    let mut bench = Bench::new();
    three(&mut bench);
    for (limits, is_full) in [
        (most(3, 99, 99), true),
        (most(4, 99, 99), false),
        (most(9, 30, 99), true),
        (most(9, 31, 99), false),
        (most(9, 99, 6), true),
        (most(9, 99, 7), false),
        (most(9, 99, 1), true),
        // No inputs are counted there.
        (most(9, 99, 0), false),
    ] {
        let due = bench.lane.due_at(TIMING, &limits).unwrap();
        assert_eq!(due == bench.at(0), is_full, "{limits:?}");
    }
    // What has left counts no more.
    assert_eq!(bench.batches(5), [3]);
    three(&mut bench);
    assert_eq!(bench.lane.due_at(TIMING, &most(9, 99, 7)), Some(bench.at(5)));
}

#[tokio::test]
async fn a_batch_is_filled_up_to_its_limits() {
    for (limits, taken) in [
        (most(2, 99, 99), 2),
        (most(9, 20, 99), 2),
        (most(9, 19, 99), 1),
        (most(9, 99, 4), 2),
        (most(9, 99, 3), 1),
        (most(9, 99, 1), 1),
        (most(9, 99, 0), 3),
        (BatchLimits { tokens: Some(6), ..most(9, 99, 99) }, 2),
        (BatchLimits { tokens: Some(5), ..most(9, 99, 99) }, 1),
    ] {
        let mut bench = Bench::new();
        three(&mut bench);
        let batch = bench.lane.take(bench.at(60), TIMING, &limits).unwrap();
        assert_eq!(batch.len(), taken, "{limits:?}");
    }
}

#[tokio::test]
async fn idle_is_counted_from_the_last_arrival_whatever_comes_back() {
    let mut bench = Bench::new();
    bench.arrive(4, 10, 0);
    bench.arrive(2, 10, 0);
    assert_eq!(bench.lane.due_at(TIMING, &LIMITS), Some(bench.at(9)));
    let returned = bench.queued(1, 10, 0, 0);
    let id = returned.id;
    bench.lane.push_front(vec![Queued { accepted_at: Micros(7), ..returned }]);
    assert_eq!(bench.lane.due_at(TIMING, &LIMITS), Some(bench.at(9)));
    assert_eq!(bench.lane.first().map(|queued| queued.id), Some(id));
    assert_eq!(bench.lane.oldest_accepted_at(), Some(Micros(7)));
}

/// Three that were flushed, with their ids; the second has to leave at ten, the others at twenty and thirty.
fn flushed(bench: &mut Bench) -> Vec<RequestId> {
    for (bytes, leave) in [(50, 20), (10, 10), (50, 30)] {
        let queued = Queued { leave_by: Some(bench.at(leave)), estimate: 1, ..bench.queued(0, bytes, 0, 0) };
        bench.lane.push(Queued { purses: Purses::new((bytes == 10).then_some(0), None), ..queued });
    }
    assert_eq!(bench.lane.flush(|_| true), 3);
    bench.lane.waiting.iter().map(|queued| queued.id).collect()
}

/// What is still there leaves at once; one that comes later does not.
fn only_the_rest_leaves_at_once(bench: &mut Bench, rest: usize, limits: &BatchLimits) {
    assert_eq!(bench.lane.take(bench.at(0), TIMING, limits).map(|batch| batch.len()), Some(rest));
    bench.arrive(1, 10, 0);
    assert_eq!(bench.lane.due_at(TIMING, limits), Some(bench.at(6)));
}

#[tokio::test]
async fn who_was_flushed_and_left_otherwise_flushes_nobody_else() {
    let mut bench = Bench::new();
    let ids = flushed(&mut bench);
    assert_eq!(bench.lane.extract(|queued| queued.id == ids[1]).len(), 1);
    assert_eq!(bench.lane.leave_by(), Some(bench.at(20)), "the earliest of those that are left");
    only_the_rest_leaves_at_once(&mut bench, 2, &LIMITS);

    let mut bench = Bench::new();
    let ids = flushed(&mut bench);
    assert!(bench.lane.withdraw(ids[1]) && !bench.lane.withdraw(ids[1]));
    only_the_rest_leaves_at_once(&mut bench, 2, &LIMITS);

    let mut bench = Bench::new();
    flushed(&mut bench);
    assert_eq!(bench.lane.set_aside(1, Room::of(vec![0])).len(), 0, "it is not looked at");
    assert_eq!(bench.lane.set_aside(2, Room::of(vec![0])).len(), 1);
    assert_eq!(bench.lane.leave_by(), Some(bench.at(20)));
    only_the_rest_leaves_at_once(&mut bench, 2, &LIMITS);

    let mut bench = Bench::new();
    let late = flushed(&mut bench)[1];
    let now = bench.at(10);
    assert_eq!(bench.lane.take_late(now).iter().map(|queued| queued.id).collect::<Vec<_>>(), [late], "at that moment");
}

#[tokio::test]
async fn one_that_is_flushed_leaves_at_once() {
    let mut bench = Bench::new();
    bench.arrive(0, 10, 0);
    assert_eq!(bench.lane.flush(|_| true), 1);
    assert_eq!(bench.lane.due_at(TIMING, &LIMITS), Some(bench.at(0)));
}

#[tokio::test]
async fn those_that_smaller_ones_pass_by_keep_their_order() {
    let mut bench = Bench::new();
    let ids = flushed(&mut bench);
    let small = BatchLimits { tokens: Some(3), overtake: true, ..LIMITS };
    let passed: Vec<_> = bench.lane.take(bench.at(0), TIMING, &small).unwrap().iter().map(|one| one.id).collect();
    assert_eq!(passed, [ids[1]]);
    let left: Vec<_> = bench.lane.waiting.iter().map(|queued| queued.id).collect();
    assert_eq!(left, [ids[0], ids[2]]);
    only_the_rest_leaves_at_once(&mut bench, 2, &LIMITS);
}

#[tokio::test]
async fn a_template_is_named_while_one_of_it_waits() {
    let mut bench = Bench::new();
    let template = Fingerprint([1; 16]);
    for _ in 0..2 {
        let queued = Queued { template: Some(template), ..bench.queued(0, 10, 0, 0) };
        bench.lane.push(queued);
    }
    let first = bench.lane.first().unwrap().id;
    assert!(bench.lane.withdraw(first));
    assert_eq!(bench.lane.templates().collect::<Vec<_>>(), [(template, 1)]);
    assert_eq!(bench.batches(5), [1]);
    assert_eq!(bench.lane.templates().count(), 0);
}
