//! Who leaves while the provider's queue is short of room.

use std::collections::HashMap;

use super::*;
use crate::config::{self, Overrides};
use crate::domain::clock::SystemClock;
use crate::domain::lane::Endpoint;
use crate::engine::tests::{MINUTE, queued};
use crate::engine::{Engine, EngineParts};
use crate::store::in_memory;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::upstream::capability::Capability;
use crate::upstream::client::UpstreamClient;
use crate::upstream::openai::OpenAiProvider;
use crate::upstream::provider::BatchProvider;

/// A dispatcher that nobody runs, with so many tokens of room at the provider.
async fn dispatcher(tokens: u64) -> Dispatcher {
    let mut config = config::parse(None, [], &Overrides::default()).unwrap();
    (config.batching.idle, config.batching.max_age) = (Duration::ZERO, MINUTE);
    let openai = &config.providers["openai"];
    let mut capability = Capability::of(openai, &config.batching);
    capability.in_flight_tokens = Some(tokens);
    let client = UpstreamClient::new(&config.upstream).unwrap();
    let provider: Arc<dyn BatchProvider> = Arc::new(OpenAiProvider::new(client, &openai.base_url, None, capability));
    let parts = EngineParts {
        store: in_memory().unwrap(),
        clock: Arc::new(SystemClock),
        tasks: Tasks::new(),
        telemetry: Telemetry::new(),
        providers: HashMap::from([("openai".to_owned(), provider)]),
    };
    let engine = Engine::start(&config, parts).await.unwrap();
    let (lessons, _) = mpsc::unbounded_channel();
    let (lanes, leaving) = (BTreeMap::new(), BTreeMap::new());
    Dispatcher { context: engine.context, lanes, quotas: Quotas::default(), lessons, leaving }
}

impl Dispatcher {
    fn ask(&mut self, lane: &Arc<LaneKey>, bytes: u64) {
        let queued = Queued { line_bytes: bytes, ..queued(&self.context.ids) };
        self.lanes.entry(Arc::clone(lane)).or_default().queue.push(queued);
    }

    /// How many leave together; none: the lane has to wait.
    fn leave(&mut self, lane: &Arc<LaneKey>, now: Instant) -> Option<usize> {
        self.next_batch(lane, now).map(|batch| batch.len())
    }

    fn in_flight(&mut self, lane: &Arc<LaneKey>, batches: u64, tokens: u64) {
        let lane = self.lanes.entry(Arc::clone(lane)).or_default();
        (lane.open_batches, lane.tokens_in_flight) = (batches, tokens);
    }
}

fn lane(endpoint: Endpoint, model: &str) -> Arc<LaneKey> {
    Arc::new(LaneKey {
        provider: "openai".into(),
        account: Fingerprint([3; 16]),
        endpoint,
        model: model.into(),
        deadline_class: 0,
    })
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_passed_by_for_ten_minutes_and_then_by_nobody() {
    let mut dispatcher = dispatcher(1_000).await;
    let (small, large) = (lane(Endpoint::ChatCompletions, "m"), lane(Endpoint::Responses, "m"));
    let elsewhere = lane(Endpoint::ChatCompletions, "n");
    dispatcher.in_flight(&small, 1, 500);
    dispatcher.in_flight(&elsewhere, 1, 500);
    // 800 tokens, and room for 500.
    dispatcher.ask(&large, 2_400);
    let began = Instant::now();
    assert_eq!(dispatcher.leave(&large, began), None);
    assert!(matches!(dispatcher.lanes[&large].held_back, Some((_, HeldBack::InFlightTokens))));
    for seconds in [0, 300, 599] {
        dispatcher.ask(&small, 30);
        assert_eq!(dispatcher.leave(&small, began + Duration::from_secs(seconds)), Some(1), "after {seconds} s");
        assert_eq!(dispatcher.leave(&large, began + Duration::from_secs(seconds)), None);
    }
    let then = began + OVERTAKEN_FOR;
    dispatcher.ask(&small, 30);
    assert_eq!(dispatcher.leave(&small, then), None, "nobody passes any more");
    assert_eq!(dispatcher.leave(&large, then), None, "and it still has no room");
    dispatcher.ask(&elsewhere, 30);
    assert_eq!(dispatcher.leave(&elsewhere, then), Some(1), "another model has a queue of its own");
    dispatcher.in_flight(&small, 1, 150);
    assert_eq!(dispatcher.leave(&large, then), Some(1));
    assert_eq!(dispatcher.leave(&small, then), Some(1), "and the others after it");
}

#[tokio::test(start_paused = true)]
async fn smaller_requests_of_the_same_lane_pass_for_ten_minutes_as_well() {
    let mut dispatcher = dispatcher(1_000).await;
    let lane = lane(Endpoint::ChatCompletions, "m");
    dispatcher.in_flight(&lane, 1, 500);
    dispatcher.ask(&lane, 2_400);
    let began = Instant::now();
    for minutes in [0, 9] {
        dispatcher.ask(&lane, 30);
        dispatcher.ask(&lane, 60);
        assert_eq!(dispatcher.leave(&lane, began + MINUTE * minutes), Some(2), "after {minutes} minutes");
    }
    dispatcher.ask(&lane, 30);
    assert_eq!(dispatcher.leave(&lane, began + MINUTE * 10), None);
    // With nothing in flight there is always room: the provider decides.
    dispatcher.in_flight(&lane, 0, 0);
    assert_eq!(dispatcher.leave(&lane, began + MINUTE * 10), Some(2), "the large one first");
}
